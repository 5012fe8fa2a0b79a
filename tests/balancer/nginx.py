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
    "server-uploads.conf": f"location {UPLOADS} {{\n    client_max_body_size 16m;\n    proxy_pass http://service;\n}}\n",
}
# The folders for temporary files that are compiled in belong to the system's NGINX.
PATHS = "\n".join(f"{name}_temp_path {{home}}/{name};" for name in ("client_body", "fastcgi", "proxy", "scgi", "uwsgi"))
MAIN, MAPS = "deploy/nginx/nginx.conf", "deploy/nginx/maps.conf"
SERVICE = "deploy/nginx/service.conf"
PROBLEM, PROBLEMS = "deploy/nginx/problem.conf", "deploy/nginx/problems.conf"


class NginxBalancer(Balancer):
    """NGINX."""

    name = "NGINX"
    kind = "nginx"
    sabotages: ClassVar[Mapping[str, Sequence[Change]]] = {
        # --- edge
        "a_body_that_is_too_large_is_refused": [
            Line(MAIN, "client_max_body_size", "client_max_body_size 2m;"),
            Line(PROBLEMS, "error_page 404 413", "error_page 404 @problem;"),
        ],
        "a_body_without_a_length_is_refused_while_it_comes": [
            Line(MAIN, "client_max_body_size", "client_max_body_size 2m;")
        ],
        "a_client_may_not_have_all_connections": [
            Line(MAIN, "limit_conn connections"),
            Line(MAIN, "limit_conn_status"),
        ],
        "a_client_that_asks_too_often_is_slowed_down": [
            Line(MAIN, "limit_req zone"),
            Line(MAIN, "limit_req_status"),
            Line(PROBLEM, "add_header Retry-After"),
        ],
        "a_client_that_does_not_read_is_left": [Line(MAIN, "send_timeout")],
        "a_forged_address_never_reaches_the_service": [
            Line(SERVICE, "proxy_set_header Forwarded"),
            Line(SERVICE, "proxy_set_header X-Forwarded-For"),
            Line(SERVICE, "proxy_set_header X-Forwarded-Host"),
            Line(SERVICE, "proxy_set_header X-Forwarded-Proto"),
            Line(SERVICE, "proxy_set_header X-Real-IP"),
        ],
        "a_request_id_that_is_unsafe_in_logs_is_replaced": [
            Line(SERVICE, "proxy_set_header X-Request-ID"),
            Line(MAPS, '"~^[A-Za-z0-9._-]{8,128}$"', '"~.{8}" $http_x_request_id;'),
        ],
        "a_slow_client_costs_the_service_nothing": [
            Line(MAIN, "client_body_timeout"),
            Line(MAIN, "client_header_timeout"),
        ],
        "a_tls_session_is_resumed_without_a_ticket": [
            Line(MAIN, "ssl_session_cache"),
            Line(MAIN, "ssl_session_tickets"),
        ],
        "an_unknown_host_is_refused": [
            Line(MAIN, "return 421"),
            Line(MAIN, "return 444"),
            Line(MAIN, "ssl_reject_handshake", "ssl_certificate ../../site.pem; ssl_certificate_key ../../site.pem;"),
        ],
        "an_upgrade_to_anything_but_websockets_is_not_passed_on": [
            Line(MAPS, "GET:websocket", '"~^.*:(?:h2c|websocket)$" websocket;'),
            Line(SERVICE, "proxy_set_header Upgrade", "proxy_set_header Upgrade $http_upgrade;"),
            Line(SERVICE, "proxy_set_header Connection", "proxy_set_header Connection $http_connection;"),
        ],
        "headers_that_are_too_large_are_refused": [
            Line(MAIN, "large_client_header_buffers", "large_client_header_buffers 8 64k;"),
            Line(PROBLEMS, "error_page 400 414"),
            Line(PROBLEMS, "error_page 494"),
        ],
        "http2_is_spoken": [Line(MAIN, "http2")],
        "internal_paths_are_closed_to_the_outside": [
            Line(SERVICE, "return 404"),
            Line(MAPS, "include conf.d/inside"),
        ],
        "plain_http_is_sent_to_https": [Line(MAIN, "return 308", "return 301 https://$host/;")],
        "plain_http_on_the_tls_port_is_a_problem": [Line(PROBLEMS, "error_page 495")],
        "the_access_log_is_json_without_query_strings": [
            Line(MAIN, '\'{"time"', '\'{"method":"$request_method","host":"$server_name","path":"$request_uri",\''),
            Line(MAIN, "log_format", "log_format json"),
            Line(MAPS, '"~^[ -~]*$"', '"~." $uri;'),
            Line(MAPS, '"~^[0-9a-f-]{55}$"', '"~." $http_traceparent;'),
        ],
        "the_address_of_another_balancer_is_replaced_by_its_clients": [
            Line(MAIN, "real_ip_header"),
            Line(MAIN, "real_ip_recursive"),
        ],
        "the_server_does_not_say_its_version": [Line(MAIN, "server_tokens")],
        "the_service_gets_the_name_that_was_asked_for": [Line(SERVICE, "proxy_set_header Host")],
        "tls_is_that_of_mozillas_intermediate_configuration": [
            Line(MAIN, "ssl_ciphers"),
            Line(MAIN, "ssl_protocols", "ssl_protocols TLSv1.3;"),
        ],
        # --- peers
        "an_error_of_the_service_reaches_the_client_as_it_is": [
            Line(SERVICE, "proxy_next_upstream error", "proxy_next_upstream error timeout http_503;"),
            Line(SERVICE, "proxy_http_version", "proxy_intercept_errors on; error_page 503 =500 @problem;"),
        ],
        "an_idle_connection_survives_a_reload": [Line(MAIN, "keepalive_min_timeout")],
        "an_instance_that_does_not_accept_costs_little_time": [Line(SERVICE, "proxy_connect_timeout")],
        "an_instance_that_does_not_read_is_given_up": [Line(SERVICE, "proxy_send_timeout")],
        "an_instance_that_is_down_costs_no_request": [
            Line(SERVICE, "proxy_next_upstream error", "proxy_next_upstream off;")
        ],
        "an_instance_that_is_slow_gets_no_second_chance": [
            Line(SERVICE, "proxy_next_upstream_timeout"),
            Line(SERVICE, "proxy_read_timeout"),
        ],
        "an_upload_survives_a_reload": [Line(MAIN, "worker_shutdown_timeout", "worker_shutdown_timeout 100ms;")],
        "connections_to_the_service_are_used_again": [
            Line(MAIN, "keepalive 64", "keepalive 0;"),
            Line(SERVICE, "proxy_http_version", "proxy_http_version 1.0;"),
            Line(SERVICE, "proxy_set_header Connection", "proxy_set_header Connection close;"),
        ],
        "if_all_instances_are_down_the_client_gets_a_problem": [
            Line(PROBLEM, "add_header Cache-Control"),
            Line(PROBLEM, "add_header X-Request-ID"),
            Line(PROBLEM, "default_type"),
            Line(PROBLEMS, "error_page 404 413", "error_page 404 @problem;"),
        ],
        "no_request_is_lost_by_reloads": [Line(MAIN, "keepalive_min_timeout")],
        "no_request_meets_a_connection_that_is_being_closed": [Line(MAIN, "keepalive_timeout")],
        "requests_are_spread_over_the_instances": [Line(MAIN, "zone service", "hash $host;")],
        "what_may_have_been_executed_is_repeated_only_if_that_is_harmless": [
            Line(SERVICE, "proxy_next_upstream error", "proxy_next_upstream error timeout non_idempotent;"),
            Line(SERVICE, "proxy_next_upstream error", "proxy_next_upstream off;"),
            Line(SERVICE, "proxy_next_upstream_tries"),
        ],
        # --- caching
        "a_user_never_gets_and_never_leaves_a_copy": [
            Line(SERVICE, "proxy_cache_bypass", "proxy_cache_bypass $uncached $http_authorization;"),
            Line(SERVICE, "proxy_cache_bypass", "proxy_cache_bypass $uncached $http_cookie;"),
            Line(SERVICE, "proxy_no_cache", "proxy_no_cache $uncached $http_authorization;"),
            Line(SERVICE, "proxy_no_cache", "proxy_no_cache $uncached $http_cookie;"),
        ],
        "an_old_copy_is_revalidated": [Line(SERVICE, "proxy_cache_revalidate")],
        "large_responses_are_compressed": [
            Line(MAIN, "gzip on"),
            Line(MAIN, "gzip_min_length"),
            Line(MAIN, "gzip_proxied"),
            Line(MAIN, "gzip_types"),
            Line(MAIN, "gzip_vary"),
        ],
        "nobody_waits_for_a_new_copy": [Line(SERVICE, "proxy_cache_background_update")],
        "of_100_parallel_misses_one_reaches_the_service": [Line(SERVICE, "proxy_cache_lock")],
        "the_service_decides_what_is_cached": [
            Line(SERVICE, "proxy_cache cache"),
            Line(SERVICE, "proxy_cache_key", "proxy_cache_key $scheme$host$uri;"),
            Line(SERVICE, "proxy_cache_lock", "proxy_ignore_headers Cache-Control; proxy_cache_valid 1m;"),
        ],
        "what_is_not_listed_is_not_cached": [
            Line(SERVICE, "proxy_cache_bypass", "proxy_cache_bypass $http_authorization $http_cookie;"),
        ],
        "while_the_service_fails_an_old_copy_is_used": [
            Line(SERVICE, "proxy_cache_lock", "proxy_ignore_headers Cache-Control; proxy_cache_valid 1s;"),
        ],
        # --- services
        "a_websocket_stays_open_over_a_reload": [
            Line(MAIN, "worker_shutdown_timeout", "worker_shutdown_timeout 100ms;"),
            Line(MAPS, "GET:websocket"),
            Line(MAPS, "websocket upgrade"),
        ],
        "events_come_one_by_one": [
            Line(SERVICE, "proxy_http_version", "proxy_ignore_headers X-Accel-Buffering;"),
        ],
        "no_request_is_lost_if_an_instance_is_killed": [
            Line(SERVICE, "proxy_next_upstream error", "proxy_next_upstream off;")
        ],
        "the_security_headers_of_the_service_are_there_once": [
            Line(SERVICE, "proxy_http_version", "add_header Strict-Transport-Security max-age=1 always;"),
            Line(SERVICE, "proxy_set_header X-Forwarded-Proto"),
        ],
        "the_service_knows_who_asked_for_what": [
            Line(SERVICE, "proxy_set_header X-Forwarded-For"),
            Line(SERVICE, "proxy_set_header X-Forwarded-Proto"),
        ],
    }
    shortened: ClassVar[Mapping[str, str]] = {
        "client_body_timeout 15s;": "client_body_timeout 1s;",
        "client_header_timeout 10s;": "client_header_timeout 1s;",
        "keepalive_timeout 60s;": "keepalive_timeout 1s;",
        "proxy_connect_timeout 2s;": "proxy_connect_timeout 1s;",
        "proxy_next_upstream_timeout 5s;": "proxy_next_upstream_timeout 1500ms;",
        "proxy_read_timeout 30s;": "proxy_read_timeout 2s;",
        "proxy_send_timeout 30s;": "proxy_send_timeout 1s;",
        "send_timeout 15s;": "send_timeout 1s;",
    }

    def prepare(self) -> None:
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
        self.process.wait_until(lambda: bool(self.workers() - before), 10)
        # an old worker may accept connections until it gets its own signal
        self.process.wait_until(lambda: all("process is" in title(pid) for pid in before & self.workers()), 10)

    def lines(self) -> list[bytes]:
        file = self.home / "access.log"
        return file.read_bytes().splitlines() if file.exists() else []


def title(pid: int) -> str:
    """What a worker says of itself, such as `worker process is shutting down`, cut to the length of its path."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return "process is gone"
