"""Alertmanager, the real one, on a loopback port, and amtool beside it."""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.servers import packages
from tests.servers.process import Process, free_port

PACKAGE = "prometheus-alertmanager"
START_SECONDS = 30.0


def amtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run amtool; what it says of a fault is in its output."""
    tool = packages.ensure("amtool", PACKAGE)
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)


class Alertmanager:
    """One server, alone, with a configuration of its own."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="alertmanager-", ignore_cleanup_errors=True)
        self.home = Path(self._folder.name)
        self.log = self.home / "server.log"
        self.port = free_port()
        (self.home / "alertmanager.yml").write_text(yaml.safe_dump(config))
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False)
        self._process: Process | None = None

    def __enter__(self) -> Self:
        command: list[str | Path] = [
            packages.ensure("prometheus-alertmanager", PACKAGE),
            f"--config.file={self.home / 'alertmanager.yml'}",
            f"--storage.path={self.home / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
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
        version: str = self._client.get("/api/v2/status").json()["versionInfo"]["version"]
        return version

    def answers(self) -> bool:
        """Whether it is ready to be told."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def send(self, alerts: Sequence[Mapping[str, str]]) -> None:
        """Tell it, as Prometheus would, of alerts with these labels."""
        self._client.post("/api/v2/alerts", json=[{"labels": labels} for labels in alerts]).raise_for_status()

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts it holds, with their receivers and whether they are quiet."""
        found: list[dict[str, Any]] = self._client.get("/api/v2/alerts").json()
        return found
