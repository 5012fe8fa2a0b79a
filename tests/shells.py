"""Runs services, and code that uses them, in forks of a process that has imported their libraries: `preloaded`.

Two thirds of a start are these imports. A fork begins with the environment that it is given, imports the code of its
project anew, and is a process of its own. What a library reads from the environment while Python starts or imports it
has no effect there: what sets that is started as usual. So is all with `PROOF=full`, which tells whose fault it is.
"""

import io
import json
import os
import select
import socket
import subprocess
import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tests import proof

SOURCE = Path(__file__).with_name("preloaded.py")
# Read at the start of Python, or by a library while it is imported.
EARLY = ("LANG", "LC_", "LD_", "OTEL_PROPAGATORS", "OTEL_PYTHON_", "PYTHON")
KEPT = 6  # processes, of about 130 MB each: those of the environments that were asked last
FEW = 2  # commands in an environment are started as usual: to import for them all would take longer
_asked: Counter[Path] = Counter()
_kept: OrderedDict[Path, tuple[socket.socket, dict[str, str], subprocess.Popen[bytes]]] = OrderedDict()


class Fork:
    """A running command, with what tests use of `subprocess.Popen`."""

    def __init__(self, told: IO[bytes]) -> None:
        self._told = told
        self.pid = int(told.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; `TimeoutExpired` after so many seconds."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout or 0)
            self.returncode = int(self._told.readline())
            self._told.close()
        return self.returncode


def early(env: Mapping[str, str]) -> dict[str, str]:
    """Those variables that have no effect in a fork."""
    return {name: value for name, value in env.items() if name.startswith(EARLY) and name != "PYTHONPATH"}


def fork(
    python: Path,
    code: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    out: IO[bytes],
    err: IO[bytes],
    brief: bool = False,
) -> Fork | None:
    """Start what `python -c CODE ARGUMENTS` does; None if a fork would not be the same as a process of its own.

    Args:
        python: Of the service's environment.
        code: What it runs.
        arguments: What it finds in `sys.argv`.
        cwd: The project.
        env: All variables.
        out: Where it writes.
        err: Where it writes errors.
        brief: Whether it may end without what Python does at its end: it has nothing that waits for that.
    """
    _asked[python] += 1
    if proof.FULL or sys.platform != "linux" or _asked[python] <= FEW:
        return None
    if python not in _kept:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            clean = {**early(env), "PATH": env["PATH"]}
            command = [str(python), "-P", str(SOURCE), str(cwd / "src"), str(cwd / "ready")]
            begun = subprocess.Popen(command, cwd="/", env=clean, stdin=theirs.fileno(), start_new_session=True)
        _kept[python] = (ours, early(env), begun)
    _kept.move_to_end(python)
    while len(_kept) > KEPT:
        close(next(iter(_kept)))
    asked, known, _ = _kept[python]
    if early(env) != known:
        return None
    order = {"arguments": arguments, "brief": brief, "code": code, "env": dict(env), "folder": str(cwd)}
    reads, writes = os.pipe()
    try:
        socket.send_fds(asked, [json.dumps(order).encode()], [writes, out.fileno(), err.fileno()])
    finally:
        os.close(writes)
    return Fork(os.fdopen(reads, "rb", buffering=0))


def run(
    python: Path, code: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], brief: bool = False
) -> subprocess.CompletedProcess[str] | None:
    """Run that to its end: its exit code and what it says; None as above."""
    with TemporaryFile() as out, TemporaryFile() as err:
        child = fork(python, code, arguments, cwd=cwd, env=env, out=out, err=err, brief=brief)
        if child is None:
            return None
        status = child.wait()
        out.seek(0)
        err.seek(0)
        said = [io.TextIOWrapper(file).read() for file in (out, err)]
        return subprocess.CompletedProcess([str(python), "-c", code, *arguments], status, *said)


def close(python: Path) -> None:
    """End the process of an environment: it ends when nobody can ask any more. Its forks run on."""
    asked, _, begun = _kept.pop(python)
    asked.close()
    begun.wait()
