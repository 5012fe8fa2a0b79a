# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False
"""A load test of a running service, for `make load`: the routes of ready.toml, and limits that decide the exit code.

A tenth of the requests write: each row is read and deleted again. So use a service whose database may have such rows.
"""

import sys
import time
import tomllib
import uuid
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from locust import HttpUser, between, events, task  # type: ignore[import-not-found]

FILE = Path("ready.toml")
try:
    CONFIG: dict[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
except tomllib.TOMLDecodeError as error:
    raise SystemExit(f"load: {FILE}: {error}") from None
READ, WRITE = (CONFIG.get("probe", {}).get(key) for key in ("read", "write"))
SECONDS = CONFIG.get("thresholds", {}).get("answer_seconds", 1.0)


class Client(HttpUser):
    """A client that pauses between its requests."""

    wait_time = between(0.05, 0.15)

    @task(9)
    def read(self) -> None:
        """Read what most clients read."""
        self.client.get(READ or "/version")

    @task(1)
    def write(self) -> None:
        """Create a row, read it and delete it."""
        if not WRITE:
            return
        marker = f"load-{uuid.uuid4().hex}"
        body = {key: marker if value == "{marker}" else value for key, value in WRITE["body"].items()}
        created = self.client.post(WRITE["path"], json=body, headers={"Idempotency-Key": marker})
        if created.ok:
            row = WRITE["row"].replace("{id}", str(created.json().get("id")))
            self.client.get(row, name=WRITE["row"])
            self.client.delete(row, name=WRITE["row"])


@events.init_command_line_parser.add_listener
def add_limits(parser: ArgumentParser) -> None:
    """Add the limits to the options of Locust."""
    parser.add_argument("--p95", type=float, default=SECONDS, help="seconds for 95 percent of the responses")
    parser.add_argument("--errors", type=float, default=0.01, help="share of requests that may fail, from 0 to 1")


@events.init.add_listener
def update_clock(**_: Any) -> None:
    """Let the event loop look at the clock: `--run-time` would count from before the imports, which take seconds."""
    time.sleep(0.01)


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Exit with 1 and one line per limit that was exceeded."""
    total, limits = environment.stats.total, environment.parsed_options
    p95 = (total.get_response_time_percentile(0.95) or 0) / 1000
    missed = ["no request was sent"] if not total.num_requests else []
    if p95 > limits.p95:
        missed.append(f"95 percent of the responses took up to {p95:.2f} s, the limit is {limits.p95:g} s")
    if total.fail_ratio > limits.errors:
        missed.append(f"{total.fail_ratio:.1%} of the requests failed, the limit is {limits.errors:.1%}")
    for line in missed:
        print(f"load: {line}", file=sys.stderr)
    environment.process_exit_code = 1 if missed else 0
