"""Runs blocking calls in daemon threads, so that a server that hangs blocks neither the event loop nor the exit.

The `Writer` does this for stdout, which blocks if nobody reads it.
"""

import asyncio
import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from io import UnsupportedOperation
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

MAX_WAITING_BYTES = 4 << 20
PAUSE_SECONDS = 0.01  # between two batches: under load, a thread that wakes for each line would slow down all requests
EXIT_SECONDS = 2  # for the last lines


async def in_thread(call: Callable[[], T], seconds: float | None = None) -> T:
    """Run a blocking call in a thread and wait for its result.

    Args:
        call: What to run.
        seconds: How long to wait; after that the thread continues and its result is ignored.

    Raises:
        TimeoutError: The call took longer.
        Exception: Whatever the call raises.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(future)


class Writer:
    """Writes lines to stdout, in order, in batches, at the latest when the process exits.

    If stdout is not read, lines wait; above MAX_WAITING_BYTES, and if stdout is closed, they are dropped and counted.

    Args:
        recovered: Called by the thread with the number of lost lines, once stdout is written again.
    """

    dropped = 0

    def __init__(self, recovered: Callable[[int], None]) -> None:
        self.recovered = recovered
        self.start()
        os.register_at_fork(after_in_child=self.start)
        atexit.register(self.flush)

    def start(self) -> None:
        """Start the thread, which a fork does not copy; lines that wait then are written by the parent process."""
        self.waiting: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self.size = 0
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, line: bytes) -> None:
        """Write a line soon; never blocks."""
        size = len(line)
        if self.size + size > MAX_WAITING_BYTES:
            self.dropped += 1
        else:
            self.size += size
            self.waiting.put(line)

    def flush(self) -> None:
        """Wait until all lines are written, at most EXIT_SECONDS."""
        done = threading.Event()
        self.waiting.put(done)
        done.wait(EXIT_SECONDS)

    def _run(self) -> None:
        reported = self.dropped
        while True:
            batch = [self.waiting.get()]
            batch += [self.waiting.get() for _ in range(self.waiting.qsize())]
            self.size = 0
            lines = [line for line in batch if isinstance(line, bytes)]
            try:
                _write(b"".join(lines))
            except (AttributeError, OSError, ValueError):  # closed, even before the start, or the disk is full
                self.dropped += len(lines)
            else:
                if self.dropped > reported and self.waiting.empty():
                    self.recovered(self.dropped - reported)
                    reported = self.dropped
            for done in batch:
                if isinstance(done, threading.Event):
                    done.set()
            time.sleep(PAUSE_SECONDS)


def _write(data: bytes) -> None:
    try:
        stdout = sys.stdout.fileno()
    except UnsupportedOperation:  # replaced, for example by a test or a notebook
        print(data.decode(), end="", flush=True)
        return
    while data:
        try:
            data = data[os.write(stdout, data) :]
        except BlockingIOError:  # another process made the pipe non-blocking
            time.sleep(PAUSE_SECONDS)
