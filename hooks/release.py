"""Checks before a tag: what a release must not take away from the services that exist already.

Emitted paths are a public API. A path that vanishes takes the user's edits with it, in silence and
with exit code 0, so the paths of the last release are compared with those of today. So are the questions, the
settings, what belongs to the user, and the functions and types that the user's code imports.
"""

import argparse
import ast
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import copier
import jinja2
import yaml
from covertable import make
from packaging.version import InvalidVersion, Version
from pathspec import PathSpec

ROOT = Path(__file__).resolve().parents[1]
UNSAFE = {"_tasks", "_migrations", "_jinja_extensions"}
# A file under template/ that was renamed without moving what it emits, as when it gained `.jinja`:
# its old name, and the name that emits the same path now. An emitted path that moves is another
# matter: a file that names the new place stays at the old one.
TOMBSTONES: dict[str, str] = {}
# What a release takes away on purpose: a question, a setting or a name of the interface, and where the upgrade
# notes say what to do instead.
ACCEPTED: dict[str, str] = {}
# Where only the user's own files are, in every version (template/docs/rooms.md.jinja): none of ours may appear there.
RESERVED = PathSpec.from_lines("gitignore", ["src/*/rooms/", "ready/checks/local_*", "Makefile.local", ".env"])
ON_UPDATE = re.compile(r"{% if _copier_operation == 'update' %}(.+){% endif %}")
VARIABLE = re.compile(r"^#?([A-Z][A-Z0-9_]+)=", re.MULTILINE)
PLATFORM = "template/src/{{ package_name }}/platform/"
# What features and rooms of the user import.
INTERFACE = ("__init__", "http_cache/policy", "problems", "room", "settings", "state", "values")
# Whether the template is safe is another check's question; tasks are never run here.
render = partial(copier.run_copy, defaults=True, quiet=True, unsafe=True, skip_tasks=True)


class RenderError(Exception):
    """A file of the template is wrong; the text is one line."""


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
    """The paths, and as `setting NAME` the variables of .env.example.

    Raises:
        ValueError: A validator refuses an answer.
        RenderError: The template cannot be rendered.
    """
    with TemporaryDirectory() as folder:
        try:
            render(str(template), folder, data=answers)
        except jinja2.TemplateError as error:
            frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.endswith(".py")]
            place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "a file name or a question"
            given = ", ".join(f"{name}={value}" for name, value in sorted(answers.items()))
            raise RenderError(f"{place} cannot be rendered, with {given}: {error.message}") from None
        files = (path for path in Path(folder).rglob("*") if not path.is_dir())
        example = Path(folder) / ".env.example"
        names = VARIABLE.findall(example.read_text()) if example.exists() else []
        return {path.relative_to(folder).as_posix() for path in files} | {f"setting {name}" for name in names}


def export(commit: str, folder: Path) -> Path:
    folder.mkdir()
    archive = subprocess.check_output(["git", "archive", commit], cwd=ROOT)
    subprocess.run(["tar", "-xC", folder], input=archive, check=True)
    return folder


def users(config: dict[str, Any]) -> "PathSpec[Any]":
    """The files that an update leaves to the user."""
    excluded = [found[1] for each in config.get("_exclude", []) if (found := ON_UPDATE.fullmatch(each))]
    return PathSpec.from_lines("gitignore", [*config.get("_skip_if_exists", []), *excluded])


def taken(tag: str) -> Iterator[str]:
    """What any combination of answers of the last release loses, or must share with us from now on."""
    found: dict[str, set[tuple[str, Any]]] = {}
    before, today = users(questions(tag)), users(questions("HEAD"))
    with TemporaryDirectory() as folder:
        old, new = export(tag, Path(folder) / "old"), export("HEAD", Path(folder) / "new")
        rows = combinations(questions(tag))
        for number, answers in enumerate(rows, 1):
            print(f"rendering {number} of {len(rows)} combinations of answers", file=sys.stderr)
            with suppress(ValueError):  # the old validators refuse this pair: nobody has it
                had = emitted(old, answers)
                try:
                    has = emitted(new, answers)
                except ValueError as error:
                    yield f"answers that {tag} took are refused: {' '.join(str(error).split())}"
                    continue
                lines = [lost(each, tag) for each in had - has if each.removeprefix("setting ") not in ACCEPTED]
                ours = [path for path in had & has if before.match_file(path) and not today.match_file(path)]
                lines += [f"{path} belonged to the user in {tag} and is overwritten now" for path in ours]
                lines += [f"{path} is a place of the user" for path in has - had if RESERVED.match_file(path)]
                for line in lines:  # why: what all the combinations that have it share
                    found[line] = found.get(line, set(answers.items())) & answers.items()
    for line, shared in sorted(found.items()):
        yield f"{line}, with {', '.join(f'{name}={value}' for name, value in sorted(shared)) or 'any answers'}"


def lost(name: str, tag: str) -> str:
    advice = "keep the old name as an alias" if name.startswith("setting ") else "leave a file there"
    return f"{name} is no longer emitted as by {tag} ({advice})"


def renders() -> None:
    """Render what can be answered today.

    Raises:
        RenderError: The template cannot be rendered.
    """
    with TemporaryDirectory() as folder:
        new, rows = export("HEAD", Path(folder) / "new"), combinations(questions("HEAD"))
        for number, answers in enumerate(rows, 1):
            print(f"rendering {number} of {len(rows)} combinations of answers", file=sys.stderr)
            with suppress(ValueError):  # a validator refuses this pair
                emitted(new, answers)


def asked(tag: str) -> Iterator[str]:
    """Questions of the last release that would forget their answers."""
    today = questions("HEAD")
    for name in sorted(questions(tag).keys() - today.keys() - ACCEPTED.keys()):
        defaults = [str(each.get("default")) for each in today.values() if isinstance(each, dict)]
        if not name.startswith("_") and not any(re.search(rf"\b{name}\b", default) for default in defaults):
            advice = f"let the default of its successor begin with {{{{ {name} | default(…"
            yield f"question {name} was in {tag} and has gone: {advice}"


def migrating(tag: str, version: Version) -> Iterator[str]:
    """Migrations that `make update` would print for a release that is no new major version, or would not find."""
    before, today = (set(git("ls-tree", "--name-only", each, "hooks/migrations/").split()) for each in (tag, "HEAD"))
    for path in sorted(today - before - {"hooks/migrations/README.md"}):
        if path != f"hooks/migrations/v{version.major}.py" or version.major == Version(tag).major:
            yield f"{path} is new, and only a new major version N brings hooks/migrations/vN.py"


def interface(commit: str) -> dict[str, str]:
    """What the user's code may rely on: each public function, parameter, type and field, and how it is declared."""
    there = set(git("ls-tree", "-r", "-z", "--name-only", commit, PLATFORM).split("\0"))
    found: dict[str, str] = {}
    for module in INTERFACE:
        path = next(
            (path for path in (f"{PLATFORM}{module}.py", f"{PLATFORM}{module}/__init__.py") if path in there), ""
        )
        if path:
            declared(ast.parse(git("show", f"{commit}:{path}")).body, f"platform/{module}", found)
    return found


def declared(body: list[ast.stmt], prefix: str, found: dict[str, str]) -> None:
    for node in body:
        name = f"{prefix}.{getattr(node, 'name', '')}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            marks = " ".join(ast.unparse(mark) for mark in node.decorator_list)
            kind = "async" if isinstance(node, ast.AsyncFunctionDef) else "def"
            found[name] = f"{marks} {kind} -> {node.returns and ast.unparse(node.returns)}"
            parameters(node.args, name, found)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found[name] = "class"
            declared(node.body, name, found)
        elif isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_"):
            found[f"{prefix}.{ast.unparse(node.target)}"] = ast.unparse(node.annotation)


def parameters(given: ast.arguments, name: str, found: dict[str, str]) -> None:
    places = [*given.posonlyargs, *given.args]
    required = len(places) - len(given.defaults)
    for number, each in enumerate(places):
        found[f"{name}({each.arg})"] = f"{number} {annotation(each)}{' required' * (number < required)}"
    for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found[f"{name}({each.arg})"] = f"by name {annotation(each)}{' required' * (default is None)}"


def annotation(argument: ast.arg) -> str:
    return ast.unparse(argument.annotation) if argument.annotation else ""


def imported(tag: str) -> Iterator[str]:
    """What the user's code imports and would find changed; what is only added is no finding."""
    before, today = interface(tag), interface("HEAD")
    for name in sorted(before.keys() | today.keys()):
        function = name.partition("(")[0]
        new_parameter = name not in before and function in before and today[name].endswith(" required")
        if name in ACCEPTED or not (new_parameter or (name in before and today.get(name) != before[name])):
            continue
        is_now = f"is {today[name].strip()!r} now" if name in today else "has gone"
        yield f"{name} {is_now}, {tag} has {before.get(name, 'no such parameter').strip()!r}"


def untagged(version: Version) -> Iterator[str]:
    for tag in git("tag", "--list", "v*").split():
        with suppress(InvalidVersion):
            if Version(tag) == version:
                yield f"{tag} exists: a tag that moves breaks updates; choose the next version"


def check(version: Version) -> Iterator[str]:
    yield from untagged(version)
    yield from clean()
    yield from dated(version)
    yield from safe()
    try:
        if tag := last_release(version):
            yield from asked(tag)
            yield from migrating(tag, version)
            yield from imported(tag)
            yield from list(kept(tag)) or taken(tag)
        else:
            print("no earlier release: there are no paths to keep")
            renders()
    except RenderError as error:
        yield str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", type=Version, help="what is to be tagged, as in 1.2.0")
    version = parser.parse_args().version
    findings = list(check(version))
    print("\n".join(findings) or f"{version} may be tagged")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
