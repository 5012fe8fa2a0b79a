"""A collector that answers 200 and keeps nothing.

A process of its own: within the load generator it would compete for the interpreter, and make latencies of its own.
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.projects import ROOT
from tests.servers.process import Process, free_port

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def sink(folder: Path) -> Iterator[str]:
    """Start one, with its log in the folder: its address."""
    port = free_port()
    command = [sys.executable, "-m", "bench.sink", str(port)]
    process = Process(command, cwd=ROOT, env=dict(os.environ), log=folder / "sink.log")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read requests with a Content-Length until the client leaves."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            await reader.readexactly(length)
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve(port: int) -> None:
    """Listen until the process ends."""
    async with await asyncio.start_server(take, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
