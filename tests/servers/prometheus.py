"""Prometheus, the real one, and promtool beside it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests import commands
from tests.servers import packages
from tests.servers.monitor import Monitor

PACKAGE = "prometheus"


def promtool(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool; `text` is what it reads, and what it says of a fault is in its output."""
    return commands.run(packages.ensure("promtool", PACKAGE), *arguments, text=text)


class Prometheus(Monitor):
    """One server with a configuration such as `{"scrape_configs": […]}`; without one it scrapes nobody."""

    name = "Prometheus"

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        super().__init__(config or {})

    def command(self) -> Sequence[str | Path]:
        return [
            packages.ensure("prometheus", PACKAGE),
            f"--config.file={self.file}",
            f"--storage.tsdb.path={self.home / 'data'}",
            f"--web.listen-address={self.address}",
        ]

    @property
    def version(self) -> str:
        return str(self.ask("/api/v1/status/buildinfo")["data"]["version"])

    def refusal(self, expression: str) -> str:
        """What its parser says against an expression; empty if nothing."""
        return str(self.ask("/api/v1/query", query=expression).get("error", ""))

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an expression now: series with `metric` and `value`."""
        result: list[dict[str, Any]] = self.ask("/api/v1/query", query=expression)["data"]["result"]
        return result
