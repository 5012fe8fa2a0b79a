"""What a host with instances of the emitted service promises: releases that no user notices."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tests import proof
from tests.plant import Feature
from tests.rollout.host import NAMES, Host
from tests.rollout.load import Load

TRIAL = Feature(
    "trial",
    '''"""A route that says which version it is."""

import os

from fastapi import APIRouter

router = APIRouter(prefix="/trial")


@router.get("")
@router.post("")
async def trial() -> dict[str, str]:
    return {"version": os.environ["TRIAL"]}
''',
)
# Moves weights as a release does, and says when it has; without a site, as on a bare host.
MOVE = """
import json, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from rollout.balancer import connect
from rollout.config import load
from rollout.peers import shares

balancer = connect(load(Path(sys.argv[2])), print)
one, two = json.loads(sys.argv[3])
for line in sys.stdin:
    balancer.set(shares(int(line), [two], [one]))
    print("set", flush=True)
"""
SHARES = (1, 10, 50, 100)  # percent
CERTAIN = 3.29  # standard deviations: 99.9 % of a normal distribution, both sides


def nothing_is_lost(users: Load, least: int) -> None:
    """Each request of each client got its response, and none was repeated."""
    assert users.lost == []
    assert users.errors == 0, users.statuses
    assert min(users.methods["GET"], users.methods["POST"]) >= least, users.methods
    users.reset()


def a_weight_is_the_share_of_the_requests(host: Host, users: Load) -> None:
    """Within the binomial interval of 99.9 %."""
    with moving(host) as move:
        move(0)
        time.sleep(1)  # for the last requests by the old weights
        host.unit("stop", "two", "-")
        host.unit("start", "two", "good-share")
        host.wait_ready("two")
        for percent in SHARES:
            move(percent)
            time.sleep(0.3)  # for the last requests by the old weights
            nothing_is_lost(users, 0)
            users.wait_for(proof.count(gate=400, full=4_000))
            with users.lock:
                total, new = users.total, users.versions["good-share"]
            spread = CERTAIN * math.sqrt(total * percent * (100 - percent)) / 100
            assert abs(new - total * percent / 100) <= spread + 1, (percent, new, total)
        move(0)
        time.sleep(1)
        host.unit("stop", "two", "-")
        host.unit("start", "two", host.OLD)
        host.wait_ready("two")
        move(50)
    nothing_is_lost(users, 20)


def changed_weights_lose_nothing(host: Host, users: Load) -> None:
    """However often they change."""
    users.reset()
    with moving(host) as move:
        for number in range(proof.count(gate=15, full=50)):
            move(SHARES[number % len(SHARES)])
            time.sleep(0.15)
        move(50)
    nothing_is_lost(users, 5)


def a_rolling_restart_loses_nothing(host: Host, users: Load) -> None:
    """Each instance in turn is taken out, emptied, and started again."""
    times = proof.count(gate=3, full=10)
    before = [len(host.started(name)) for name in NAMES]
    for _ in range(times):
        done = host.release("restart")
        assert done.returncode == 0, done
    assert [len(host.started(name)) for name in NAMES] == [count + times for count in before]
    assert host.weights() == {"one": 100, "two": 100}
    nothing_is_lost(users, 50)


def a_good_canary_loses_nothing(host: Host, users: Load) -> None:
    """It is promoted step by step, then runs everywhere."""
    for number in range(proof.count(gate=1, full=5)):
        version = f"good-canary-{number}"
        done = host.release("deploy", version)
        assert done.returncode == 0, done
        for percent in SHARES:
            assert f"{percent} % of the requests go to two" in done.stdout
        assert host.weights() == {"one": 100, "two": 100}
        assert [host.started(name)[-1] for name in NAMES] == [version] * 2
    nothing_is_lost(users, 50)


def a_switch_loses_nothing(host: Host, users: Load) -> None:
    """Blue-green: to the new version, and back in no time."""
    for number in range(proof.count(gate=1, full=5)):
        before = host.weights()["one"]
        done = host.release("deploy", f"good-switch-{number}", "--strategy", "blue-green")
        assert done.returncode == 0, done
        assert host.weights()["one"] != before or before == 100
        assert sorted(host.weights().values()) == [0, 100]
        before = host.weights()["one"]
        assert host.release("back").returncode == 0
        assert host.weights()["one"] != before
    nothing_is_lost(users, 20)


class moving:
    """A process that moves weights when it is told to, for the length of a `with`."""

    def __init__(self, host: Host) -> None:
        addresses = [f"127.0.0.1:{host.ports[name]}" for name in NAMES]
        arguments = (str(host.emitted / "deploy/host"), str(host.config), json.dumps(addresses))
        self.words = [sys.executable, "-S", "-E", "-c", MOVE, *arguments]

    def __enter__(self) -> Callable[[int], None]:
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self.move

    def __exit__(self, *error: object) -> None:
        self.process.communicate(timeout=10)

    def move(self, percent: int) -> None:
        """Give `two` a share, and return once the balancer has it."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{percent}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "set\n"


Scenario = Callable[[Host, Load], None]
SCENARIOS: Sequence[Scenario] = [
    a_weight_is_the_share_of_the_requests,
    changed_weights_lose_nothing,
    a_rolling_restart_loses_nothing,
    a_good_canary_loses_nothing,
    a_switch_loses_nothing,
]
