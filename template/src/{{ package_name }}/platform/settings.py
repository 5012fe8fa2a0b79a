"""Settings: each room declares its own variables, here they become one checked whole.

Production refuses what only stands in for a real part: better no start than a start on a file that dies with the pod.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, PrivateAttr, SecretStr, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
    SettingsError,
)

EXIT_REFUSED = 78  # EX_CONFIG of sysexits.h
_PLACEHOLDER = re.compile(r"change-?me|replace-?me|placeholder|your-|\bexample\.(com|net|org)\b|<[^>]*>", re.I)


def _env_file(kind: type[BaseSettings]) -> Any:
    """None in tests: they must not reach the database that a developer has configured in `.env`."""
    return None if os.environ.get("ENVIRONMENT") == "test" else kind.model_config.get("env_file")


@dataclass(frozen=True, slots=True)
class RealInProduction:
    """Marks a setting that production has to set to something real.

    Args:
        like: An example of what to type.
        embedded: How values begin that only stand in for the real part, as in `sqlite:`.
        optional: Whether `off` will do as well. It is a choice that somebody made; saying nothing is not. Such a
            setting takes `OrOff` among its annotations, too.
    """

    like: str
    embedded: tuple[str, ...] = ()
    optional: bool = False

    @property
    def advice(self) -> str:
        """What to type."""
        return f"type a value, or off; for example {self.like}" if self.optional else f"type for example {self.like}"


class RoomSettings(BaseSettings):
    """What the settings of every room share."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    environment: Literal["local", "test", "staging", "production"] = "local"
    git_commit: str = "unknown"  # set by the build
    _store: Any = PrivateAttr(default=None)  # what `open_store` gave

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(_env_file=_env_file(type(self)), **values)
            return
        except ValidationError as error:
            title, found = error.title, error.errors(include_input=False, include_url=False)
        # anew, outside: what pydantic raises keeps each wrong value, for `errors()`
        wrong: Any = [{"type": PydanticCustomError(e["type"], e["msg"]), "loc": e["loc"], "input": None} for e in found]
        raise ValidationError.from_exception_data(title, wrong, hide_input=True)

    @classmethod
    def given(cls) -> dict[str, Any]:
        """The values that the environment and `.env` say, unchecked."""
        return {**DotEnvSettingsSource(cls, _env_file(cls))(), **EnvSettingsSource(cls)()}

    @classmethod
    def open_store(cls, given: Mapping[str, Any]) -> Any:
        """Where the values of secrets come from, read once: the room `secrets` answers this, if it is there."""
        return None

    def keep(self, store: Any) -> None:
        """Remember the store, for the room to whom it belongs."""
        self._store = store


class Refused(Exception):
    """A source of settings will not give them, however often it is asked: a line per argument, without secrets."""


class Away(Exception):
    """A source of settings does not answer now; the text says why, without secrets."""


S = TypeVar("S", bound=RoomSettings)
Part = TypeVar("Part", bound=RoomSettings)


def _split(value: Any) -> Any:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _none_if_off(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() == "off" else value


OrOff = BeforeValidator(_none_if_off)  # the literal `off` is None, and counts as given
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]  # `a,b` in the environment


def compose(kinds: Iterable[type[RoomSettings] | None]) -> type[RoomSettings]:
    """Join the settings of the rooms that are present, and have some, into one class."""
    bases = tuple(filter(None, kinds)) or (RoomSettings,)
    return type("PlatformSettings", bases, {"__module__": __name__})


def part(settings: RoomSettings, kind: type[Part]) -> Part:
    """Give a room its own part of the settings, typed.

    Raises:
        TypeError: The settings were composed without that room.
    """
    if not isinstance(settings, kind):
        raise TypeError(f"the settings have no {kind.__module__}.{kind.__name__}")
    return settings


def load(kind: type[S], **values: Any) -> S:
    """Read the settings from the environment, `.env` and where secrets are, and check them.

    Args:
        kind: The class to fill.
        values: Settings that win over the environment.

    Raises:
        SystemExit: With 78, after one line per refused setting on stderr; with 1, where their source stays away.
    """
    try:
        given = {**kind.given(), **values}
        store = kind.open_store(given)
        secrets = {name: value for name, value in store.values.items() if name not in given} if store else {}
        settings = kind(**secrets, **values)
        settings.keep(store)
        refused = list(_refusals(settings))
    except ValidationError as error:
        refused = [f"{_variable(e['loc'])}: {e['msg']}" for e in error.errors(include_input=False, include_url=False)]
    except SettingsError:
        refused = ["a setting has a value that cannot be parsed"]
    except Refused as error:
        refused = list(error.args)
    except Away as error:
        print(f"configuration away: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if not refused:
        return settings
    for line in refused:
        print(f"configuration refused: {line}", file=sys.stderr)
    raise SystemExit(EXIT_REFUSED) from None


def _variable(location: tuple[int | str, ...]) -> str:
    return str(location[0]).upper() if location else "settings"


def _refusals(settings: RoomSettings) -> Iterator[str]:
    if settings.environment != "production":
        return
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        texts = text if isinstance(text, tuple) else (text,)
        rule = next((m for m in field.metadata if isinstance(m, RealInProduction)), None)
        given = name in settings.model_fields_set
        if rule and rule.optional and given and value is None:
            continue  # off: `ready` shows it as a gap
        if rule and not (given and any(texts)):
            yield f"{name.upper()}: production needs it, {rule.advice}"
        elif rule and any(str(t).startswith(rule.embedded) for t in texts if rule.embedded):
            yield f"{name.upper()}: production refuses an embedded stand-in, {rule.advice}"
        elif given and any(isinstance(t, str) and _PLACEHOLDER.search(t) for t in texts):
            yield f"{name.upper()}: still holds a placeholder, type the real value"
