"""Prometheus, the real one, on a loopback port, and promtool beside it."""

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.servers import packages
from tests.servers.process import Process, free_port

PACKAGE = "prometheus"
START_SECONDS = 30.0


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool; what it says of a fault is in its output."""
    tool = packages.ensure("promtool", PACKAGE)
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)


class Prometheus:
    """One server with a configuration of its own, such as `{"scrape_configs": […]}`."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="prometheus-", ignore_cleanup_errors=True)
        self.home = Path(self._folder.name)
        self.log = self.home / "server.log"
        self.url = f"http://127.0.0.1:{free_port()}"
        (self.home / "prometheus.yml").write_text(yaml.safe_dump(config or {}))
        self._client = httpx.Client(base_url=self.url, timeout=10, trust_env=False)
        self._process: Process | None = None

    def __enter__(self) -> Self:
        command: list[str | Path] = [
            packages.ensure("prometheus", PACKAGE),
            f"--config.file={self.home / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.home / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        self._process = Process(command, log=self.log, cwd=self.home)
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
        self._client.close()
        self._folder.cleanup()

    @property
    def version(self) -> str:
        version: str = self._client.get("/api/v1/status/buildinfo").json()["data"]["version"]
        return version

    def answers(self) -> bool:
        """Whether it is ready to be asked."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def refusal(self, expression: str) -> str:
        """What its parser says against an expression; empty if nothing."""
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        return str(answer.get("error", ""))

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an expression now: series with `metric` and `value`."""
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result
