"""What `copier update` takes when one file of the platform has changed between two releases."""

import shutil
import subprocess
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import measure, project
from bench.harness import BenchError, Case, Measures, Result, interleave, paired_ratio

CHANGED = "platform/redaction.py"
LINE = "# Changed by the second release.\n"


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
    measure.run(["git", *identity, *arguments], cwd=folder, env=project.environment())


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--no-verify", "--message", message)


def release_twice(template: Path) -> None:
    """A repository of the template with v0.1.0 and, one line later, v0.2.0."""
    git(template, "init", "--quiet", "--initial-branch=main")
    commit(template, "The first release")
    git(template, "tag", "v0.1.0")
    (changed,) = template.glob(f"template/src/*/{CHANGED}")
    changed.write_text(changed.read_text() + LINE)
    commit(template, "The second release")
    git(template, "tag", "v0.2.0")


def check(service: Path) -> None:
    """An update that changed nothing, or left a conflict, was not the work to be measured."""
    unmerged = subprocess.check_output(["git", "ls-files", "--unmerged"], cwd=service, text=True)
    (changed,) = service.glob(f"src/*/{CHANGED}")
    if unmerged or not changed.read_text().endswith(LINE):
        raise BenchError("the update did not bring the change, or left a conflict")


def updated(before: Path, service: Path) -> Measures:
    shutil.rmtree(service, ignore_errors=True)
    shutil.copytree(before, service, symlinks=True)
    command = [*project.COPIER, "update", "--defaults", "--quiet"]
    used = measure.run(command, cwd=service, env=project.environment())
    check(service)
    return {"cpu": used.cpu, "wall": used.wall}


def imported() -> Measures:
    used = project.import_copier()
    return {"cpu": used.cpu, "wall": used.wall}


def run(rounds: int, full: bool) -> Result:
    with TemporaryDirectory() as folder:
        template = project.export(Path(folder) / "template")
        release_twice(template)
        before = Path(folder) / "before"
        project.copy(template, before, "--vcs-ref=v0.1.0")
        emitted = len(project.files(before))
        git(before, "init", "--quiet", "--initial-branch=main")
        commit(before, "As copied")
        update = partial(updated, before, Path(folder) / "service")
        update()
        found = interleave({"import": imported, "update": update}, rounds)
    return Result(
        unit={"cpu": "s", "wall": "s"},
        rounds=found,
        ratio={"update / import": paired_ratio(found, "update", "import", "cpu")},
        notes={"emitted files": emitted},
    )


CASE = Case(name="update", limit="none: recorded, to be compared from release to release", run=run)
