"""A cache inside one process, for development; the least recently used entries are evicted first.

Not for production: processes share neither values nor invalidations.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence

MAX_BYTES = 32 * 2**20
ENTRY_OVERHEAD_BYTES = 200  # of an entry, in addition to its key and its value


class Server:
    """A bounded dictionary with the interface of a server."""

    system = "memory"

    def __init__(self, url: str) -> None:
        self.entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.bytes = 0

    async def start(self) -> None:
        """Nothing to open."""

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values."""
        return [self._fresh(key) for key in keys]

    async def set(self, values: Mapping[str, bytes], seconds: int) -> None:
        """Store values."""
        for key, value in values.items():
            self._drop(key)
            self.entries[key] = (value, time.monotonic() + seconds)
            self.bytes += len(key) + len(value) + ENTRY_OVERHEAD_BYTES
        while self.bytes > MAX_BYTES:
            self._drop(next(iter(self.entries)))

    async def add(self, key: str, value: bytes, seconds: int) -> bool:
        """Store a value if the key has none."""
        if self._fresh(key) is not None:
            return False
        await self.set({key: value}, seconds)
        return True

    async def delete(self, key: str) -> None:
        """Delete a key."""
        self._drop(key)

    async def close(self) -> None:
        """Nothing to close."""

    def _fresh(self, key: str) -> bytes | None:
        value, until = self.entries.get(key, (None, 0.0))
        if until < time.monotonic():
            self._drop(key)
            return None
        self.entries.move_to_end(key)
        return value

    def _drop(self, key: str) -> None:
        value, _ = self.entries.pop(key, (None, 0.0))
        if value is not None:
            self.bytes -= len(key) + len(value) + ENTRY_OVERHEAD_BYTES
