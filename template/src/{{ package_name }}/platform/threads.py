"""Runs blocking calls in daemon threads, so that a hanging server blocks neither the event loop nor the exit."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


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
