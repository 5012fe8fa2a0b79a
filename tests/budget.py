"""What each area costs and how its tests ended: seen before the gate is slow, not after."""

import json
import math
import os
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pytest

from tests import proof

TOLERANCE = 1.5


def area(test: str) -> str:
    """The area of a test: the first part of its path below `tests/`, without `test_` and `.py`."""
    path = PurePosixPath(test.split("::")[0])
    below = path.parts[path.parts.index("tests") + 1 :] if "tests" in path.parts else path.parts
    return below[0].removeprefix("test_").removesuffix(".py")


def load(file: Path) -> dict[str, float]:
    """Seconds per area."""
    return {name: float(seconds) for name, seconds in tomllib.loads(file.read_text()).items()}


def missing(tests: Path, budgets: dict[str, float]) -> list[str]:
    """Areas that have tests and no budget."""
    files = (file.relative_to(tests.parent).as_posix() for file in tests.rglob("test_*.py"))
    return sorted({area(file) for file in files} - budgets.keys())


def exceeded(seconds: dict[str, float], budgets: dict[str, float]) -> list[str]:
    """Areas that took more than half over their budget; what lies outside `tests/` has none."""
    limits = {name: TOLERANCE * budgets.get(name, math.inf) for name in seconds}
    return sorted(name for name, spent in seconds.items() if spent > limits[name])


def cpu_seconds() -> float:
    """What this process and all that it has started have used of the processor; without /proc, only what has ended."""
    ticks, families = os.sysconf("SC_CLK_TCK"), defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            families[int(fields[1])].append((int(entry.parent.name), sum(map(int, fields[11:15])) / ticks))
    spent, generation = sum(os.times()[:4]), [os.getpid()]
    while generation:
        children = [child for parent in generation for child in families[parent]]
        spent += sum(seconds for _, seconds in children)
        generation = [pid for pid, _ in children]
    return spent


class Meter:
    """In each worker: notes what a test, with the fixtures that it is the first to need, takes of the processor.

    To ask takes some milliseconds: what tests of less than half a second take counts for the next longer one.
    """

    def __init__(self) -> None:
        self._before, self._at = cpu_seconds(), time.monotonic()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "teardown" and time.monotonic() - self._at > 0.5:
            now = cpu_seconds()
            report.user_properties.append(("cpu", max(0, now - self._before)))  # less if it left what nobody waited for
            self._before, self._at = now, time.monotonic()
        return report


class Record:
    """One phase: seconds per area, seconds of the processor per test, when each worker had no more to do, and how many
    tests passed, failed and were skipped.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._cpu: dict[str, float] = {}
        self._begun = time.monotonic()
        self._ends: dict[str, float] = {}
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[area(report.nodeid)] += report.duration
        for name, spent in report.user_properties:
            if name == "cpu":
                self._cpu[report.nodeid] = float(str(spent))
        self._ends[getattr(report, "worker_id", "alone")] = time.monotonic() - self._begun
        self._note(report.nodeid, report.outcome if report.when == "call" else None, report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report.nodeid, None, report)

    def _note(self, test: str, outcome: str | None, report: pytest.TestReport | pytest.CollectReport) -> None:
        ended = outcome if report.passed else report.outcome
        if ended and self._outcomes.get(test) != "failed":
            self._outcomes[test] = ended

    def as_json(self) -> str:
        counts = Counter(self._outcomes.values())
        return json.dumps({"seconds": self.seconds, "counts": counts, "cpu": self._cpu, "ends": self._ends})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="where to write seconds per area and outcomes")


def pytest_configure(config: pytest.Config) -> None:
    # Workers send their reports to the process that started them: only that one keeps the record.
    if not config.getoption("--record"):
        return
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record(), "record")
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", 0):
        config.pluginmanager.register(Meter(), "meter")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the variants of proofs, and the sabotages on servers, that have no turn today."""
    if config.getoption("--record"):
        waiting = [each for each in items if _takes_turns(each) and not proof.has_turn(each.nodeid)]
        config.hook.pytest_deselected(items=waiting)
        items[:] = [each for each in items if each not in set(waiting)]


def _takes_turns(item: pytest.Item) -> bool:
    marks = {mark.name for mark in item.iter_markers()}
    return "servers" in marks if "sabotage" in marks else "wide" in marks


def pytest_unconfigure(config: pytest.Config) -> None:
    record = config.pluginmanager.get_plugin("record")
    if isinstance(record, Record):
        config.getoption("--record").write_text(record.as_json())
