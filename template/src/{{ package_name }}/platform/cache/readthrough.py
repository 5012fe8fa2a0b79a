"""Reading through the cache: one look, one load for all who wait, and no value that outlives its invalidation.

Each tag has a token that `invalidate` replaces, and a value is kept with the tokens that its tags had *before* it was
loaded. A value whose tokens are not those of now counts as absent: one write forgets any number of values, a slow load
cannot bring an old value back, and a token that the server has thrown out costs a load and no more.
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
from .breaker import CALL, Breaker
from .entries import Entries, Seen, new_token

EVERYTHING = "*"  # a tag of every value
LARGEST = 2**19  # bytes of a value that is kept: Memcached takes a MiB, and what is larger holds up the others
LOAD = 30.0  # seconds for a source: one that hangs holds up all who wait for the value
LOCK = 5  # seconds for which one process may keep the others waiting
MAX_PENDING_INVALIDATIONS = 1_000  # invalidations on hold; with one more, everything is forgotten instead
POLL = 0.05  # seconds between two looks for what another process loads
TOKEN = 7 * 86_400  # seconds that a token is kept


class ReadThrough:
    """The room's share in the state.

    Args:
        namespace: What all keys begin with.
        backend: Keeps the values.
    """

    def __init__(self, namespace: str, backend: Backend) -> None:
        self.entries = Entries(namespace)
        self.backend = backend
        self.breaker = Breaker()
        self.flights: dict[str, tuple[asyncio.Task[Any], set[str]]] = {}
        self.held: dict[str, object] = {}  # tags whose invalidation has not arrived: nobody asks for their values
        self.counts: Counter[tuple[str, str]] = Counter()

    async def get_or_load(
        self, policy: CachePolicy[T], key: str, load: Load[T], *, tags: Iterable[str] = (), principal: str | None = None
    ) -> T | None:
        """Give the value of a key from the cache, else from its source: see `state.Cache`."""
        name = self.entries.name(policy, policy.key(key, principal))
        if name in self.flights:
            self.counts[policy.name, "shared"] += 1
        else:  # taken before the first look: who comes meanwhile makes no second one
            all_tags = {EVERYTHING, *tags}
            self.flights[name] = asyncio.create_task(self._fly(policy, name, load, sorted(all_tags))), all_tags
            self.flights[name][0].add_done_callback(lambda task: self._landed(name, task))
        # shielded: who goes away takes nothing from the others
        return cast(T | None, await asyncio.shield(self.flights[name][0]))

    async def invalidate(self, *tags: str) -> None:
        """Forget all values that have one of the tags, after the commit of what changed them. Never fails."""
        if not tags:
            return
        mark = object()
        held = dict.fromkeys(tags if len(self.held) < MAX_PENDING_INVALIDATIONS else [EVERYTHING], mark)
        self.held |= held  # from now on nobody in this process gets an old value
        for name, (_, carried) in list(self.flights.items()):
            if not carried.isdisjoint(held):
                del self.flights[name]
        try:
            if not self.breaker.tripped:
                async with self._call("invalidate", "tags"):
                    await self._renew(held)
        finally:  # also where the request is cancelled
            if mark in self.held.values():
                self.breaker.probe_now.set()  # the next probe that is answered makes up for it

    async def probe(self) -> None:
        """Ask whether the server is of use: it keeps what it is given, and has heard of every invalidation."""
        await self.backend.start()
        key, token = self.entries.tag(f"probe {new_token()!r}"), new_token()
        await self.backend.set({key: token}, 10)
        if await self.backend.get([key]) != [token]:
            raise ConnectionError("it does not keep what it is given")
        await self._renew(dict(self.held))

    async def move(self, backend: Backend) -> None:
        """Continue on another backend."""
        old, self.backend = self.backend, backend
        self.breaker.trip()  # until a probe has opened connections
        await asyncio.sleep(2 * CALL)  # calls that are under way end
        await old.close()

    def observe(self) -> list[tuple[int, dict[str, str]]]:
        """How often values were asked for, and where they came from."""
        return [(n, {"cache.policy": p, "cache.result": r}) for (p, r), n in list(self.counts.items())]

    async def _fly(self, policy: CachePolicy[T], name: str, load: Load[T], tags: list[str]) -> T | None:
        seen, turn = await self._look(policy, name, tags), False
        try:
            if policy.lock and seen.result == "miss":
                turn, seen = await self._take_turn(policy, name, tags)
            if seen.result == "hit":
                return seen.value
            async with asyncio.timeout(LOAD):
                value = await load()
            if value is not None and seen.tokens:
                entry = self.entries.write(policy, value, seen.tokens)
                if len(entry) <= LARGEST:
                    async with self._call("set", policy.name):
                        await self.backend.set({name: entry}, math.ceil(policy.seconds * 1.1 + policy.stale_seconds))
            return value
        except Exception as error:
            if seen.value is None or (isinstance(error, ServiceError) and error.status < 500):
                raise  # such as 404: the source works
            seen.result = "stale"
            return seen.value
        finally:
            self.counts[policy.name, seen.result] += 1
            if turn:
                async with self._call("unlock", policy.name):
                    await self.backend.delete(f"{name}:lock")

    def _landed(self, name: str, task: asyncio.Task[Any]) -> None:
        if self.flights.get(name, (None,))[0] is task:
            del self.flights[name]
        if not task.cancelled():
            task.exception()  # seen, also where all who waited have gone

    async def _look(self, policy: CachePolicy[T], name: str, tags: list[str]) -> Seen[T]:
        if self.breaker.tripped or not self.held.keys().isdisjoint(tags):
            return Seen("bypass")
        keys, seen = [self.entries.tag(tag) for tag in tags], Seen[T]("error")
        async with self._call("get", policy.name) as span:
            entry, *tokens = await self.backend.get([name, *keys])
            if missing := [key for key, token in zip(keys, tokens, strict=True) if token is None]:
                await asyncio.gather(*(self.backend.add(key, new_token(), TOKEN) for key in missing))
                tokens = await self.backend.get(keys)
            seen = self.entries.read(policy, entry, [token.decode() for token in tokens if token])
            span.set_attribute("cache.result", seen.result)
        return seen

    async def _take_turn(self, policy: CachePolicy[T], name: str, tags: list[str]) -> tuple[bool, Seen[T]]:
        """Wait until this process may load, or another one has: by a lock that ends by itself."""
        until = time.monotonic() + LOCK
        while True:
            turn = False
            async with self._call("lock", policy.name):
                turn = await self.backend.add(f"{name}:lock", b"1", LOCK)
            seen = await self._look(policy, name, tags)
            if turn or seen.result != "miss" or time.monotonic() > until:
                return turn, seen
            await asyncio.sleep(POLL)

    async def _renew(self, held: Mapping[str, object]) -> None:
        await self.backend.set({self.entries.tag(tag): new_token() for tag in held}, TOKEN)
        for tag, mark in held.items():
            if self.held.get(tag) is mark:  # else it has changed again meanwhile
                del self.held[tag]

    @asynccontextmanager
    async def _call(self, operation: str, policy: str) -> AsyncIterator[Span]:
        """Bound one call of the server, tell the breaker, and go on without what failed."""
        with self._span(operation, policy) as span:
            try:
                async with asyncio.timeout(CALL):
                    yield span
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR)
                self.breaker.note(False)
            else:
                self.breaker.note(True)

    def _span(self, verb: str, what: str) -> Any:
        """One span where the request is sampled, else not even the question; keys stay out, they may hold anything."""
        context, system = current.get(), self.backend.system
        if not (context and context.sampled):
            return nullcontext(INVALID_SPAN)
        about = {"cache.policy": what, "db.operation.name": verb, "db.system.name": system}
        kind = SpanKind.INTERNAL if system == "memory" else SpanKind.CLIENT
        return trace.get_tracer(__name__).start_as_current_span(f"cache {verb} {what}", kind=kind, attributes=about)
