"""The configuration of a run, `ready.toml`: what it cannot find out by itself. Unknown keys are errors."""

import re
import tomllib
from collections.abc import Iterator
from datetime import date, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

UrlPath = Annotated[str, Field(pattern=r"^/")]
NonEmpty = Annotated[str, Field(min_length=1)]
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(text: Any) -> timedelta:
    if not (found := re.fullmatch(r"([0-9]{1,6})([smhd])", str(text))):
        raise ValueError("use a number and s, m, h or d, such as 4h")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class ConfigurationError(Exception):
    """The run cannot begin; each line is one problem."""


class Table(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Table = TypeVar("_Table", bound=Table)


class Write(Table):
    """How to create, read and delete a row; `{marker}` is the run's, `{id}` is from the first response."""

    path: UrlPath
    body: dict[str, Any]
    row: UrlPath


class Routes(Table):
    """Routes of the service that do real work."""

    read: UrlPath | None = None
    write: Write | None = None


class FarEnd(Table):
    """A system that receives data from the service and can be queried; its token is in the environment."""

    url: Annotated[str, Field(pattern=r"^(https?|file|s3)://[^/@]*(/.*)?$")]
    token_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None


class FarEnds(Table):
    """All far ends."""

    traces: FarEnd | None = None
    metrics: FarEnd | None = None
    tracker: FarEnd | None = None
    usage: FarEnd | None = None
    backups: FarEnd | None = None
    forge: FarEnd | None = None


class Thresholds(Table):
    """The limits that a healthy service meets."""

    answer_seconds: Annotated[float, Field(gt=0)] = 1.0


class Targets(Table):
    """How long a recovery may take, and how much of the latest data it may lose."""

    rto: Duration | None = None
    rpo: Duration | None = None


class Backups(Table):
    """How old the newest backup and the newest drill may be."""

    rpo: Duration | None = None
    drill: Duration | None = None


class Recovery(Table):
    """The tables of `deploy/recovery.toml`; a key in `ready.toml` overrides the one there."""

    tier: str = ""
    targets: Targets = Targets()
    backups: Backups = Backups()


class Waiver(Table):
    """A gap that its owner accepts until a date."""

    check: NonEmpty
    reason: NonEmpty
    owner: NonEmpty
    expires: date


class Config(Table):
    """The whole file."""

    probe: Routes = Routes()
    far_ends: FarEnds = FarEnds()
    thresholds: Thresholds = Thresholds()
    recovery: Recovery = Recovery()
    waivers: tuple[Waiver, ...] = ()


def load(file: Path) -> Config:
    """Read `ready.toml`; missing keys have defaults, and so has a missing file.

    Raises:
        ConfigurationError: It is not TOML, has an unknown key or an invalid value; one line each.
    """
    return _read(file, Config) if file.exists() else Config()


def recovery(file: Path, own: Recovery) -> Recovery:
    """Read `deploy/recovery.toml`, and replace what `ready.toml` overrides.

    Raises:
        ConfigurationError: It is missing, is not TOML, or has an unknown key or an invalid value; one line each.
    """
    found = _read(file, Recovery)
    parts = {
        name: getattr(found, name).model_copy(update=getattr(own, name).model_dump(exclude_none=True))
        for name in ("targets", "backups")
    }
    return found.model_copy(update=parts)


def _read(file: Path, table: type[_Table]) -> _Table:
    try:
        return table.model_validate(tomllib.loads(file.read_text()))
    except (OSError, ValueError) as error:
        found = _explain(error, table) if isinstance(error, ValidationError) else [str(error)]
        raise ConfigurationError("\n".join(f"{file.name}: {line}" for line in found)) from None


def nearest(name: str, known: list[str]) -> str:
    """A suggestion to append to a message about an unknown name."""
    near = get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _explain(error: ValidationError, table: type[Table]) -> Iterator[str]:
    for each in error.errors(include_input=False, include_url=False):
        place = ".".join(map(str, each["loc"]))
        if each["type"] == "extra_forbidden":
            *above, key = each["loc"]
            yield f"{place}: unknown key{nearest(str(key), list(_keys(table, above)))}"
        elif each["loc"][-1] == "token_variable":
            yield f"{place}: use the name of an environment variable, such as TRACES_TOKEN, never the token itself"
        elif each["loc"][-1] == "url":
            yield f"{place}: use http://host or https://host, without a login; name a token in token_variable"
        else:
            yield f"{place}: {each['msg']}"


def _keys(table: type[Table], above: list[int | str]) -> Iterator[str]:
    """The keys that a table may have."""
    kind: Any = table
    for key in above:
        if isinstance(key, str):
            annotation = kind.model_fields[key].annotation
            inner = [annotation, *getattr(annotation, "__args__", ())]
            kind = next(each for each in inner if isinstance(each, type) and issubclass(each, Table))
    yield from kind.model_fields
