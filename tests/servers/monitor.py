"""What the servers of Prometheus have in common: one YAML file, and a readiness of their own."""

from typing import Any

import httpx
import yaml

from tests.servers.server import Server


class Monitor(Server):
    """A server that is configured once."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.file = self.home / "config.yml"
        self.file.write_text(yaml.safe_dump(config))

    def answers(self) -> bool:
        """Whether it is ready to be asked."""
        try:
            return httpx.get(f"http://{self.address}/-/ready", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """The JSON that it answers, also where it refuses."""
        return httpx.get(f"http://{self.address}{path}", params=parameters, timeout=10, trust_env=False).json()
