"""The configuration: defaults.toml, with what release.toml sets instead. A name that does not exist is refused."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import CannotLook

HOME = Path(__file__).parent.parent
MAX_STEPS = 20
Table = dict[str, Any]


@dataclass(frozen=True)
class Instance:
    """A process of the service: its name in commands, and where it listens."""

    name: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """As the load balancer names it."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Config:
    """What a release needs to know; `release`, `limits`, `balancer` and `commands` are tables of the files."""

    instances: Mapping[str, Instance]
    first: tuple[str, ...]
    release: Table
    limits: Table
    balancer: Table
    commands: Table

    @property
    def steps(self) -> tuple[int, ...]:
        """Percent of the requests that a canary gets, step by step."""
        return tuple(self.release["steps"])


def load(own: Path) -> Config:
    """Read the defaults and a file of the user's own.

    Raises:
        CannotLook: One line that names the file and the line to change.
    """
    defaults = _read(HOME / "defaults.toml")
    given = _read(own)
    try:
        instances = {name: _instance(name, url) for name, url in given.pop("instances", {}).items()}
        first = tuple(given.pop("first", ()))
        tables = _merged(defaults, given)
        _check(instances, first, tables["release"]["steps"])
        return Config(instances, first, **tables)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CannotLook(f"{own}: {error}") from error


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotLook(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _merged(defaults: Table, given: Table) -> Table:
    for table, values in given.items():
        if table not in defaults or not isinstance(values, dict):
            raise ValueError(f"there is no [{table}]{_hint(table, defaults)}")
        for name, value in values.items():
            if name not in defaults[table]:
                raise ValueError(f"[{table}] has no {name}{_hint(name, defaults[table])}")
            usual = defaults[table][name]
            kind = float if type(usual) is int else type(usual)  # 0.5 seconds are fine where 60 are usual
            if (float if type(value) is int else type(value)) is not kind or (kind is float and not value >= 0):
                raise ValueError(f"[{table}] {name} must be like {usual!r}, not {value!r}")
    return {table: {**values, **given.get(table, {})} for table, values in defaults.items()}


def _hint(name: str, known: Table) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; do you mean {near[0]}?" if near else ""


def _instance(name: str, url: str) -> Instance:
    parts = urlsplit(url)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or parts.scheme != "http" or not parts.hostname or not parts.port:
        raise ValueError(f'[instances] needs lines such as one = "http://127.0.0.1:8000", not {name} = {url!r}')
    return Instance(name, parts.hostname, parts.port)


def _check(instances: Mapping[str, Instance], first: tuple[str, ...], steps: list[Any]) -> None:
    if len({each.address for each in instances.values()}) != len(instances) or len(instances) < 2:
        raise ValueError("[instances] needs two or more, each with an address of its own")
    if not first or not set(first) < set(instances):
        raise ValueError("`first` needs some of [instances], and not all")
    percent = all(type(step) is int and 1 <= step <= 100 for step in steps) and len(steps) <= MAX_STEPS
    if not percent or steps != sorted(set(steps)) or steps[-1:] != [100]:
        raise ValueError("[release] steps must be whole percents that rise, up to 100")
