"""What a service weighs for whoever owns it: files and lines of code, each with a budget that only a commit can raise.

`python -m tests.test_weight` prints the rows for README.md, "What it weighs".
"""

import ast
import io
import shutil
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.projects import ROOT, Edit, export, render
from tests.test_emitted import MINIMAL
from tests.test_render import Row, files

HEADER = "| Answers | Files | Lines of code | of them under `src` |\n|---|---|---|---|\n"
# Read, not maintained: they cost their owner nothing at a change.
WEIGHTLESS = {".json", ".md"}
LAYOUT = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


@dataclass(frozen=True)
class Weight:
    """Files, lines of code, and how many of them are under `src`."""

    files: int
    lines: int
    source: int

    def row(self, name: str) -> str:
        return f"| {name} | {self.files} | {self.lines:,} | {self.source:,} |\n"

    def over(self, budget: "Weight") -> list[str]:
        """What exceeds the budget."""
        return [name for name in ("files", "lines", "source") if getattr(self, name) > getattr(budget, name)]


ANSWERS: Mapping[str, Row] = {"default": {}, "minimal": MINIMAL}
# DESIGN, principle 11. Growth changes the number in the same commit.
BUDGETS = {"default": Weight(285, 14_600, 7_250), "minimal": Weight(190, 10_000, 4_350)}


def docstrings(tree: ast.Module) -> Iterator[int]:
    """The lines that docstrings take."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and ast.get_docstring(node, clean=False) is not None:
                yield from range(first.lineno, (first.end_lineno or first.lineno) + 1)


def python_lines(text: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {n for token in tokens if token.type not in LAYOUT for n in range(token.start[0], token.end[0] + 1)}
    return len(lines - set(docstrings(ast.parse(text))))


def code_lines(path: Path) -> int:
    """Lines that someone has to understand before a change: no blanks, comments, docstrings, prose or licences."""
    if path.suffix in WEIGHTLESS or path.name == "LICENSE":
        return 0
    if path.suffix == ".py":
        return python_lines(path.read_text())
    lines = map(str.strip, path.read_text().splitlines())
    return sum(bool(line) and not line.startswith("#") for line in lines)


def weigh(folder: Path) -> Weight:
    lines = {path.relative_to(folder): code_lines(path) for path in files(folder)}
    return Weight(len(lines), sum(lines.values()), sum(n for path, n in lines.items() if path.parts[0] == "src"))


@pytest.fixture(scope="module")
def service(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service with default answers; copy it to change it."""
    return render(template, tmp_path_factory.mktemp("service"))


def table(template: Path, folder: Path) -> str:
    rows = (weigh(render(template, folder / name, **answers)).row(name) for name, answers in ANSWERS.items())
    return HEADER + "".join(rows)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_service_keeps_within_its_budget(template: Path, tmp_path: Path, name: str) -> None:
    found = weigh(render(template, tmp_path / "service", **ANSWERS[name]))
    print(f"\n{HEADER}{found.row(name)}{BUDGETS[name].row('at most')}")
    assert min(found.files, found.lines, found.source) > 0
    assert found.over(BUDGETS[name]) == []


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("plant", "text", "over"),
    [
        ({f"deploy/{n}.md" for n in range(200)}, "prose\n", ["files"]),
        ({"deploy/big.yaml"}, "key: value\n" * 10_000, ["lines"]),
        ({"src/my_service/big.py"}, "x = 1\n" * 40, ["source"]),
        ({"src/my_service/big.py"}, "# why\n\n" * 20_000, []),
        ({"observability/dashboard.json"}, "{}\n" * 20_000, []),
    ],
    ids=["files", "lines", "source", "comments", "generated"],
)
def test_planted_weight_is_noticed(service: Path, tmp_path: Path, plant: set[str], text: str, over: list[str]) -> None:
    folder = shutil.copytree(service, tmp_path / "service")
    for name in plant:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert weigh(folder).over(BUDGETS["default"]) == over


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('"""One.\n\nTwo.\n"""\n', 0),
        ('def f():\n    """One."""\n', 1),
        ('class A:\n    """One.\n    """\n\n    x = 1  # why\n', 2),
        ('x = """\none\n\ntwo\n"""\n', 5),
        ("# why\n\nx = (\n    1,\n)\n", 3),
    ],
    ids=["module docstring", "docstring", "class docstring", "text is code", "comment"],
)
def test_a_line_of_code_counts_and_a_docstring_does_not(tmp_path: Path, text: str, lines: int) -> None:
    (tmp_path / "x.py").write_text(text)
    assert code_lines(tmp_path / "x.py") == lines


def test_the_readme_says_what_it_weighs(template: Path, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    assert table(template, tmp_path / "as it is") in readme, "paste what `python -m tests.test_weight` prints"


@pytest.mark.sabotage
def test_a_heavier_service_makes_the_readme_stale(tmp_path: Path) -> None:
    heavier = export(tmp_path)
    before = table(heavier, tmp_path / "before")
    Edit("template/uv.toml", "exclude-newer", "offline = false\nexclude-newer").apply(heavier)
    assert table(heavier, tmp_path / "after") != before


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        print(table(export(Path(scratch)), Path(scratch) / "services"), end="")
