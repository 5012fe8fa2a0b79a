"""Progress: bars on a terminal, one line per step elsewhere. It goes to stderr; results go to stdout."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Seen = Callable[[int], None]  # called with the bytes so far


class Report:
    """Shows the steps of a command, and remembers how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._console = Console(stderr=True)

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Seen]:
        """Show a step until it ends.

        Args:
            name: What is done.
            total: Its bytes, if they are known.
        """
        began, size = time.monotonic(), 0
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bars:
            task = bars.add_task(name, total=total, amount="")

            def seen(done: int) -> None:
                nonlocal size
                size = done
                bars.update(task, completed=done, amount=_amount(done))

            yield seen
            bars.update(task, total=max(size, 1), completed=max(size, 1))
        self.seconds[name] = round(time.monotonic() - began, 3)
        if not self._console.is_terminal:
            done = f" {_amount(size)}," if size else ""
            print(f"backup: {name}:{done} {self.seconds[name]:.1f} s", file=sys.stderr, flush=True)


def _amount(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
