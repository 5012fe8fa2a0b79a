"""Reads secrets from a backend before the service starts, and renews and rotates them while it runs.

Secrets are settings like all others. A variable of the environment overrides the backend and is never rotated, so an
operator can set a value in an emergency (`docs/secrets.md`, "Emergency access").
"""

import asyncio
import math
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
from ..settings import ConfigurationError, RealInProduction, RoomSettings, SourceUnavailable, compose, part
from ..state import Metric, NotReady, State, state_of
from ..threads import in_thread
from .backend import Backend, BackendKind, Snapshot

STARTUP_SECONDS = 30  # for the first response; then the process exits, and its supervisor restarts it
MAX_RETRY_SECONDS = 60  # between two attempts while the service runs
RENEW_SECONDS = 1  # between two calls of `renew` that have an effect, and between attempts once a value is useless
LISTENER_RETRY_SECONDS = 5  # before a listener that failed is called again
LISTENER_SECONDS = 30  # for one listener

BACKENDS: dict[str, BackendKind] = {
    name: found.BACKEND for name in ("files", "vault", "aws") if (found := find_module(name, __name__))
}

if TYPE_CHECKING:
    _Parts = RoomSettings
else:
    _Parts = compose(kind.settings for kind in BACKENDS.values())


class SecretsBackendSettings(_Parts):
    """Which backend has the secrets: loaded before all other settings."""

    secrets_backend: Annotated[Literal["env", "files", "vault", "aws"], RealInProduction("files")] = "env"


@dataclass(slots=True)
class _Listener:
    name: str
    call: Callable[[str], Awaitable[None]]
    notified: str | None
    failed: bool = False


class Store:
    """The current secrets, and listeners for new values; features use it as `state.secrets`.

    Args:
        backend: None if secrets are variables of the environment.
        fixed: Names that the environment overrides.
    """

    def __init__(self, backend: Backend | None = None, fixed: Collection[str] = ()) -> None:
        self.backend = backend
        self.fixed = frozenset(fixed)
        self.values: dict[str, str] = {}
        self.listeners: list[_Listener] = []
        self.wait_seconds = self.loaded = 0.0
        self.refused = asyncio.Event()
        self.renewable = -math.inf  # when `renew` has an effect again
        self.renew_seconds: float = RENEW_SECONDS
        self.failure: type[Exception] | None = None

    def load(self) -> None:
        """Read for the first time, with full jitter between attempts, so that a fleet does not retry at the same time.

        Raises:
            SourceUnavailable: The backend did not respond for `STARTUP_SECONDS`.
            ConfigurationError: The backend refused.
        """
        attempts, deadline = 0, time.monotonic() + STARTUP_SECONDS
        while self.backend:
            try:
                self._update(self.backend.read())
                self.loaded = time.monotonic()
                return
            except SourceUnavailable as error:
                attempts += 1
                pause = random.uniform(0, min(8, 0.25 * 2**attempts))  # noqa: S311 not for security
                if time.monotonic() + pause > deadline:
                    raise SourceUnavailable(f"{error}; gave up after {STARTUP_SECONDS} s") from None
                if attempts == 1:
                    print(f"configuration unavailable: {error}; retrying for {STARTUP_SECONDS} s", file=sys.stderr)
                time.sleep(pause)

    def on_change(self, name: str, call: Callable[[str], Awaitable[None]]) -> None:
        """Call `call` with each new value of a setting while requests run; if it raises, it is called again.

        Args:
            name: The name of the setting, such as `database_url`.
            call: Gets the new value. It must use the old one until the new one works.
        """
        self.listeners.append(_Listener(name, call, self.values.get(name)))

    def renew(self, name: str) -> None:
        """Read the backend at once, and replace a login that it created; see the protocol in `state`."""
        if name not in self.fixed and time.monotonic() >= self.renewable:
            self.refused.set()

    def expired(self) -> list[str]:
        """The leases without which values do not work, and that have ended."""
        leases = self.backend.leases if self.backend else {}
        return [name for name, lease in leases.items() if lease.required and lease.until < time.monotonic()]

    def observe(self, which: int) -> Iterator[tuple[float, dict[str, str]]]:
        """The remaining seconds (0) or the duration (1) of each lease."""
        for name, lease in (self.backend.leases if self.backend else {}).items():
            yield (max(0.0, lease.until - time.monotonic()), lease.seconds)[which], {"lease": name}

    async def refresh(self, backend: Backend) -> None:
        """Refresh the values until cancelled; no error of the backend ends this."""
        failures, urgent = 0, False
        self.wait_seconds -= time.monotonic() - self.loaded  # the time since then counts for short leases
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.wait_seconds):
                    await self.refused.wait()
            refused = self.refused.is_set()
            urgent = urgent or refused
            try:
                self._update(await in_thread(partial(backend.read, refused)))  # it has its own time-outs
                self._log(None)
                failures = 0
            except Exception as error:
                failures = min(failures + 1, 6) if type(error) is self.failure else 1
                self._log(error)
                self._back_off(error, failures, urgent)
            await self._notify()
            if urgent and not failures:
                urgent = False
                self._renewed()
            self.refused.clear()  # calls since then were about the old value

    def _back_off(self, error: Exception, failures: int, urgent: bool) -> None:
        """Wait longer after each failure, but hardly once a value is useless, and not beyond the end of a lease."""
        limit: float = min(MAX_RETRY_SECONDS, 2**failures)
        pause = self.wait_seconds = random.uniform(0, limit)  # noqa: S311 not for security
        if isinstance(error, SourceUnavailable):  # nothing is refused, so repeating does no harm
            leases = self.backend.leases.values() if self.backend else ()
            left = min((lease.until - time.monotonic() for lease in leases if lease.required), default=pause)
            pause = RENEW_SECONDS
            self.wait_seconds = min(self.wait_seconds, pause if urgent else max(pause, left))
        self.renewable = time.monotonic() + pause

    def _renewed(self) -> None:
        """Double the time to the next renewal if this one came soon after the last: it did not help then."""
        now = time.monotonic()
        soon = now < self.renewable + MAX_RETRY_SECONDS
        self.renew_seconds = min(MAX_RETRY_SECONDS, 2 * self.renew_seconds) if soon else RENEW_SECONDS
        self.renewable = now + self.renew_seconds

    def _update(self, snapshot: Snapshot) -> None:
        new = {name: value.strip() for name, value in snapshot.values.items() if name not in self.fixed}
        observed = {listener.name for listener in self.listeners}
        for name in sorted(new.keys() & self.values.keys() - observed):
            if new[name] != self.values[name]:
                structlog.get_logger("secrets").warning("a secret changed; restart to use it", setting=name)
        self.values = new
        self.wait_seconds = snapshot.refresh_seconds

    def _log(self, error: Exception | None) -> None:
        """Log one line when refreshing starts to fail or works again, not one for each attempt."""
        kind = type(error) if error else None
        if kind is self.failure:
            return
        self.failure, log = kind, structlog.get_logger("secrets")
        if error is None:
            log.info("secrets are current again")
        else:
            reason = str(error) if isinstance(error, SourceUnavailable | ConfigurationError) else type(error).__name__
            level = log.error if kind is ConfigurationError else log.warning  # it needs a change by an operator
            level("secrets are not renewed; the last good values stay in use", reason=reason)

    async def _notify(self) -> None:
        for listener in self.listeners:
            value = self.values.get(listener.name)
            if value is None or value == listener.notified:  # a value that was removed stays in use
                continue
            log = structlog.get_logger("secrets").bind(setting=listener.name)
            try:
                async with asyncio.timeout(LISTENER_SECONDS):
                    await listener.call(value)
            except Exception as error:  # its message may contain the value
                if not listener.failed:
                    log.error("a new secret does not work; the old one stays in use", error=type(error).__name__)
                listener.failed, self.wait_seconds = True, min(self.wait_seconds, LISTENER_RETRY_SECONDS)
            else:
                listener.notified, listener.failed = value, False
                log.info("secret rotated")


class Settings(SecretsBackendSettings):
    """Which backend has the secrets; `load` reads them from it, and this room refreshes them."""

    @classmethod
    def open_store(cls, given: Mapping[str, Any]) -> "Store":
        """Open the backend, and read it for the first time.

        Raises:
            SourceUnavailable: The backend did not respond for `STARTUP_SECONDS`.
            ConfigurationError: A setting is missing, or the backend refused.
        """
        source = SecretsBackendSettings(
            **{name: value for name, value in given.items() if name in SecretsBackendSettings.model_fields}
        )
        if source.secrets_backend == "env":
            return Store()
        kind = BACKENDS.get(source.secrets_backend)
        if kind is None:
            known = ", ".join(["env", *BACKENDS])
            raise ConfigurationError(
                f"SECRETS_BACKEND: {source.secrets_backend} is not part of this service; use one of {known}"
            )
        store = Store(kind.open(source, time.monotonic), given)
        store.load()
        return store

    @property
    def store(self) -> "Store":
        """The store that `load` has opened; an empty one if the settings were created without `load`."""
        return self._store or Store()


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Provide the store and the metrics of its leases."""
    store, state = part(settings, Settings).store, state_of(app)
    state.secrets = store
    remaining = "secrets.lease.remaining", "s", "Time until a lease ends if it is not renewed."
    duration = "secrets.lease.duration", "s", "Duration of a lease when it was created."
    state.metrics += [Metric(*remaining, partial(store.observe, 0)), Metric(*duration, partial(store.observe, 1))]


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Refresh the secrets while the service runs."""
    store = cast("Store | None", state_of(app).secrets)
    if not store or not store.backend:
        yield
        return
    refreshing = asyncio.create_task(store.refresh(store.backend))
    yield
    refreshing.cancel()
    with suppress(asyncio.CancelledError):
        await refreshing


async def readiness(state: State) -> str:
    """Whether all leases are valid; if only the backend is down, the service is ready with the values it has."""
    store = cast("Store", state.secrets)
    if expired := store.expired():
        raise NotReady(f"the lease has ended: {', '.join(expired)}")
    kind = type(store.backend).__name__
    return f"secrets of {kind} are current: {len(store.values)}" if store.backend else "in the environment"


ROOM = Room(settings=Settings, install=install, lifespan=lifespan, readiness=readiness)
