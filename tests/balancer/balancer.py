"""A balancer as it is emitted, run by the real server: only addresses, paths and its users' own values are replaced."""

import json
import re
import shutil
import socket
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import trustme

from tests.projects import Change
from tests.servers.process import free_port
from tests.servers.server import Server

HOST = "orders.test"  # the name that it serves
AUTHORITY = trustme.CA()
# What each kind is told in its user's own files, as far as it can do that:
CACHED = "/cached/"  # paths that begin so may be cached
INSIDE = "127.0.0.9"  # an address that may request the internal paths
OUTER = "127.0.0.8"  # the address of another load balancer in front of it
UPLOADS = "/uploads"  # a path that takes bodies of 16 MB


class Balancer(Server):
    """One balancer before instances of a service; `port` speaks TLS, `plain` does not.

    Args:
        project: The emitted service.
        peers: Ports of the instances.
        changes: Sabotages and edits of what is emitted below `deploy/`.
        own: Files of the user's own below `deploy/<balancer>/`, by name.
        hasty: Whether its times are shortened. A busy machine may need the usual ones.
    """

    kind: ClassVar[str]  # the answer to the question
    sabotages: ClassVar[Mapping[str, Sequence[Change]]]  # by scenario: each turns it red
    down: ClassVar[tuple[int, str]] = (502, "bad-gateway")  # how it responds without a healthy instance
    lacks: ClassVar[Mapping[str, str]] = {}  # scenarios that it cannot play, and why
    shortened: ClassVar[Mapping[str, str]] = {}  # shorter times in the emitted text, so that no test sits through them
    seconds = 10.0

    def __init__(
        self,
        project: Path,
        *peers: int,
        changes: Sequence[Change] = (),
        own: Mapping[str, str] | None = None,
        hasty: bool = False,
    ) -> None:
        super().__init__()
        self.home.chmod(0o755)  # it may run as another user
        self.plain = free_port()
        self.folder = self.home / "deploy" / self.kind
        shutil.copytree(project / "deploy" / self.kind, self.folder)
        for change in changes:
            change.apply(self.home)
        self.pem = self.home / "site.pem"  # certificates and key
        AUTHORITY.issue_cert(HOST, "localhost").private_key_and_cert_chain_pem.write_to_path(str(self.pem))
        for name, text in (own or {}).items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        self.write_peers(*peers)
        self.prepare()
        self.shorten(strict=not changes, times=self.shortened if hasty else {})

    @abstractmethod
    def prepare(self) -> None:
        """Replace addresses and paths."""

    def shorten(self, times: Mapping[str, str], *, strict: bool) -> None:
        """Replace times; with `strict` each of them has to be there once."""
        for old, new in times.items():
            found = 0
            for file in self.folder.glob("*.c*f*"):
                text, times_found = re.subn(rf"(?<![a-z_]){re.escape(old)}", new, file.read_text())
                file.write_text(text)
                found += times_found
            assert found == 1 or not strict, f"{old} is there {found} times"

    @abstractmethod
    def write_peers(self, *ports: int) -> None:
        """Replace the instances; a running balancer follows with `reload`."""

    @abstractmethod
    def reload(self) -> None:
        """Load the changed configuration, and return once new requests follow it."""

    @abstractmethod
    def check(self) -> str:
        """Let the server check its configuration: what it says, if it is not silent."""

    @abstractmethod
    def lines(self) -> list[bytes]:
        """The access log so far."""

    def entries(self) -> list[dict[str, Any]]:
        """The access log so far, parsed."""
        lines = self.lines()
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise AssertionError(f"{error}: {lines}") from error

    def entry(self, seconds: float = 5.0, **members: object) -> dict[str, Any]:
        """The entry with these members, as soon as it is there."""
        deadline = time.monotonic() + seconds
        while True:
            for each in self.entries():
                if members.items() <= each.items():
                    return each
            assert time.monotonic() < deadline, f"no entry has {members}: {self.entries()}"
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it listens."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True
