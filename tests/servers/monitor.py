"""What the servers of Prometheus have in common: one YAML file, one loopback port, one folder that goes with them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.servers.process import Process, free_port

START_SECONDS = 30.0


class Monitor:
    """A server that is configured once and runs for the length of a `with`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="monitor-", ignore_cleanup_errors=True)
        self.home = Path(self._folder.name)
        self.file = self.home / "config.yml"
        self.file.write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{free_port()}"
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self._process = Process(self.command(), log=self.home / "server.log", cwd=self.home)
        self._process.wait_until(self.answers, START_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._process:
            self._process.stop()
        self._folder.cleanup()

    def command(self) -> Sequence[str | Path]:
        """What starts it, with `home`, `file` and `address`."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it is ready to be asked."""
        try:
            return httpx.get(f"http://{self.address}/-/ready", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """The JSON that it answers, also where it refuses."""
        return httpx.get(f"http://{self.address}{path}", params=parameters, timeout=10, trust_env=False).json()
