"""What the servers of the kit share: a folder and a loopback port of their own, and how they start and end."""

import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import Self

from tests.servers.process import Process, ServerError, free_port, reachable, unprivileged


class Server:
    """One server: from `start` to `close`, or for the length of a `with`.

    `name` is what errors call it, `account` who runs it where it refuses root, `seconds` its time to start.
    """

    name = "the server"
    account = ""
    seconds = 30.0

    def __init__(self) -> None:
        prefix = f"{type(self).__name__.lower()}-"
        self._folder = tempfile.TemporaryDirectory(prefix=prefix, dir=reachable(), ignore_cleanup_errors=True)
        self.home = Path(self._folder.name)
        self.log = self.home / "server.log"
        self.port = free_port()
        self.user = unprivileged(self.account) if self.account else None
        self._process: Process | None = None
        if self.user:
            shutil.chown(self.home, self.user)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def command(self) -> Sequence[str | Path]:
        """What starts it."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str] | None:
        """Its variables; None for our own."""
        return None

    def answers(self) -> bool:
        """Whether it is ready to be asked."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        """The running server."""
        if self._process is None:
            raise ServerError(f"{self.name} was not started")
        return self._process

    def start(self) -> None:
        """Start, and return once it answers."""
        self._process = Process(self.command(), log=self.log, cwd=self.home, env=self.environment(), user=self.user)
        self._process.wait_until(self.answers, self.seconds)

    def stop(self) -> None:
        """Ask it to end."""
        self.process.stop()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def restart(self) -> None:
        """Start again, on the same port; stop first if it runs."""
        if self.process.running:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: clients connect and hear nothing."""
        self.process.pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self.process.resume()

    def close(self) -> None:
        """Stop it for good, and remove its folder."""
        if self._process and self._process.running:
            self.stop()
        self._folder.cleanup()


@contextmanager
def serving(server: TCPServer) -> Iterator[int]:
    """What is no program of its own serves from a thread, for the length of a `with`; the value is its port."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
