"""The actions of others that emitted workflows use: a catalogue of their pins and inputs, and local stand-ins.

`actions.json` has what each action's own repository says at the commit of that pin (read on 2026-11-23). A stand-in
does the set-up of the real action and never a step's proof. An action without a stand-in fails: only jobs that a run
skips may use it.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CATALOGUE: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text())
PIN = re.compile(r"uses: (?P<name>[\w.-]+/[\w./-]+)@(?P<sha>[0-9a-f]{40}) # (?P<tag>v[\d.]+)$", re.M)
# What each does instead, as one step of shell; inputs are in variables as GitHub has them for actions in JavaScript.
STAND_INS = {
    "actions/checkout": """
        git init --quiet .
        depth="--depth=${INPUT_FETCH_DEPTH:-1}"
        git fetch --quiet ${depth/#--depth=0/} "file://$SOURCE" HEAD
        git checkout --quiet FETCH_HEAD
    """,
    "astral-sh/setup-uv": """
        [[ "$INPUT_PYTHON_VERSION" =~ ^3\\.[0-9]+$ ]]
        echo "asked for Python $INPUT_PYTHON_VERSION"
        uv --version
        echo "UV_PYTHON=$STAND_IN_PYTHON" >> "$GITHUB_ENV"
    """,
}
FAILS = 'echo "this action has no stand-in" >&2; exit 1'


@dataclass(frozen=True)
class Use:
    """One use of an action: its name, the commit, what it is given."""

    name: str
    sha: str
    given: dict[str, Any]

    def faults(self) -> Iterator[str]:
        """What the catalogue does not have."""
        if not (known := CATALOGUE.get(self.name)):
            yield f"{self.name} is not in the catalogue"
            return
        if known["sha"] != self.sha:
            yield f"{self.name}@{self.sha} is not the pin {known['sha']}"
        yield from (f"{self.name} has no input {name}" for name in self.given if name not in known["inputs"])
        yield from (f"{self.name} needs the input {name}" for name in known["required"] if name not in self.given)


def files(github: Path) -> list[Path]:
    """The workflows and actions in a `.github`."""
    return sorted([*github.glob("workflows/*.yml"), *github.glob("actions/*/action.yml")])


def used(document: Any) -> Iterator[Use]:
    """The actions of others that a workflow or an action uses."""
    if isinstance(document, dict):
        if not (name := str(document.get("uses", "."))).startswith("."):
            repository, _, sha = name.partition("@")
            yield Use(repository, sha, document.get("with") or {})
        for each in document.values():
            yield from used(each)
    elif isinstance(document, list):
        for each in document:
            yield from used(each)


def stand_ins(github: Path, folder: Path) -> dict[str, Path]:
    """Write stand-ins for all that is used below a `.github`: their folders by `owner/name@sha`."""
    made: dict[str, Path] = {}
    for use in (use for file in files(github) for use in used(yaml.safe_load(file.read_text()))):
        assert list(use.faults()) == []
        owner, repository, *inside = use.name.split("/")
        home = folder / f"{owner}-{repository}"
        made[f"{owner}/{repository}@{use.sha}"] = home
        place = home.joinpath(*inside)
        place.mkdir(parents=True, exist_ok=True)
        (place / "action.yml").write_text(json.dumps(stand_in(use.name)))
    return made


def stand_in(name: str) -> dict[str, Any]:
    """An action of one step with the inputs of the real one."""
    inputs = CATALOGUE[name]["inputs"]
    env = {f"INPUT_{each.upper().replace('-', '_')}": f"${{{{ inputs.{each} }}}}" for each in inputs}
    step = {"shell": "bash", "run": STAND_INS.get(name, FAILS), "env": env}
    about = {"name": name, "description": "a stand-in", "inputs": {each: {} for each in inputs}}
    return {**about, "runs": {"using": "composite", "steps": [step]}}
