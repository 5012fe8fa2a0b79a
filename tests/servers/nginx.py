"""NGINX, the real one: what stands between clients and the service."""

import os
from pathlib import Path

import httpx

from tests import commands
from tests.servers import newer
from tests.servers.server import Server

# Paths below `home`, because the built-in ones belong to the system's NGINX.
MAIN = """
daemon off;
{user}
worker_processes 1;
pid {home}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    fastcgi_temp_path {home}/fastcgi;
    proxy_temp_path {home}/proxy;
    scgi_temp_path {home}/scgi;
    uwsgi_temp_path {home}/uwsgi;
    {http}
}}
"""


def shared_cache(port: int) -> str:
    """A cache that all clients share, before what listens on `port`; it keeps whatever nobody forbids."""
    return f"""
    proxy_cache_path HOME/cache keys_zone=shared:1m;
    server {{
        listen ADDRESS;
        location / {{
            proxy_pass http://127.0.0.1:{port};
            proxy_cache shared;
            proxy_cache_valid 200 1m;
            proxy_cache_revalidate on;
            proxy_ignore_headers Set-Cookie;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
    """


class Nginx(Server):
    """One server.

    Args:
        http: What stands in the block `http`; `ADDRESS` is where to listen, `HOME` a folder of its own.
    """

    name = "NGINX"
    seconds = 10.0

    def __init__(self, http: str) -> None:
        super().__init__()
        user = "user root;" if os.getuid() == 0 else ""  # its workers write into `home`
        self.file = self.home / "nginx.conf"
        http = http.replace("ADDRESS", self.address).replace("HOME", str(self.home))
        self.file.write_text(MAIN.format(user=user, home=self.home, http=http))

    def command(self) -> list[str | Path]:
        return [newer.ensure("nginx"), "-p", self.home, "-e", "stderr", "-c", self.file]

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def version(self) -> str:
        return commands.run(newer.ensure("nginx"), "-v").stderr.strip().rpartition("/")[2]

    def answers(self) -> bool:
        """Whether it listens; what it says is another matter."""
        try:
            httpx.get(self.url, timeout=2, trust_env=False)
        except httpx.TransportError:
            return False
        return True
