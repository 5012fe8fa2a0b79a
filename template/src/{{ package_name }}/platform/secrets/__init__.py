"""Secrets: read before the service starts, renewed and rotated while it runs, wherever they are kept.

They are settings like all others. What the environment says wins over every backend, and is never rotated: who sets a
variable by hand has a reason (`docs/secrets.md`, break-glass).
"""

import asyncio
import importlib
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, cast

import structlog
from fastapi import FastAPI
from pydantic import ModelWrapValidatorHandler, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from ..settings import Away, RealInProduction, Refused, RoomSettings, compose, part
from ..state import NotReady, State, state_of
from .backend import Backend, Snapshot

PATIENCE = 30  # seconds for the first answer; then the process ends, and its supervisor tries again
LONGEST = 60  # seconds between two tries while the service runs
AGAIN = 5  # seconds until a listener that failed is told once more
DEADLINE = 30  # seconds for one listener
STORE = "secrets.store"  # among the values of the source: no setting and no variable has a dot in its name
T = TypeVar("T")


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}.{name}":
            raise
        return None


BACKENDS = {name: found for name in ("files", "vault", "aws") if (found := _module(name))}

if TYPE_CHECKING:
    _Parts = RoomSettings
else:
    _Parts = compose(BACKENDS.values())


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
        self.look = self.loaded = 0.0
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
                self.loaded = time.monotonic()
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

    def leases(self) -> dict[str, tuple[float, float]]:
        """Of each lease the seconds that are left, and those that it had."""
        leases = self.backend.leases if self.backend else {}
        return {name: (max(0.0, lease.until - time.monotonic()), lease.seconds) for name, lease in leases.items()}

    async def follow(self, backend: Backend) -> None:
        """Keep the values current until cancelled: nothing that a backend does ends this."""
        tries = 0
        self.look -= time.monotonic() - self.loaded  # what the start took since then counts for short leases
        while True:
            await asyncio.sleep(self.look)
            try:
                self._take(await _apart(backend.read))
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


async def _apart(call: Callable[[], T]) -> T:
    """Call it in a thread that dies with the process: a far end that hangs holds neither the loop nor the exit."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="secrets", daemon=True).start()
    return await asyncio.wrap_future(future)


class _Source(PydanticBaseSettingsSource):
    """The last source of settings: it may not answer for what was said before."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Is not asked: all values come at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        said = self.current_state
        where = Where(**{name: value for name, value in said.items() if name in Where.model_fields})
        store = _open(where, said)
        store.load()
        return {**store.values, STORE: store}


def _open(where: Where, fixed: Collection[str]) -> Store:
    if where.secrets_backend == "env":
        return Store()
    module = BACKENDS.get(where.secrets_backend)
    if module is None:
        known = ", ".join(["env", *BACKENDS])
        raise Refused(f"SECRETS_BACKEND: {where.secrets_backend} is no part of this service; type one of {known}")
    return Store(module.open_backend(where, time.monotonic), fixed)


class Settings(Where):
    """Reads the secrets with the settings, and keeps the store of which they came for the room."""

    _store: Store = PrivateAttr(default_factory=Store)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Ask last."""
        return *super().settings_customise_sources(settings_cls, *sources, **named), _Source(settings_cls)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, values: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        made = check(values)
        made._store = values[STORE]
        return made


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Offer the store."""
    state_of(app).secrets = part(settings, Settings)._store


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
