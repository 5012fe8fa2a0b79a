"""The runner: it adds the phases up, tells when an area is slow, and is red when it should be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import proof
from tests.servers.process import alive

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
STARTS_AND_HANGS = """
import pathlib, subprocess, time

server = subprocess.Popen(["sleep", "600"], start_new_session=True)
pathlib.Path("server.pid").write_text(str(server.pid))
time.sleep(600)
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
    return subprocess.run(
        [sys.executable, "-m", "tests", "-p", "xdist", *arguments],
        cwd=folder,
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.splitlines()[-1]


def test_it_adds_up_all_phases_of_an_area(tmp_path: Path) -> None:
    files = {
        "budget.toml": "one = 60\ntwo = 60\n",
        "test_one.py": PASSES,
        "two/test_a.py": MARKED.format("servers"),
        "two/test_b.py": MARKED.format("timing"),
        "two/test_c.py": SKIPS,
    }
    done = run(tmp_path, files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_line(done) == "3 passed, 0 failed, 1 skipped"
    assert "needs root" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()[-5:-2]]
    assert [(row[0], row[2]) for row in rows] == [("area", "budget"), ("one", "60"), ("two", "60")]


@pytest.mark.parametrize("text", [FAILS, TEARDOWN, "import no_such_module\n"])
def test_it_is_red_when_a_test_fails(tmp_path: Path, text: str) -> None:
    files = {"budget.toml": "one = 60\n", "test_one.py": text}
    done = run(tmp_path, files, "--phase", "static")
    assert done.returncode == 1
    assert last_line(done).endswith(" failed")
    assert ", 0 failed" not in last_line(done)


def test_a_teardown_that_fails_makes_one_failed_test_of_a_passed_one(tmp_path: Path) -> None:
    done = run(tmp_path, {"budget.toml": "one = 60\n", "test_one.py": TEARDOWN}, *QUICK)
    assert last_line(done) == "0 passed, 1 failed"


def test_a_test_that_hangs_fails_under_its_name(tmp_path: Path) -> None:
    """Also where it hangs while its fixtures end, which is when all of its dots are printed."""
    done = run(tmp_path, {"budget.toml": "one = 60\n", "test_one.py": HANGS}, *QUICK, "--timeout=1")
    assert (done.returncode, last_line(done)) == (1, "0 passed, 1 failed")
    assert "ERROR at teardown of test_it" in done.stdout
    assert "Timeout (>1.0s)" in done.stdout


def test_no_test_may_take_for_ever(tmp_path: Path) -> None:
    text = "def test_it(pytestconfig):\n    assert pytestconfig.getoption('timeout') >= 300\n"
    files = {"budget.toml": "one = 60\n", "test_one.py": text}
    assert last_line(run(tmp_path, files, *QUICK)) == "1 passed, 0 failed"


def test_a_phase_that_hangs_is_ended_with_its_servers(tmp_path: Path) -> None:
    done = run(tmp_path, {"budget.toml": "one = 60\n", "conftest.py": STARTS_AND_HANGS}, *QUICK, "--seconds=12")
    assert (done.returncode, last_line(done)) == (1, "0 passed, 1 failed")
    assert "error: static did not end within 12 s" in done.stdout
    assert not alive(int((tmp_path / "server.pid").read_text()))


def test_arguments_choose_tests(tmp_path: Path) -> None:
    files = {"budget.toml": "one = 9\ntwo = 9\n", "test_one.py": PASSES, "test_two.py": FAILS}
    done = run(tmp_path, files, *QUICK, "tests/test_one.py", "-k", "it")
    assert (done.returncode, last_line(done)) == (0, "1 passed, 0 failed")


def test_one_phase_can_be_chosen(tmp_path: Path) -> None:
    files = {"budget.toml": "one = 9\ntwo = 9\n", "test_one.py": PASSES, "test_two.py": FAILS}
    done = run(tmp_path, files | {"test_two.py": MARKED.format("timing")}, "--phase", "timing")
    assert (done.returncode, last_line(done)) == (0, "1 passed, 0 failed")
    assert "--- static" not in done.stdout


def test_no_test_at_all_is_red(tmp_path: Path) -> None:
    done = run(tmp_path, {"budget.toml": "one = 60\n", "test_one.py": PASSES}, "-n", "0", "-k", "nothing")
    assert done.returncode == 1
    assert "error: no test ran" in done.stdout


def test_an_argument_that_pytest_does_not_know_is_red(tmp_path: Path) -> None:
    files = {"budget.toml": "one = 60\n", "test_one.py": PASSES}
    done = run(tmp_path, files, *QUICK, "--no-such-option")
    assert (done.returncode, last_line(done)) == (1, "0 passed, 1 failed")


@pytest.mark.parametrize(
    ("budget", "full", "code", "says"),
    [
        ("0.01", False, 0, "warning: one is more than half over its budget"),
        ("0.01", True, 1, "error: one is more than half over its budget"),
        ("60", False, 0, ""),
        ("60", True, 0, ""),
    ],
)
def test_a_slow_area_warns_in_the_gate_and_fails_in_full(
    tmp_path: Path, budget: str, full: bool, code: int, says: str
) -> None:
    files = {"budget.toml": f"one = {budget}\n", "test_one.py": SLEEPS}
    done = run(tmp_path, files, *QUICK, full=full)
    assert (done.returncode, last_line(done)) == (code, "1 passed, 0 failed")
    assert says in done.stdout
    assert bool(says) == ("over its budget" in done.stdout)


def test_an_area_without_a_budget_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, {"budget.toml": "two = 60\n", "test_one.py": PASSES})
    assert done.returncode == 1
    assert done.stderr == "tests/budget.toml has no line for: one\n"
    assert "passed" not in done.stdout


def test_full_counts_are_used_only_in_full() -> None:
    assert proof.count(gate=3, full=20) == (20 if proof.FULL else 3)
