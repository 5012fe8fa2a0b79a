"""What stands at both ends of an alert: an exporter that Prometheus scrapes, and a webhook that Alertmanager calls."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COUNT = "http_server_request_duration_seconds_count"
PER_SECOND = 200


@contextmanager
def answering(answer: Callable[[bytes], str]) -> Iterator[str]:
    """Serve what `answer` makes of a body, at the address that this gives."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = answer(self.rfile.read(int(self.headers.get("Content-Length", 0)))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def exporter(failing: float) -> Callable[[bytes], str]:
    """Metrics of an instance that has requests from now on, of which a share fails."""
    begun = time.monotonic()

    def metrics(_: bytes) -> str:
        total = (time.monotonic() - begun) * PER_SECOND
        return (
            f'{COUNT}{{http_response_status_code="200"}} {total * (1 - failing):.0f}\n'
            f'{COUNT}{{http_response_status_code="500"}} {total * failing:.0f}\n'
            "process_cpu_time_seconds_total 1\n"
        )

    return metrics


class Webhook:
    """Keeps what Alertmanager said, by receiver: the last part of the path does not matter."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, body: bytes) -> str:
        self.calls.append(json.loads(body))
        return "heard"

    def heard(self, receiver: str, **labels: str) -> dict[str, dict[str, Any]]:
        """The alerts with these labels that a receiver was told of, by name."""
        calls = [call for call in list(self.calls) if call["receiver"] == receiver]
        alerts = [alert for call in calls for alert in call["alerts"] if labels.items() <= alert["labels"].items()]
        return {alert["labels"]["alertname"]: alert for alert in alerts}
