"""Compares the service with its answers, and finds what was edited by hand: `make update ARGS=--drift`.

An answer that was edited by hand is worse than an edited file: nothing of it arrived, and every later update compares
with files that the service never had.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from .follow import show
from .repository import Repository, Tree, UpdateError
from .template import ANSWERS, answers_of, clone, finish, render, rules


def drift(service: Repository, folder: Path) -> None:
    """Print what differs from a rendering of the answers.

    Args:
        service: To compare, as committed.
        folder: An empty one, for what is rendered.

    Raises:
        UpdateError: An answer was edited by hand, or it cannot be compared.
    """
    answers = answers_of(service.folder)
    if service.git("rev-parse", "--is-shallow-repository").strip() == "true":
        raise UpdateError("the history is cut off: type git fetch --unshallow, or give actions/checkout fetch-depth: 0")
    version = str(answers["_commit"])
    must_exist, may_go = rules(clone(service, answers, folder / "template"), version)

    def ours(name: str, version: str, text: str = "") -> Tree:
        finish(render(service, folder / name, version, "--defaults", text=text))
        found = service.add(folder / name, folder / "index")
        return {path: found[path] for path in found if not (path == ANSWERS or must_exist(path) or may_go(path))}

    now, mine = ours("now", version), service.committed()
    gone = sorted(now.keys() - mine.keys())
    ever = service.git("log", "--format=", "--name-only", "--no-renames", "--diff-filter=A", "--relative", "-z")
    said = by_hand(service, answers, now, ours)
    if not said and (never := [path for path in gone if path not in ever.split("\0")]):
        said = f"{never[0]} never was in git, although an answer asks for it: set that answer back in {ANSWERS}"
    if said:
        raise UpdateError(f"{said}, commit, then type make update ARGS='-d NAME=VALUE'")
    show("Deleted or moved by you:", gone)
    show("Changed by you:", sorted(path for path in now.keys() & mine.keys() if now[path] != mine[path]))
    print(f"\nthe files agree with the answers, as of {version}")


def by_hand(service: Repository, answers: dict[str, Any], now: Tree, ours: Callable[[str, str, str], Tree]) -> str:
    """Whether the last change of the answers was made by hand: no file of ours followed it.

    Args:
        service: As committed.
        answers: Of today.
        now: What they render.
        ours: Renders other answers, into a folder of a name.

    Returns:
        What to set back, or nothing.
    """
    commit = service.git("log", "-1", "--format=%H", "--", ANSWERS).strip()
    if not (text := service.git("show", f"{commit}^:./{ANSWERS}", codes=(0, 128))):
        return ""
    was, mine = yaml.safe_load(text), service.committed()
    earlier = ours("earlier", str(was["_commit"]), text)
    differ = [path for path in earlier.keys() | now.keys() if earlier.get(path) != now.get(path)]
    arrived = any(mine.get(path) == now.get(path) for path in differ)
    if arrived or all(mine.get(path) != earlier.get(path) for path in differ):
        return ""
    back = ", ".join(f"{name} to {was.get(name)}" for name in answers if answers[name] != was.get(name))
    return f"no file followed the change of {ANSWERS} in {commit[:12]}: set back {back}"
