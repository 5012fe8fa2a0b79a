"""Memcached on a loopback port; `login` protects it with a user and a password."""

import contextlib
import re
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from tests.servers import packages
from tests.servers.process import Process, ServerError, free_port, reachable, unprivileged

START_SECONDS = 20.0


class Memcached:
    """One server. `options` are those of memcached(1); it never evicts, so that it can be full."""

    scheme = "memcached"

    def __init__(self, *options: str, login: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="memcached-", dir=reachable(), ignore_cleanup_errors=True)
        self.log = Path(self._folder.name) / "server.log"
        self.port = free_port()
        self._options = list(options)
        self._user = unprivileged("memcache")
        self._process: Process | None = None
        if login:
            Path(self._folder.name).chmod(0o755)
            file = Path(self._folder.name) / "login"
            file.write_text(login + "\n")
            file.chmod(0o644)
            self._options += ["-Y", str(file)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def process(self) -> Process:
        """The running server."""
        if self._process is None:
            raise ServerError("Memcached was not started")
        return self._process

    @property
    def version(self) -> str:
        """What the server says that it is."""
        return self.say("version").decode().removeprefix("VERSION").strip()

    def url(self, login: str = "") -> str:
        """The address, with `user:password@` if need be."""
        return f"memcached://{login}127.0.0.1:{self.port}"

    def say(self, command: str, data: bytes | None = None, end: bytes = b"\r\n") -> bytes:
        """Send a command of the ASCII protocol (github.com/memcached/memcached, doc/protocol.txt): what comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(command.encode() + b"\r\n" + (data + b"\r\n" if data is not None else b""))
            answer = b""
            while not answer.endswith(end):
                if not (chunk := connection.recv(65_536)):
                    break
                answer += chunk
            return answer

    def start(self) -> None:
        """Start, and return once it answers."""
        program = packages.ensure("memcached", "memcached")
        command: list[str | Path] = [
            program,
            "-l",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "0",
            "-M",
            "-m",
            "2",
            "-f",
            "10",
        ]
        self._process = Process([*command, *self._options], log=self.log, user=self._user)
        self._process.wait_until(self.answers, START_SECONDS)

    def answers(self) -> bool:
        """Whether it speaks to clients."""
        with contextlib.suppress(OSError):
            return bool(self.say("version"))
        return False

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def restart(self) -> None:
        """Start again on the same port, empty; stop first if it runs."""
        if self.process.running:
            self.process.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: clients connect and hear nothing."""
        self.process.pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self.process.resume()

    def fill(self) -> None:
        """Leave no room: it refuses every write of up to 5 kB. Each size of slab has a page of its own to fill."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            answers = connection.makefile("rb")
            for size in (1, 300, 5_000):
                answer, batch = b"STORED", 0
                while answer.startswith(b"STORED"):
                    batch += 1
                    sets = [f"set fill-{size}-{batch}-{n} 0 0 {size}\r\n{'x' * size}\r\n" for n in range(200)]
                    connection.sendall("".join(sets).encode())
                    answer = [answers.readline() for _ in sets][-1]

    def drain(self) -> None:
        """Make room again."""
        self.flush()

    def names(self) -> list[bytes]:
        """All keys."""
        dump = self.say("lru_crawler metadump all", end=b"END\r\n")
        return [unquote(key).encode() for key in re.findall(r"^key=(\S+)", dump.decode(), re.M)]

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value behind the back of everybody, for a minute."""
        assert self.say(f"set {key.decode()} 0 60 {len(value)}", value) == b"STORED\r\n"

    def value(self, key: bytes) -> bytes:
        """What a key holds."""
        return self.say(f"get {key.decode()}", end=b"END\r\n").partition(b"\r\n")[2].removesuffix(b"\r\nEND\r\n")

    def remove(self, key: bytes) -> None:
        """Throw a key out, as the server does under pressure."""
        self.say(f"delete {key.decode()}")

    def flush(self) -> None:
        """Forget everything."""
        self.say("flush_all")

    def close(self) -> None:
        """Stop it for good."""
        if self._process and self._process.running:
            self._process.stop()
        self._folder.cleanup()
