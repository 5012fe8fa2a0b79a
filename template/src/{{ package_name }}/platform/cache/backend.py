"""What a cache server has to be able to do; each way to keep values is a module beside this one."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Backend(Protocol):
    """Keeps bytes by their keys. Every method may raise anything, and may be given up by the caller."""

    system: str  # `db.system.name` of OpenTelemetry; `memory` is inside the process

    async def start(self) -> None:
        """Open connections, or open them anew."""

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of the keys, in one round trip."""

    async def set(self, values: Mapping[str, bytes], seconds: int) -> None:
        """Keep values."""

    async def add(self, key: str, value: bytes, seconds: int) -> bool:
        """Keep a value if the key has none."""

    async def delete(self, key: str) -> None:
        """Forget a key."""

    async def close(self) -> None:
        """Close all connections."""
