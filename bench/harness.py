"""Interleaved rounds, medians of paired ratios, limits: the maths that every case shares.

A machine that is busy with something else slows both sides of a round alike, so a ratio taken
within a round says more than two averages taken one after the other.
"""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any, Literal

LEAST_ROUNDS = 5
# A shared machine moves a throughput by a fifth from one minute to the next.
FLOOR_TOLERANCE = 0.8

Measures = dict[str, float]
Round = dict[str, Measures]


class BenchError(RuntimeError):
    """Nothing could be measured; the message is one line that says why."""


def interleave(subjects: Mapping[str, Callable[[], Measures]], rounds: int) -> list[Round]:
    """Run the subjects A B A B …, `rounds` times each."""
    if rounds < LEAST_ROUNDS:
        raise BenchError(f"{rounds} rounds prove nothing: at least {LEAST_ROUNDS}")
    return [{name: subject() for name, subject in subjects.items()} for _ in range(rounds)]


def medians(rounds: Sequence[Round]) -> dict[str, Measures]:
    """The median of each measure of each subject."""
    return {
        subject: {name: median(each[subject][name] for each in rounds) for name in measures}
        for subject, measures in rounds[0].items()
    }


def paired_ratio(rounds: Sequence[Round], over: str, under: str, measure: str) -> float:
    """The median of `over / under`, each pair taken from one round."""
    return median(each[over][measure] / each[under][measure] for each in rounds)


@dataclass(frozen=True)
class Limit:
    """A promise about one figure, and whether it holds."""

    kind: Literal["floor", "ceiling"]
    bound: float
    measured: float

    @property
    def breaks_at(self) -> float:
        return self.bound * FLOOR_TOLERANCE if self.kind == "floor" else self.bound

    @property
    def verdict(self) -> str:
        if not self.passed:
            return "BROKEN"
        missed = self.kind == "floor" and self.measured < self.bound
        return "noise?" if missed else "holds"

    @property
    def passed(self) -> bool:
        if self.kind == "floor":
            return self.measured >= self.breaks_at
        return self.measured <= self.breaks_at

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"breaks_at": self.breaks_at, "passed": self.passed}


@dataclass(frozen=True)
class Result:
    """What a case found. `unit` gives the unit of each measure in `rounds`."""

    unit: dict[str, str]
    rounds: list[Round]
    ratio: dict[str, float] = field(default_factory=dict)
    limits: dict[str, Limit] = field(default_factory=dict)
    notes: dict[str, str | float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(limit.passed for limit in self.limits.values())


@dataclass(frozen=True)
class Case:
    """Something to measure. `run(rounds, full)` takes more time per round where `full`."""

    name: str
    limit: str
    run: Callable[[int, bool], Result]


def machine() -> dict[str, str | int]:
    """What a reader needs to compare two results; nothing that names the machine."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "description": f"{platform.system()} on {platform.machine()}",
    }


def as_json(case: Case, result: Result) -> dict[str, Any]:
    """The one format of `bench/results/<case>.json`."""
    found = {
        "case": case.name,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "unit": result.unit,
        "rounds": result.rounds,
        "median": medians(result.rounds),
        "ratio": result.ratio,
        "limit": {name: limit.as_dict() for name, limit in result.limits.items()},
        "notes": {"limit": case.limit, **result.notes},
        "passed": result.passed,
    }
    return {name: _rounded(value) for name, value in found.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
