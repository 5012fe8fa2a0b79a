"""Redis, or Valkey where it is there, on a loopback port; nothing is written to disk, so a restart begins empty."""

from pathlib import Path
from typing import Any

import redis

from tests.servers import packages
from tests.servers.server import Server


class Redis(Server):
    """One server. `settings` are those of redis.conf, such as `{"maxmemory": "2mb"}`."""

    name = "Redis"
    scheme = "redis"

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        super().__init__()
        self._settings = settings or {}

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

    def command(self) -> list[str | Path]:
        name = "valkey-server" if packages.find("valkey-server") else "redis-server"
        program = packages.ensure(name, name).with_name(name)  # one program for all of its names
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "daemonize": "no", **self._settings}
        return [program, *(text for name, value in options.items() for text in (f"--{name}", value))]

    def answers(self) -> bool:
        """Whether it speaks to clients, be it only to ask for a password."""
        try:
            return bool(self.client().ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

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
