"""The template: rendered by Copier, and cloned for its changelog, its rules and its migrations."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pathspec import PathSpec

from .repository import ENVIRONMENT, Repository, Tree, UpdateError

ANSWERS = ".copier-answers.yml"
ON_UPDATE = re.compile(r"{[%] if _copier_operation == 'update' [%]}(.+){[%] endif [%]}")
SHORTCUTS = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}  # of Copier
Rule = Callable[[str], bool]


def answers_of(folder: Path) -> dict[str, Any]:
    """The answers from which a folder was rendered.

    Raises:
        UpdateError: They are missing, or cannot be read.
    """
    try:
        found = dict(yaml.safe_load((folder / ANSWERS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UpdateError(f"{ANSWERS} is missing: git log -- {ANSWERS} names the commit that has it") from None
    except (ValueError, TypeError, yaml.YAMLError):
        raise UpdateError(f"{ANSWERS} is damaged: git log -p -- {ANSWERS} shows how it was") from None
    if not found.get("_src_path") or not found.get("_commit"):
        raise UpdateError(f"{ANSWERS} has no _src_path or no _commit: git log -p -- {ANSWERS} shows how it was")
    return found


def clone(service: Repository, answers: Mapping[str, Any], folder: Path) -> Repository:
    """Clone the template.

    Raises:
        UpdateError: It is unreachable, or no longer has the version of the service.
    """
    source = was = str(answers["_src_path"])
    for short, long in SHORTCUTS.items():
        if source.startswith(short):
            source = long + source.removeprefix(short)
    try:
        service.git("clone", "--quiet", "--no-checkout", source.removeprefix("git+"), str(folder))
        template = Repository(folder)
    except UpdateError as error:
        raise UpdateError(f"the template {was} is unreachable ({error}): correct _src_path in {ANSWERS}") from None
    if not template.resolve(version := str(answers["_commit"])):
        raise UpdateError(f"the template has no version {version}: correct _commit in {ANSWERS}, or restore its tag")
    return template


def render(service: Repository, target: Path, version: str, *options: str, text: str = "") -> "subprocess.Popen[str]":
    """Start rendering the template with the answers of the service.

    Args:
        service: Whose answers.
        target: A new folder for the files.
        version: A tag, a branch or a commit of the template; empty for the newest tag.
        options: More of `copier recopy`; without `--defaults` it asks for what has no answer yet.
        text: Other answers.
    """
    target.mkdir()
    (target / ANSWERS).write_bytes(text.encode() or (service.folder / ANSWERS).read_bytes())
    command = [sys.executable, "-m", "copier", "recopy", "--quiet", "--overwrite", "--skip-answered", *options]
    silent = "--defaults" in options
    return subprocess.Popen(  # noqa: S603 - our own words, and what the user typed
        [*command, *([f"--vcs-ref={version}"] if version else []), str(target)],
        cwd=service.folder,  # a relative _src_path begins here
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.DEVNULL if silent else None,
        stderr=subprocess.PIPE if silent else None,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> None:
    """Wait for Copier.

    Raises:
        UpdateError: It failed; the text is the last line that it said.
    """
    _, said = process.communicate()
    if process.returncode:
        lines = (said or "").strip().splitlines() or ["Copier stopped"]
        raise UpdateError(lines[-1].removeprefix("ValueError: "))


def rules(template: Repository, *versions: str) -> tuple[Rule, Rule]:
    """Read from copier.yml what belongs to the user, in any of the versions.

    Returns:
        Whether a path must exist, and whether it is the user's to delete.
    """
    must, may = [], []
    for version in versions:
        config = yaml.safe_load(template.git("show", f"{version}:copier.yml"))
        must += config.get("_skip_if_exists", [])
        may += [found[1] for each in config.get("_exclude", []) if (found := ON_UPDATE.fullmatch(each))]
    return PathSpec.from_lines("gitignore", must).match_file, PathSpec.from_lines("gitignore", may).match_file


def check_untracked(service: Repository, *rendered: Tree) -> None:
    """Refuse where git does not have what an update would overwrite.

    Raises:
        UpdateError: A file of the template is in the folder and not in git.
    """
    committed = service.committed()
    for path in sorted({path for each in rendered for path in each} - committed.keys()):
        if os.path.lexists(service.folder / path):
            raise UpdateError(f"{path} is in no commit: type git add --force {path}, and commit")
