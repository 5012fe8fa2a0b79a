"""Runs the tests of a tier, phase by phase, and adds them up against the budgets.

Usage: python -m tests [--tier NAME] [--phase NAME] [--seconds N] [pytest arguments]
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import budget, proof
from tests.servers.process import descendants

# A module stays on one worker: it shares the servers and services that its fixtures start.
# Three workers on two cores, for they wait more than they work.
SERVERS = ["-n", "3", "--dist", "loadscope"]
PHASES = {
    "static": [
        "-m",
        "not servers and not wide and not sabotage and not timing and not cluster",
        "-n",
        "2",
        "--dist",
        "worksteal",
    ],
    "servers": ["-m", "servers and not wide and not sabotage and not timing and not cluster", *SERVERS],
    "sabotages": ["-m", "(sabotage or wide) and not timing and not cluster", *SERVERS],
    # Alone on the machine, or a latency says more about the neighbours than about the service.
    "timing": ["-m", "timing and not cluster", "-n", "0"],
    # One node for all: see tests/cluster.
    "cluster": ["-m", "cluster", "-n", "0", "-s"],
}
# `test` proves each promise; `prove` shows that its proof can fail, and asserts latencies.
TIERS = {
    "test": ("static", "servers"),
    "prove": ("sabotages", "timing"),
    "cluster": ("cluster",),
    "full": ("static", "servers", "sabotages", "timing"),
}
# By its entry point's name: where plugins load themselves, it is the same one. A test that hangs fails under its name.
HANGS = ["-p", "timeout", f"--timeout={proof.count(gate=300, full=1800)}"]
DEAREST = 10  # tests that are named at the end
BENIGN = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


class Total:
    """What all phases together took and found."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.cpu: Counter[str] = Counter()

    def run(self, phase: str, arguments: list[str], most: float) -> None:
        print(f"--- {phase}", flush=True)
        begun = time.monotonic()
        with TemporaryDirectory() as folder:
            record = Path(folder) / "record.json"
            plugin = ["-p", "tests.budget", f"--record={record}"]
            command = [sys.executable, "-m", "pytest", "-q", "-rs", *plugin, *HANGS, *PHASES[phase]]
            with subprocess.Popen([*command, *arguments], env=environment()) as running:
                try:
                    code = running.wait(most)
                except subprocess.TimeoutExpired:
                    print(f"error: {phase} did not end within {most:g} s")
                    code = pytest.ExitCode.INTERRUPTED
                    end(running.pid)
            found = json.loads(record.read_text()) if record.exists() else {}
        for area, seconds in found.get("seconds", {}).items():
            self.seconds[area] += seconds
        self.cpu.update(found.get("cpu", {}))
        counts = Counter(found.get("counts", {}))
        if code not in BENIGN and not counts["failed"]:
            counts["failed"] = 1  # a phase that broke down has no failed test to show for it
        self.counts.update(counts)
        ends = ", ".join(f"{seconds:.0f}" for seconds in sorted(found.get("ends", {}).values()))
        spent = sum(found.get("cpu", {}).values())
        took = f"{time.monotonic() - begun:.0f} s, of the processor {spent:.0f} s"
        print(f"--- {phase}: {took}; workers ended after {ends} s", flush=True)


def end(pid: int) -> None:
    """Kill a process and the servers that it has started: they live in sessions of their own."""
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def environment() -> dict[str, str]:
    """Ours, but pytest keeps what it compiles: rewriting its plugins takes each process seconds.

    What was typed as `make test ARGS=…` would be the ARGS of every `make` in a test, too.
    """
    unwanted = {"ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHONDONTWRITEBYTECODE"}
    return {name: text for name, text in os.environ.items() if name not in unwanted}


def table(seconds: dict[str, float], budgets: dict[str, float]) -> str:
    rows = [f"{name:20} {spent:8.1f} {budgets.get(name, math.inf):8.0f}" for name, spent in sorted(seconds.items())]
    return "\n".join([f"{'area':20} {'seconds':>8} {'budget':>8}", *rows])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests", allow_abbrev=False)
    parser.add_argument("--tier", choices=TIERS, default="full", help="which phases (%(default)s)")
    parser.add_argument("--phase", choices=PHASES, action="append", help="only this phase")
    most = proof.count(gate=3_600, full=6 * 3_600)
    parser.add_argument("--seconds", type=float, default=most, help="how long a phase may take (%(default)s)")
    options, arguments = parser.parse_known_args()
    folder = Path("tests")
    budgets = budget.load(folder / "budget.toml")
    if areas := budget.missing(folder, budgets):
        print(f"tests/budget.toml has no line for: {', '.join(areas)}", file=sys.stderr)
        return 1

    total = Total()
    for phase in options.phase or TIERS[options.tier]:
        total.run(phase, arguments, options.seconds)

    print("\nseconds of the processor, with the fixtures that a test is the first to need:")
    print("\n".join(f"{spent:8.1f} {test}" for test, spent in total.cpu.most_common(DEAREST)))
    print(f"\n{table(total.seconds, budgets)}\n")
    slow = budget.exceeded(total.seconds, budgets)
    for name in slow:
        print(f"{'error' if proof.FULL else 'warning'}: {name} is more than half over its budget")
    counts = total.counts
    if not counts:
        print("error: no test ran")
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    print(f"{counts['passed']} passed, {counts['failed']} failed{skipped}")
    return int(bool(counts["failed"] or not counts or (slow and proof.FULL)))


if __name__ == "__main__":
    sys.exit(main())
