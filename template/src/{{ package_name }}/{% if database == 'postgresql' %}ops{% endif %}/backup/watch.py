"""Gives up a database that hangs: its connections stay open, so no time-out of TCP ends the wait for it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

from .errors import BackupError

CHECK_SECONDS = 10
HUNG_SECONDS = 60


@contextmanager
def watched(options: Mapping[str, Any], give_up: Callable[[], object]) -> Iterator[None]:
    """Check that the server accepts connections while something waits for it.

    A statement may take hours, so its time says nothing.

    Args:
        options: How to connect, with a `connect_timeout`.
        give_up: Called in a thread if no connection was possible for a minute: it has to end the wait.

    Raises:
        BackupError: The server did not respond.
    """
    done, hung = threading.Event(), threading.Event()

    def check() -> None:
        since = time.monotonic()
        while not done.wait(CHECK_SECONDS):
            if _responds(options):
                since = time.monotonic()
            elif time.monotonic() > since + HUNG_SECONDS and not done.is_set():
                hung.set()
                give_up()
                return

    threading.Thread(target=check, daemon=True).start()
    try:
        yield
    except Exception:
        if hung.is_set():
            raise BackupError(f"the database has not responded for {HUNG_SECONDS} s: check the server") from None
        raise
    finally:
        done.set()


def _responds(options: Mapping[str, Any]) -> bool:
    try:
        psycopg.connect(**options).close()
    except psycopg.errors.ConnectionTimeout:
        return False
    except psycopg.Error:
        pass  # it refuses, so it responds; if it is down, what waits for it notices by itself
    return True
