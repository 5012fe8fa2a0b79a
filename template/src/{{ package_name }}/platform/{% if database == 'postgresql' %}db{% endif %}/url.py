"""Checks database URLs, and converts them for SQLAlchemy."""

import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

# scheme and user, several hosts, database and options
_HOSTS = re.compile(r"([^:]+://(?:[^@]*@)?)([^/?@]+,[^/?@]+)((?:[/?].*)?)", re.S)


def _parse(url: SecretStr) -> URL:
    text = url.get_secret_value()
    if found := _HOSTS.fullmatch(text):  # libpq accepts `a:5432,b:5432`, SQLAlchemy needs an option `host` for each
        return make_url(found[1] + found[3]).update_query_dict({"host": found[2].split(",")})
    return make_url(text)


def check_url(url: SecretStr) -> SecretStr:
    """Check that the URL is one of a supported database.

    Raises:
        ValueError: It is not; the message does not contain the URL.
    """
    try:
        backend = _parse(url).get_backend_name()
    except (ArgumentError, ValueError):  # its message may contain a part of the password
        backend = None
    if backend not in ("postgresql", "sqlite"):
        raise ValueError("use postgresql://user:password@host:5432/name, or sqlite:///./local.db on your machine")
    return url


DatabaseUrl = Annotated[SecretStr, AfterValidator(check_url)]


def url_of(url: SecretStr, *, sync: bool = False) -> URL:
    """Parse a database URL, and choose the driver."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    return parsed.set(drivername="sqlite" if sync else "sqlite+aiosqlite")
