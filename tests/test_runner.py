"""The runner: it adds the phases up, tells when an area is slow, and is red when it should be."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import commands, proof
from tests.__main__ import end
from tests.servers.process import Process, alive, descendants

ROOT = Path(__file__).parents[1]
QUICK = ("--phase", "static", "-n", "0")
PASSES = "def test_it():\n    assert True\n"
FAILS = "def test_it():\n    assert not True\n"
SLEEPS = "import time\n\ndef test_it():\n    time.sleep(0.2)\n"
MARKED = "import pytest\n\n@pytest.mark.{0}\ndef test_{0}():\n    assert True\n"
SKIPS = "import pytest\n\ndef test_it():\n    pytest.skip('needs root')\n"
HANGS = """
import pytest, threading

@pytest.fixture(scope="session")
def thing():
    yield
    threading.Event().wait()

def test_it(thing):
    assert True
"""
PATIENT = """
def test_it(pytestconfig):
    assert pytestconfig.getoption("timeout") >= 300
"""
TEARDOWN = """
import pytest

@pytest.fixture
def thing():
    yield
    raise OSError

def test_it(thing):
    assert True
"""


def run(folder: Path, files: dict[str, str], *arguments: str, full: bool = False) -> subprocess.CompletedProcess[str]:
    """Run our runner on a folder with `tests/` of its own."""
    for name, text in files.items():
        file = folder / "tests" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    # The plugins that other areas need take each process seconds to load.
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PROOF": "full" if full else ""}
    command = [sys.executable, "-m", "tests", "-p", "xdist", *arguments]
    return commands.run(*command, cwd=folder, env=env | {"PYTHONPATH": str(ROOT)})


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.splitlines()[-1]


def test_it_adds_up_all_phases_of_an_area(tmp_path: Path) -> None:
    """And no test may take for ever; also at full counts it is green."""
    files = {
        "budget.toml": "one = 60\ntwo = 60\n",
        "test_one.py": PATIENT,
        "two/test_a.py": MARKED.format("servers"),
        "two/test_b.py": MARKED.format("timing"),
        "two/test_c.py": SKIPS,
        "two/test_d.py": MARKED.format("sabotage"),
    }
    done = run(tmp_path, files, "-n", "0", full=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_line(done) == "4 passed, 0 failed, 1 skipped"
    assert "needs root" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()[-5:-2]]
    assert [(row[0], row[2]) for row in rows] == [("area", "budget"), ("one", "60"), ("two", "60")]


def test_it_is_red_when_a_test_or_its_teardown_fails(tmp_path: Path) -> None:
    """Who fails while its fixtures end has passed before, and is one failed test nevertheless."""
    files = {"budget.toml": "one = 60\ntwo = 60\n", "test_one.py": FAILS, "test_two.py": TEARDOWN}
    done = run(tmp_path, files, "--phase", "static")
    assert (done.returncode, last_line(done)) == (1, "0 passed, 2 failed")


def test_it_is_red_when_a_file_cannot_be_imported(tmp_path: Path) -> None:
    done = run(tmp_path, {"budget.toml": "one = 60\n", "test_one.py": "import no_such_module\n"}, *QUICK)
    assert (done.returncode, last_line(done)) == (1, "0 passed, 1 failed")


def test_a_test_that_hangs_fails_under_its_name(tmp_path: Path) -> None:
    """Also where it hangs while its fixtures end, which is when all of its dots are printed."""
    done = run(tmp_path, {"budget.toml": "one = 60\n", "test_one.py": HANGS}, *QUICK, "--timeout=1")
    assert (done.returncode, last_line(done)) == (1, "0 passed, 1 failed")
    assert "ERROR at teardown of test_it" in done.stdout
    assert "Timeout (>1.0s)" in done.stdout


def test_a_phase_that_hangs_is_ended(tmp_path: Path) -> None:
    """One that has not yet begun: no phase begins within a tenth of a second."""
    done = run(tmp_path, {"budget.toml": "one = 60\n", "test_one.py": PASSES}, *QUICK, "--seconds=0.1")
    assert (done.returncode, last_line(done)) == (1, "0 passed, 1 failed")
    assert "error: static did not end within 0.1 s" in done.stdout


def test_with_a_phase_end_the_servers_that_it_has_started() -> None:
    process = Process(["sh", "-c", "setsid sleep 600 & sleep 600"])
    process.wait_until(lambda: len(descendants(process.pid)) > 1, 10)
    family = {process.pid, *descendants(process.pid)}
    end(process.pid)
    process.wait(10)
    deadline = time.monotonic() + 10  # the kernel takes its time
    while any(alive(pid) for pid in family):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_phase_and_its_tests_can_be_chosen(tmp_path: Path) -> None:
    other = FAILS.replace("test_it", "test_other")
    files = {"budget.toml": "one = 9\ntwo = 9\n", "test_one.py": FAILS, "test_two.py": MARKED.format("timing") + other}
    done = run(tmp_path, files, "--phase", "timing", "tests/test_two.py", "-k", "timing")
    assert (done.returncode, last_line(done)) == (0, "1 passed, 0 failed")
    assert "--- static" not in done.stdout


def test_no_test_at_all_is_red(tmp_path: Path) -> None:
    done = run(tmp_path, {"budget.toml": "one = 60\n", "test_one.py": PASSES}, *QUICK, "-k", "nothing")
    assert done.returncode == 1
    assert "error: no test ran" in done.stdout


def test_an_argument_that_pytest_does_not_know_is_red(tmp_path: Path) -> None:
    done = run(tmp_path, {"budget.toml": "one = 60\n", "test_one.py": PASSES}, *QUICK, "--no-such-option")
    assert (done.returncode, last_line(done)) == (1, "0 passed, 1 failed")


@pytest.mark.parametrize("full", [False, True])
def test_a_slow_area_warns_in_the_gate_and_fails_in_full(tmp_path: Path, full: bool) -> None:
    files = {"budget.toml": "one = 0.01\ntwo = 60\n", "test_one.py": SLEEPS, "test_two.py": SLEEPS}
    done = run(tmp_path, files, *QUICK, full=full)
    assert (done.returncode, last_line(done)) == (int(full), "2 passed, 0 failed")
    said = [line for line in done.stdout.splitlines() if "over its budget" in line]
    assert said == [f"{'error' if full else 'warning'}: one is more than half over its budget"]


def test_an_area_without_a_budget_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, {"budget.toml": "two = 60\n", "test_one.py": PASSES})
    assert done.returncode == 1
    assert done.stderr == "tests/budget.toml has no line for: one\n"
    assert "passed" not in done.stdout


def test_full_counts_are_used_only_in_full() -> None:
    assert proof.count(gate=3, full=20) == (20 if proof.FULL else 3)


VARIANTS = """
import pytest

@pytest.mark.{}
@pytest.mark.parametrize("number", range(12))
def test_it(number):
    assert number >= 0
"""


@pytest.mark.parametrize(
    ("marks", "full", "expected"),
    [
        ("wide", False, 12),
        ("wide", True, 36),
        ("servers\n@pytest.mark.sabotage", False, 12),
        ("sabotage", False, 36),
    ],
    ids=["variants", "full", "sabotages on servers", "sabotages without"],
)
def test_what_takes_turns_has_its_own_within_three_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marks: str, full: bool, expected: int
) -> None:
    days = []
    for day in range(proof.DAYS):
        monkeypatch.setenv("ROTATION", str(day))
        files = {"test_a.py": VARIANTS.format(marks), "budget.toml": "a = 9\n"}
        done = run(tmp_path, files, "--phase", "sabotages", "-n", "0", full=full)
        days.append(int(done.stdout.rpartition(" passed")[0].split()[-1]))
    assert sum(days) == expected
    assert min(days) > 0
