"""HAProxy with the emitted configuration."""

import grp
import os
import pwd
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests import commands
from tests.balancer.balancer import HOST, INSIDE, OUTER, UPLOADS, Balancer
from tests.projects import Change
from tests.sabotage import Line
from tests.servers import newer, packages

NAMES = ("one", "two", "three", "four")


def line(start: str, new: str = "") -> Line:
    """A sabotage of the emitted configuration."""
    return Line("deploy/haproxy/haproxy.cfg", start, new)


class HAProxyBalancer(Balancer):
    """HAProxy."""

    name = "HAProxy"
    kind = "haproxy"
    down: ClassVar[tuple[int, str]] = (503, "unavailable")
    lacks: ClassVar[Mapping[str, str]] = {
        "a_body_without_a_length_is_refused_while_it_comes": "the service refuses it",
        "an_old_copy_is_revalidated": "its cache asks for a whole new copy",
        "connections_to_the_service_are_used_again": "only by one client: a pool keeps them too long",
        "headers_that_are_too_large_are_refused": "with a page of its own, see test_haproxy",
        "nobody_waits_for_a_new_copy": "its cache has no stale-while-revalidate",
        "of_100_parallel_misses_one_reaches_the_service": "its cache has no lock",
        "plain_http_on_the_tls_port_is_a_problem": "it closes the connection without a response",
        "while_the_service_fails_an_old_copy_is_used": "its cache has no stale-if-error",
    }
    sabotages: ClassVar[Mapping[str, Sequence[Change]]] = {
        "a_body_that_is_too_large_is_refused": [
            line("http-request deny deny_status 413 if { req.body_size gt 1048576"),
            line('http-request deny deny_status 413 if { req.body_size gt "'),
            line("http-error status 413"),
        ],
        "a_client_may_not_have_all_connections": [line("http-request deny deny_status 429 if { sc_conn_cur(1)")],
        "a_client_that_asks_too_often_is_slowed_down": [
            line("http-request deny deny_status 429 if { sc_http_req_rate(1)"),
            line("http-error status 429"),
        ],
        "a_client_that_does_not_read_is_left": [line("timeout client", "timeout client 1h")],
        "a_forged_address_never_reaches_the_service": [
            line("http-request set-header X-Forwarded-For"),
            line("http-request set-header X-Forwarded-Proto"),
            line("http-request del-header Forwarded"),
            line("http-request del-header X-Forwarded-"),
            line("http-request del-header X-Real-IP"),
        ],
        "a_request_id_that_is_unsafe_in_logs_is_replaced": [
            line("http-request set-header X-Request-ID"),
            line("http-request set-var(txn.id) req", "http-request set-var(txn.id) req.fhdr(x-request-id)"),
        ],
        "a_slow_client_costs_the_service_nothing": [
            line("http-request wait-for-body"),
        ],
        "a_tls_session_is_resumed_without_a_ticket": [
            line("ssl-default-bind-options", "ssl-default-bind-options ssl-min-ver TLSv1.2")
        ],
        "a_user_never_gets_and_never_leaves_a_copy": [
            line("acl personal req.hdr(cookie)"),
            line("acl personal req.hdr(authorization)"),
        ],
        "an_error_of_the_service_reaches_the_client_as_it_is": [
            line("retry-on", "retry-on all-retryable-errors"),
        ],
        "an_idle_connection_survives_a_reload": [line("option idle-close-on-response")],
        "an_instance_that_does_not_accept_costs_little_time": [line("timeout connect", "timeout connect 1m")],
        "an_instance_that_does_not_read_is_given_up": [line("timeout server", "timeout server 1h")],
        "an_instance_that_is_slow_gets_no_second_chance": [
            line("timeout server", "timeout server 1h"),
            line("http-error status 504"),
            line("retry-on", "retry-on all-retryable-errors"),
        ],
        "an_unknown_host_is_refused": [
            line("http-request reject"),
            line("http-request return status 421"),
            line('bind "${LB_HTTPS}"', 'bind "${LB_HTTPS}" ssl crt "${LB_CERTIFICATES}"'),
        ],
        "an_upgrade_to_anything_but_websockets_is_not_passed_on": [
            line("http-request del-header Connection"),
            line("http-request del-header Upgrade"),
        ],
        "an_upload_survives_a_reload": [line("hard-stop-after", "hard-stop-after 1")],
        "a_websocket_stays_open_over_a_reload": [
            line("hard-stop-after", "hard-stop-after 100ms"),
            line("http-request del-header Upgrade", "http-request del-header Upgrade"),
            line("timeout tunnel", "timeout tunnel 100ms"),
        ],
        "http2_is_spoken": [
            line('bind "${LB_HTTPS}"', 'bind "${LB_HTTPS}" ssl crt "${LB_CERTIFICATES}" alpn http/1.1')
        ],
        "if_all_instances_are_down_the_client_gets_a_problem": [
            line("http-error status 503"),
            line("http-after-response set-header X-Request-ID"),
        ],
        "internal_paths_are_closed_to_the_outside": [
            line("http-request deny deny_status 404 if internal"),
            line("http-request deny deny_status 404 if { path,url_dec -m reg '/["),
            line("http-error status 404"),
        ],
        "large_responses_are_compressed": [
            line("compression algo"),
            line("compression minsize-res"),
            line("compression type", "compression type text/css"),
        ],
        "no_request_is_lost_by_reloads": [line("option idle-close-on-response")],
        "no_request_is_lost_if_an_instance_is_killed": [line("retry-on")],
        "no_request_meets_a_connection_that_is_being_closed": [
            line("http-reuse", "http-reuse always"),
        ],
        "plain_http_is_sent_to_https": [line("http-request redirect")],
        "requests_are_spread_over_the_instances": [line("balance roundrobin", "balance first")],
        "the_access_log_is_json_without_query_strings": [line("log-format", "option httplog")],
        "the_service_knows_who_asked_for_what": [line("http-request set-header X-Forwarded-For")],
        "the_address_of_another_balancer_is_replaced_by_its_clients": [
            line("http-request set-src req.hdr_ip(x-forwarded-for,-1)"),
            line("http-request set-src req.hdr_ip(x-forwarded-for,-2)"),
        ],
        "the_security_headers_of_the_service_are_there_once": [
            line("http-request set-header X-Forwarded-Proto"),
            line(
                "http-after-response set-header X-Content-Type-Options",
                "http-after-response add-header X-Content-Type-Options nosniff",
            ),
        ],
        "the_service_decides_what_is_cached": [
            line("http-request cache-use"),
            line("http-response cache-store", "http-response cache-store service"),
        ],
        "the_service_gets_the_name_that_was_asked_for": [line("http-request set-header Host")],
        "tls_is_that_of_mozillas_intermediate_configuration": [
            line("ssl-default-bind-ciphers", "ssl-default-bind-ciphers ALL"),
            line("ssl-default-bind-options", "ssl-default-bind-options ssl-min-ver TLSv1.3"),
        ],
        "what_may_have_been_executed_is_repeated_only_if_that_is_harmless": [
            line("http-request disable-l7-retry"),
            line("retries"),
            line("retry-on"),
            line("http-error status 502"),
        ],
    }
    shortened: ClassVar[Mapping[str, str]] = {
        "timeout client 30s": "timeout client 2s",
        "timeout connect 2s": "timeout connect 1s",
        "timeout http-keep-alive 65s": "timeout http-keep-alive 1s",
        "timeout http-request 10s": "timeout http-request 1s",
        "timeout server 30s": "timeout server 2s",
        "wait-for-body time 10s": "wait-for-body time 1s",
    }

    def prepare(self) -> None:
        """Write what a user writes into site.cfg."""
        settings = {
            "LB_CERTIFICATES": self.pem,
            "LB_GROUP": grp.getgrgid(os.getgid()).gr_name,
            "LB_HOSTS": HOST,
            "LB_HTTP": f"127.0.0.1:{self.plain}",
            "LB_HTTPS": self.address,
            "LB_INSIDE": INSIDE,
            "LB_OUTER": OUTER,
            "LB_RUN": self.home,
            "LB_UPLOADS": UPLOADS,
            "LB_UPLOAD_BYTES": 16 * 1_048_576,
            "LB_USER": pwd.getpwuid(os.getuid()).pw_name,
        }
        lines = "".join(f'    presetenv {name} "{value}"\n' for name, value in settings.items())
        (self.folder / "site.cfg").write_text(f"global\n{lines}")

    def write_peers(self, *ports: int) -> None:
        servers = "".join(f"    server {name} 127.0.0.1:{port}\n" for name, port in zip(NAMES, ports, strict=False))
        (self.folder / "conf.d/peers.cfg").write_text(f"backend service from instances\n{servers}")

    def files(self) -> list[str | Path]:
        """The arguments that name the configuration."""
        return [each for name in ("site.cfg", "haproxy.cfg", "conf.d") for each in ("-f", self.folder / name)]

    def command(self) -> list[str | Path]:
        return [newer.ensure("haproxy"), "-W", "-S", f"{self.home}/master.sock,mode,600", *self.files()]

    def check(self) -> str:
        done = commands.run(newer.ensure("haproxy"), "-c", *self.files())
        return done.stderr

    def say(self, command: str) -> str:
        """Send a command to the admin socket: what it answers."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.home / "admin.sock"))
            client.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: client.recv(65_536), b"")).decode()

    def reload(self) -> None:
        packages.ensure("socat", "socat")
        commands.must("sh", self.folder / "reload.sh", str(self.home))

    def lines(self) -> list[bytes]:
        return [text for text in self.log.read_bytes().splitlines() if text.startswith(b"{")]
