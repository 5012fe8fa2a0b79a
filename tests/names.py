"""What the validators read: the names that a service's package must not take, and the questions with their choices.

Usage: python -m tests.names [--questions]

Adds what is missing to `includes/names.jinja`, from what Python and the dependencies really hold, and writes
`includes/questions.jinja` from copier.yml (the latter alone with `--questions`). Names are never taken out: an older
Python or another platform may have them, and an update hands an answer to a question that has gone to the new release.
"""

import json
import keyword
import re
import sys
import textwrap
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tests.projects import ROOT, Project, export, render

FILE = ROOT / "includes" / "names.jinja"
TEXT = """{{#- Names that no package may take, written by `python -m tests.names`: Python's modules and keywords, and
    what a service's environment holds: modules, distributions (no project depends on its own name), commands. -#}}
{{%- set taken -%}}
{names}
{{%- endset -%}}
{{%- set taken = taken.split() -%}}
"""
QUESTIONS = ROOT / "includes" / "questions.jinja"
QUESTIONS_TEXT = """{{#- The questions and their choices, written by `python -m tests.names --questions`. -#}}
{{%- set questions = {{
{rows}
}} -%}}
"""
SHAPE = re.compile("[a-z][a-z0-9]*(_[a-z0-9]+)*")
OURS = {"src", "test", "tests"}
# Names that no file may have on Windows (Microsoft, "Naming Files, Paths, and Namespaces").
DEVICES = {"aux", "con", "nul", "prn"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}
# Answers that together bring each dependency that some answer brings.
ANSWERS: tuple[dict[str, object], ...] = (
    {},
    {"cache": "memcached", "secrets_manager": "aws", "http_instrumentation": "native"},
)
SHOW = """
from importlib.metadata import distributions, packages_distributions
print(*(d.metadata["Name"] for d in distributions()), *packages_distributions())
"""


def reserved() -> set[str]:
    """What the validators refuse."""
    found = re.search(r"set taken -%\}\n(.*?)\{%- endset", FILE.read_text(), re.S)
    assert found
    return set(found[1].split())


def python() -> set[str]:
    """What this Python has."""
    return {name for name in sys.stdlib_module_names if not name.startswith("_")} | set(keyword.kwlist)


def resolved(project: Project) -> set[str]:
    """Distributions in `uv.lock`: for every Python and platform, not only for this one."""
    locked = tomllib.loads((project.root / "uv.lock").read_text())["package"]
    return _packages({package["name"] for package in locked}, project)


def installed(project: Project) -> set[str]:
    """Distributions, modules and commands of the service's environment."""
    commands = {path.name for path in (project.venv / "bin").iterdir() if "." not in path.name}
    said = project.run(str(project.venv / "bin" / "python"), "-c", SHOW).stdout
    return _packages({*said.split(), *commands}, project)


def _packages(names: set[str], project: Project) -> set[str]:
    """As names of packages, without the service's own and what no package can be called."""
    folded = {re.sub("[-.]+", "_", name.lower()) for name in names} - {project.package}
    return {name for name in folded if SHAPE.fullmatch(name)}


def known() -> dict[str, list[object]]:
    """The questions that the validators know, with their choices."""
    found = re.search(r"set questions = (\{.*?\n\}) -%", QUESTIONS.read_text(), re.S)
    known: dict[str, list[object]] = json.loads(found[1]) if found else {}
    return known


def asked() -> dict[str, list[object]]:
    """The questions of copier.yml, with their choices."""
    config = yaml.safe_load((ROOT / "copier.yml").read_text())
    questions = {name: body.get("choices", []) for name, body in config.items() if not name.startswith("_")}
    return {name: list(each.values() if isinstance(each, dict) else each) for name, each in questions.items()}


def write_questions() -> None:
    """Questions that have gone stay, without choices."""
    questions: dict[str, list[object]] = {name: [] for name in known()} | asked()
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(questions[name])}" for name in sorted(questions))
    QUESTIONS.write_text(QUESTIONS_TEXT.format(rows=rows))


def main() -> None:
    write_questions()
    if sys.argv[1:] == ["--questions"]:
        return
    names = reserved() | python() | OURS | DEVICES
    with TemporaryDirectory() as folder:
        (template := Path(folder) / "template").mkdir()
        export(template)
        for number, answers in enumerate(ANSWERS):
            project = Project(render(template, Path(folder) / str(number), **answers)).install()
            names |= resolved(project) | installed(project)
    print(*sorted(names - reserved()), sep="\n")
    FILE.write_text(TEXT.format(names=textwrap.fill(" ".join(sorted(names)), 118, break_long_words=False)))


if __name__ == "__main__":
    main()
