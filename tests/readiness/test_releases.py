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


def record(prober: Prober, **more: Any) -> Path:
    """A finished canary and a release that was rolled back before, in a folder of the project."""
    state = prober.project.root / "state/release.json"
    state.parent.mkdir(exist_ok=True)
    Line("deploy/host/defaults.toml", "state = ", f'state = "{state}"').apply(prober.project.root)
    found = {"kind": "canary", "version": "0.1.0", "old_version": "0.0.9", "new": ["two"], "old": ["one"]}
    state.write_text(json.dumps({**found, "phase": "done", "step": 100, **more}))
    ended(state, "rolled back", days=9)
    ended(state, "promoted", days=1)
    return state


def ended(state: Path, result: str, days: float) -> None:
    """A line of the history."""
    at = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    line = {"ended": at, "kind": "canary", "version": "0.0.9", "old_version": "0.0.8", "result": result}
    with state.with_suffix(".history").open("a") as file:
        file.write(json.dumps({**line, "reason": "12 % errors" if result == "rolled back" else ""}) + "\n")


def verdict(found: Found, check: str) -> tuple[str, str, str]:
    outcome = found.outcome(f"releases.{check}")
    return outcome["status"], outcome["seen"], outcome["step"]


def test_a_finished_release_and_a_rollback_are_proven(prober: Prober, service: Service) -> None:
    record(prober)
    found = prober.look(service, *IN_PRODUCTION)
    seen = "the canary of 0.1.0 is done, and 20 requests were all served by 0.1.0"
    assert verdict(found, "finished") == ("proven", seen, "")
    day = f"{datetime.now(UTC) - timedelta(days=9):%Y-%m-%d}"
    assert verdict(found, "rollback") == ("proven", f"0.0.9 was rolled back on {day}: 12 % errors", "")
    record(prober, version="0.2.0", old_version="0.1.0", phase="rolled back")
    status, seen, _ = verdict(prober.look(service, *IN_PRODUCTION), "finished")
    assert (status, seen) == (
        "proven",
        "the canary of 0.2.0 is rolled back, and 20 requests were all served by 0.1.0",
    )


@pytest.mark.sabotage
def test_releases_finished_turns_red(prober: Prober, served: Served, tmp_path: Path) -> None:
    newer = prober.project.variant(tmp_path / "newer")
    with served(prober.project) as one, served(newer, "two", GIT_COMMIT="f" * 40) as two:
        record(prober, phase="steps", step=10)
        found = prober.look(one, *IN_PRODUCTION)
        assert found.red == {"releases.finished"}
        step = "type: deploy/host/release resume, or deploy/host/release abort"
        assert verdict(found, "finished") == ("gap", "the canary of 0.1.0 was not finished, at 10 %", step)
        record(prober, version="fffffff")
        peers = f"server 127.0.0.1:{one.port}; server 127.0.0.1:{two.port};"
        with Nginx(BALANCER.format(peers=peers)) as balancer:
            status, seen, step = verdict(prober.look(balancer.url, *IN_PRODUCTION), "finished")
    assert (status, seen) == ("gap", "the canary of fffffff is done, and requests were served by 0.1.0 (unknown)")
    assert "restart what has another version" in step


@pytest.mark.sabotage
def test_releases_rollback_turns_red(prober: Prober, service: Service) -> None:
    state = record(prober)
    state.with_suffix(".history").unlink()
    ended(state, "promoted", days=1)
    found = prober.look(service, *IN_PRODUCTION)
    assert found.red == {"releases.rollback"}
    assert verdict(found, "rollback")[1] == "no release was ever rolled back: nobody knows whether it works"
    ended(state, "rolled back", days=400)
    assert "more than 365 days ago" in verdict(prober.look(service, *IN_PRODUCTION), "rollback")[1]


def test_what_is_missing_or_broken_is_named(prober: Prober, service: Service) -> None:
    state = record(prober)
    state.write_text("{")
    state.with_suffix(".history").write_text("{}\n")
    found = prober.look(service, *IN_PRODUCTION)
    assert verdict(found, "finished") == (
        "unknown",
        f"{state}: it is no record of a release",
        "type deploy/host/release status",
    )
    state.unlink()
    status, seen, step = verdict(prober.look(service, *IN_PRODUCTION), "finished")
    assert (status, seen) == ("gap", f"there is no {state}")
    assert "on a host of the service" in step
    assert set(prober.look(service, "--area", "releases").statuses.values()) == {"not applicable", "not built"}
    Gone("deploy/host").apply(prober.project.root)
    status, seen, _ = verdict(prober.look(service, *IN_PRODUCTION), "rollback")
    assert (status, seen) == ("not applicable", "because this project has no deploy/host: it is not released to hosts")
