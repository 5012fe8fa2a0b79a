"""slo.yaml is a table that a user changes: the alerts follow it, and what cannot be promised is refused in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.contract import BUCKETS
from tests.observability.promql import rules
from tests.projects import Edit, Project
from tests.proof import FULL

SLO = "observability/slo.yaml"
ALERTS = "observability/alerts.yaml"


def run(project: Project, *arguments: str) -> tuple[int, str]:
    """The emitted script: its exit code and what it says on stderr."""
    command = [sys.executable, "scripts/alerts.py", *arguments]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr.strip()


def expressions(project: Project, name: str, slo: str = "") -> list[str]:
    found = [rule["expr"] for rule in rules(project.root) if name in (rule.get("alert"), rule.get("record"))]
    return [expression for expression in found if slo in expression]


def test_the_alerts_follow_the_table_as_emitted(emitted: Project, without_database: Project) -> None:
    for project in (emitted, without_database):
        assert run(project, "--check") == (0, "")


@pytest.mark.sabotage
def test_alerts_of_the_operator_that_are_others_are_noticed(emitted: Project, tmp_path: Path) -> None:
    file = "deploy/k8s/components/monitoring/alerts.json"
    sick = emitted.variant(tmp_path / "sick", Edit(file, '"severity": "page"', '"severity": "ticket"'))
    assert run(sick, "--check") == (1, "alerts.json does not follow observability/alerts.yaml: type make alerts")
    assert run(sick) == run(sick, "--check") == (0, "")


def test_the_emitted_promises_are_those_of_the_design(emitted: Project) -> None:
    table = yaml.safe_load((emitted.root / SLO).read_text())
    assert table["window_days"] == 30
    assert table["slos"] == [
        {"name": "availability", "objective": 99.9},
        {"name": "latency", "objective": 99, "seconds": 0.25},
    ]
    limits = {"BurnsFast": ("14.4", "[1h]"), "BurnsSlow": ("6", "[6h]"), "Burns": ("1", "[3d]")}
    for suffix, (rate, window) in limits.items():
        for kind, budget in (("Availability", "0.001"), ("Latency", "0.01")):
            (expression,) = expressions(emitted, kind + suffix)
            assert expression.count(f"> {rate} * {budget}") == 2
            assert expression.count(window) == 3


def test_the_script_knows_the_buckets_of_the_histogram(emitted: Project, tmp_path: Path) -> None:
    for bucket in BUCKETS if FULL else (BUCKETS[0], BUCKETS[-1]):
        own = emitted.variant(tmp_path / str(bucket), Edit(SLO, "seconds: 0.25", f"seconds: {bucket}"))
        assert run(own) == (0, "")
    code, said = run(emitted.variant(tmp_path / "between", Edit(SLO, "seconds: 0.25", "seconds: 0.3")))
    assert (code, said) == (
        2,
        f"observability/slo.yaml: latency: seconds must be a bucket: {', '.join(map(str, BUCKETS))}",
    )


def test_a_changed_promise_changes_its_alerts_and_nothing_above_the_mark(emitted: Project, tmp_path: Path) -> None:
    own = emitted.variant(
        tmp_path / "own",
        Edit(SLO, "objective: 99.9", "objective: 99.95"),
        Edit(SLO, "window_days: 30", "window_days: 7"),
        Edit(SLO, "seconds: 0.25", "seconds: 1"),
        Edit(SLO, "quiet_below: 10", "quiet_below: 3"),
    )
    before = (own.root / ALERTS).read_text()
    assert run(own, "--check") == (1, "observability/alerts.yaml does not follow slo.yaml: type make alerts")
    assert (own.root / ALERTS).read_text() == before
    assert run(own) == run(own, "--check") == (0, "")
    after = (own.root / ALERTS).read_text()
    assert after.partition("# --- below")[0] == before.partition("# --- below")[0]
    (fast,) = expressions(own, "AvailabilityBurnsFast")
    assert fast.count("> 3.36 * 0.0005") == 2
    assert ">= 3" in fast
    assert 'le=~"1([.]0)?"' in expressions(own, "slo:bad:rate5m", "le=")[0]


def test_a_promise_for_some_routes_has_alerts_of_its_own(emitted: Project, tmp_path: Path) -> None:
    more = "\n  - {name: items, objective: 99.5, routes: /v1/items.*}\n"
    own = emitted.variant(tmp_path / "own", Edit(SLO, "    seconds: 0.25\n", f"    seconds: 0.25{more}"))
    assert run(own) == (0, "")
    assert len(expressions(own, "AvailabilityBurnsFast")) == 2
    assert len(expressions(own, "AvailabilityBurnsFast", 'slo="items"')) == 1
    assert len(expressions(own, "slo:requests:rate5m", 'http_route=~"/v1/items.*"')) == 1


def test_name_and_runbook_follow_pyproject_unless_the_table_has_them(emitted: Project, tmp_path: Path) -> None:
    own = emitted.variant(tmp_path / "own", Edit("pyproject.toml", "github.com/your-org", "git.acme.test/shop"))
    assert run(own, "--check") == (1, "observability/alerts.yaml does not follow slo.yaml: type make alerts")
    assert run(own) == (0, "")
    assert (
        "runbook_url: https://git.acme.test/shop/my-service/blob/main/docs/runbook.md#latencyburns"
        in (own.root / ALERTS).read_text()
    )
    Edit(SLO, "slos:\n", "service: orders\nrunbook: https://wiki.acme.test/orders\nslos:\n").apply(own.root)
    assert run(own) == (0, "")
    assert len(expressions(own, "slo:requests:rate5m", 'job=~"(.+/)?orders"')) == 2
    assert "runbook_url: https://wiki.acme.test/orders#latencyburns" in (own.root / ALERTS).read_text()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("objective: 99.9", "objective: 100", "availability: objective must be above 93.06 and below 100"),
        ("objective: 99.9", "objective: 90", "availability: objective must be above 93.06 and below 100"),
        ("objective: 99.9", "objective: high", "slos: objective is missing, of another kind"),
        ("objective: 99.9", "goal: 99.9", "slos: "),
        ("name: latency", "name: availability", "two slos have the same name"),
        ("name: latency", "name: it's", "slos: name is missing, of another kind, or has a quote"),
        ("window_days: 30", "window_days: 0", "window_days must be 1 to 365"),
        ("window_days: 30", "window_days: 30d", "window_days is missing, of another kind"),
        ("window_days: 30", "", "window_days is missing"),
        ("quiet_below: 10", "quiet: 10", "quiet"),
        ("slos:\n", "slos: []\nmore:\n", "more is unknown"),
        ("slos:\n", "slos: [\n", "while parsing"),
        ("window_days: 30", "service: [", "while parsing"),
    ],
)
def test_a_table_that_cannot_be_kept_is_refused_in_one_line(
    emitted: Project, tmp_path: Path, old: str, new: str, says: str
) -> None:
    sick = emitted.variant(tmp_path / "sick", Edit(SLO, old, new))
    before = (sick.root / ALERTS).read_text()
    code, said = run(sick)
    assert (code, len(said.splitlines())) == (2, 1)
    assert said.startswith("observability/slo.yaml: ")
    assert says in said
    assert (sick.root / ALERTS).read_text() == before


def test_a_missing_table_and_a_wrong_argument_are_told_in_one_line(emitted: Project, tmp_path: Path) -> None:
    sick = emitted.variant(tmp_path / "sick")
    assert run(sick, "--now") == (2, "type: python scripts/alerts.py [--check]")
    (sick.root / SLO).unlink()
    code, said = run(sick)
    assert (code, len(said.splitlines())) == (2, 1)
    assert "No such file" in said
