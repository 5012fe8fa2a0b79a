"""The circuit breaker: after failures the cache server is not called until it responds to a probe in the background.

It trips when half of the last calls failed. Calls stop at once, but the server is logged as unavailable only after
several probes have failed, too: so a burst of time-outs at a healthy server is not logged.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

CALL_SECONDS = 0.25  # for one call of the server, including the wait for a connection
RECENT_CALLS = 20  # it trips when half of them failed
FAILED_PROBES = 3  # in a row, before the failure is logged
PROBE_PAUSE_SECONDS = 0.5  # before each probe


class Breaker:
    """Counts failed calls, and stops calls when there are too many."""

    def __init__(self) -> None:
        self.recent: deque[bool] = deque(maxlen=RECENT_CALLS)
        self.tripped = False  # no calls are made
        self.open = False  # the failure is confirmed and logged
        self.probe_now = asyncio.Event()  # wakes `watch`

    def record(self, succeeded: bool) -> None:
        """Record the result of a call."""
        self.recent.append(succeeded)
        if not succeeded and self.recent.count(False) * 2 >= RECENT_CALLS:
            self.trip()

    def trip(self) -> None:
        """Stop all calls until a probe succeeds."""
        self.tripped = True
        self.probe_now.set()

    async def watch(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Probe after each trip, until cancelled; log one line when the breaker opens, and one when it closes."""
        while True:
            await self.probe_now.wait()
            failures = 0
            while True:
                await asyncio.sleep(PROBE_PAUSE_SECONDS if self.recent or failures else 0)  # at the start, at once
                try:
                    async with asyncio.timeout(CALL_SECONDS):
                        await probe()
                    break
                except Exception as error:  # any error means that the cache cannot be used
                    failures += 1
                    if failures == FAILED_PROBES:
                        self.tripped = self.open = True
                        structlog.get_logger("cache").warning("cache is unavailable", reason=repr(error))
            if self.open:
                structlog.get_logger("cache").info("cache is available again")
            self.tripped = self.open = False
            self.recent.clear()
            self.probe_now.clear()
