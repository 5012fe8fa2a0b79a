"""Checks before a tag: what a release must not take away from the services that exist already.

Emitted paths are a public API. A path that vanishes takes the user's edits with it, in silence and
with exit code 0, so the paths of the last release are compared with those of today.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import copier
import yaml
from covertable import make
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
UNSAFE = {"_tasks", "_migrations", "_jinja_extensions"}
# A file under template/ that was renamed without moving what it emits, as when it gained `.jinja`:
# its old name, and the name that emits the same path now. An emitted path that moves is another
# matter: a file that names the new place stays at the old one.
TOMBSTONES: dict[str, str] = {}
# Whether the template is safe is another check's question; tasks are never run here.
render = partial(copier.run_copy, defaults=True, quiet=True, unsafe=True, skip_tasks=True)


def git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True)


def questions(commit: str) -> Any:
    return yaml.safe_load(git("show", f"{commit}:copier.yml"))


def last_release(before: Version) -> str | None:
    """The newest tag `v*` in our history that is older than `before`."""
    releases = {}
    for tag in git("tag", "--list", "v*", "--merged", "HEAD").split():
        with suppress(InvalidVersion):
            releases[Version(tag)] = tag
    older = [version for version in releases if version < before]
    return releases[max(older)] if older else None


def clean() -> Iterator[str]:
    if changed := git("status", "--porcelain").splitlines():
        yield f"the work tree is not clean: git status names {len(changed)}, as {changed[0][3:]}"


def dated(version: Version) -> Iterator[str]:
    heading = re.compile(rf"^## \[?v?{re.escape(str(version))}\]?(?!\S)(.*)$", re.MULTILINE)
    with suppress(FileNotFoundError, ValueError):
        section = heading.search((ROOT / "CHANGELOG.md").read_text())
        date.fromisoformat(section[1].strip(" -()") if section else "")
        return
    yield f"CHANGELOG.md has no section with a date for it, as in ## [{version}] - 2026-01-31"


def safe() -> Iterator[str]:
    for key in UNSAFE & questions("HEAD").keys():
        yield f"copier.yml has {key}: every copy and update would demand --trust, for good"


def named(commit: str) -> set[str]:
    """The paths under template/, as they are before they are rendered."""
    return set(git("ls-tree", "-r", "-z", "--name-only", commit, "template/").split("\0")) - {""}


def kept(tag: str) -> Iterator[str]:
    today = named("HEAD")
    for path in sorted(named(tag) - today):
        if TOMBSTONES.get(path) not in today:
            yield f"{path} was in {tag} and has gone: restore it, or name it in TOMBSTONES"


def combinations(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Every pair of answers to the questions that offer a choice."""
    factors: dict[str, list[Any]] = {}
    for name, question in config.items():
        choices = question.get("choices") if isinstance(question, dict) else None
        if choices:
            offered = choices.values() if isinstance(choices, dict) else choices
            factors[name] = [each["value"] if isinstance(each, dict) else each for each in offered]
        elif isinstance(question, dict) and question.get("type") == "bool":
            factors[name] = [True, False]
    return [dict(row) for row in make(factors, strength=min(2, len(factors)))] if factors else [{}]


def emitted(template: Path, answers: dict[str, Any]) -> set[str]:
    with TemporaryDirectory() as folder:
        render(str(template), folder, data=answers)
        files = (path for path in Path(folder).rglob("*") if not path.is_dir())
        return {path.relative_to(folder).as_posix() for path in files}


def export(commit: str, folder: Path) -> Path:
    folder.mkdir()
    archive = subprocess.check_output(["git", "archive", commit], cwd=ROOT)
    subprocess.run(["tar", "-xC", folder], input=archive, check=True)
    return folder


def emits(tag: str) -> Iterator[str]:
    gone: dict[str, set[tuple[str, Any]]] = {}
    with TemporaryDirectory() as folder:
        old, new = export(tag, Path(folder) / "old"), export("HEAD", Path(folder) / "new")
        for answers in combinations(questions(tag)):
            with suppress(ValueError):  # the old validators refuse this pair: nobody has it
                before = emitted(old, answers)
                try:
                    lost = before - emitted(new, answers)
                except ValueError as error:
                    yield f"answers that {tag} took are refused: {' '.join(str(error).split())}"
                    continue
                for path in lost:  # why: what all the combinations that lose it share
                    gone[path] = gone.get(path, set(answers.items())) & answers.items()
    for path, shared in sorted(gone.items()):
        why = ", ".join(f"{name}={value}" for name, value in sorted(shared)) or "any answers"
        yield f"{path} is no longer emitted as by {tag}, with {why}: leave a file there"


def check(version: Version) -> Iterator[str]:
    yield from clean()
    yield from dated(version)
    yield from safe()
    if tag := last_release(version):
        yield from list(kept(tag)) or emits(tag)
    else:
        print("no earlier release: there are no paths to keep")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", type=Version, help="what is to be tagged, as in 1.2.0")
    version = parser.parse_args().version
    findings = list(check(version))
    print("\n".join(findings) or f"{version} may be tagged")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
