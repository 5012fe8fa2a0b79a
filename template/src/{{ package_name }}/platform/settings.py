"""Settings: combines the variables that the rooms declare into one class, and checks them.

Production refuses embedded parts such as SQLite: their data would be lost with the pod.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BeforeValidator, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

EXIT_REFUSED = 78  # EX_CONFIG of sysexits.h
LOOPBACK = "localhost,127.0.0.1,::1"
_PLACEHOLDER = re.compile(r"change-?me|replace-?me|placeholder|your-|\bexample\.(com|net|org)\b|<[^>]*>", re.I)


def _env_file(kind: type[BaseSettings]) -> Any:
    """None in tests: they must not use the database that a developer has configured in `.env`."""
    return None if os.environ.get("ENVIRONMENT", "").strip() == "test" else kind.model_config.get("env_file")


@dataclass(frozen=True, slots=True)
class RealInProduction:
    """Marks a setting that is required in production.

    Args:
        example: An example value.
        embedded: Prefixes of values that production refuses, for example `sqlite:`; `*` is not a prefix.
        optional: Whether `off` is allowed, an explicit choice. Such a setting needs the annotation `OrOff` as well.
    """

    example: str
    embedded: tuple[str, ...] = ()
    optional: bool = False

    def advice(self, name: str) -> str:
        """Return an example for a setting of that name."""
        return f"for example {name}={self.example}" + (", or off" if self.optional else "")

    def refuses(self, value: object) -> bool:
        """Whether a value is one of an embedded part."""
        text = str(value).lower()
        return any(text == "*" if each == "*" else text.startswith(each) for each in self.embedded)


class RoomSettings(BaseSettings):
    """Base class of the settings of every room."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8-sig",  # editors on Windows write a byte order mark
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    environment: Literal["local", "test", "staging", "production"] = "local"
    git_commit: str = "unknown"  # set by the build
    _store: Any = PrivateAttr(default=None)  # the result of `open_store`

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
            return
        except ValidationError as error:
            title, found = error.title, error.errors(include_input=False, include_url=False)
        # raised again without the values: the error of pydantic contains each wrong value
        wrong: Any = [{"type": PydanticCustomError(e["type"], e["msg"]), "loc": e["loc"], "input": None} for e in found]
        raise ValidationError.from_exception_data(title, wrong, hide_input=True)

    @classmethod
    def given(cls) -> dict[str, Any]:
        """Return the values from the environment and `.env`, unchecked."""
        return {name: value for source in reversed(_sources(cls)) for name, value in source().items()}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What overrides what: arguments, the environment, `.env`."""
        return init_settings, *_sources(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def strip(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Remove blanks around values, such as the newline at the end of a file; a blank value counts as not set.

        A blank ENVIRONMENT is refused: it must not be taken for `local`, which has no protection.
        """
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in stripped.items() if value != "" or name == "environment"}

    def refusals(self) -> Iterator[str]:
        """Check what a library reads by itself; a room overrides this, and yields one line per refused variable."""
        yield from ()

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


def _sources(kind: type[BaseSettings]) -> tuple[EnvSettingsSource, ...]:
    """The environment and `.env`; an empty variable counts as not set, but ENVIRONMENT (see `strip`)."""
    file = _env_file(kind)
    return (
        EnvSettingsSource(RoomSettings, env_ignore_empty=False),
        EnvSettingsSource(kind),
        DotEnvSettingsSource(RoomSettings, file, env_ignore_empty=False),
        DotEnvSettingsSource(kind, file),
    )


def _check_env_file(file: Any) -> None:
    """Refuse a file that is no UTF-8: PowerShell writes UTF-16, and every line of it would be ignored."""
    try:
        if file and Path(file).is_file() and "\0" in Path(file).read_text(encoding="utf-8"):
            raise ConfigurationError(f"{file}: save it as UTF-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: save it as UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: {os.strerror(error.errno or 0)}") from None


def prepare_environment() -> None:
    """Correct what libraries read from the environment by themselves.

    OpenTelemetry does not accept blanks. No library may use a proxy for this machine: it would connect to itself.
    """
    for name in [each for each in os.environ if each.startswith("OTEL_")]:
        if value := os.environ.pop(name).strip():
            os.environ[name] = value
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    if LOOPBACK not in given and given.strip() != "*":
        os.environ["no_proxy"] = ",".join(filter(None, [given, LOOPBACK]))


def _none_if_off(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() == "off" else value


OrOff = BeforeValidator(_none_if_off)  # `off` becomes None, and counts as set


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
    prepare_environment()
    try:
        _check_env_file(_env_file(kind))
        given = {**kind.given(), **values}
        store = kind.open_store(given)
        secrets = {name: value for name, value in store.values.items() if name not in given} if store else {}
        settings = kind(**secrets, **values)
        settings.attach_store(store)
        refused = [*settings.refusals(), *_refusals(settings)]
    except ValidationError as error:
        refused = list(explain(error))
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        refused = [f"{field[1].upper() if field else 'settings'}: the value is not valid JSON"]
    except ConfigurationError as error:
        refused = list(error.args)
    except SourceUnavailable as error:
        print(f"configuration unavailable: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    refuse(refused)
    return settings


def refuse(lines: Iterable[str]) -> None:
    """Exit with 78 after the lines on stderr; without a line do nothing."""
    if refused := "".join(f"configuration refused: {line}\n" for line in lines):
        print(refused, end="", file=sys.stderr)
        raise SystemExit(EXIT_REFUSED)


def explain(error: ValidationError, variable: str = "") -> Iterator[str]:
    """One line per wrong value, without the value; `variable` is the name if the error has none."""
    for each in error.errors(include_input=False, include_url=False):
        name = variable or (str(each["loc"][0]).upper() if each["loc"] else "settings")
        yield f"{name}: {each['msg'].removeprefix('Value error, ')}"


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
        elif rule and any(map(rule.refuses, texts)):
            yield f"{name.upper()}: not allowed in production, {rule.advice(name.upper())}"
        elif given and any(isinstance(t, str) and _PLACEHOLDER.search(t) for t in texts):
            yield f"{name.upper()}: contains a placeholder; set the real value"
