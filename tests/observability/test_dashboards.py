"""The dashboards: what is checked in is what their code makes, and Grafana can tell them apart."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.observability.__main__ import pages
from scripts.observability.dashboards import DASHBOARDS
from tests.observability.promql import panels
from tests.projects import ROOT, Project, render


def stale(root: Path) -> list[str]:
    """Made files that are not what the code makes."""
    return [file.name for file, text in pages().items() if (root / file).read_text() != text]


def test_the_files_are_what_the_code_makes() -> None:
    assert stale(ROOT) == [], "type: python -m scripts.observability"


@pytest.mark.sabotage
def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    for file in pages():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        old, new = ("14.4 *", "14 *") if "alerts" in file.name else ('"w":8', '"w":9')
        (tmp_path / file).write_text((ROOT / file).read_text().replace(old, new, 1))
    assert stale(tmp_path) == [file.name for file in pages()]


def test_each_dashboard_has_what_it_is_for(emitted: Project, without_database: Project) -> None:
    titles = {each.name: [panel["title"] for panel in board(emitted, each.name)] for each in DASHBOARDS}
    assert {"Requests by route", "p95 by route", "CPU cores", "Database connections", "p95 by version"} <= set(
        titles["service"]
    )
    assert {"Error budget left", "Over 5m and 1h", "Firing"} <= set(titles["slo"])
    without = [panel["title"] for panel in board(without_database, "service")]
    assert set(titles["service"]) - set(without) == {"Database connections", "Highest use of a pool"}
    exemplars = [
        panel for panel in board(emitted, "service") if any(t.get("exemplar") for t in panel.get("targets", []))
    ]
    assert [panel["title"] for panel in exemplars] == ["Latency of all routes"]


def board(project: Project, name: str) -> list[dict[str, Any]]:
    return panels(project.root / f"observability/dashboards/{name}.json")


def test_panels_do_not_lie_on_each_other(emitted: Project) -> None:
    for each in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in panels(emitted.root / f"observability/dashboards/{each.name}.json"):
            at = panel["gridPos"]
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert not taken & cells
            assert max(x for x, _ in cells) < 24
            taken |= cells


@pytest.mark.parametrize("slug", ["a", "a" * 40])
def test_grafana_can_tell_dashboards_of_services_apart(template: Path, tmp_path: Path, slug: str) -> None:
    folder = render(template, tmp_path / "service", project_slug=slug) / "observability/dashboards"
    found = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    assert len({each["uid"] for each in found}) == len(DASHBOARDS)
    for each in found:
        assert slug[:32] in each["uid"]
        assert len(each["uid"]) <= 40  # more Grafana does not take
        assert slug in each["title"]
