"""The outcomes of a run, by area, with the exit code and the changes since the last run."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from .areas import AREAS, RUN

MAX_SAVED_RUNS = 20


class Status(StrEnum):
    """The result of a check, the worst first."""

    UNKNOWN = "unknown"
    GAP = "gap"
    WAIVED = "waived"
    NOT_BUILT = "not built"
    CLAIMED = "claimed"  # the service says so, nothing else does
    PROVEN = "proven"
    NOT_APPLICABLE = "not applicable"
    NOT_RUN = "not run"


SIGNS = dict(zip(Status, "?✗~□◐✓○○", strict=True))


@dataclass(slots=True)
class Outcome:
    """One check: its evidence, its duration and, if it is not proven, the next step."""

    area: str
    check: str
    title: str
    status: Status
    seen: str
    step: str = ""
    link: str = ""
    seconds: float = 0.0
    before: str = ""  # its status in the last run, if different

    @property
    def name(self) -> str:
        """The check's own name; empty if the outcome is about the whole area."""
        return self.check.removeprefix(self.area).removeprefix(".")

    @property
    def took(self) -> str:
        """The duration with a suitable unit."""
        return f"{self.seconds:.1f} s" if self.seconds >= 1 else f"{self.seconds * 1000:.0f} ms"


@dataclass(slots=True)
class Report:
    """One run."""

    service: dict[str, str]
    url: str
    profile: str
    source: str  # of the profile
    marker: str
    began: str
    seconds: float = 0.0
    compared_with: str = ""
    outcomes: list[Outcome] = field(default_factory=list)

    def areas(self) -> Iterator[tuple[str, Status, list[Outcome]]]:
        """Title, worst status and outcomes of each area, the worst first."""
        order = list(Status)
        ordered = sorted(self.outcomes, key=lambda each: (order.index(each.status), each.check))
        titles = {RUN: "This run", **AREAS}
        for name in [*titles, *sorted({each.area for each in self.outcomes} - titles.keys())]:
            if found := [each for each in ordered if each.area == name]:
                yield titles.get(name, name), found[0].status, found

    @property
    def exit_code(self) -> int:
        """0 no gap, 1 a gap, 2 a check could not run."""
        found = {each.status for each in self.outcomes}
        return 2 if Status.UNKNOWN in found or not found else int(Status.GAP in found)

    @property
    def judged(self) -> str:
        """Which service was judged by which rules, and who says so."""
        service = f"{self.service.get('name')} {self.service.get('version')} at {self.url}"
        return f"{service}, profile {self.profile} (from {self.source})"

    def summary(self) -> str:
        """The number of proven areas, and of the others by status."""
        found = [status for _, status, outcomes in self.areas() if outcomes[0].area != RUN]
        kinds = {kind: "with gaps" if kind is Status.GAP else str(kind) for kind in Status if kind in found}
        kinds.pop(Status.PROVEN, None)
        others = (f"{found.count(kind)} {text}" for kind, text in kinds.items())
        return ", ".join([f"{found.count(Status.PROVEN)} of {len(found)} areas proven", *others])

    def as_json(self) -> str:
        """The whole report, for programs and for the next run."""
        return json.dumps({**asdict(self), "exit_code": self.exit_code}, indent=2)


def plain(text: str) -> str:
    """Text from elsewhere on one line, without control characters: they confuse terminals, and XML forbids them."""
    return "".join(each if each.isprintable() else " " for each in text)


def count(outcomes: list[Outcome]) -> str:
    """How many checks of an area are proven, if it is some of them."""
    proven = sum(each.status is Status.PROVEN for each in outcomes)
    return f"({proven} of {len(outcomes)} checks proven)" if 0 < proven < len(outcomes) else ""


def compare(report: Report, folder: Path) -> None:
    """Note what changed since the last runs with the same URL and profile."""
    before: dict[str, str] = {}
    for file in sorted(folder.glob("*.json"), reverse=True):
        try:
            run: dict[str, Any] = json.loads(file.read_text())
            statuses = {each["check"]: each["status"] for each in run["outcomes"] if each["status"] != Status.NOT_RUN}
            if (run["url"], run["profile"]) != (report.url, report.profile):
                continue
            report.compared_with = report.compared_with or run["began"]
        except (KeyError, TypeError, ValueError):
            continue  # not a report
        before = statuses | before  # a run of one area has no statuses of the others: older runs have
    for each in report.outcomes:
        was = before.get(each.check, each.status)
        each.before = was if each.status not in (was, Status.NOT_RUN) else ""


def save(report: Report, folder: Path) -> None:
    """Write the report next to those of earlier runs, and remove the oldest.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(exist_ok=True)
    (folder / f"{report.began.replace(':', '')}.json").write_text(report.as_json())
    for old in sorted(folder.glob("*.json"))[:-MAX_SAVED_RUNS]:
        old.unlink()
