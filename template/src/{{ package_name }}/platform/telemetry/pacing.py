"""Spreads what exporters do over time, because their threads share the interpreter with the event loop.

A thread that computes gives the interpreter away only every 5 ms (`sys.getswitchinterval`), and a request needs it
several times. So a batch that is encoded in one piece makes each request that comes meanwhile wait for 15 ms and more.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

WORK_SECONDS = 0.0005  # at a time; then requests have the interpreter for as long, or longer if they need it
Given = TypeVar("Given")
Made = TypeVar("Made")


class Paced(Sequence[Made], Generic[Given, Made]):
    """A batch whose items are made one by one while an exporter reads and encodes them, with pauses in between.

    Args:
        batch: What a processor hands to its exporter.
        make: Makes of each item what the exporter gets.
    """

    def __init__(self, batch: Sequence[Given], make: Callable[[Given], Made]) -> None:
        self.batch = batch
        self.make = make

    def __len__(self) -> int:
        return len(self.batch)

    @overload
    def __getitem__(self, index: int) -> Made: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Made]: ...

    def __getitem__(self, index: int | slice) -> Made | Sequence[Made]:
        return Paced(self.batch[index], self.make) if isinstance(index, slice) else self.make(self.batch[index])

    def __iter__(self) -> Iterator[Made]:
        until = time.perf_counter() + WORK_SECONDS
        for item in self.batch:
            if (now := time.perf_counter()) > until:
                time.sleep(WORK_SECONDS)
                waited = (woken := time.perf_counter()) - now
                until = woken + waited  # half of the time, also where the event loop is never idle: nothing gets lost
            yield self.make(item)
