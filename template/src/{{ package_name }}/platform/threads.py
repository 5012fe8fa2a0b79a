"""Runs blocking calls in threads that die with the process: a server that hangs stops neither the loop nor the exit."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T], seconds: float | None = None) -> T:
    """Wait for a blocking call.

    Args:
        call: What to run.
        seconds: How long to wait; then the thread continues without anybody who waits.

    Raises:
        TimeoutError: The call takes longer.
        Exception: What it raises itself.
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
