"""The template as a user gets it, and services made of it, for the cases that need one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench import measure
from bench.harness import BenchError
from tests import projects

COPIER = (sys.executable, "-m", "copier")
_FOREIGN = {*projects.FOREIGN, "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}


def environment() -> dict[str, str]:
    """What a developer's shell hands to a command, with uv on PATH and nothing of our own venv."""
    uv = Path(subprocess.check_output([projects.ROOT / "scripts" / "uv"], text=True).strip())
    path = os.pathsep.join([str(uv.parent), os.environ.get("PATH", os.defpath)])
    kept = {name: text for name, text in os.environ.items() if name not in _FOREIGN}
    return kept | {"PATH": path}


def export(folder: Path) -> Path:
    """Put the template, as it is in the work tree now, into a folder without git."""
    folder.mkdir()
    return projects.export(folder)


def copy(template: Path, service: Path, *options: str) -> measure.Used:
    """`copier copy --defaults`, as a user types it."""
    command: list[str | Path] = [
        *COPIER,
        "copy",
        "--defaults",
        "--quiet",
        *options,
        template,
        service,
    ]
    return measure.run(command, cwd=template.parent, env=environment())


def files(folder: Path) -> list[Path]:
    """What was emitted, sorted."""
    return sorted(each for each in folder.rglob("*") if each.is_file())


def import_copier() -> measure.Used:
    """What Python takes to import Copier: the part of every copy that is not ours."""
    return measure.run([sys.executable, "-c", "import copier"], env=environment())


def make_service(template: Path, service: Path, prepare: Callable[[Path], None], *options: str) -> Path:
    """Copy a service, let `prepare` add to it, install it with its bytecode as an image does: its `bin` folder."""
    copy(template, service, *options)
    prepare(service)
    measure.run(["uv", "sync", "--no-dev", "--quiet"], cwd=service, env=environment() | {"UV_COMPILE_BYTECODE": "1"})
    folder = service / ".venv" / "bin"
    if not folder.is_dir():
        raise BenchError("uv sync left no .venv behind")
    return folder
