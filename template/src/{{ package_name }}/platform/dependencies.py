"""What a route of yours takes as an argument: `settings: Settings`; a transaction is `Session` of the room `db`."""

from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection

from .. import settings
from .settings import part
from .state import state_of


async def _settings(connection: HTTPConnection) -> settings.Settings:
    return part(state_of(connection.app).settings, settings.Settings)


# The settings of this service, your own fields included.
Settings = Annotated[settings.Settings, Depends(_settings)]
