"""Clients of the gateway that never retry, and connect again only if they were told to: what is lost is seen."""

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.cluster.cluster import Cluster

PATH = "/v1/work"
PAUSE = 0.05  # seconds between two requests of a client
SECONDS = 35.0  # the longest silence: the gateway gives up after 30


@dataclass(frozen=True)
class Seen:
    """One request: when it ended, its status (0 if there was no response), and what answered."""

    at: float
    status: int
    said: str
    commit: str = ""
    release: str = ""


@dataclass
class Load:
    """What all clients have seen, oldest first."""

    seen: list[Seen] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def since(self, at: float) -> list[Seen]:
        """The requests that ended after a moment of `time.monotonic()`."""
        return [each for each in self.seen if each.at >= at]

    def errors(self, at: float = 0.0) -> list[Seen]:
        """Requests that a user saw fail."""
        return [each for each in self.since(at) if each.status != 200]

    def releases(self, at: float = 0.0) -> Counter[str]:
        """How often each release answered."""
        return Counter(each.release for each in self.since(at) if each.status == 200)

    def commits(self, at: float = 0.0) -> Counter[str]:
        """How often each image answered."""
        return Counter(each.commit for each in self.since(at) if each.status == 200)

    def lost_none(self) -> int:
        """Check that each request got its response: how many there were."""
        wrong = self.errors()
        assert not wrong, f"{len(wrong)} of {len(self.seen)} failed: {Counter((e.status, e.said) for e in wrong)}"
        assert len(self.seen) > 100, len(self.seen)
        return len(self.seen)

    def client(self, cluster: Cluster, host: str, path: str) -> None:
        """One client, until the end."""
        open_to: socket.socket | None = None
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tests\r\n\r\n".encode()
        while not self.over.is_set():
            try:
                open_to = open_to or socket.create_connection(cluster.gateway, SECONDS)
                open_to.sendall(request)
                answer = http.client.HTTPResponse(open_to)
                answer.begin()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.seen.append(Seen(time.monotonic(), 0, repr(error)))
                open_to = None
                time.sleep(PAUSE)
                continue
            about = json.loads(body) if answer.status == 200 else {}
            said = "" if answer.status == 200 else body[:80].decode(errors="replace")
            who = (about.get("commit", ""), about.get("release", ""))
            self.seen.append(Seen(time.monotonic(), answer.status, said, *who))
            if answer.will_close:
                open_to.close()
                open_to = None
            time.sleep(PAUSE)
        if open_to:
            open_to.close()


@contextmanager
def load(cluster: Cluster, host: str, path: str = PATH, clients: int = 8) -> Iterator[Load]:
    """Load the gateway for the length of a `with`."""
    made = Load()
    threads = [threading.Thread(target=made.client, args=(cluster, host, path), daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)  # of requests before anything happens
        yield made
        time.sleep(2)  # and after
    finally:
        made.over.set()
        for thread in threads:
            thread.join(SECONDS + 5)
