"""Writes the result of a merge into the work tree, or takes it back."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from .merge import Merge
from .repository import Repository, UpdateError

LOCK_SECONDS = 5.0  # that another git may take; a lock that stays is of one that was killed


def note(service: Repository) -> Path:
    """The file that says what an update was writing."""
    return service.directory / "template-update.json"


def began(service: Repository) -> dict[str, Any]:
    """What is noted of an update of this commit; empty if there was none."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = dict(json.loads(note(service).read_text()))
        if found.get("head") == service.head:
            return found
    return {}


def _note(service: Repository, **facts: object) -> None:
    """Note it whole or not at all, wherever it is killed."""
    new = note(service).with_suffix(".new")
    new.write_text(json.dumps(facts))
    new.replace(note(service))


def apply(service: Repository, result: Merge, scratch: Path) -> None:
    """Write the result into the work tree and the index, conflicts as git marks them.

    Args:
        service: Its work tree is clean.
        result: What it becomes.
        scratch: A file name for an index of our own.

    Raises:
        UpdateError: A file cannot be written; the work tree is as before.
    """
    tree = _whole(service, service.tree(result.after, scratch), scratch)
    index = []
    for each in result.conflicts:
        index.append(f"0 {'0' * 40}\t{service.prefix}{each.path}\0")
        index += [f"{mode} {oid} {stage}\t{service.prefix}{each.path}\0" for mode, oid, stage in each.stages]
    facts = {"head": service.head, "added": sorted(result.after.keys() - result.before.keys())}
    _note(service, **facts, done=False)
    try:
        service.git("read-tree", "-m", "-u", "HEAD", tree)
        service.git("update-index", "-z", "--index-info", given="".join(index))
        _note(service, **facts, done=True)
    except (OSError, UpdateError, KeyboardInterrupt) as error:
        abort(service)
        raise UpdateError(f"{error or 'interrupted'} (everything is as it was before)") from None


def _whole(service: Repository, tree: str, scratch: Path) -> str:
    """The tree of the whole repository, where the service is a folder of it."""
    if not service.prefix:
        return tree
    scratch.unlink()
    env = {"GIT_INDEX_FILE": str(scratch)}
    service.git(*service.at_top, "read-tree", "HEAD", env=env)
    service.git(*service.at_top, "rm", "-r", "--cached", "--quiet", "--", service.prefix, env=env)
    service.git(*service.at_top, "read-tree", f"--prefix={service.prefix}", tree, env=env)
    return service.git(*service.at_top, "write-tree", env=env).strip()


def abort(service: Repository) -> None:
    """Take back an update that is not committed.

    Raises:
        UpdateError: There is none, or files cannot be written.
    """
    if not (facts := began(service)):
        raise UpdateError("no update is under way: nothing was changed since the last commit")
    _unlock(service.directory / "index.lock")
    for path in facts["added"]:
        with contextlib.suppress(OSError):  # it was not written, or others are in its folder
            os.unlink(service.folder / path)
            os.removedirs((service.folder / path).parent)
    service.git("read-tree", "--reset", "-u", "HEAD")  # last, for it may need the room on a full disk
    note(service).unlink()


def _unlock(lock: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while lock.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    lock.unlink(missing_ok=True)
