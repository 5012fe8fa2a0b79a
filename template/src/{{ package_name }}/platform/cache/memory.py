"""The cache of one process, on a developer's machine: the least recently used go first.

Not for production: another process neither sees these values nor hears of their invalidation.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence

MAX_BYTES = 32 * 2**20  # bytes
EACH = 200  # bytes that an entry takes besides its key and its value


class Server:
    """A bounded dictionary with the interface of a server."""

    system = "memory"

    def __init__(self, url: str) -> None:
        self.kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.bytes = 0

    async def start(self) -> None:
        """There is nothing to open."""

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values that are there."""
        return [self._fresh(key) for key in keys]

    async def set(self, values: Mapping[str, bytes], seconds: int) -> None:
        """Keep values."""
        for key, value in values.items():
            self._drop(key)
            self.kept[key] = (value, time.monotonic() + seconds)
            self.bytes += len(key) + len(value) + EACH
        while self.bytes > MAX_BYTES:
            self._drop(next(iter(self.kept)))

    async def add(self, key: str, value: bytes, seconds: int) -> bool:
        """Keep a value if the key has none."""
        if self._fresh(key) is not None:
            return False
        await self.set({key: value}, seconds)
        return True

    async def delete(self, key: str) -> None:
        """Forget a key."""
        self._drop(key)

    async def close(self) -> None:
        """There is nothing to close."""

    def _fresh(self, key: str) -> bytes | None:
        value, until = self.kept.get(key, (None, 0.0))
        if until < time.monotonic():
            self._drop(key)
            return None
        self.kept.move_to_end(key)
        return value

    def _drop(self, key: str) -> None:
        value, _ = self.kept.pop(key, (None, 0.0))
        if value is not None:
            self.bytes -= len(key) + len(value) + EACH
