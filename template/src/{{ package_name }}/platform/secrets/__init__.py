"""Secrets: read before the service starts, renewed and rotated while it runs, wherever they are kept.

They are settings like all others. What the environment says wins over every backend, and is never rotated: who sets a
variable by hand has a reason (`docs/secrets.md`, break-glass).
"""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import structlog
from fastapi import FastAPI

from ..room import Room, find_module
from ..settings import Away, RealInProduction, Refused, RoomSettings, compose, part
from ..state import Metric, NotReady, State, state_of
from ..threads import in_thread
from .backend import Backend, BackendKind, Snapshot

PATIENCE = 30  # seconds for the first answer; then the process ends, and its supervisor tries again
LONGEST = 60  # seconds between two tries while the service runs
AGAIN = 5  # seconds until a listener that failed is told once more
DEADLINE = 30  # seconds for one listener


BACKENDS: dict[str, BackendKind] = {
    name: found.BACKEND for name in ("files", "vault", "aws") if (found := find_module(name, __name__))
}

if TYPE_CHECKING:
    _Parts = RoomSettings
else:
    _Parts = compose(kind.settings for kind in BACKENDS.values())


class Where(_Parts):
    """Where secrets are kept: needed before they can be read."""

    secrets_backend: Annotated[Literal["env", "files", "vault", "aws"], RealInProduction("files")] = "env"


@dataclass(slots=True)
class _Listener:
    name: str
    call: Callable[[str], Awaitable[None]]
    told: str | None
    failed: bool = False


class Store:
    """The room's share in the state: the values of now, and who wants to hear of new ones.

    Args:
        backend: None where secrets are variables of the environment.
        fixed: Names that the environment decides.
    """

    def __init__(self, backend: Backend | None = None, fixed: Collection[str] = ()) -> None:
        self.backend = backend
        self.fixed = frozenset(fixed)
        self.values: dict[str, str] = {}
        self.listeners: list[_Listener] = []
        self.look = 0.0
        self.trouble: type[Exception] | None = None

    def load(self) -> None:
        """Read for the first time, with full jitter between tries: a fleet that starts at once must not come at once.

        Raises:
            Away: Nobody answered for `PATIENCE`.
            Refused: The backend says no.
        """
        tries, deadline = 0, time.monotonic() + PATIENCE
        while self.backend:
            try:
                self._take(self.backend.read())
                return
            except Away as error:
                tries += 1
                pause = random.uniform(0, min(8, 0.25 * 2**tries))  # noqa: S311 it hides nothing
                if time.monotonic() + pause > deadline:
                    raise Away(f"{error}; gave up after {PATIENCE} s") from None
                if tries == 1:
                    print(f"configuration away: {error}; trying for {PATIENCE} s", file=sys.stderr)
                time.sleep(pause)

    def on_change(self, name: str, call: Callable[[str], Awaitable[None]]) -> None:
        """Have `call` told each new value of a setting while requests run; one that raises is told again.

        Args:
            name: Of the setting, as in `database_url`.
            call: Given the new value. It keeps the old one until the new one works.
        """
        self.listeners.append(_Listener(name, call, self.values.get(name)))

    def observe(self, which: int) -> Iterator[tuple[float, dict[str, str]]]:
        """The seconds that are left of each lease (0), or that it had (1)."""
        for name, lease in (self.backend.leases if self.backend else {}).items():
            yield (max(0.0, lease.until - time.monotonic()), lease.seconds)[which], {"lease": name}

    async def follow(self, backend: Backend) -> None:
        """Keep the values current until cancelled: nothing that a backend does ends this."""
        tries = 0
        while True:
            await asyncio.sleep(self.look)
            try:
                self._take(await in_thread(backend.read))  # which has time-outs of its own
                self._say(None)
                tries = 0
            except Exception as error:
                self._say(error)
                tries = min(tries + 1, 6)
                self.look = random.uniform(0, min(LONGEST, 2**tries))  # noqa: S311 it hides nothing
            await self._tell()

    def _take(self, snapshot: Snapshot) -> None:
        new = {name: value for name, value in snapshot.values.items() if name not in self.fixed}
        heard = {listener.name for listener in self.listeners}
        for name in sorted(new.keys() & self.values.keys() - heard):
            if new[name] != self.values[name]:
                structlog.get_logger("secrets").warning("a secret changed that only a restart brings in", setting=name)
        self.values = new
        self.look = snapshot.look

    def _say(self, error: Exception | None) -> None:
        """One line for each change of condition, and none for each try."""
        kind = type(error) if error else None
        if kind is self.trouble:
            return
        self.trouble, log = kind, structlog.get_logger("secrets")
        if error is None:
            log.info("secrets are current again")
        else:
            reason = str(error) if isinstance(error, Away | Refused) else type(error).__name__
            level = log.error if kind is Refused else log.warning  # a refusal does not pass by itself
            level("secrets are not renewed; the last good ones stay", reason=reason)

    async def _tell(self) -> None:
        for listener in self.listeners:
            value = self.values.get(listener.name)
            if value is None or value == listener.told:  # what is gone was good, and nothing better is known
                continue
            log = structlog.get_logger("secrets").bind(setting=listener.name)
            try:
                async with asyncio.timeout(DEADLINE):
                    await listener.call(value)
            except Exception as error:  # its text may hold the value
                if not listener.failed:
                    log.error("a new secret does not work; the old one stays", error=type(error).__name__)
                listener.failed, self.look = True, min(self.look, AGAIN)
            else:
                listener.told, listener.failed = value, False
                log.info("secret rotated")


class Settings(Where):
    """Where secrets are; `load` reads them from there, and the room keeps them current."""

    @classmethod
    def open_store(cls, given: Mapping[str, Any]) -> "Store":
        """Open the backend, and read it for the first time.

        Raises:
            Away: Nobody answered for `PATIENCE`.
            Refused: The settings lack something, or the backend says no.
        """
        where = Where(**{name: value for name, value in given.items() if name in Where.model_fields})
        if where.secrets_backend == "env":
            return Store()
        kind = BACKENDS.get(where.secrets_backend)
        if kind is None:
            known = ", ".join(["env", *BACKENDS])
            raise Refused(f"SECRETS_BACKEND: {where.secrets_backend} is no part of this service; type one of {known}")
        store = Store(kind.open(where, time.monotonic), given)
        store.load()
        return store

    @property
    def store(self) -> "Store":
        """What `load` has opened; settings that were made otherwise have nothing to keep current."""
        return self._store or Store()


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Offer the store."""
    store, state = part(settings, Settings).store, state_of(app)
    state.secrets = store
    remaining = "secrets.lease.remaining", "s", "Time until a lease ends, if nobody renews it."
    duration = "secrets.lease.duration", "s", "Time for which a lease was given at first."
    state.metrics += [Metric(*remaining, partial(store.observe, 0)), Metric(*duration, partial(store.observe, 1))]


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Follow the backend while the service runs."""
    store = cast("Store | None", state_of(app).secrets)
    if not store or not store.backend:
        yield
        return
    following = asyncio.create_task(store.follow(store.backend))
    yield
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


async def readiness(state: State) -> str:
    """Whether a lease still holds the values up; a backend that is away takes nothing from a service that has them."""
    store = cast("Store", state.secrets)
    leases = store.backend.leases if store.backend else {}
    gone = [name for name, lease in leases.items() if lease.holds and lease.until < time.monotonic()]
    if gone:
        raise NotReady(f"the lease has ended: {', '.join(gone)}")
    kind = type(store.backend).__name__
    return f"secrets of {kind} are current: {len(store.values)}" if store.backend else "in the environment"


ROOM = Room(settings=Settings, install=install, lifespan=lifespan, readiness=readiness)
