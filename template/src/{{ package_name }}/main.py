"""Creates the application from the platform and the features: this file is yours.

`without` removes rooms of the platform by name, for example `without={"api_docs"}`; `rooms` adds yours: docs/rooms.md.
"""

from fastapi import FastAPI

from .platform import create_app
from .platform.settings import load
from .settings import Settings


def app() -> FastAPI:
    """Create the application; servers call this factory, so an import reads neither settings nor secrets."""
    return create_app(load(Settings), without=set())
