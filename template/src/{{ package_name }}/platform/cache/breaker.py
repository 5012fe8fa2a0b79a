"""The circuit breaker: a server that fails is left alone until it answers a probe, for which no request waits.

It trips on a share of the last calls, and a trip is a suspicion: calls stop at once, but only probes that fail say that
the server is away. So a rush that makes a healthy server time out is over before anybody reads about it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

CALL = 0.25  # seconds for one call of the server, waiting for a connection included
CALLS = 20  # the last ones, of which half may fail
CONFIRM = 3  # probes in a row that fail before the log says so
PAUSE = 0.5  # seconds before each probe


class Breaker:
    """Counts calls, and decides whether there shall be any."""

    def __init__(self) -> None:
        self.recent: deque[bool] = deque(maxlen=CALLS)
        self.tripped = False  # nobody calls
        self.open = False  # and the log has said why
        self.probe_now = asyncio.Event()  # something is wrong: probe

    def note(self, worked: bool) -> None:
        """Note how a call went."""
        self.recent.append(worked)
        if not worked and self.recent.count(False) * 2 >= CALLS:
            self.trip()

    def trip(self) -> None:
        """Stop all calls until a probe is answered."""
        self.tripped = True
        self.probe_now.set()

    async def watch(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Probe whenever something is wrong, until cancelled; one line of the log when it opens, one when it closes."""
        while True:
            await self.probe_now.wait()
            failures = 0
            while True:
                await asyncio.sleep(PAUSE if self.recent or failures else 0)  # at the start there is no suspicion
                try:
                    async with asyncio.timeout(CALL):
                        await probe()
                    break
                except Exception as error:  # whatever it is: what cannot be used is away
                    failures += 1
                    if failures == CONFIRM:
                        self.tripped = self.open = True
                        structlog.get_logger("cache").warning("cache is away", reason=repr(error))
            if self.open:
                structlog.get_logger("cache").info("cache is back")
            self.tripped = self.open = False
            self.recent.clear()
            self.probe_now.clear()
