"""A process that has imported the libraries of a service, and runs code in forks of itself, as `python -c` does.

Started with the Python of the service and a socket as its standard input. Each message there is an order; a fork
imports the code of its project anew, so that a changed project runs its own. It needs the standard library alone.
"""

import ast
import gc
import importlib
import json
import os
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

MESSAGE_BYTES = 1 << 17


def libraries(folders: list[Path]) -> set[str]:
    """The modules from elsewhere that code imports, wherever it does."""
    found = set()
    for file in (file for folder in folders for file in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return found


def become(order: dict[str, Any], files: list[int]) -> None:
    """Be the process of a command: its session, files, folder, variables and arguments."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(files[1], 1)
    os.dup2(files[2], 2)
    os.closerange(3, max(files) + 1)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    sys.path[:0] = ["", *order["env"]["PYTHONPATH"].split(os.pathsep)]
    sys.argv = ["-c", *order["arguments"]]


def run(order: dict[str, Any], files: list[int]) -> None:
    """Run a piece of code, and never return; if `brief`, without freeing its memory, which may take longer than it."""
    code = 0
    try:
        become(order, files)
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(order["code"], main.__dict__)  # noqa: S102 as `python -c` does
    except SystemExit as end:
        if not order["brief"]:
            raise
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        if not order["brief"]:
            raise
        traceback.print_exc()
        code = 1
    if order["brief"]:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def main() -> None:
    """Run what is asked for, until nobody can ask any more."""
    for name in sorted(libraries([Path(folder) for folder in sys.argv[1:]])):
        with suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    asked = socket.socket(fileno=0)
    while True:
        message, files, *_ = socket.recv_fds(asked, MESSAGE_BYTES, 3)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            return
        if not os.fork():  # says how the command ends, as its parent alone is told
            if not (child := os.fork()):
                run(json.loads(message), files)
            os.write(files[0], b"%d\n" % child)
            os.write(files[0], b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            os._exit(0)
        for file in files:
            os.close(file)


if __name__ == "__main__":
    main()
