"""What a release says: a line that moves on a terminal, plain lines in a log, JSON for programs."""

import json
import os
import sys
import time
from contextlib import suppress

from .balancer import Totals

PLAIN_SECONDS = 10  # between two lines about the same step in a log
WIDTH = 20


class Show:
    """Writes to the standard output. That it is gone, or its disk full, stops no release."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.live = not as_json and sys.stdout.isatty()
        self.open = False  # whether a moving line is on the screen
        self.next = time.monotonic() + PLAIN_SECONDS

    def line(self, text: str, **facts: object) -> None:
        """An event: `text` for people, `facts` for programs."""
        if self.as_json:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._put(json.dumps({"time": now, "message": text, **facts}) + "\n")
        else:
            self._put(("\r\x1b[K" if self.open else "") + text + "\n")
        self.open = False

    def error(self, text: str) -> None:
        """The reason why it did not end well."""
        self._put("\n" * self.open)
        self._put(f"release: {text}\n", 2)

    def step(self, percent: int, passed: float, seconds: float, new: Totals, old: Totals, last: bool = False) -> None:
        """How far a step is: often on a terminal, rarely in a log, and how it ended in both."""
        counts = " · ".join(
            f"{name} {each.requests} requests, {each.errors} errors, {each.mean_ms:.0f} ms"
            for name, each in (("new", new), ("old", old))
        )
        if last:
            self.line(f"{percent} %: passed after {passed:.0f} s; {counts}", step=percent)
        elif self.live:
            done = round(WIDTH * min(1.0, passed / seconds if seconds else 1.0))
            bar = "█" * done + "░" * (WIDTH - done)
            self._put(f"\r\x1b[K{percent:>3} % {bar} {passed:.0f}/{seconds:g} s  {counts}")
            self.open = True
        elif time.monotonic() >= self.next:
            self.next = time.monotonic() + PLAIN_SECONDS
            self.line(f"{percent} %: {passed:.0f} s of {seconds:g} s; {counts}", step=percent)

    def _put(self, text: str, file: int = 1) -> None:
        with suppress(OSError):  # nobody can be told
            os.write(file, text.encode())  # without a buffer: what stays in one would change the exit code
