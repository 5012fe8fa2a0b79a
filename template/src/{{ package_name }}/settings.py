"""Your settings, in addition to the platform's: this file is yours.

A field `price_limit: int = 10` is read from the environment variable `PRICE_LIMIT`, or from `.env`.
"""

from .platform import PlatformSettings


class Settings(PlatformSettings):
    """Settings of this service, set by its environment."""
