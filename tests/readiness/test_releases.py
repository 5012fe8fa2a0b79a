"""What `ready` says of the newest release: its record, as `deploy/host/release` writes it, against what is served."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.projects import Service
from tests.readiness.conftest import Found, Prober, Served
from tests.sabotage import Gone, Line
from tests.servers.nginx import Nginx

pytestmark = pytest.mark.servers
IN_PRODUCTION = ("--profile", "production", "--area", "releases")
BALANCER = """
upstream service {{ {peers} }}
server {{
    listen ADDRESS;
    location / {{ proxy_pass http://service; proxy_set_header Host $host; }}
}}
"""


WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, "deploy/host")
from rollout.state import Record, State
state = State(Path({state!r}))
"""


def state(prober: Prober) -> Path:
    return prober.project.root / "state/release.json"


def run(prober: Prober, code: str) -> None:
    """Run code that sees `Record` and `state`, as the command `release` has them."""
    prober.python(WRITE.format(state=str(state(prober))) + code)


def record(prober: Prober, **more: Any) -> None:
    """Record a finished canary, in a folder of the project."""
    state(prober).parent.mkdir(exist_ok=True)
    Line("deploy/host/defaults.toml", "state = ", f'state = "{state(prober)}"').apply(prober.project.root)
    found = {"kind": "canary", "version": "0.1.0", "old_version": "0.0.9", "new": ["two"], "old": ["one"]}
    run(prober, f"state.write(Record(**{ {**found, 'phase': 'done', 'step': 100, **more}!r}))")


def ended(prober: Prober, result: str, reason: str = "", days: float = 0) -> None:
    """Add a release of the past to the history."""
    run(prober, f"state.remember(Record('canary', '0.0.9', '0.0.8', [], []), {result!r}, {reason!r})")
    history = state(prober).with_suffix(".history")
    *before, line = history.read_text().splitlines(keepends=True)
    then = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    history.write_text("".join(before) + json.dumps({**json.loads(line), "ended": then}) + "\n")


def verdict(found: Found, check: str) -> tuple[str, str, str]:
    outcome = found.outcome(f"releases.{check}")
    return outcome["status"], outcome["seen"], outcome["step"]


def test_a_finished_release_and_a_rollback_are_proven(prober: Prober, service: Service) -> None:
    record(prober)
    ended(prober, "rolled back", "12 % errors", days=9)
    ended(prober, "promoted", days=1)
    found = prober.look(service, *IN_PRODUCTION)
    seen = "the canary of 0.1.0 is done, and 20 requests were all served by 0.1.0"
    assert verdict(found, "finished") == ("proven", seen, "")
    day = f"{datetime.now(UTC) - timedelta(days=9):%Y-%m-%d}"
    assert verdict(found, "rollback") == ("proven", f"0.0.9 was rolled back on {day}: 12 % errors", "")
    record(prober, version="0.2.0", old_version="0.1.0", phase="rolled back")
    seen = "the canary of 0.2.0 is rolled back, and 20 requests were all served by 0.1.0"
    assert verdict(prober.look(service, *IN_PRODUCTION), "finished") == ("proven", seen, "")


@pytest.mark.sabotage
def test_releases_finished_turns_red(prober: Prober, served: Served) -> None:
    ended_well = ("rolled back", "12 % errors")
    with served(prober.project) as one, served(prober.project, "two", GIT_COMMIT="f" * 40) as two:
        record(prober, phase="steps", step=10)
        ended(prober, *ended_well)
        found = prober.look(one, *IN_PRODUCTION)
        assert found.red == {"releases.finished"}
        step = "type: deploy/host/release resume, or deploy/host/release abort"
        assert verdict(found, "finished") == ("gap", "the canary of 0.1.0 was not finished, at 10 %", step)
        record(prober, version="fffffff")
        peers = f"server 127.0.0.1:{one.port}; server 127.0.0.1:{two.port};"
        with Nginx(BALANCER.format(peers=peers)) as balancer:
            found = prober.look(balancer.url, *IN_PRODUCTION)
    assert found.red == {"releases.finished"}
    status, seen, step = verdict(found, "finished")
    assert (status, seen) == ("gap", "the canary of fffffff is done, and requests were served by 0.1.0 (unknown)")
    assert "restart what has another version" in step


@pytest.mark.sabotage
def test_releases_rollback_turns_red(prober: Prober, service: Service) -> None:
    record(prober)
    ended(prober, "promoted")
    found = prober.look(service, *IN_PRODUCTION)
    assert found.red == {"releases.rollback"}
    assert verdict(found, "rollback")[1] == "no release was ever rolled back: nobody knows whether it works"
    ended(prober, "rolled back", days=400)
    assert "more than 365 days ago" in verdict(prober.look(service, *IN_PRODUCTION), "rollback")[1]


def test_what_is_missing_or_broken_is_named(prober: Prober, service: Service) -> None:
    record(prober)
    file = state(prober)
    file.write_text("{")
    file.with_suffix(".history").write_text("{}\n")
    found = prober.look(service, *IN_PRODUCTION)
    wrong = ("unknown", f"{file}: it is no record of a release", "type deploy/host/release status")
    assert verdict(found, "finished") == wrong
    file.unlink()
    status, seen, step = verdict(prober.look(service, *IN_PRODUCTION), "finished")
    assert (status, seen) == ("gap", f"there is no {file}")
    assert "on a host of the service" in step
    assert set(prober.look(service, "--area", "releases").statuses.values()) == {"not applicable", "not run"}
    Gone("deploy/host").apply(prober.project.root)
    status, seen, _ = verdict(prober.look(service, *IN_PRODUCTION), "rollback")
    assert (status, seen) == ("not applicable", "because this project has no deploy/host: it is not released to hosts")
