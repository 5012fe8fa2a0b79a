"""The interface of a cache server; each kind of server is a module in this folder."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Backend(Protocol):
    """Stores bytes by key. Every method may raise any exception, and the caller may cancel it."""

    system: str  # `db.system.name` of OpenTelemetry; `memory` is inside the process

    async def start(self) -> None:
        """Open connections, or reopen them."""

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of the keys, in one round trip."""

    async def set(self, values: Mapping[str, bytes], seconds: int) -> None:
        """Store values."""

    async def add(self, key: str, value: bytes, seconds: int) -> bool:
        """Store a value if the key has none; return whether it was stored."""

    async def delete(self, key: str) -> None:
        """Delete a key."""

    async def close(self) -> None:
        """Close all connections."""
