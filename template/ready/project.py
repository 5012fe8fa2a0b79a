"""Facts about the service, read from the files of its project without importing it."""

import tomllib
from pathlib import Path


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
