"""Adds pauses to the work of exporters, because their threads share the interpreter lock with the event loop.

A busy thread releases the lock only every 5 ms (`sys.getswitchinterval`), and a request needs it several times. Without
pauses, the encoding of one batch would delay each request that arrives meanwhile by 15 ms and more.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

WORK_SECONDS = 0.0005  # at a time; the pause after it lasts as long, or longer if requests need it
Input = TypeVar("Input")
Output = TypeVar("Output")


class Paced(Sequence[Output], Generic[Input, Output]):
    """A batch that converts its items while an exporter reads and encodes them, with pauses in between.

    Args:
        batch: What a processor gives to its exporter.
        make: Converts an item to what the exporter gets.
    """

    def __init__(self, batch: Sequence[Input], make: Callable[[Input], Output]) -> None:
        self.batch = batch
        self.make = make

    def __len__(self) -> int:
        return len(self.batch)

    @overload
    def __getitem__(self, index: int) -> Output: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Output]: ...

    def __getitem__(self, index: int | slice) -> Output | Sequence[Output]:
        return Paced(self.batch[index], self.make) if isinstance(index, slice) else self.make(self.batch[index])

    def __iter__(self) -> Iterator[Output]:
        until = time.perf_counter() + WORK_SECONDS
        for item in self.batch:
            if (now := time.perf_counter()) > until:
                time.sleep(WORK_SECONDS)
                waited = (woken := time.perf_counter()) - now
                until = woken + waited  # half of the time, even if the event loop is never idle: no batch is lost
            yield self.make(item)
