"""Facts about the service, read from the files of its project without importing it."""

import os
import tomllib
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .config import ConfigurationError

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 not to listen there


class _Listener(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8-sig", env_ignore_empty=True, extra="ignore", str_strip_whitespace=True
    )

    host: str = ""
    port: int = 8000
    environment: str = ""


def declared() -> tuple[str, tuple[str, str]]:
    """What the environment, or `.env`, says about the service on this machine.

    Returns:
        Its URL, from HOST and PORT, and its ENVIRONMENT with the place where that is set.

    Raises:
        ConfigurationError: PORT is no number, or `.env` is no text.
    """
    try:
        given = _Listener()
    except ValidationError as error:
        raise ConfigurationError(f"PORT: {error.errors(include_input=False)[0]['msg']}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(".env: save it as UTF-8") from None
    host = WILDCARDS.get(given.host, given.host or "127.0.0.1")
    place = "the variable ENVIRONMENT" if os.environ.get("ENVIRONMENT", "").strip() else ".env"
    return f"http://{f'[{host}]' if ':' in host else host}:{given.port}", (place, given.environment)


def name() -> str:
    """The name of this project in `pyproject.toml`; empty without one."""
    try:
        return str(tomllib.loads(Path("pyproject.toml").read_text())["project"]["name"])
    except (OSError, LookupError, ValueError):
        return ""


def has_room(name: str) -> bool:
    """Whether the platform has this room: neither an answer nor a deletion removed it."""
    return any(True for each in (name, f"{name}.py") for _ in Path("src").glob(f"*/platform/{each}"))


def command() -> str:
    """Python code that runs the service's own command line.

    Raises:
        OSError: There is no `pyproject.toml` here.
        LookupError: It names no command.
    """
    scripts = tomllib.loads(Path("pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = next(iter(scripts.values())).partition(":")
    return f"from {module} import {name}; {name}()"
