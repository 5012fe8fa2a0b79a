"""What each area costs and how its tests ended: seen before the gate is slow, not after."""

import json
import math
import tomllib
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

import pytest

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


class Record:
    """One phase: seconds per area, and how many tests passed, failed and were skipped."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[area(report.nodeid)] += report.duration
        self._note(report.nodeid, report.outcome if report.when == "call" else None, report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report.nodeid, None, report)

    def _note(self, test: str, outcome: str | None, report: pytest.TestReport | pytest.CollectReport) -> None:
        ended = outcome if report.passed else report.outcome
        if ended and self._outcomes.get(test) != "failed":
            self._outcomes[test] = ended

    def as_json(self) -> str:
        return json.dumps({"seconds": self.seconds, "counts": Counter(self._outcomes.values())})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="where to write seconds per area and outcomes")


def pytest_configure(config: pytest.Config) -> None:
    # Workers send their reports to the process that started them: only that one keeps the record.
    if config.getoption("--record") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record(), "record")


def pytest_unconfigure(config: pytest.Config) -> None:
    record = config.pluginmanager.get_plugin("record")
    if isinstance(record, Record):
        config.getoption("--record").write_text(record.as_json())
