"""Runs short commands of a service in forks of one process that has done the imports, as most of their time is these.

A command begins with the environment that it is given and ends with its exit code, as in a process of its own. What a
library reads from the environment while it is imported has no effect here: `Project.cli` is for that.
"""

import json
import subprocess
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

KEPT = 4  # processes, of about 90 MB each: those of the projects that were asked last
SECONDS = 60
_kept: OrderedDict[Path, subprocess.Popen[str]] = OrderedDict()
SHELL = """
import contextlib, importlib, json, os, signal, sys, traceback

package, seconds = sys.argv[1:]
cli = importlib.import_module(f"{package}.cli")
with contextlib.suppress(ModuleNotFoundError):
    importlib.import_module(f"{package}.ops.migrate")
    importlib.import_module(f"{package}.ops.backup.command")
importlib.import_module(f"{package}.main")

for line in sys.stdin:
    arguments, env, out, err = json.loads(line)
    if not (child := os.fork()):
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
        signal.alarm(int(seconds))
        os.environ.clear()
        os.environ.update(env)
        sys.argv, code = [package, *arguments], 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # to free what was imported takes twenty times as long as a command
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run(
    root: Path, python: Path, package: str, arguments: Sequence[str], env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the command line of the service in `root`: its exit code and what it says."""
    if root not in _kept:
        _kept[root] = subprocess.Popen(
            [python, "-c", SHELL, package, str(SECONDS)],
            cwd=root,
            env={name: env[name] for name in ("PATH", "PYTHONPATH")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    _kept.move_to_end(root)
    while len(_kept) > KEPT:
        close(next(iter(_kept)))
    shell = _kept[root]
    assert shell.stdin
    assert shell.stdout
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        shell.stdin.write(json.dumps([arguments, dict(env), str(out), str(err)]) + "\n")
        shell.stdin.flush()
        code = int(shell.stdout.readline())
        return subprocess.CompletedProcess([package, *arguments], code, out.read_text(), err.read_text())


def close(root: Path) -> None:
    """End the process of a project: it ends when there is nothing more to read."""
    with _kept.pop(root) as shell:
        assert shell.stdin
        shell.stdin.close()
