"""Whoever is woken finds a heading for the alert, and under it what to look at and what to do."""

import re
from pathlib import Path

import pytest

from tests.observability.promql import ALERTS, rules
from tests.projects import Change, Edit, Project
from tests.sabotage import Line

RUNBOOK = "docs/runbook.md"
PARTS = ("means", "impact", "check", "do", "escalate")
SEVERITIES = {"page", "ticket", "none"}


def sections(text: str) -> dict[str, str]:
    """The text below each heading of an alert; a heading that comes twice is two."""
    found = re.split(r"^### (.+)\n", text.partition("## Alerts\n")[2].partition("\n## ")[0], flags=re.M)[1:]
    titles = [title if title not in found[: 2 * index] else f"{title} again" for index, title in enumerate(found[::2])]
    return dict(zip(titles, found[1::2], strict=True))


def gaps(root: Path) -> list[str]:
    """What an alert or its section lacks."""
    text = (root / RUNBOOK).read_text()
    below = sections(text)
    alerts = [rule for rule in rules(root) if "alert" in rule]
    names = {alert["alert"] for alert in alerts}
    found = [f"no alert {title}" for title in below if title not in names]
    found += [f"no heading {name}" for name in sorted(names - below.keys())]
    for alert in alerts:
        name, notes = alert["alert"], alert.get("annotations", {})
        if alert.get("labels", {}).get("severity") not in SEVERITIES:
            found.append(f"{name}: severity")
        if not notes.get("summary", "").endswith("."):
            found.append(f"{name}: summary")
        if not re.fullmatch(rf"https://\S+/docs/runbook\.md#{name.lower()}", notes.get("runbook_url", "")):
            found.append(f"{name}: runbook_url")
    for title, section in below.items():
        told = {word.lower() for word in re.findall(r"\*\*(\w+)\*\*", section)}
        found += [f"{title}: {part}" for part in PARTS if part not in told]
    targets = {heading.lower().replace(" ", "-") for heading in re.findall(r"^##+ (.+)$", text, re.M)}
    found += [f"link {anchor}" for anchor in re.findall(r"\(#([^)]+)\)", text) if anchor not in targets]
    found += [
        f"link {page}" for page in re.findall(r"\(([\w./-]+\.\w+)\)", text) if not (root / "docs" / page).is_file()
    ]
    return found


def test_each_alert_has_its_heading_and_each_heading_its_alert(emitted: Project, without_database: Project) -> None:
    for project, count in ((emitted, 21), (without_database, 16)):
        assert len(sections((project.root / RUNBOOK).read_text())) == count
        assert gaps(project.root) == []


def test_it_says_what_to_do_when_telemetry_itself_is_down(emitted: Project) -> None:
    text = (emitted.root / RUNBOOK).read_text()
    assert "(#when-telemetry-itself-is-down)" in sections(text)["MetricsAbsent"]
    assert "\n## When telemetry itself is down\n" in text


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (Line(RUNBOOK, "### MemoryGrows", "### MemoryLeaks"), ["no alert MemoryLeaks", "no heading MemoryGrows"]),
        (
            Line(RUNBOOK, "### MemoryGrows", "### EventLoopLags"),
            ["no alert EventLoopLags again", "no heading MemoryGrows"],
        ),
        (Line(ALERTS, "- alert: MemoryGrows", "- alert: Leaks"), ["no heading Leaks"]),
        (Edit(ALERTS, "severity: ticket", "severity: low"), ["CertificateExpiresSoon: severity"]),
        (Edit(ALERTS, "#capacityrunsout", "#capacity"), ["CapacityRunsOut: runbook_url"]),
        (Edit(ALERTS, "summary: Two", "description: Two"), ["CanaryRuns: summary"]),
        (Edit(RUNBOOK, "**Escalate** after three days", "Give up"), ["CertificateExpiresSoon: escalate"]),
        (Edit(RUNBOOK, "(#when-telemetry-itself-is-down)", "(#telemetry)"), ["link telemetry"]),
        (Edit(RUNBOOK, "(contacts.md)", "(people.md)"), ["link people.md"]),
    ],
)
def test_a_gap_is_found(emitted: Project, tmp_path: Path, planted: Change, found: list[str]) -> None:
    told = gaps(emitted.variant(tmp_path / "sick", planted).root)
    assert [line for line in told if line in found] == found
    assert len(told) - len(found) <= 2  # a renamed alert also leaves its old heading and address behind
