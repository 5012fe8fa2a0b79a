"""NGINX with the emitted configuration."""

import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests import commands
from tests.balancer.balancer import CACHED, HOST, INSIDE, OUTER, UPLOADS, Balancer
from tests.projects import Change
from tests.sabotage import Line
from tests.servers import newer
from tests.servers.process import descendants

SITE = """
server_name {host};
ssl_certificate {pem};
ssl_certificate_key {pem};
set_real_ip_from {outer};
"""
OWN = {
    "cached.conf": f"~^{CACHED} 0;\n",
    "inside.conf": f"{INSIDE} 1;\n",
    "server-uploads.conf": f"location {UPLOADS} {{\n    client_max_body_size 2m;\n    proxy_pass http://service;\n}}\n",
}
# The folders for temporary files that are compiled in belong to the system's NGINX.
PATHS = "\n".join(f"{name}_temp_path {{home}}/{name};" for name in ("client_body", "fastcgi", "proxy", "scgi", "uwsgi"))
MAIN, MAPS = "deploy/nginx/nginx.conf", "deploy/nginx/maps.conf"
SERVICE, PROBLEMS = "deploy/nginx/service.conf", "deploy/nginx/problems.conf"


class NginxBalancer(Balancer):
    """NGINX."""

    name = "NGINX"
    kind = "nginx"
    sabotages: ClassVar[Mapping[str, Sequence[Change]]] = {
        "a_forged_address_never_reaches_the_service": [Line(SERVICE, "proxy_set_header X-Forwarded-For")],
        "a_request_id_that_is_unsafe_in_logs_is_replaced": [Line(SERVICE, "proxy_set_header X-Request-ID")],
    }
    hasty: ClassVar[Mapping[str, str]] = {
        "client_body_timeout 15s;": "client_body_timeout 1s;",
        "client_header_timeout 10s;": "client_header_timeout 1s;",
        "proxy_connect_timeout 2s;": "proxy_connect_timeout 1s;",
        "proxy_read_timeout 30s;": "proxy_read_timeout 2s;",
        "send_timeout 15s;": "send_timeout 1s;",
    }

    def prepare(self, *, strict: bool) -> None:
        """Write what a user writes into conf.d/, and put ports and folders of our own into the rest."""
        own = self.folder / "conf.d"
        (own / "site.conf").write_text(SITE.format(host=HOST, pem=self.pem, outer=OUTER))
        for name, text in OWN.items():
            (own / name).write_text(text)
        (own / "http-paths.conf").write_text(PATHS.format(home=self.home))
        for file in self.folder.glob("*.conf"):
            text = file.read_text()
            text = re.sub(r"\blisten 443\b", f"listen {self.address}", text)
            text = re.sub(r"\blisten 80\b", f"listen 127.0.0.1:{self.plain}", text)
            text = re.sub(r"/var/(cache|log)/nginx", str(self.home), text)
            file.write_text(text)
        files = {file: file.read_text() for file in self.folder.glob("*.conf")}
        for old, new in self.hasty.items():
            holders = [file for file, text in files.items() if f" {old}" in text or f"\n{old}" in text]
            assert len(holders) == 1 or not strict, f"{old} is not in the configuration"
            for file in holders:
                files[file] = re.sub(rf"(?<![a-z_]){re.escape(old)}", new, files[file])
        for file, text in files.items():
            file.write_text(text)

    def write_peers(self, *ports: int) -> None:
        lines = "".join(f"server 127.0.0.1:{port} max_fails=0;\n" for port in ports)
        (self.folder / "conf.d/peers.conf").write_text(lines)

    def command(self) -> list[str | Path]:
        user = " user root;" if os.getuid() == 0 else ""  # its workers write into `home`
        settings = f"daemon off; pid {self.home}/nginx.pid;{user}"
        file = self.folder / "nginx.conf"
        return [newer.ensure("nginx"), "-p", self.home, "-e", "stderr", "-c", file, "-g", settings]

    def check(self) -> str:
        return commands.run(*self.command(), "-t").stderr

    def workers(self) -> set[int]:
        """Its worker processes."""
        return descendants(self.process.pid)

    def reload(self) -> None:
        before = self.workers()
        os.kill(self.process.pid, signal.SIGHUP)
        self.process.wait_until(lambda: bool(self.workers() - before) and self.answers(), 10)

    def lines(self) -> list[str]:
        file = self.home / "access.log"
        return file.read_text().splitlines() if file.exists() else []
