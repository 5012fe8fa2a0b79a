"""Checks database URLs, and converts them for SQLAlchemy."""

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

# scheme and user, several hosts, database and options
_HOSTS = re.compile(r"([^:]+://(?:[^@]*@)?)([^/?@]+,[^/?@]+)((?:[/?].*)?)", re.S)
# Options of other drivers, and what to type instead.
_FOREIGN = {
    "connection_limit": "remove it, and set DB_POOL_SIZE",
    "pgbouncer": "remove it, and set DB_POOLER=pgbouncer-transaction",
    "pool_timeout": "remove it",
    "schema": "type options=-csearch_path%3DNAME, or remove it if it is public",
    "search_path": "type options=-csearch_path%3DNAME",
    "ssl": "type sslmode=require",
    "statement_cache_size": "remove it, and set DB_POOLER=pgbouncer-transaction",
}
_LIBPQ = "remove it; https://www.postgresql.org/docs/current/libpq-connect.html lists the options that exist"
_SQLITE = ("cache", "check_same_thread", "immutable", "mode", "nolock", "timeout", "uri", "vfs")
_VALUES = {
    "sslmode": "disable|allow|prefer|require|verify-ca|verify-full",
    "target_session_attrs": "any|read-write|read-only|primary|standby|prefer-standby",
    **dict.fromkeys(("connect_timeout", "port", "tcp_user_timeout", "timeout"), "[0-9]+"),
    **dict.fromkeys(("keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval"), "[0-9]+"),
}


def _parse(url: SecretStr) -> URL:
    text = re.sub(r"^postgres(?=[+:])", "postgresql", url.get_secret_value().strip())  # the scheme of Heroku and others
    if found := _HOSTS.fullmatch(text):  # libpq accepts `a:5432,b:5432`, SQLAlchemy needs an option `host` for each
        return make_url(found[1] + found[3]).update_query_dict({"host": found[2].split(",")})
    return make_url(text)


def _options_of_libpq() -> set[str]:
    from psycopg.pq import Conninfo  # not imported for SQLite

    return {option.keyword.decode() for option in Conninfo.get_defaults()}


def _wrong(url: URL) -> Iterator[str]:
    postgresql = url.get_backend_name() == "postgresql"
    known = _options_of_libpq() if postgresql else _SQLITE
    for name, values in url.normalized_query.items():
        if name not in known and "@" in f"{name}{values}":
            yield "type @ in the password as %40, and ? as %3F"  # the rest of the password is taken for an option
        elif name not in known:
            yield f"the option {name} is unknown: {_FOREIGN.get(name, _LIBPQ) if postgresql else 'remove it'}"
        elif not all(re.fullmatch(_VALUES.get(name, ".*"), value, re.S) for value in values):
            yield f"the option {name} must be {_VALUES[name]}"


def check_url(url: SecretStr) -> SecretStr:
    """Check that the URL is one of a supported database, and that its options exist.

    Raises:
        ValueError: It is not; the message does not contain the URL.
    """
    try:
        parsed = _parse(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):  # its message may contain a part of the password
        backend = None
    if backend not in ("postgresql", "sqlite"):
        raise ValueError("use postgresql://user:password@host:5432/name, or sqlite:///./local.db on your machine")
    if wrong := sorted(_wrong(parsed)):
        raise ValueError("; ".join(wrong))
    return url


DatabaseUrl = Annotated[SecretStr, AfterValidator(check_url)]


def url_of(url: SecretStr, *, sync: bool = False) -> URL:
    """Parse a database URL, and choose the driver."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    return parsed.set(drivername="sqlite" if sync else "sqlite+aiosqlite")
