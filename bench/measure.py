"""CPU and memory of processes, from the kernel's own counts: a clock on a busy machine lies."""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.harness import BenchError
from tests.servers.process import descendants

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its running children, and those that it has reaped."""
    return sum(_times(each) for each in (pid, *descendants(pid)))


def resident_bytes(pid: int) -> int:
    """Memory of a process and its running children; what they share counts for each."""
    return sum(_pages(each) for each in (pid, *descendants(pid))) * _PAGE


def _times(pid: int) -> float:
    # proc(5): utime, stime, cutime and cstime are fields 14 to 17; the state, after the name, is 3.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICK


def _pages(pid: int) -> int:
    fields = _read(pid, "statm").split()
    return int(fields[1]) if fields else 0


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@dataclass(frozen=True)
class Used:
    """What a command took, with all that it started and waited for."""

    cpu: float
    wall: float


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Used:
    """Run a command to its end.

    Raises:
        BenchError: It failed; with the last line that it wrote.
    """
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        child = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        # Only wait4 tells what this one child took; getrusage adds up all that ever ended.
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines() or ["nothing said"]
            name = " ".join([Path(command[0]).name, *map(str, command[1:3])])
            raise BenchError(f"{name} ended with {child.returncode}: {lines[-1]}")
    return Used(usage.ru_utime + usage.ru_stime, wall)
