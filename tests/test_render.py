"""Every pair of answers renders into files that parse and are clean under the service's own formatter and linter."""

import configparser
import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from covertable import make

from tests.projects import Edit, export, render
from tests.test_questions import QUESTIONS

Row = Mapping[str, Any]
# Ours has a space or a hyphen after its brackets; a brace in an f-string and a label of Grafana's have not.
JINJA = re.compile(r"\{\{[ -]|\{%|\{#")
CODE_BLOCK = re.compile(r"^```.*?^```|^    .*?$", re.M | re.S)
CODE = re.compile(rf"{CODE_BLOCK.pattern}|`[^`\n]+`", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def values(question: dict[str, Any]) -> list[Any]:
    if question["type"] == "bool":
        return [True, False]
    choices = question["choices"]
    return list(choices.values() if isinstance(choices, dict) else choices)


FACTORS = {name: values(q) for name, q in QUESTIONS.items() if "choices" in q or q["type"] == "bool"}
ROWS: list[Row] = make(FACTORS, strength=2)


def uncovered(rows: Sequence[Row], factors: Mapping[str, Sequence[Any]]) -> set[tuple[Any, ...]]:
    """The pairs of answers that no row has: our own count, not the generator's word."""
    wanted = {
        (a, x, b, y)
        for a, b in itertools.combinations(factors, 2)
        for x, y in itertools.product(factors[a], factors[b])
    }
    seen = {(a, row[a], b, row[b]) for row in rows for a, b in itertools.combinations(factors, 2)}
    return wanted - seen


def test_the_rows_cover_every_pair() -> None:
    assert uncovered(ROWS, FACTORS) == set()
    assert uncovered(ROWS[:-1], FACTORS) != set()  # the proof can fail


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and ".venv" not in path.parts)


def faults(folder: Path) -> list[str]:
    """What is wrong with a rendered project, one line per fault."""
    found = []
    for path in files(folder):
        name, text = path.relative_to(folder).as_posix(), path.read_text()
        if JINJA.search(name + text) and ".github" not in name:
            found.append(f"{name}: Jinja is left")
        if (text and not text.endswith("\n")) or text.endswith("\n\n"):
            found.append(f"{name}: does not end with one newline")
        try:
            parse(path, text)
        except Exception as error:
            found.append(f"{name}: {type(error).__name__}")
        if path.suffix == ".md":
            found += [f"{name}: its link leads nowhere: {link}" for link in lost(path, text)]
    for command in (["format", "--check"], ["check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--quiet", "."]
        done = subprocess.run(ruff, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            found.append(f"ruff {command[0]}: {done.stdout}{done.stderr}")
    return found


def lost(page: Path, text: str) -> Iterator[str]:
    """The links of a page to files, folders and headings that are not there."""
    for link in LINK.findall(CODE.sub("", text)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not urlsplit(link).scheme and (
            not target.exists() or (anchor and anchor not in headings(target.read_text()))
        ):
            yield link


def headings(text: str) -> set[str]:
    """The anchors of a page, as forges make them: lower case, no punctuation but hyphens, a hyphen for each space."""
    found = re.findall(r"^#+ +(.+?) *$", CODE_BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}


def parse(path: Path, text: str) -> None:
    if path.suffix == ".py":
        compile(text, path, "exec")
    elif path.suffix == ".toml":
        tomllib.loads(text)
    elif path.suffix in (".yml", ".yaml"):
        list(yaml.safe_load_all(text))
    elif path.suffix == ".json":
        json.loads(text)
    elif path.suffix == ".ini":
        configparser.ConfigParser().read_string(text)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(str(value) for value in row.values()))
def test_a_combination_renders_clean(template: Path, tmp_path: Path, row: Row) -> None:
    folder = render(template, tmp_path / "service", **row)
    assert (folder / "pyproject.toml").is_file()
    assert faults(folder) == []


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("README.md", "{{ project_name }}\n", "README.md: Jinja is left"),
        (
            "observability/dashboards/bad.json",
            '["{{http_route}}", "{{ project_slug }}"]\n',
            "observability/dashboards/bad.json: Jinja",
        ),
        ("bad.yaml", "a: [1\n", "bad.yaml: ParserError"),
        ("bad.toml", "a = \n", "bad.toml: TOMLDecodeError"),
        ("bad.json", "{,}\n", "bad.json: JSONDecodeError"),
        ("bad.py", "def f(:\n", "bad.py: SyntaxError"),
        ("src/bad.py", "x = 'a'\n", "ruff format"),
        ("src/bad.py", "import os\n", "ruff check"),
        ("bad.md", "text", "bad.md: does not end"),
        ("bad.md", "[more](docs/nowhere.md)\n", "bad.md: its link leads nowhere: docs/nowhere.md"),
        ("bad.md", "[more](docs/deploy-host.md#nowhere)\n", "bad.md: its link leads nowhere: docs/deploy-host.md#"),
    ],
)
def test_a_planted_fault_is_found(template: Path, tmp_path: Path, file: str, text: str, fault: str) -> None:
    folder = render(template, tmp_path / "service")
    (folder / file).write_text(text)
    assert any(line.startswith(fault) for line in faults(folder))


def test_an_undefined_name_in_a_template_stops_the_copy(tmp_path: Path) -> None:
    broken = tmp_path / "template"
    broken.mkdir()
    export(broken)
    (broken / "template" / "typo.md.jinja").write_text("{{ projekt_name }}\n")
    with pytest.raises(Exception, match="projekt_name"):
        render(broken, tmp_path / "service")


def unsorted(folder: Path) -> list[str]:
    """Hot lists that are out of order: two changes that add to them would collide."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    lists = {
        "dev": [re.split(r"[<>=]", item)[0] for item in project["dependency-groups"]["dev"]],
        "extras": list(project["project"].get("optional-dependencies", {})),
    }
    groups = re.split(
        r"\n    # .*\n", (folder / "pyproject.toml").read_text().split("dependencies = [")[1].split("\n]")[0]
    )
    lists |= {f"dependencies {n}": re.findall(r'"([A-Za-z0-9-]+)', group) for n, group in enumerate(groups)}
    example = (folder / ".env.example").read_text()
    lists["rooms"] = re.findall(r"^# --- (\w+)", example, re.M)[1:]
    for name, section in zip(lists["rooms"], example.split("# --- ")[2:], strict=True):
        lists[name] = re.findall(r"^#([A-Z_]+)=", section, re.M)
    return [name for name, items in lists.items() if items != sorted(items)]


def test_hot_lists_are_sorted(template: Path, tmp_path: Path) -> None:
    folder = render(template, tmp_path / "service")
    assert unsorted(folder) == []
    Edit(".env.example", "#LOG_FORMAT", "#ZZ=").apply(folder)
    Edit("pyproject.toml", '"aiosqlite', '"zz').apply(folder)
    assert unsorted(folder) == ["dependencies 7", "logs"]
