"""What a run cannot find out by itself: `ready.toml`, every key of it known and checked."""

import tomllib
from collections.abc import Iterator
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Path_ = Annotated[str, Field(pattern=r"^/")]
Text = Annotated[str, Field(min_length=1)]


class ConfigurationError(Exception):
    """The run cannot begin; each line says what to type."""


class Part(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Write(Part):
    """How a row is made, found again and removed; `{marker}` is the run's, `{id}` comes from the first answer."""

    path: Path_
    body: dict[str, Any]
    row: Path_


class Routes(Part):
    """Routes of the service that do real work."""

    read: Path_ | None = None
    write: Write | None = None


class FarEnd(Part):
    """A place where what the service sent can be looked for; its token comes from the environment."""

    url: Annotated[str, Field(pattern=r"^(https?|file|s3)://")]
    token_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None


class FarEnds(Part):
    """The places."""

    traces: FarEnd | None = None
    metrics: FarEnd | None = None
    tracker: FarEnd | None = None
    usage: FarEnd | None = None
    backups: FarEnd | None = None
    forge: FarEnd | None = None


class Thresholds(Part):
    """What still counts as good."""

    answer_seconds: Annotated[float, Field(gt=0)] = 1.0


class Waiver(Part):
    """A gap that somebody answers for, until a day."""

    check: Text
    reason: Text
    owner: Text
    expires: date


class Config(Part):
    """The whole file."""

    probe: Routes = Routes()
    far_ends: FarEnds = FarEnds()
    thresholds: Thresholds = Thresholds()
    waivers: tuple[Waiver, ...] = ()


def load(file: Path) -> Config:
    """Read `ready.toml`; what it leaves out has defaults, and so has a file that is not there.

    Raises:
        ConfigurationError: It is not TOML, has a key that nobody knows or a value that does not fit: a line each.
    """
    try:
        return Config.model_validate(tomllib.loads(file.read_text()))
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError) as error:
        found = _explain(error) if isinstance(error, ValidationError) else [str(error)]
        raise ConfigurationError("\n".join(f"{file.name}: {line}" for line in found)) from None


def nearest(name: str, known: Iterator[str] | list[str]) -> str:
    """The end of a sentence about a name that is not known."""
    near = get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _explain(error: ValidationError) -> Iterator[str]:
    for each in error.errors(include_input=False, include_url=False):
        place = ".".join(map(str, each["loc"]))
        if each["type"] == "extra_forbidden":
            *above, key = each["loc"]
            yield f"{place}: unknown key{nearest(str(key), list(_keys(above)))}"
        elif each["loc"][-1] == "token_variable":
            yield f"{place}: type the name of an environment variable, as in TRACES_TOKEN, never the token itself"
        else:
            yield f"{place}: {each['msg']}"


def _keys(above: list[int | str]) -> Iterator[str]:
    """The keys that the table at a place may have."""
    kind: Any = Config
    for step in above:
        if isinstance(step, str):
            annotation = kind.model_fields[step].annotation
            inner = [annotation, *getattr(annotation, "__args__", ())]
            kind = next(each for each in inner if isinstance(each, type) and issubclass(each, Part))
    yield from kind.model_fields
