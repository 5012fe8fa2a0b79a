"""Memcached on a loopback port; `login` protects it with a user and a password."""

import contextlib
import re
import socket
from pathlib import Path
from urllib.parse import unquote

from tests.servers import packages
from tests.servers.server import Server


class Memcached(Server):
    """One server. `options` are those of memcached(1); it never evicts, so that it can be full."""

    name = "Memcached"
    account = "memcache"
    scheme = "memcached"

    def __init__(self, *options: str, login: str = "") -> None:
        super().__init__()
        self._options = list(options)
        if login:
            file = self.home / "login"
            file.write_text(login + "\n")
            file.chmod(0o644)
            self._options += ["-Y", str(file)]

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

    def command(self) -> list[str | Path]:
        options = f"-l 127.0.0.1 -p {self.port} -U 0 -M -m 2 -f 10".split()
        return [packages.ensure("memcached", "memcached"), *options, *self._options]

    def answers(self) -> bool:
        """Whether it speaks to clients."""
        with contextlib.suppress(OSError):
            return bool(self.say("version"))
        return False

    def stop(self) -> None:
        """End it at once: it has nothing to lose, and takes a second to heed SIGTERM."""
        self.kill()

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
