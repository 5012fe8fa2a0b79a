"""The database of known vulnerabilities, on a loopback port: OSV's API as far as `uv audit` uses it.

Its two answers are those of https://google.github.io/osv.dev/api/: `POST /v1/querybatch` names the vulnerabilities of
each package, `GET /v1/vulns/{id}` describes one. What is known here is what a test says.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers.server import serving

MODIFIED = "2026-11-01T00:00:00Z"


@dataclass
class Osv:
    """The database.

    Args:
        url: Where it answers.
        known: The id of a vulnerability by the name of the package that has it, in all versions.
        asked: Which packages were looked up.
    """

    url: str
    known: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def batch(self, queries: list[dict[str, Any]]) -> dict[str, Any]:
        """Which vulnerabilities each package has."""
        names = [query["package"]["name"] for query in queries]
        self.asked += names
        found = ([{"id": self.known[name], "modified": MODIFIED}] if name in self.known else [] for name in names)
        return {"results": [{"vulns": vulns} if vulns else {} for vulns in found]}

    def describe(self, identifier: str) -> dict[str, Any] | None:
        """What is known about one of them."""
        for name, known in self.known.items():
            if known == identifier:
                ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9999"}]}]
                affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
                summary = f"{name} runs what a request says"
                return {"id": known, "modified": MODIFIED, "summary": summary, "affected": affected}
        return None


@contextmanager
def open_osv() -> Iterator[Osv]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("content-length", 0))
            assert self.path == "/v1/querybatch", self.path
            self.answer(osv.batch(json.loads(self.rfile.read(size))["queries"]))

        def do_GET(self) -> None:
            self.answer(osv.describe(self.path.removeprefix("/v1/vulns/")))

        def answer(self, found: dict[str, Any] | None) -> None:
            body = json.dumps(found or {"code": 5, "message": "Bug not found."}).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    osv = Osv(f"http://127.0.0.1:{server.server_port}")
    with serving(server):
        yield osv
