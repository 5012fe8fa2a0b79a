"""Spreads the work of exporters over time, because their threads share the interpreter lock with the event loop.

A busy thread releases the lock only every 5 ms (`sys.getswitchinterval`), and a request needs it several times. Encoded
in one piece, a batch would delay each request that arrives meanwhile by 15 ms and more. A few items together take less
CPU than each alone, because waking a thread and filling the processor's caches anew costs as much as encoding an item.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

SHARE = 0.5  # of the time in which a batch was collected; the rest is for sending it, so that no batch is lost
ITEMS_PER_PIECE = 8  # encoded without a pause, in about 0.5 ms
MAX_SECONDS_PER_ITEM = 0.002  # even if a batch was collected slowly: a flush at exit has a deadline
Input = TypeVar("Input")
Output = TypeVar("Output")


class Pace:
    """The pace of one exporter: it follows the rate at which batches come."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    def spread(self, batch: Sequence[Input], make: Callable[[Input], Output]) -> "Paced[Input, Output]":
        """Return the batch as the exporter should read it.

        Args:
            batch: What a processor gives to its exporter.
            make: Converts an item to what the exporter gets.
        """
        now = time.perf_counter()
        collected, self.began = now - self.began, now
        return Paced(batch, make, min(MAX_SECONDS_PER_ITEM, collected * SHARE / max(1, len(batch))))


class Paced(Sequence[Output], Generic[Input, Output]):
    """A batch that converts its items while an exporter reads and encodes them, with pauses."""

    def __init__(self, batch: Sequence[Input], make: Callable[[Input], Output], interval: float) -> None:
        self.batch = batch
        self.make = make
        self.interval = interval

    def __len__(self) -> int:
        return len(self.batch)

    @overload
    def __getitem__(self, index: int) -> Output: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Output]: ...

    def __getitem__(self, index: int | slice) -> Output | Sequence[Output]:
        if isinstance(index, slice):
            return Paced(self.batch[index], self.make, self.interval)
        return self.make(self.batch[index])

    def __iter__(self) -> Iterator[Output]:
        due = time.perf_counter()
        for position, item in enumerate(self.batch):
            if position % ITEMS_PER_PIECE == 0 and (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
            due += self.interval
            yield self.make(item)
