"""The service, assembled: this file is yours.

`without` leaves rooms of the platform out by name, as in `without={"api_docs"}`.
"""

from fastapi import FastAPI

from .platform import create_app
from .platform.settings import load
from .settings import Settings


def app() -> FastAPI:
    """Make the service; servers call this, so that an import reads neither settings nor secrets."""
    return create_app(load(Settings), without=set())
