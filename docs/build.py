"""Writes `docs/reference/` from the sources that decide: a page kept by hand falls behind.

Questions come from copier.yml; settings and targets from a service rendered with default answers, and what another
answer brings from one rendered with it.
`--check` writes nothing, names each page that is out of date, and then exits with 1.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import copier
import yaml

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
OTHER = {"secrets_manager": "aws", "cdn": "cloudflare"}  # answers that bring variables of their own
SETTING = re.compile(r"#?([A-Z][A-Z0-9_]*)=(.*)")
TARGET = re.compile(r"^([a-z][a-z-]*):.*?## (.*)$", re.MULTILINE)


def render(folder: Path, **answers: str) -> Path:
    """A service with default answers but these; the template goes without git, as it is in the work tree."""
    template, service = folder / "template", folder / "service"
    for part in ("includes", "template"):
        shutil.copytree(ROOT / part, template / part)
    shutil.copy(ROOT / "copier.yml", template)
    # Nobody's own defaults: the pages are the same on every machine.
    own = copier.Settings()
    copier.run_copy(str(template), service, data=answers, defaults=True, quiet=True, settings=own)
    return service


def page(title: str, source: str, lines: Iterator[str]) -> str:
    note = f"<!-- Made by `make docs` from {source}: change that, not this. -->"
    return "\n".join([f"# {title}", "", note, "", *lines]) + "\n"


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(*titles: str) -> Iterator[str]:
    yield row(*titles)
    yield "|" + "---|" * len(titles)


def code(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else ""


def choices(question: dict[str, Any]) -> str:
    offered = question.get("choices", [True, False] if question.get("type") == "bool" else [])
    if isinstance(offered, dict):
        values = (each["value"] if isinstance(each, dict) else each for each in offered.values())
        pairs = zip(values, offered, strict=True)
        return "; ".join(f"{code(value)}: {label}" for value, label in pairs)
    return ", ".join(map(code, offered))


def questions(config: dict[str, Any], answers: dict[str, Any]) -> Iterator[str]:
    yield "Answer with `-d name=value`, or when asked. What is derived follows the other answers.\n"
    yield from table("Name", "Question", "Type", "Choices", "Default")
    for name, question in config.items():
        if name.startswith("_") or name not in answers:  # `data` checks what was given, and is not recorded
            continue
        text = question.get("help", "")
        if question.get("ask") is False:
            text = f"{text} (never asked; fixed by the first copy)".strip()
        derived = ", derived" if re.search(r"{[{%]", str(question.get("default", ""))) else ""
        default = (code(answers.get(name, "")) or "empty") + derived
        yield row(code(name), text, question.get("type", "yaml"), choices(question), default)


def settings(example: str) -> Iterator[str]:
    """Sections, comments and `#NAME=value`, in the order of `.env.example`."""
    meaning: list[str] = []
    for line in example.splitlines():
        if line.startswith("# --- "):
            yield f"\n## {line[6:].strip(' -')}\n"
            yield from table("Variable", "Meaning", "Default")
            meaning.clear()
        elif found := SETTING.fullmatch(line):
            yield row(code(found[1]), " ".join(meaning), code(found[2]) or "empty")
            meaning.clear()
        elif line.startswith("# "):
            meaning.append(line[2:])
        elif meaning:  # the comment over a paragraph of its own
            yield " ".join(meaning)
            meaning.clear()


def added(example: str, base: str, answers: dict[str, str]) -> Iterator[str]:
    """The variables that come with other answers."""
    known = {line.split("`")[1] for line in settings(base) if line.startswith("| `")}
    yield f"\n## With {' '.join(f'`{name}={value}`' for name, value in answers.items())}\n"
    yield from table("Variable", "Meaning", "Default")
    yield from (line for line in settings(example) if line.startswith("| `") and line.split("`")[1] not in known)


def targets(makefile: str) -> Iterator[str]:
    yield from table("Type", "To")
    for name, text in TARGET.findall(makefile):
        yield row(code(f"make {name}"), text)


def pages() -> dict[Path, str]:
    config = yaml.safe_load((ROOT / "copier.yml").read_text())
    with TemporaryDirectory() as folder:
        service = render(Path(folder))
        answers = yaml.safe_load((service / ".copier-answers.yml").read_text())
        example = (service / ".env.example").read_text()
        makefile = (service / "Makefile").read_text()
    with TemporaryDirectory() as folder:
        other = (render(Path(folder), **OTHER) / ".env.example").read_text()
    found = {
        "questions.md": page("Questions", "copier.yml", questions(config, answers)),
        "settings.md": page(
            "Settings", "the emitted .env.example", chain(settings(example), added(other, example, OTHER))
        ),
        "make.md": page("Targets of make", "the emitted Makefile", targets(makefile)),
    }
    return {REFERENCE / name: text for name, text in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="name what is out of date")
    check = parser.parse_args().check
    stale = [(file, text) for file, text in pages().items() if not file.is_file() or file.read_text() != text]
    for file, text in stale:
        name = file.relative_to(ROOT)
        if check:
            print(f"{name} is out of date: type make docs", file=sys.stderr)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            print(f"wrote {name}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
