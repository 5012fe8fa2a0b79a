"""The calculator of docs/capacity.md: figures that were worked out by hand, and wrong calls told in one line."""

import subprocess
import sys

import pytest

from tests.projects import ROOT

(SCRIPT,) = (ROOT / "template/scripts").glob("*capacity.py*")


def run(*arguments: str) -> tuple[int, list[str], str]:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


def figures(*arguments: str) -> list[int]:
    return [int(line[21:].split()[0]) for line in run(*arguments)[1]]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        # 400 / 80 = 5, a third more is 6.5; of 7 pods the two other zones must hold all: 7 x 3 / 2
        ("--peak 400 --per-pod 80", [7, 11, 3]),
        ("--peak 400 --per-pod 80 --zones 1", [7, 7, 2]),
        ("--peak 400 --per-pod 80 --zones 2 --spare 1", [6, 12, 2]),
        ("--peak 1 --per-pod 80", [1, 3, 3]),
        # (2 x 11 + 1) pods with 15 + 1 connections, and 6 of the jobs
        ("--peak 400 --per-pod 80 --connections 374", [7, 11, 3, 374]),
        ("--peak 400 --per-pod 80 --connections 1000 --pool 5", [7, 11, 3, 144]),
    ],
)
def test_the_figures_are_right(arguments: str, wanted: list[int]) -> None:
    assert figures(*arguments.split()) == wanted


def test_too_few_connections_are_told_with_what_fits() -> None:
    code, lines, error = run(*["--peak", "400", "--per-pod", "80", "--connections", "373"])
    assert (code, len(lines)) == (1, 4)
    assert error == "too few: allow 374, lower DB_POOL_SIZE + DB_POOL_EXTRA to 14, or see DB_POOLER\n"
    assert run(*["--peak", "400", "--per-pod", "80", "--connections", "373", "--pool", "14"])[0] == 0


@pytest.mark.parametrize(
    "wrong", ["--peak x", "--peak 0", "--peak -1", "--peak nan", "--peak inf", "--zones 0", "--pool 1.5"]
)
def test_a_wrong_call_is_told(wrong: str) -> None:
    code, lines, error = run("--peak", "1", "--per-pod", "1", *wrong.split())
    assert (code, lines) == (2, [])
    assert "use a number" in error.splitlines()[-1]
    assert "Traceback" not in error
