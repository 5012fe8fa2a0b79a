"""HAProxy, the real one: another balancer between clients and the service."""

import httpx

from tests import commands
from tests.servers import newer
from tests.servers.server import Server

MAIN = """
global
    maxconn 256
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend all
    bind ADDRESS
    default_backend service
backend service
"""


class HAProxy(Server):
    """One server.

    Args:
        backend: What stands in the only backend.
    """

    name = "HAProxy"
    seconds = 10.0

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.file = self.home / "haproxy.cfg"
        self.file.write_text(MAIN.replace("ADDRESS", self.address) + f"    {backend}\n")

    def command(self) -> list[str]:
        return [str(newer.ensure("haproxy")), "-db", "-f", str(self.file)]

    @property
    def version(self) -> str:
        return commands.run(newer.ensure("haproxy"), "-v").stdout.split()[2]

    def answers(self) -> bool:
        """Whether it listens; what it says is another matter."""
        try:
            httpx.get(f"http://{self.address}", timeout=2, trust_env=False)
        except httpx.TransportError:
            return False
        return True
