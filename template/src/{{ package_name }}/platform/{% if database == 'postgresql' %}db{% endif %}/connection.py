"""A connection of psycopg on which the wait for each response ends, and whose errors contain no values of rows."""

import asyncio
import os
import re
import socket
from contextlib import suppress
from typing import Any, TypeVar

from psycopg import AsyncConnection, Error
from psycopg.abc import PQGen

from .engine import PING_SECONDS

T = TypeVar("T")


class BoundedConnection(AsyncConnection[Any]):
    """Gives up a server that does not respond, and removes the values of rows from its errors."""

    seconds: float = PING_SECONDS

    async def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """Wait for a response, for at most `seconds`.

        Every statement, commit and rollback waits here. The socket is shut down, which also ends the wait in which
        psycopg, after a cancellation, waits for the server to end the statement.
        """
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self.seconds, self._give_up)
        try:
            return await super().wait(gen, *args, **options)
        except Error as error:
            if text := _without_values(error):
                error.args = (text,)
            elif loop.time() >= timer.when():
                error.args = (f"no response within {self.seconds:g} s",)
            raise
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(self.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)


def _without_values(error: Error) -> str:
    """The server's message without its details: they contain rows (`Failing row contains (…)`), as class 22 does."""
    text = error.diag.message_primary or ""
    return re.sub(r'".*"|: .*', "…", text, flags=re.S) if (error.sqlstate or "").startswith("22") else text
