"""Alertmanager, the real one, and amtool beside it."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests import commands
from tests.servers import packages
from tests.servers.monitor import Monitor

PACKAGE = "prometheus-alertmanager"
SILENT = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}


def amtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run amtool; what it says of a fault is in its output."""
    return commands.run(packages.ensure("amtool", PACKAGE), *arguments)


class Alertmanager(Monitor):
    """One server, alone, with a configuration of its own; without one it tells nobody."""

    name = "Alertmanager"

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        super().__init__(config or SILENT)

    def command(self) -> Sequence[str | Path]:
        return [
            packages.ensure("prometheus-alertmanager", PACKAGE),
            f"--config.file={self.file}",
            f"--storage.path={self.home / 'data'}",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
        ]

    @property
    def version(self) -> str:
        return str(self.ask("/api/v2/status")["versionInfo"]["version"])

    def send(self, alerts: Sequence[Mapping[str, str]]) -> None:
        """Tell it, as Prometheus would, of alerts with these labels."""
        body = [{"labels": labels} for labels in alerts]
        httpx.post(f"http://{self.address}/api/v2/alerts", json=body, trust_env=False).raise_for_status()

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts it holds, with their receivers and whether they are quiet."""
        found: list[dict[str, Any]] = self.ask("/api/v2/alerts")
        return found
