"""The service, assembled: this file is yours.

`without` leaves rooms of the platform out by name, as in `without={"api_docs"}`.
"""

from .platform import create_app
from .platform.settings import load
from .settings import Settings

app = create_app(load(Settings), without=set())
