"""Ten versions of a small template and five kinds of user: no line of theirs is lost, and none of ours without a word.

The two renderings are given, as Copier writes them, and git merges them for real. Each line that somebody writes is one
of its kind, so that what must be there after an update can be counted.
"""

import importlib
import re
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import proof
from tests.projects import ROOT
from tests.sabotage import Body
from tests.update.versions import commit, duplicate, git

VERSIONS = 10
LINES = 12
MUST, MAY = "main.py", "example/"
FIRST = ("Makefile", "a.py", "b.py", "deploy/e.conf", "docs/f.md", "room/c.py", "room/d.py", MUST, f"{MAY}g.py")
USERS = ("calm", "formatter", "editor", "remover", "skipper")
SETTINGS = ("apply.whitespace=error", "core.autocrlf=input", "diff.noprefix=true", "merge.renames=false")
WRITTEN = re.compile(r"\b([tu]\d+)\b")  # by the template, by the user
Files = dict[str, list[str]]


def load(scripts: Path) -> SimpleNamespace:
    """The modules of the command that lies in a folder."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "template_update"]:
        del sys.modules[name]
    sys.path.insert(0, str(scripts))
    names = ("repository", "merge", "apply")
    found = SimpleNamespace(**{name: importlib.import_module(f"template_update.{name}") for name in names})
    sys.path.remove(str(scripts))
    return found


@pytest.fixture(scope="module")
def update() -> SimpleNamespace:
    return load(ROOT / "template/scripts")


class Writer:
    """Writes lines that nobody has written before."""

    def __init__(self, who: str, random: Random) -> None:
        self.who, self.random, self.count = who, random, 0

    def line(self) -> str:
        self.count += 1
        return f"{self.who}{self.count} = {self.random.randrange(10**9)}"

    def edit(self, lines: list[str]) -> list[str]:
        """The lines with one of them replaced, added or, by the template, dropped."""
        place = self.random.randrange(len(lines))
        rest = lines[place + 1 :] if self.random.random() < 0.6 else lines[place:]
        return [*lines[:place], self.line(), *rest]


def history(random: Random) -> list[Files]:
    """What the versions of the template emit: files change, come, go and move."""
    writer = Writer("t", random)
    versions: list[Files] = [{name: [writer.line() for _ in range(LINES)] for name in FIRST}]
    for number in range(1, VERSIONS):
        files = dict(versions[-1])
        for name in random.sample(sorted(files), 4):
            files[name] = writer.edit(files[name])
        files[f"room/new{number}.py"] = [writer.line() for _ in range(LINES)]
        movable = sorted(name for name in files if name.endswith(".py") and name != MUST and not name.startswith(MAY))
        if number % 3 == 0:
            name = random.choice(movable)
            files[f"moved/{number}-{Path(name).name}"] = files.pop(name)
        elif number % 4 == 0:
            del files[random.choice(movable)]
        versions.append(files)
    return versions


def write(folder: Path, files: Files) -> None:
    for name, lines in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(f"{line}\n" for line in lines))


def read(folder: Path) -> Files:
    found = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts)
    return {path.relative_to(folder).as_posix(): path.read_text().splitlines() for path in found}


def act(user: str, service: Path, writer: Writer) -> None:
    """What a user of that kind does between two updates."""
    files, random = read(service), writer.random
    names = [name for name in sorted(files) if files[name]]
    if user == "formatter":
        files = {name: [f"  {line}" for line in files[name]] for name in names}
        write(service, files)
    if user != "calm":
        write(service, {name: writer.edit(files[name]) for name in random.sample(names, min(3, len(names)))})
    if user == "remover" and len(names) > 4:
        gone, moved = random.sample(names, 2)
        (service / gone).unlink()
        (service / moved).rename(service / f"mine-{writer.count}-{Path(moved).name}")
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--allow-empty", "--message", "work")


def written(files: Files) -> set[str]:
    return {token for lines in files.values() for line in lines for token in WRITTEN.findall(line)}


def step(update: SimpleNamespace, service: Path, old: Files, new: Files, folder: Path) -> SimpleNamespace:
    """One update."""
    for name, files in (("old", old), ("new", new)):
        write(folder / name, files)
    repository = update.repository.Repository(service)
    trees = [repository.add(folder / name, folder / "index") for name in ("old", "new")]
    rules = ((lambda path: path == MUST), (lambda path: path.startswith(MAY)))
    made: SimpleNamespace = update.merge.merge(repository, *trees, rules, "v2", folder / "index")
    update.apply.apply(repository, made, folder / "index")
    return made


def lives(update: SimpleNamespace, random: Random, user: str, folder: Path) -> None:
    """Carry a service through the versions, and count after each update."""
    versions, service, writer = history(random), folder / "service", Writer("u", random)
    write(service, versions[0])
    commit(service)
    for each in random.sample(SETTINGS, 2):
        git(service, "config", *each.split("="))
    at = 0
    while at < VERSIONS - 1:
        act(user, service, writer)
        before, old = read(service), versions[at]
        at = min(VERSIONS - 1, at + (random.randint(2, 4) if user == "skipper" else 1))
        new = versions[at]
        with TemporaryDirectory(dir=folder) as scratch:
            result = step(update, service, old, new, Path(scratch))
        after = read(service)

        theirs = {token for token in written(before) if token.startswith("u")}
        assert theirs <= written(after), "an edit is lost"
        said = {*result.kept, *result.removed, *(each.path for each in result.conflicts)}
        for name, lines in new.items():
            if name not in said and not name.startswith(MAY) and name != MUST:
                arrived = written({name: lines}) - written(old)
                assert arrived <= written(after), f"{name} did not arrive, and nobody said so"
        if user == "calm":
            ours = {name: lines for name, lines in after.items() if name != MUST and not name.startswith(MAY)}
            assert said <= {MUST, f"{MAY}g.py"}
            assert ours == {name: lines for name, lines in new.items() if name != MUST and not name.startswith(MAY)}
            assert after[MUST] == versions[0][MUST]
        commit(service)


@pytest.mark.parametrize("user", USERS)
def test_nothing_is_lost_in_ten_versions(
    update: SimpleNamespace, user: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=proof.count(gate=1, full=40), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False, note_method_calls=False))
    def once(random: Random) -> None:
        lives(update, Random(random.randrange(10**9)), user, tmp_path_factory.mktemp(user))  # noqa: S311 - no secret

    once()


@pytest.mark.sabotage
def test_a_loss_is_noticed(first: Path, tmp_path: Path) -> None:
    """The template's file is taken where both changed it."""
    service = duplicate(first, tmp_path / "service")
    careless = """
        made = original(service, old, new, rules, version, scratch)
        after = {**made.after, **{each.path: new[each.path] for each in made.conflicts if each.path in new}}
        return Merge(made.before, after, old, new, (), made.kept, made.removed)
    """
    Body("scripts.template_update.merge:merge", careless).apply(service)
    with pytest.raises(AssertionError, match="an edit is lost"):
        for seed in range(5):
            lives(load(service / "scripts"), Random(seed), "editor", tmp_path / str(seed))  # noqa: S311 - no secret
