"""A small instance for faults of which the service is no part: its version says how it behaves."""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = os.environ["GIT_COMMIT"]
served = 0


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer as the version does."""
        global served
        status, said = 200, {"status": "ready"}
        if self.path == "/version":
            said = {"version": "9.9.9" if VERSION.startswith("wrong") else VERSION, "commit": "unknown"}
        elif self.path not in ("/readyz", "/livez"):
            served += 1
            said = {"version": VERSION}
            time.sleep(0.02)  # so that to kill it hurts
            if VERSION.startswith("fails"):
                status = 500
            if VERSION.startswith("slow"):
                time.sleep(0.8)
            if VERSION.startswith("dies") and served > 3:
                os._exit(1)
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """The same, after its body."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


if VERSION.startswith("never"):
    sys.exit("it does not start")
ThreadingHTTPServer.request_queue_size = 100
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
threading.stack_size(256 * 1024)
server.serve_forever()
