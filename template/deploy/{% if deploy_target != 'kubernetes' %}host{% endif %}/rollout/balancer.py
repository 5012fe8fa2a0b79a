"""What a release asks of a load balancer; nginx.py or haproxy.py does it."""

import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from . import CannotLook
from .config import Config, Table
from .peers import Format, PeersFile, Weights

COMMAND_SECONDS = 30


@dataclass(frozen=True)
class Totals:
    """What the load balancer has counted.

    Args:
        requests: Responses, and requests that got none.
        errors: Those of them that failed.
        seconds: The sum of the response times.
    """

    requests: int = 0
    errors: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.requests + other.requests, self.errors + other.errors, self.seconds + other.seconds)

    @property
    def error_percent(self) -> float:
        """Of the responses."""
        return 100 * self.errors / self.requests if self.requests else 0.0

    @property
    def mean_ms(self) -> float:
        """Of the response times."""
        return max(0.0, 1000 * self.seconds / self.requests) if self.requests else 0.0


class Balancer(Protocol):
    """A load balancer on this host."""

    peers: PeersFile
    form: Format

    def check(self, weights: Weights) -> None:
        """Check that it runs, can be observed, and would load its configuration with these weights."""

    def set(self, weights: Weights) -> None:
        """Send new requests to where these weights say, now and after a crash."""

    def restore(self, weights: Weights) -> None:
        """The same for the way back: also if the disk is full."""

    def usable(self, address: str) -> bool:
        """Whether the balancer itself would send requests to an instance, as far as it checks that."""

    def settled(self, address: str) -> bool:
        """Whether no request can reach an instance any more that was taken out."""

    def count(self) -> Mapping[str, Totals]:
        """What was counted since the last call, by address."""

    def admit(self, address: str, cookie: str) -> None:
        """Send those with the cookie `release` to one instance."""

    def dismiss(self) -> None:
        """Treat them like everybody else."""


def connect(config: Config, note: Callable[[str], None]) -> Balancer:
    """The load balancer of the configuration; `note` gets what somebody should know.

    Raises:
        CannotLook: Its peers file lists other instances than release.toml.
    """
    module: Any = import_module(f".{config.balancer['kind']}", __package__)
    balancer: Balancer = module.Driver(config.balancer, note)
    listed, ours = set(balancer.peers.names()), {each.address for each in config.instances.values()}
    for address in sorted(listed ^ ours):
        where = ("release.toml", balancer.peers.path)[address in ours]
        raise CannotLook(f"{where} does not list {address}, which the other file has")
    return balancer


def test(settings: Table, *more: str) -> str:
    """What the load balancer's own check of its configuration objects to; empty if nothing."""
    try:
        done = subprocess.run(  # noqa: S603 it is what the host's administrator has configured
            [*shlex.split(settings["command"]), *more],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{settings['command']}: {error}"
    said = [line for line in done.stderr.splitlines() if "emerg" in line or "ALERT" in line]
    return "" if not done.returncode else (said or done.stderr.splitlines() or ["no reason"])[0]
