"""The harness does its maths within rounds, and tells a kept limit from a broken one."""

import json
import sys
from pathlib import Path

import pytest

from bench import measure
from bench.__main__ import main
from bench.cases import find
from bench.harness import BenchError, Case, Limit, Result, interleave, medians, paired_ratio
from tests.projects import ROOT

# B costs twice what A does; rounds 3 to 5 were slow for both, but for A's half of the last one.
ROUNDS = [{"a": {"cpu": a}, "b": {"cpu": b}} for a, b in ((1.0, 2.0), (1.0, 2.0), (4.0, 8.0), (4.0, 8.0), (1.0, 8.0))]


def test_a_ratio_is_taken_within_each_round() -> None:
    assert paired_ratio(ROUNDS, "b", "a", "cpu") == 2.0
    assert paired_ratio(ROUNDS, "a", "b", "cpu") == 0.5
    # The negative: of the medians, which belong to different rounds, the ratio is four times that.
    assert medians(ROUNDS) == {"a": {"cpu": 1.0}, "b": {"cpu": 8.0}}


def test_the_subjects_take_turns() -> None:
    order: list[str] = []

    def subject(name: str) -> dict[str, float]:
        order.append(name)
        return {"turn": len(order)}

    rounds = interleave({"a": lambda: subject("a"), "b": lambda: subject("b")}, 5)
    assert order == ["a", "b"] * 5
    assert [each["a"]["turn"] for each in rounds] == [1, 3, 5, 7, 9]


def test_fewer_than_five_rounds_are_refused() -> None:
    with pytest.raises(BenchError, match="at least 5"):
        interleave({"a": lambda: {"cpu": 1.0}}, 4)


@pytest.mark.parametrize(
    ("limit", "passed", "verdict"),
    [
        (Limit("floor", 0.55, 0.60), True, "holds"),
        (Limit("floor", 0.55, 0.45), True, "noise?"),
        (Limit("floor", 0.55, 0.43), False, "BROKEN"),
        (Limit("ceiling", 60, 60), True, "holds"),
        (Limit("ceiling", 60, 60.1), False, "BROKEN"),
    ],
)
def test_a_floor_forgives_a_fifth_and_a_ceiling_nothing(limit: Limit, passed: bool, verdict: str) -> None:
    assert (limit.passed, limit.verdict) == (passed, verdict)


def case(ceiling: float) -> Case:
    """A real one, and small: what it takes to start Python."""

    def run(rounds: int, full: bool) -> Result:
        start = [sys.executable, "-c", "pass"]
        found = interleave({"python": lambda: {"cpu": measure.run(start).cpu}}, rounds)
        least = min(each["python"]["cpu"] for each in found)
        return Result(unit={"cpu": "s"}, rounds=found, limits={"cpu": Limit("ceiling", ceiling, least)})

    return Case("start", f"at most {ceiling} s", run)


@pytest.mark.parametrize(("ceiling", "code"), [(60.0, 0), (0.0, 1)])
def test_a_broken_limit_exits_with_1_and_a_kept_one_with_0(ceiling: float, code: int, tmp_path: Path) -> None:
    cases = {"start": case(ceiling)}
    assert main(["start", f"--results={tmp_path}"], cases) == code
    found = json.loads((tmp_path / "start.json").read_text())
    assert found["passed"] is (code == 0)
    assert found["limit"]["cpu"]["passed"] is (code == 0)
    assert len(found["rounds"]) == 5
    assert found["median"]["python"]["cpu"] > 0


def test_what_cannot_be_measured_exits_with_2_also_beside_a_broken_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(rounds: int, full: bool) -> Result:
        measure.run([sys.executable, "-c", "raise SystemExit('no such luck')"])
        raise AssertionError

    cases = {"unlucky": Case("unlucky", "none", run), "start": case(0.0)}
    assert main([f"--results={tmp_path}"], cases) == 2
    assert "ended with 1: no such luck" in capsys.readouterr().err
    assert not (tmp_path / "unlucky.json").exists()


def test_an_unknown_case_exits_with_2_and_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["overhaed"]) == 2
    assert f"no case overhaed; there are: {', '.join(find())}" in capsys.readouterr().err


def test_every_result_that_is_kept_belongs_to_a_case_and_has_the_one_format() -> None:
    files = sorted(ROOT.glob("bench/results/*.json"))
    assert {file.stem for file in files} == find().keys()
    formats = {tuple(json.loads(file.read_text())) for file in files}
    assert formats == {("case", "date", "machine", "unit", "rounds", "median", "ratio", "limit", "notes", "passed")}
