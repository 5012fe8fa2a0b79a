"""A proxy that ends TLS before a service, as a balancer does: bytes go through, one header is added."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

from tests.servers.server import serving


@contextmanager
def proxied(port: int, folder: Path, least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> Iterator[tuple[str, Path]]:
    """Serve what listens on `port` at an https address; the second value is the file of its authority."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = least
    if least < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            service = HTTPConnection("127.0.0.1", port, timeout=10)
            headers = {**self.headers, "X-Forwarded-Proto": "https"}
            service.request(self.command, self.path, body, headers)
            answer = service.getresponse()
            content = answer.read()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_DELETE = do_GET = do_POST = forward

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as own:
        yield f"https://127.0.0.1:{own}", folder / "authority.pem"
