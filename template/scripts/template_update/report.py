"""What an update brings, and what is left to do, as lines of text."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .merge import Merge
from .repository import Repository

EXAMPLE = ".env.example"
MIGRATIONS = "hooks/migrations/"
SETTING = re.compile(r"(?P<about>(?:^# .*\n)*)^#?(?P<name>[A-Z][A-Z0-9_]+)=", re.MULTILINE)
FIELD = re.compile(r"^    ([a-z][a-z0-9_]*):", re.MULTILINE)
TARGET = re.compile(r"^([a-z][\w-]*):", re.MULTILINE)
NEWER = re.compile(r'^exclude-newer = "(\d{4}-\d{2}-\d{2})', re.MULTILINE)
NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Report:
    """What an update did, or would do.

    Attributes:
        service: Its repository.
        template: A clone of the template.
        result: What the service becomes.
        answers: As of the last update.
        fresh: As of the new version.
    """

    service: Repository
    template: Repository
    result: Merge
    answers: dict[str, Any]
    fresh: dict[str, Any]

    @property
    def versions(self) -> tuple[str, str]:
        """The version of the last update, and the new one."""
        return str(self.answers["_commit"]), str(self.fresh["_commit"])

    def changelog(self) -> Iterator[str]:
        """The sections of the template's changelog that are new, or say something else."""
        texts = [self.template.git("show", f"{each}:CHANGELOG.md", codes=(0, 128)) for each in self.versions]
        had, has = (dict(_sections(text)) for text in texts)
        for title in [each for each in has if had.get(each) != has[each]]:
            yield from (title, *has[title])

    def questions(self) -> Iterator[str]:
        """Answers that are new, or have changed."""
        for name, value in self.fresh.items():
            was = f"was {self.answers[name]}" if name in self.answers else f"new; another: -d {name}=…"
            if not name.startswith("_") and self.answers.get(name, self) != value:
                yield f"{name}: {value} ({was})"

    def settings(self) -> Iterator[str]:
        """Settings that are new, first those that production demands."""
        new = self.service.text(self.result.new, EXAMPLE)
        found = [each for each in SETTING.finditer(new) if each["name"] in self._new_settings]
        for each in sorted(found, key=lambda each: not re.search(r"\bproduction:", each["about"])):
            about = [line.removeprefix("# ") for line in each["about"].splitlines() if not line.startswith("# ---")]
            yield f"{each['name']}: {' '.join(about)}".rstrip(": ")

    @cached_property
    def _new_settings(self) -> set[str]:
        old, new = (self.service.text(tree, EXAMPLE) for tree in (self.result.old, self.result.new))
        return {each["name"] for each in SETTING.finditer(new)} - {each["name"] for each in SETTING.finditer(old)}

    def kept(self) -> Iterator[str]:
        """Files of yours that the template has changed, with the command that shows how."""
        old, new = self.result.old, self.result.new
        for path in self.result.kept:
            if path not in new:
                yield f"{path}: the template no longer uses it"
            elif path in old:
                yield f"{path}: git diff {old[path][1][:12]} {new[path][1][:12]}"

    def migrations(self) -> list[str]:
        """The migrations of the versions in between, in their order."""
        listed = [self.template.git("ls-tree", "--name-only", each, MIGRATIONS).splitlines() for each in self.versions]
        found = [each for each in set(listed[1]) - set(listed[0]) if re.fullmatch(rf"{MIGRATIONS}v\d+\.py", each)]
        return sorted(found, key=lambda path: int(re.sub(r"\D", "", path)))

    def meetings(self) -> Iterator[str]:
        """Names of yours that the new version has too."""
        after, package = self.result.after, f"src/{self.fresh['package_name']}"
        mine = {path for path in after if re.fullmatch(rf"{package}/(settings|rooms/.+)\.py", path)}
        for path in sorted(self.result.new.keys() - self.result.old.keys()):
            found = re.fullmatch(rf"{package}/platform/([a-z_]+)(\.py|/__init__\.py)", path)
            for own in (f"{package}/rooms/{found[1]}{end}" for end in (".py", "/__init__.py")) if found else ():
                if own in mine:
                    yield f"{own} has the name of {path}: rename yours"
        targets = set(TARGET.findall(self.service.text(self.result.new, "Makefile")))
        for name in sorted(targets.intersection(TARGET.findall(self.service.text(after, "Makefile.local")))):
            yield f"Makefile.local has the target {name} of the Makefile: rename yours"
        for path in sorted(mine):
            fields = {field.upper() for field in FIELD.findall(self.service.text(after, path))}
            for name in sorted(self._new_settings & fields):
                yield f"{path} has the setting {name.lower()} of the platform: rename yours"
        for group, name in _twice(self.service.text(after, "pyproject.toml")):
            yield f"pyproject.toml lists {name} twice in {group}: delete one line"

    def date(self) -> Iterator[str]:
        """Whether uv.toml hides versions that the new one was tested with."""
        trees = self.result.after, self.result.new
        mine, theirs = (NEWER.search(self.service.text(tree, "uv.toml")) for tree in trees)
        if mine and theirs and mine[1] < theirs[1]:
            yield f"uv.toml hides packages newer than {mine[1]}, tested were those of {theirs[1]}: type make upgrade"


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    for part in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]:
        title, *lines = [line for line in part.splitlines() if line.strip()]
        yield title.removeprefix("## "), [f"  {line}" for line in lines]


def _twice(text: str) -> Iterator[tuple[str, str]]:
    try:
        project = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # it is in conflict
        return
    about = project.get("project", {})
    groups = {"dependencies": about.get("dependencies", []), **about.get("optional-dependencies", {})}
    for group, listed in {**groups, **project.get("dependency-groups", {})}.items():
        names = [found[0].lower().replace("_", "-") for each in listed if (found := NAME.match(str(each)))]
        yield from ((group, name) for name in sorted(set(names)) if names.count(name) > 1)
