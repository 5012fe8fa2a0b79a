"""Git's own three-way merge of what the template changed into the files of the service."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .repository import Repository, Tree
from .template import ANSWERS, Rule


@dataclass(frozen=True)
class Conflict:
    """A path that needs a decision.

    Attributes:
        path: Below the service's folder.
        why: What happened to it on both sides.
        stages: The versions for git's index: mode, object and stage.
    """

    path: str
    why: str
    stages: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Merge:
    """What the service becomes.

    Attributes:
        before: Its files as committed.
        after: Its files with the template's changes.
        old: The template's files as of the last update.
        new: The template's files of the new version.
        conflicts: What needs a decision.
        kept: Files of the user's that the template has changed, or no longer has.
        removed: Files that the user has deleted or moved, and the template has changed.
    """

    before: Tree
    after: Tree
    old: Tree
    new: Tree
    conflicts: tuple[Conflict, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]


def merge(service: Repository, old: Tree, new: Tree, rules: tuple[Rule, Rule], version: str, scratch: Path) -> Merge:
    """Merge the difference between two renderings into the service.

    Args:
        service: As committed.
        old: The template's files as of the last update.
        new: The template's files of the new version.
        rules: Which paths are the user's: those that must exist, and those to delete.
        version: The new one, for the markers of conflicts.
        scratch: A file name for an index of our own.
    """
    before = service.committed()
    base, theirs, kept, removed = sides(before, old, new, rules)
    root = service.commit(service.tree(base, scratch))
    labels = ("template-update/yours", f"template-update/{version}")
    for label, files in zip(labels, (before, theirs), strict=True):
        service.git("update-ref", f"refs/{label}", service.commit(service.tree(files, scratch), root))
    said = service.git(*service.at_top, "merge-tree", "--write-tree", "-z", *labels, codes=(0, 1))
    for label in labels:
        service.git("update-ref", "-d", f"refs/{label}")
    tree, *rest = said.split("\0")
    found = tuple(conflicts(rest, old))
    return Merge(before, service.files(tree), old, new, found, tuple(kept), tuple(removed))


def sides(before: Tree, old: Tree, new: Tree, rules: tuple[Rule, Rule]) -> tuple[Tree, Tree, list[str], list[str]]:
    """Decide by whose file it is what git compares.

    Args:
        before: The service's files.
        old: The template's files as of the last update.
        new: The template's files of the new version.
        rules: As for `merge`.

    Returns:
        The common ancestor, the template's side, what is kept of the user's, and what the user has removed.
    """
    must_exist, may_go = rules
    base, theirs, kept, removed = dict(old), dict(new), [], []

    def put(path: str, was: tuple[str, str] | None, becomes: tuple[str, str] | None) -> None:
        for tree, entry in ((base, was), (theirs, becomes)):
            tree.pop(path, None)
            if entry:
                tree[path] = entry

    for path in sorted(old.keys() | new.keys()):
        mine, was, is_now = before.get(path), old.get(path), new.get(path)
        must = must_exist(path)
        if path == ANSWERS:
            put(path, mine, is_now)
        elif not (must or may_go(path)):
            if was and not mine:  # what the user has deleted stays deleted
                put(path, None, None)
                removed += [path] if is_now and is_now != was else []
        elif not mine:  # a file that must exist, or that a newly chosen answer needs
            put(path, None, is_now if must or not was else None)
        elif must and not is_now and mine == was:  # its answer was switched off, and it is as it was emitted
            put(path, mine, None)
        else:
            put(path, mine, mine)
            kept += [path] if is_now != was and is_now != mine else []
    return base, theirs, kept, removed


def conflicts(fields: list[str], old: Tree) -> Iterator[Conflict]:
    """Read what `git merge-tree -z` prints after the tree: `mode object stage TAB path`, until an empty field."""
    stages: dict[str, list[tuple[str, str, str]]] = {}
    for field in fields[: fields.index("")]:
        about, _, path = field.partition("\t")
        mode, oid, stage = about.split()
        stages.setdefault(path, []).append((mode, oid, stage))
    for path, found in sorted(stages.items()):
        there = {stage for _, _, stage in found}
        why = "both changed it" if path in old else "both added it"
        if "3" not in there:
            why = "you changed it, the template no longer has it"
        elif "2" not in there:
            why = "you moved or deleted it, the template changed it"
        yield Conflict(path, why, tuple(found))
