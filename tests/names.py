"""The names that a service's package must not take, from what Python and the dependencies really hold.

Usage: python -m tests.names

Adds what is missing to `includes/names.jinja`, which the validators read. Names are never taken out: an older Python or
another platform may have them.
"""

import keyword
import re
import sys
import textwrap
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.projects import ROOT, Project, export, render

FILE = ROOT / "includes" / "names.jinja"
TEXT = """{{#- Names that no package may take, written by `python -m tests.names`: Python's modules and keywords, and
    what a service's environment holds: modules, distributions (no project depends on its own name), commands. -#}}
{{%- set taken -%}}
{names}
{{%- endset -%}}
{{%- set taken = taken.split() -%}}
"""
SHAPE = re.compile("[a-z][a-z0-9]*(_[a-z0-9]+)*")
OURS = {"src", "test", "tests"}
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


def main() -> None:
    names = reserved() | python() | OURS
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
