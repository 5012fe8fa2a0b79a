"""What goes wrong with a release, each in a namespace of its own and all at once: the old version serves everything."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.cluster.cluster import wait
from tests.cluster.conftest import New
from tests.cluster.deployment import Deployment
from tests.cluster.load import Load, load

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
DEADLINE = ("/spec/progressDeadlineSeconds", 45)  # instead of minutes


@dataclass(frozen=True)
class Fault:
    """One kind of bad release.

    Args:
        config: What makes it bad.
        said: What Flagger says.
        clients: How many there are.
        errors: The largest share of the requests that may see an error.
        site: The values of `site.yaml` that make it bad.
    """

    config: dict[str, str]
    said: str
    clients: int = 2
    errors: float = 0.0
    site: tuple[tuple[str, str], ...] = ()


FAULTS = {
    "crashes": Fault({"FAULT": "crash:15"}, "Rolling back", errors=0.5),
    "lacks-a-secret": Fault({"VAULT_SECRET_PATH": "nowhere"}, "waiting for rollout to finish"),
    "never-ready": Fault({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}, "waiting for rollout to finish"),
    "no-traffic": Fault({"RELEASE": "good"}, "no values found for custom metric", clients=0),
    "slow": Fault({"FAULT": "slow:1"}, "advancement latency"),
    "wrong-version": Fault({"RELEASE": "good"}, "pre-rollout check smoke failed", site=(("release", "2.0.0"),)),
}


@dataclass(frozen=True)
class Trial:
    """A bad release that is on its way."""

    deployment: Deployment
    users: Load


@pytest.fixture(scope="module")
def trials(new: New) -> Iterator[dict[str, Trial]]:
    """All of them, begun."""
    made = {name: new(f"fault-{name}") for name in FAULTS}
    with ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        for each in made.values():
            each.site["replicas-min"] = "1"
            each.patches["Canary"].append(DEADLINE)
            each.apply(RELEASE="first")
            stack.callback(each.cluster.kubectl, "delete", "namespace", each.namespace, "--wait=false")
        for each in made.values():
            each.wait_for("Initialized")
        begun = {}
        for name, each in made.items():
            begun[name] = Trial(each, stack.enter_context(load(each.cluster, each.host, clients=FAULTS[name].clients)))
        waiting = []
        for name, each in made.items():
            each.site |= FAULTS[name].site
            waiting.append(threads.submit(each.begin, "", **FAULTS[name].config))
        for done in waiting:
            done.result()
        yield begun


@pytest.mark.parametrize("name", FAULTS)
def test_the_old_version_serves_everything(trials: dict[str, Trial], name: str) -> None:
    fault, trial = FAULTS[name], trials[name]
    deployment, users = trial.deployment, trial.users
    assert deployment.end() == "Failed", deployment.story()
    done = time.monotonic() + 1
    assert any(fault.said in each for each in deployment.events()), deployment.story()
    if fault.clients:
        wait(lambda: len(users.since(done)) > 50, "requests afterwards")
        assert set(users.releases(done)) == {"first"}
    assert users.errors(done) == []
    assert len(users.errors()) <= fault.errors * len(users.seen), users.errors()[:3]
    print(
        f"{name}: {len(users.errors())} of {len(users.seen)} saw an error, rolled back after {deployment.took():.0f} s"
    )
