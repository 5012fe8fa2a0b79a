"""Reads values through the cache: concurrent requests for a key share one load, and an invalidated value never returns.

Each tag has a token, which `invalidate` replaces. A value is stored with the tokens that its tags had *before* it was
loaded, and is a cache miss if they differ from the current ones. So one write invalidates any number of values, a slow
load cannot restore an old value, and a token that the server evicts only costs another load.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode

from ..problems import ServiceError
from ..state import CachePolicy, Load, T, current
from .backend import Backend
from .breaker import CALL_SECONDS, Breaker
from .entries import Entries, Lookup, new_token

ALL_VALUES = "*"  # a tag of every value
MAX_VALUE_BYTES = 2**19  # Memcached accepts a MiB, and larger values delay other calls on the connection
LOAD_SECONDS = 30.0  # for a source: if it hangs, all requests for the value wait
LOCK_SECONDS = 5  # for which other processes wait for the one that loads
MAX_PENDING_INVALIDATIONS = 1_000  # with one more, all values are invalidated instead
LOCK_POLL_SECONDS = 0.05  # between two lookups of a value that another process loads
TOKEN_SECONDS = 7 * 86_400  # for which the server stores a token


class ReadThrough:
    """Reads and invalidates values; features use it as `state.cache`.

    Args:
        namespace: The prefix of all keys.
        backend: Stores the values.
    """

    def __init__(self, namespace: str, backend: Backend) -> None:
        self.entries = Entries(namespace)
        self.backend = backend
        self.breaker = Breaker()
        self.loads: dict[str, tuple[asyncio.Task[Any], set[str]]] = {}
        self.invalidations: dict[str, object] = {}  # tags not yet invalidated on the server, so not looked up there
        self.counts: Counter[tuple[str, str]] = Counter()

    async def get_or_load(
        self, policy: CachePolicy[T], key: str, load: Load[T], *, tags: Iterable[str] = (), principal: str | None = None
    ) -> T | None:
        """Return the value of a key from the cache, else from its source: see `state.Cache`."""
        name = self.entries.name(policy, policy.key(key, principal))
        if name in self.loads:
            self.counts[policy.name, "shared"] += 1
        else:  # registered before the lookup, so that no concurrent request makes a second one
            all_tags = {ALL_VALUES, *tags}
            self.loads[name] = asyncio.create_task(self._load(policy, name, load, sorted(all_tags))), all_tags
            self.loads[name][0].add_done_callback(lambda task: self._loaded(name, task))
        # shielded: a request that is cancelled must not cancel the load for the others
        return cast(T | None, await asyncio.shield(self.loads[name][0]))

    async def invalidate(self, *tags: str) -> None:
        """Invalidate all values that have one of the tags; call it after the commit. Never fails."""
        if not tags:
            return
        mark = object()
        new = dict.fromkeys(tags if len(self.invalidations) < MAX_PENDING_INVALIDATIONS else [ALL_VALUES], mark)
        self.invalidations |= new  # from now on this process returns no old value
        for name, (_, their_tags) in list(self.loads.items()):
            if not their_tags.isdisjoint(new):
                del self.loads[name]
        try:
            if not self.breaker.tripped:
                async with self._call("invalidate", "tags"):
                    await self._renew(new)
        finally:  # also if the request is cancelled
            if mark in self.invalidations.values():
                self.breaker.probe_now.set()  # the next successful probe sends it

    async def probe(self) -> None:
        """Check that the server stores values, and send the pending invalidations."""
        await self.backend.start()
        key, token = self.entries.tag(f"probe {new_token()!r}"), new_token()
        await self.backend.set({key: token}, 10)
        if await self.backend.get([key]) != [token]:
            raise ConnectionError("it does not store values")
        await self._renew(dict(self.invalidations))

    async def move(self, backend: Backend) -> None:
        """Switch to another backend."""
        old, self.backend = self.backend, backend
        self.breaker.trip()  # until a probe has connected
        await asyncio.sleep(2 * CALL_SECONDS)  # calls in progress end
        await old.close()

    def observe(self) -> list[tuple[int, dict[str, str]]]:
        """Counts of requested values by policy and result."""
        return [(n, {"cache.policy": p, "cache.result": r}) for (p, r), n in list(self.counts.items())]

    async def _load(self, policy: CachePolicy[T], name: str, load: Load[T], tags: list[str]) -> T | None:
        found, locked = await self._look_up(policy, name, tags), False
        try:
            if policy.lock and found.result == "miss":
                locked, found = await self._lock(policy, name, tags)
            if found.result == "hit":
                return found.value
            async with asyncio.timeout(LOAD_SECONDS):
                value = await load()
            if value is not None and found.tokens:
                entry = self.entries.write(policy, value, found.tokens)
                if len(entry) <= MAX_VALUE_BYTES:
                    async with self._call("set", policy.name):
                        await self.backend.set({name: entry}, math.ceil(policy.seconds * 1.1 + policy.stale_seconds))
            return value
        except Exception as error:
            if found.value is None or (isinstance(error, ServiceError) and error.status < 500):
                raise  # such as 404: a valid result, not a failure of the source
            found.result = "stale"
            return found.value
        finally:
            self.counts[policy.name, found.result] += 1
            if locked:
                async with self._call("unlock", policy.name):
                    await self.backend.delete(f"{name}:lock")

    def _loaded(self, name: str, task: asyncio.Task[Any]) -> None:
        if self.loads.get(name, (None,))[0] is task:
            del self.loads[name]
        if not task.cancelled():
            task.exception()  # mark it as retrieved, or asyncio logs it if no request waits any more

    async def _look_up(self, policy: CachePolicy[T], name: str, tags: list[str]) -> Lookup[T]:
        if self.breaker.tripped or not self.invalidations.keys().isdisjoint(tags):
            return Lookup("bypass")
        keys, found = [self.entries.tag(tag) for tag in tags], Lookup[T]("error")
        async with self._call("get", policy.name) as span:
            entry, *tokens = await self.backend.get([name, *keys])
            if missing := [key for key, token in zip(keys, tokens, strict=True) if token is None]:
                await asyncio.gather(*(self.backend.add(key, new_token(), TOKEN_SECONDS) for key in missing))
                tokens = await self.backend.get(keys)
            found = self.entries.read(policy, entry, [token.decode() for token in tokens if token])
            span.set_attribute("cache.result", found.result)
        return found

    async def _lock(self, policy: CachePolicy[T], name: str, tags: list[str]) -> tuple[bool, Lookup[T]]:
        """Wait until this process has the lock, which expires by itself, or another process has loaded the value."""
        until = time.monotonic() + LOCK_SECONDS
        while True:
            locked = False
            async with self._call("lock", policy.name):
                locked = await self.backend.add(f"{name}:lock", b"1", LOCK_SECONDS)
            found = await self._look_up(policy, name, tags)
            if locked or found.result != "miss" or time.monotonic() > until:
                return locked, found
            await asyncio.sleep(LOCK_POLL_SECONDS)

    async def _renew(self, pending: Mapping[str, object]) -> None:
        await self.backend.set({self.entries.tag(tag): new_token() for tag in pending}, TOKEN_SECONDS)
        for tag, mark in pending.items():
            if self.invalidations.get(tag) is mark:  # else it was invalidated again meanwhile
                del self.invalidations[tag]

    @asynccontextmanager
    async def _call(self, operation: str, policy: str) -> AsyncIterator[Span]:
        """Limit one call of the server in time, record the result at the breaker, and suppress errors."""
        with self._span(operation, policy) as span:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    yield span
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR)
                self.breaker.record(False)
            else:
                self.breaker.record(True)

    def _span(self, operation: str, policy: str) -> Any:
        """A span if the request is sampled; keys are left out, because they may contain secrets."""
        context, system = current.get(), self.backend.system
        if not (context and context.sampled):
            return nullcontext(INVALID_SPAN)
        attributes = {"cache.policy": policy, "db.operation.name": operation, "db.system.name": system}
        name, kind = f"cache {operation} {policy}", SpanKind.INTERNAL if system == "memory" else SpanKind.CLIENT
        return trace.get_tracer(__name__).start_as_current_span(name, kind=kind, attributes=attributes)
