"""Database addresses as people type them, and as SQLAlchemy wants them."""

import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

# scheme and user, several hosts, database and options
_HOSTS = re.compile(r"([^:]+://(?:[^@]*@)?)([^/?@]+,[^/?@]+)((?:[/?].*)?)", re.S)


def _parse(url: SecretStr) -> URL:
    text = url.get_secret_value()
    if found := _HOSTS.fullmatch(text):  # libpq takes `a:5432,b:5432`, SQLAlchemy an option `host` for each
        return make_url(found[1] + found[3]).update_query_dict({"host": found[2].split(",")})
    return make_url(text)


def known(url: SecretStr) -> SecretStr:
    """Take an address of a kind that is spoken.

    Raises:
        ValueError: It is none; the text says what to type, and nothing of what was.
    """
    try:
        backend = _parse(url).get_backend_name()
    except (ArgumentError, ValueError):  # its own text may hold a part of the password
        backend = None
    if backend not in ("postgresql", "sqlite"):
        raise ValueError("type postgresql://user:password@host:5432/name, or sqlite:///./local.db on your machine")
    return url


DatabaseUrl = Annotated[SecretStr, AfterValidator(known)]


def url_of(url: SecretStr, *, sync: bool = False) -> URL:
    """Choose the driver for a database address."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    return parsed.set(drivername="sqlite" if sync else "sqlite+aiosqlite")
