"""The queries of what is emitted, read out of the emitted files, and the metrics that they name."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.sabotage import StaleSabotageError

ALERTS = "observability/alerts.yaml"
WORDS = {"and", "bool", "by", "group_left", "group_right", "ignoring", "offset", "on", "or", "unless", "without"}
# Grafana puts these in before Prometheus sees a query.
VARIABLES = {"$__rate_interval": "5m", "$window": "30d"}


def rules(root: Path) -> list[dict[str, Any]]:
    """Each alert and each record."""
    groups = yaml.safe_load((root / ALERTS).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@dataclass(frozen=True)
class Rule:
    """A sabotage of one rule, wherever it stands and however its lines are broken.

    Args:
        name: Of the alert, or of the record.
        old: What its query has, or its duration.
        new: What it has instead.
        slo: Of which promise, where there is a record of that name for each.
    """

    name: str
    old: str
    new: str
    slo: str = ""

    def apply(self, root: Path) -> None:
        """Change the project in `root`."""
        table = yaml.safe_load((root / ALERTS).read_text())
        places = [
            (rule, field)
            for group in table["groups"]
            for rule in group["rules"]
            for field in ("expr", "for")
            if self.name in (rule.get("alert"), rule.get("record")) and self.old in rule.get(field, "")
            if not self.slo or rule["labels"]["slo"] == self.slo
        ]
        if len(places) != 1:
            raise StaleSabotageError(f"{len(places)} rules {self.name} have {self.old!r}, not one")
        rule, field = places[0]
        rule[field] = rule[field].replace(self.old, self.new, 1)
        (root / ALERTS).write_text(yaml.safe_dump(table))


def panels(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text())["panels"]
    return found


def queries(root: Path) -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query."""
    for rule in rules(root):
        yield rule.get("alert") or rule["record"], rule["expr"]
    for file in sorted((root / "observability/dashboards").glob("*.json")):
        for panel in panels(file):
            for target in panel.get("targets", []):
                yield f"{file.name}: {panel['title']}", substituted(target["expr"])
    for code in re.findall(r"`([^`]+)`", (root / "docs/runbook.md").read_text()):
        if re.search(r"\w\{|:rate", code):
            yield f"runbook.md: {code}", code


def substituted(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def metrics(expression: str) -> set[str]:
    """The metrics that an expression names: no label, function, duration or keyword."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on|group_left|group_right|ignoring|without)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\boffset\s+\w+", " ", bare)
    return {word for word in re.findall(r"[a-zA-Z_][\w:]*\b(?!\s*\()", bare)} - WORDS
