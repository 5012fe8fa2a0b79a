"""Your settings, in addition to the platform's: this file is yours.

A field `app_price_limit: int = 10` is read from the environment variable `APP_PRICE_LIMIT`, or from `.env`. No setting
of the platform begins with `APP_`, in any version.
"""

from .platform import PlatformSettings


class Settings(PlatformSettings):
    """Settings of this service, set by its environment."""
