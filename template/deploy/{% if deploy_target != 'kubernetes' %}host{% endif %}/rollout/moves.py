"""What every kind of release does: send requests elsewhere, replace an instance, watch it, and the way back."""

import hmac
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from . import CannotLook, ReleaseError
from .balancer import Balancer, Totals
from .config import Config, Instance
from .instances import command, probe, wait_ready
from .peers import shares
from .show import Show
from .state import Record, State
from .verdict import not_good_enough, too_bad

POLL_SECONDS = 0.2
PROBE_SECONDS = 1.0  # between two probes of a new instance
BLIND_SECONDS = 5.0  # without statistics, as while a load balancer is being started again
KEY_CHARACTERS = 32
COOKIE_CHARACTERS = 32  # 128 bits; a longer one needs a larger map_hash_bucket_size in NGINX
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@dataclass
class Moves:
    """One release: what it works on, and how it moves requests."""

    config: Config
    balancer: Balancer
    state: State
    show: Show
    record: Record
    baseline: Totals = field(default_factory=Totals)  # of the stable instances, from when they had requests

    @property
    def new(self) -> list[Instance]:
        """The instances that get the version first."""
        return [self.config.instances[name] for name in self.record.new]

    @property
    def old(self) -> list[Instance]:
        """The others that served before."""
        return [self.config.instances[name] for name in self.record.old]

    def weights(self, percent: int) -> dict[str, int]:
        """The weights that give the new instances a percentage; one that is neither new nor old gets nothing."""
        nobody = dict.fromkeys((each.address for each in self.config.instances.values()), 0)
        return {**nobody, **shares(percent, addresses(self.new), addresses(self.old))}

    def note(self, phase: str, step: int = 0) -> None:
        """Record how far it is, before it goes on."""
        self.record.phase, self.record.step = phase, step
        self.state.write(self.record)

    def serve(self, percent: int) -> None:
        """Send the new instances a percentage of the requests."""
        self.balancer.set(self.weights(percent))

    def serve_only(self, instances: Collection[Instance]) -> None:
        """Send each of these the same, and the others nothing."""
        others = [each.address for each in self.config.instances.values() if each not in instances]
        self.balancer.set(shares(100, addresses(instances), others))

    def drain(self, instances: Collection[Instance]) -> None:
        """Wait until those that were taken out get nothing any more."""
        deadline = time.monotonic() + self.config.release["drain_seconds"]
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            if all(self.balancer.settled(each.address) for each in instances):
                return

    def replace(self, instance: Instance, version: str) -> None:
        """Start an instance anew that gets no requests, and check that it is what it should be."""
        self.show.line(f"{instance.name}: starting {version}", instance=instance.name)
        command(self.config, "stop", version, instance)
        command(self.config, "start", version, instance)
        wait_ready(instance, self.config, version)
        command(self.config, "smoke", version, instance)
        deadline = time.monotonic() + self.config.release["start_seconds"]
        while not self.balancer.usable(instance.address):
            if time.monotonic() > deadline:
                raise ReleaseError(f"{instance.name} is ready, but the load balancer's own check of it fails")
            time.sleep(POLL_SECONDS)

    def watch(self, percent: int, seconds: float, samples: int) -> None:
        """Compare the new instances with the old ones for a time.

        Raises:
            ReleaseError: They are worse, or get too few requests to know.
        """
        new = old = Totals()
        begun = seen = time.monotonic()
        probed = 0.0
        self.balancer.count()  # what came before does not matter
        while True:
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            try:
                counted = self.balancer.count()
                seen = now
            except CannotLook as error:
                if now - seen > BLIND_SECONDS:
                    raise ReleaseError(f"nobody knows how it does: {error}") from error
                continue
            new = sum((counted.get(address, Totals()) for address in addresses(self.new)), new)
            old = sum((counted.get(address, Totals()) for address in addresses(self.old)), old)
            against = old if old.requests >= samples else old + self.baseline
            self.show.step(percent, now - begun, seconds, new, old)
            if reason := too_bad(new, against, self.config.limits, samples):
                raise ReleaseError(reason)
            if now - probed > PROBE_SECONDS:
                probed = now
                self.probe_new()
            if now - begun >= seconds and new.requests >= samples:
                if reason := not_good_enough(new, against, self.config.limits, samples):
                    raise ReleaseError(reason)
                self.show.step(percent, now - begun, seconds, new, old, last=True)
                self.baseline = against
                return
            if now - begun > seconds + self.config.release["patience_seconds"]:
                raise ReleaseError(
                    f"nobody knows how it does: {new.requests} requests reached it, {samples} are needed"
                )

    def probe_new(self) -> None:
        """Raise if a new instance does not respond, twice, or is another version than it was."""
        for instance in self.new:
            health = probe(instance, self.config.release["host"])
            if not health.ready:
                health = probe(instance, self.config.release["host"])
            if not health.ready:
                raise ReleaseError(f"{instance.name}: {health.problem}")
            if not health.is_version(self.record.version):
                raise ReleaseError(f"{instance.name} says that it is {health.version}, not {self.record.version}")

    def back(self) -> None:
        """Send everything to the old instances. No signal stops that.

        Raises:
            ReleaseError: The load balancer does not do it; the new instances are stopped instead.
        """
        try:
            self.balancer.restore(self.weights(0))
        except (OSError, ReleaseError) as error:
            for instance in self.new:  # a refused connection sends each request to an old one
                command(self.config, "stop", self.record.version, instance)
            raise ReleaseError(f"{error}; so the new instances were stopped") from error
        finally:
            try:
                self.balancer.dismiss()
            except (OSError, ReleaseError) as error:
                self.show.line(f"the cookie of staff still leads to the new version: {error}")

    def try_command(self, name: str) -> None:
        """Run a command whose failure changes nothing."""
        try:
            command(self.config, name, self.record.version)
        except ReleaseError as error:
            self.show.line(f"warning: {error}")


def addresses(instances: Collection[Instance]) -> list[str]:
    """Of instances."""
    return [each.address for each in instances]


def names(instances: Sequence[Instance]) -> str:
    """Of instances, for people."""
    return " and ".join(each.name for each in instances)


def cookie(config: Config, version: str) -> str:
    """The signed cookie with which staff get the version, and nobody else.

    Raises:
        CannotLook: There is no key, or it is too short.
    """
    path = Path(config.release["staff_key"])
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise CannotLook(f"[release] staff_key: {path}: {error.strerror}") from error
    if len(key) < KEY_CHARACTERS:
        raise CannotLook(f"[release] staff_key: {path} needs {KEY_CHARACTERS} characters or more")
    return hmac.new(key.encode(), f"release {version}".encode(), sha256).hexdigest()[:COOKIE_CHARACTERS]


@contextmanager
def undisturbed() -> Iterator[None]:
    """For what must come to its end: signals are ignored meanwhile."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
