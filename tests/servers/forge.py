"""The checks of a repository at a forge, on a loopback port: GitHub's public API as far as `ready` asks it.

The answer has the fields and the order of
https://docs.github.com/en/rest/checks/runs#list-check-runs-for-a-git-reference. What ran is what a test says; without
the token of a test, GitHub's answer for a private repository.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers.server import serving

TOKEN = "t0ken-of-the-forge"


@dataclass
class Forge:
    """One repository.

    Args:
        url: Of its API.
        runs: The conclusion of each job that ran, by commit and name; None while it runs.
    """

    url: str
    runs: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def check_runs(self, commit: str, name: str) -> dict[str, Any]:
        """What ran for a commit under a name."""
        found = [
            {
                "id": number,
                "name": job,
                "head_sha": of,
                "status": "completed" if conclusion else "in_progress",
                "conclusion": conclusion,
            }
            for number, ((of, job), conclusion) in enumerate(self.runs.items(), 1)
            if (of, job) == (commit, name)
        ]
        return {"total_count": len(found), "check_runs": found}


@contextmanager
def open_forge() -> Iterator[Forge]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            *_, commits, commit, what = url.path.split("/")
            known = (commits, what) == ("commits", "check-runs")
            if not known or self.headers.get("authorization") != f"Bearer {TOKEN}":
                return self.answer(404, {"message": "Not Found", "status": "404"})
            return self.answer(200, forge.check_runs(commit, parse_qs(url.query)["check_name"][0]))

        def answer(self, status: int, found: dict[str, Any]) -> None:
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    forge = Forge(f"http://127.0.0.1:{server.server_port}/repos/acme/orders")
    with serving(server):
        yield forge
