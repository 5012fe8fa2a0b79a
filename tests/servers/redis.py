"""Redis, or Valkey where it is there, on a loopback port; nothing is written to disk, so a restart begins empty."""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.servers import packages
from tests.servers.process import Process, ServerError, free_port

START_SECONDS = 20.0


class Redis:
    """One server. `settings` are those of redis.conf, such as `{"maxmemory": "2mb"}`."""

    scheme = "redis"

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self._settings = settings or {}
        self._folder = tempfile.TemporaryDirectory(prefix="redis-", ignore_cleanup_errors=True)
        self.log = Path(self._folder.name) / "server.log"
        self.port = free_port()
        self._process: Process | None = None

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
            raise ServerError("Redis was not started")
        return self._process

    @property
    def version(self) -> str:
        """What the server says that it is."""
        about: dict[str, Any] = self.client().info("server")
        return f"{about.get('server_name', 'redis')} {about.get('valkey_version') or about['redis_version']}"

    def url(self, login: str = "") -> str:
        """The address, with `user:password@` if need be."""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def client(self, login: str = "") -> Any:
        """A client of its own for a test."""
        return redis.Redis.from_url(self.url(login), socket_timeout=5)

    def start(self) -> None:
        """Start, and return once it answers."""
        name = "valkey-server" if packages.find("valkey-server") else "redis-server"
        program = packages.ensure(name, name).with_name(name)  # one program for all of its names
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "daemonize": "no", **self._settings}
        flags = [text for name, value in options.items() for text in (f"--{name}", value)]
        self._process = Process([program, *flags], log=self.log, cwd=Path(self._folder.name))
        self._process.wait_until(self.answers, START_SECONDS)

    def answers(self) -> bool:
        """Whether it speaks to clients, be it only to ask for a password."""
        try:
            return bool(self.client().ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
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
        """Leave no room: it refuses every write."""
        self.client().config_set("maxmemory", "1")

    def drain(self) -> None:
        """Make room again."""
        self.client().config_set("maxmemory", "0")

    def names(self) -> list[bytes]:
        """All keys."""
        found: list[bytes] = self.client().keys("*")
        return found

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value behind the back of everybody, for a minute."""
        self.client().set(key, value, ex=60)

    def value(self, key: bytes) -> bytes:
        """What a key holds."""
        found: bytes = self.client().get(key)
        return found

    def remove(self, key: bytes) -> None:
        """Throw a key out, as the server does under pressure."""
        self.client().delete(key)

    def flush(self) -> None:
        """Forget everything."""
        self.client().flushall()

    def close(self) -> None:
        """Stop it for good."""
        if self._process and self._process.running:
            self._process.stop()
        self._folder.cleanup()
