"""The plan and the newest drill, as `ready` finds them in the files of a project; nothing here needs a database."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.projects import Change, Edit, Project, Service
from tests.readiness.conftest import Found, Prober
from tests.sabotage import Gone

pytestmark = pytest.mark.servers
CONTACTS = "docs/contacts.md"
TARGETS = "deploy/recovery.toml"
EVIDENCE = "dr/evidence"
IN_PRODUCTION = ("--profile", "production", "--area", "recovery")
STEP = "type: uv run my-service backup drill"


def evidence(root: Path, name: str = "one.json", days: float = 1, **more: Any) -> None:
    """What `backup drill` leaves, of so many days ago."""
    started = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    found = {"started": started, "backup": "20261126T0100Z", "rto_seconds": 250.4, "rpo_seconds": 7300, "passed": True}
    found |= {"targets": {"rto_seconds": 14400, "rpo_seconds": 90000}, "phases": {"restore": 200}, **more}
    (root / EVIDENCE).mkdir(parents=True, exist_ok=True)
    (root / EVIDENCE / name).write_text(json.dumps(found))


def fill(root: Path) -> None:
    """Write somebody into each empty cell of the contacts."""
    file = root / CONTACTS
    filled = re.sub(r"(?<=\|) (?=\|)", " Ann, +49 30 1 ", file.read_text())
    assert filled.count("Ann") > 20
    file.write_text(filled)


@pytest.fixture
def filled(prober: Prober) -> Prober:
    """A project as it is before it goes into production: contacts, and a drill of yesterday."""
    fill(prober.project.root)
    evidence(prober.project.root)
    return prober


def verdict(found: Found, check: str) -> tuple[str, str, str]:
    outcome = found.outcome(f"recovery.{check}")
    return outcome["status"], outcome["seen"], outcome["step"]


def test_a_filled_in_plan_and_a_recent_drill_are_proven(filled: Prober, service: Service) -> None:
    evidence(filled.project.root, "a-failed-one-before-it.json", days=3, passed=False)
    found = filled.look(service, *IN_PRODUCTION)
    assert (found.code, set(found.statuses.values())) == (0, {"proven"})
    day = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    took = "took 0:04:10 (RTO 4:00:00) and lost 2:01:40 of data (limit 1 day, 1:00:00)"
    assert found.outcome("recovery.drill")["seen"] == f"the drill of {day}, backup 20261126T0100Z, {took}"
    assert "docs/contacts.md names all 13 people and places" in found.outcome("recovery.plan")["seen"]


def test_an_empty_project_has_gaps_in_production_alone(prober: Prober, service: Service) -> None:
    found = prober.look(service, *IN_PRODUCTION)
    assert verdict(found, "drill") == ("gap", "dr/evidence has no drill", STEP)
    status, seen, step = verdict(found, "plan")
    assert (status, step) == ("gap", "fill in docs/contacts.md")
    assert seen.startswith("docs/contacts.md has empty cells: My Service team, second line, ")
    assert seen.endswith(", this plan, on paper")
    local = prober.look(service, "--area", "recovery")
    assert (local.code, set(local.statuses.values())) == (0, {"not applicable"})


OLD = {"days": 36}
SLOW = {"rto_seconds": 14401}
STALE = {"rpo_seconds": 90001}
FAILED = {"passed": False}


@pytest.mark.parametrize(
    ("more", "seen", "step"),
    [
        (OLD, "is 36 days old, the limit is 35 days, 0:00:00", STEP),
        (SLOW, "took 4:00:01 (RTO 4:00:00)", f"find the slowest phase in dr/evidence, fix it, then {STEP}"),
        (STALE, "lost 1 day, 1:00:01 of data (limit 1 day, 1:00:00)", "find the slowest phase in dr/evidence"),
        (FAILED, "and failed", "read its file in dr/evidence"),
    ],
)
def test_a_drill_that_is_old_or_missed_a_target_is_a_gap(
    filled: Prober, service: Service, more: dict[str, Any], seen: str, step: str
) -> None:
    evidence(filled.project.root, **{"days": 0.01, **more})
    if "days" in more:
        Gone(EVIDENCE).apply(filled.project.root)
        evidence(filled.project.root, **more)
    found = filled.look(service, "--area", "recovery")
    status, said, todo = verdict(found, "drill")
    assert (status, found.code, found.red) == ("gap", 1, {"recovery.drill"})
    assert seen in said
    assert step in todo


def test_ready_toml_overrides_the_targets(filled: Prober, service: Service) -> None:
    """Each key alone: the others are still those of `deploy/recovery.toml`."""
    filled.add('\n[recovery.targets]\nrto = "4m"\n')
    status, seen, _ = verdict(filled.look(service, *IN_PRODUCTION), "drill")
    assert status == "gap"
    assert "(RTO 0:04:00) and lost 2:01:40 of data (limit 1 day, 1:00:00)" in seen
    filled.add("rpoo = 5\n")
    refused = filled.command("--url", f"http://127.0.0.1:{service.port}")
    said = "ready: ready.toml: recovery.targets.rpoo: unknown key; did you mean rpo?\n"
    assert (refused.returncode, refused.stderr) == (2, said)


@pytest.mark.parametrize(
    ("change", "check", "seen", "step"),
    [
        (Gone("docs/disaster-recovery.md"), "plan", "there is no docs/disaster-recovery.md", "restore it"),
        (Gone(TARGETS), "drill", "deploy/recovery.toml", "or restore it"),
        (
            Edit(TARGETS, 'drill = "35d"', ""),
            "drill",
            "deploy/recovery.toml has no drill",
            "restore deploy/recovery.toml",
        ),
        (Edit(TARGETS, 'rto = "4h"', 'rto = "soon"'), "drill", "use a number and s, m, h or d, such as 4h", "fix"),
        (Edit(TARGETS, "drill =", "dril ="), "drill", "backups.dril: unknown key; did you mean drill?", "fix"),
    ],
)
def test_a_missing_plan_or_target_is_a_gap_everywhere(
    filled: Prober, service: Service, change: Change, check: str, seen: str, step: str
) -> None:
    change.apply(filled.project.root)
    found = filled.look(service, "--area", "recovery")
    status, said, todo = verdict(found, check)
    assert (status, found.red) == ("gap", {f"recovery.{check}"})
    assert seen in said
    assert step in todo


def test_contacts_without_a_table_are_a_gap(filled: Prober, service: Service) -> None:
    (filled.project.root / CONTACTS).write_text("# Contacts\n\nAsk Ann.\n")
    status, seen, step = verdict(filled.look(service, *IN_PRODUCTION), "plan")
    assert (status, seen) == ("gap", "docs/contacts.md has no table of contacts")
    assert "add a row for each role" in step


def test_evidence_that_cannot_be_read_is_unknown_and_named(filled: Prober, service: Service) -> None:
    (filled.project.root / EVIDENCE / "two.json").write_text('{"passed": true}')
    found = filled.look(service, "--area", "recovery")
    assert verdict(found, "drill")[:2] == ("unknown", "dr/evidence/two.json is no evidence of a drill")
    assert found.code == 2


def test_without_a_database_there_is_a_plan_and_no_drill(
    without_database: Project, service: Service, tmp_path: Path
) -> None:
    prober = Prober(without_database.variant(tmp_path / "without"))
    fill(prober.project.root)
    found = prober.look(service, *IN_PRODUCTION)
    assert (found.statuses["recovery.plan"], found.statuses["recovery.drill"]) == ("proven", "not applicable")
