"""Settings: combines the variables that the rooms declare into one class, and checks them.

Production refuses embedded parts such as SQLite: their data would be lost with the pod.
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
    """None in tests: they must not use the database that a developer has configured in `.env`."""
    return None if os.environ.get("ENVIRONMENT") == "test" else kind.model_config.get("env_file")


@dataclass(frozen=True, slots=True)
class RealInProduction:
    """Marks a setting that is required in production.

    Args:
        example: An example value.
        embedded: Prefixes of values that production refuses, for example `sqlite:`.
        optional: Whether `off` is allowed, an explicit choice. Such a setting needs the annotation `OrOff` as well.
    """

    example: str
    embedded: tuple[str, ...] = ()
    optional: bool = False

    def advice(self, name: str) -> str:
        """Return an example for a setting of that name."""
        return f"for example {name}={self.example}" + (", or off" if self.optional else "")


class RoomSettings(BaseSettings):
    """Base class of the settings of every room."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    environment: Literal["local", "test", "staging", "production"] = "local"
    git_commit: str = "unknown"  # set by the build
    _store: Any = PrivateAttr(default=None)  # the result of `open_store`

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(_env_file=_env_file(type(self)), **values)
            return
        except ValidationError as error:
            title, found = error.title, error.errors(include_input=False, include_url=False)
        # raised again without the values: the error of pydantic contains each wrong value
        wrong: Any = [{"type": PydanticCustomError(e["type"], e["msg"]), "loc": e["loc"], "input": None} for e in found]
        raise ValidationError.from_exception_data(title, wrong, hide_input=True)

    @classmethod
    def given(cls) -> dict[str, Any]:
        """Return the values from the environment and `.env`, unchecked."""
        return {**DotEnvSettingsSource(cls, _env_file(cls))(), **EnvSettingsSource(cls)()}

    @classmethod
    def open_store(cls, given: Mapping[str, Any]) -> Any:
        """Open the source of secrets and read it once; the room `secrets` overrides this."""
        return None

    def attach_store(self, store: Any) -> None:
        """Save the store for the room `secrets`."""
        self._store = store


class ConfigurationError(Exception):
    """The configuration is wrong, and retrying does not help. One line per argument, without secrets."""


class SourceUnavailable(Exception):
    """A source of settings cannot be reached now; the text gives the reason, without secrets."""


S = TypeVar("S", bound=RoomSettings)
Part = TypeVar("Part", bound=RoomSettings)


def _split(value: Any) -> Any:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _none_if_off(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() == "off" else value


OrOff = BeforeValidator(_none_if_off)  # `off` becomes None, and counts as set
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]  # `a,b` in the environment


def compose(kinds: Iterable[type[RoomSettings] | None]) -> type[RoomSettings]:
    """Combine the settings of the rooms that are present into one class."""
    bases = tuple(filter(None, kinds)) or (RoomSettings,)
    return type("PlatformSettings", bases, {"__module__": __name__})


def part(settings: RoomSettings, kind: type[Part]) -> Part:
    """Return a room's own settings, typed.

    Raises:
        TypeError: The settings do not include that room.
    """
    if not isinstance(settings, kind):
        raise TypeError(f"the settings have no {kind.__module__}.{kind.__name__}")
    return settings


def load(kind: type[S], **values: Any) -> S:
    """Read the settings from the environment, `.env` and the source of secrets, and check them.

    Args:
        kind: The class to fill.
        values: Settings that override the environment.

    Raises:
        SystemExit: With 78, after one line per refused setting on stderr; with 1, if a source stays unavailable.
    """
    try:
        given = {**kind.given(), **values}
        store = kind.open_store(given)
        secrets = {name: value for name, value in store.values.items() if name not in given} if store else {}
        settings = kind(**secrets, **values)
        settings.attach_store(store)
        refused = list(_refusals(settings))
    except ValidationError as error:
        refused = [f"{_variable(e['loc'])}: {e['msg']}" for e in error.errors(include_input=False, include_url=False)]
    except SettingsError:
        refused = ["a setting has a value that cannot be parsed"]
    except ConfigurationError as error:
        refused = list(error.args)
    except SourceUnavailable as error:
        print(f"configuration unavailable: {error}", file=sys.stderr)
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
            yield f"{name.upper()}: required in production, {rule.advice(name.upper())}"
        elif rule and any(str(t).startswith(rule.embedded) for t in texts if rule.embedded):
            yield f"{name.upper()}: not allowed in production, {rule.advice(name.upper())}"
        elif given and any(isinstance(t, str) and _PLACEHOLDER.search(t) for t in texts):
            yield f"{name.upper()}: contains a placeholder; set the real value"
