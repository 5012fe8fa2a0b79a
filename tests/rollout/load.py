"""Clients that never retry, and connect again only if they were told to: what is lost is seen."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException

from tests.balancer.client import Client, context

PAUSE = 0.04  # seconds between two requests of a client: below the limit of an address


@dataclass
class Load:
    """What all clients have seen.

    Args:
        lost: Requests without a response.
        statuses: How often each status came.
        versions: How often each version answered.
    """

    port: int
    path: str
    lost: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    done: threading.Event = field(default_factory=threading.Event)
    paused: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Count anew."""
        with self.lock:
            for each in (self.statuses, self.versions, self.methods, self.lost):
                each.clear()

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.statuses.values()) + len(self.lost)

    @property
    def errors(self) -> int:
        """Requests that a user saw fail."""
        return len(self.lost) + sum(count for status, count in self.statuses.items() if status != 200)

    def wait_for(self, requests: int, seconds: float = 60) -> None:
        """Wait until there were so many since the last reset."""
        deadline = time.monotonic() + seconds
        while self.total < requests:
            assert time.monotonic() < deadline, f"{self.total} requests in {seconds} s"
            time.sleep(0.05)

    def client(self, number: int) -> None:
        """One client, until the end."""
        client: Client | None = None
        tls = context()
        count = number  # half of them begin with a POST
        while not self.done.is_set():
            if self.paused.is_set():
                time.sleep(PAUSE)
                continue
            method = ("GET", "POST")[count % 2]
            try:
                client = client or Client(self.port, tls=tls, source=f"127.0.1.{1 + number}", seconds=20)
                answer = client.request(method, self.path, body=b"x" * (method == "POST"))
            except (OSError, HTTPException) as error:
                with self.lock:
                    self.lost.append(f"{method}: {error!r}")
                client = None
                continue
            version = ""
            if answer.status == 200:
                version = json.loads(answer.body)["version"]
            with self.lock:
                self.statuses[answer.status] += 1
                self.versions[version] += 1
                self.methods[method] += 1
            if answer.headers["connection"] == "close":
                client.socket.close()
                client = None
            count += 1
            time.sleep(PAUSE)
        if client:
            client.socket.close()


@contextmanager
def load(port: int, path: str = "/trial", clients: int = 6) -> Iterator[Load]:
    """Load a balancer for the length of a `with`."""
    made = Load(port, path)
    threads = [threading.Thread(target=made.client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)  # of requests before anything happens
        yield made
        time.sleep(0.5)  # and after
    finally:
        made.done.set()
        for thread in threads:
            thread.join(25)
