"""Sabotages: what breaks a thing on purpose, so that exactly the test that proves it turns red.

A sabotage names a symbol and not a piece of source text: renaming, moving or reformatting other code leaves it alone. A
symbol is `place:qualified.name`, as in `health:ReadinessChecks.check`. The place is a room, or another module of the
service as `cli`, `ops.migrate`, `features.items`, `ready.checks` or `migrations.env`; a folder stands for all files in
it. Pass sabotages to `Project.variant`; mark the tests that use them with `@pytest.mark.sabotage`: they run in `make
prove`.
"""

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
BINDS_NO_SELF = {"staticmethod"}


class StaleSabotageError(Exception):
    """The target does not exist, or more than once. No AssertionError, which a test may wait for."""


@dataclass(frozen=True)
class Body:
    """Replaces the body of a function.

    Args:
        symbol: The function, as in `health:ReadinessChecks.check`.
        body: Statements, indented as one likes. They see the arguments by name, and as `original` the function as it
            was (of a method: bound).
    """

    symbol: str
    body: str

    def apply(self, root: Path) -> None:
        """Change the project in `root`."""
        defined(root, self.symbol, "Body")
        file, text, node, owner = _find(root, self.symbol)
        assert isinstance(node, Function)
        lines = text.splitlines(keepends=True)
        body = textwrap.dedent(self.body).strip()
        kept = ""
        if "original" in body:
            kept, bound = _keep(lines, node, owner)
            body = f"original = {bound}\n{body}"
        indent = " " * (node.col_offset + 4)
        first = min(line.lineno for line in (node, *node.decorator_list))
        head = lines[first - 1 : node.body[0].lineno - 1]
        lines[first - 1 : node.end_lineno] = [kept, *head, textwrap.indent(body, indent), "\n"]
        _write(file, "".join(lines), self.symbol)


@dataclass(frozen=True)
class Value:
    """Replaces the value of a constant, a class attribute or the default of a setting, as in `health:REUSE_SECONDS`.

    Args:
        symbol: What is assigned.
        value: An expression.
    """

    symbol: str
    value: str

    def apply(self, root: Path) -> None:
        """Change the project in `root`."""
        defined(root, self.symbol, "Value")
        file, text, node, _ = _find(root, self.symbol)
        assert isinstance(node, ast.Assign | ast.AnnAssign)
        changed = (
            _replaced(text, node.value, self.value)
            if node.value
            else _replaced(text, node, f"{ast.get_source_segment(text, node)} = {self.value}")
        )
        _write(file, changed, self.symbol)


@dataclass(frozen=True)
class Argument:
    """Replaces a keyword argument of the only call within a symbol that has it.

    Args:
        symbol: The function or constant around the call.
        name: Of the argument.
        value: An expression.
    """

    symbol: str
    name: str
    value: str

    def apply(self, root: Path) -> None:
        """Change the project in `root`."""
        file, text, node, _ = _find(root, self.symbol)
        calls = [each for each in ast.walk(node) if isinstance(each, ast.keyword) and each.arg == self.name]
        if len(calls) != 1:
            raise StaleSabotageError(f"{self.symbol} has {len(calls)} arguments {self.name}, not one")
        _write(file, _replaced(text, calls[0].value, self.value), self.symbol)


@dataclass(frozen=True)
class Line:
    """Replaces the only line of a configuration file that begins with `start`, or drops it.

    Args:
        file: Relative to the project.
        start: How the line begins, after its indentation.
        new: What stands there instead, without the indentation.
    """

    file: str
    start: str
    new: str = ""

    def apply(self, root: Path) -> None:
        """Change the project in `root`."""
        path = root / self.file
        if path.suffix == ".py":
            raise StaleSabotageError(f"{self.file}: address Python by its symbols")
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        found = [number for number, line in enumerate(lines) if line.lstrip().startswith(self.start)]
        if len(found) != 1:
            raise StaleSabotageError(f"{self.file} has {len(found)} lines that begin with {self.start!r}, not one")
        old = lines[found[0]]
        indent = old[: len(old) - len(old.lstrip())]
        lines[found[0]] = f"{indent}{self.new}\n" if self.new else ""
        path.write_text("".join(lines))


@dataclass(frozen=True)
class Gone:
    """Deletes a file of the project, or a folder's whole content."""

    file: str

    def apply(self, root: Path) -> None:
        """Change the project in `root`."""
        path = root / self.file
        files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
        if not files or not all(each.exists() for each in files):
            raise StaleSabotageError(f"there is no {self.file}")
        for each in files:
            each.unlink()


Sabotage: TypeAlias = Body | Value | Argument | Line | Gone


def package(root: Path) -> Path:
    """The folder of the service's package."""
    (found,) = (root / "src").glob("*/platform")
    return found.parent


def defined(root: Path, symbol: str, kind: str) -> None:
    """Check that a sabotage of a class of that name would find its symbol.

    Raises:
        StaleSabotageError: It would not.
    """
    node = _find(root, symbol)[2]
    if kind == "Body" and not isinstance(node, Function):
        raise StaleSabotageError(f"{symbol} is no function")
    if kind == "Value" and not isinstance(node, ast.Assign | ast.AnnAssign):
        raise StaleSabotageError(f"{symbol} is no constant")


def _find(root: Path, symbol: str) -> tuple[Path, str, ast.stmt, ast.AST]:
    """Where a symbol is: its file, the file's text, what defines it and what that lies in."""
    place, _, name = symbol.partition(":")
    found = []
    for file in _files(root, place):
        text = file.read_text()
        found += [(file, text, node, owner) for node, owner in _named(ast.parse(text), name.split("."))]
    if len(found) != 1:
        where = ", ".join(str(file.relative_to(root)) for file, *_ in found) or "nowhere"
        raise StaleSabotageError(f"{symbol} is defined {len(found)} times, not once: {where}")
    return found[0]


def _files(root: Path, place: str) -> list[Path]:
    parts = Path(*place.split("."))
    for base in (package(root) / "platform", package(root), root):
        folder = base / parts
        siblings = sorted(folder.parent.glob(f"{folder.name}_*.py")) if base.name == "platform" else []
        files = [folder.with_suffix(".py"), *sorted(folder.rglob("*.py")), *siblings]
        if there := [file for file in files if file.exists()]:
            return there
    raise StaleSabotageError(f"there is no {place}")


def _named(node: ast.AST, name: list[str]) -> Iterator[tuple[ast.stmt, ast.AST]]:
    """What defines a name, however deep in `if`, `try` and `with`, but in no other definition."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            if child.name == name[0] and len(name) > 1:
                yield from _named(child, name[1:])
            elif child.name == name[0]:
                yield child, node
        elif len(name) == 1 and isinstance(child, ast.Assign | ast.AnnAssign):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            if any(isinstance(target, ast.Name) and target.id == name[0] for target in targets):
                yield child, node
        elif isinstance(child, ast.stmt):
            yield from _named(child, name)


def _keep(lines: list[str], node: Function, owner: ast.AST) -> tuple[str, str]:
    """A copy of the function under another name, and how its replacement gets hold of it."""
    name = f"original_{node.name}"
    copied = lines[node.lineno - 1 : node.end_lineno]
    copied[0] = (
        copied[0].replace(f"def {node.name}(", f"def {name}(", 1).replace(f"def {node.name}[", f"def {name}[", 1)
    )
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    indent = " " * node.col_offset
    bound = name
    if isinstance(owner, ast.ClassDef):
        bound = (
            f"{owner.name}.{name}"
            if BINDS_NO_SELF & set(marks)
            else f"{(node.args.posonlyargs + node.args.args)[0].arg}.{name}"
        )
    elif any(mark != "asynccontextmanager" and mark != "contextmanager" for mark in marks):
        marks = []  # a route is not registered twice
    kept = "".join(f"{indent}@{mark}\n" for mark in marks)
    return f"{kept}{''.join(copied)}\n", bound


def _replaced(text: str, node: ast.expr | ast.stmt, new: str) -> str:
    lines = text.splitlines(keepends=True)
    assert node.end_lineno is not None
    before = lines[node.lineno - 1].encode()[: node.col_offset].decode()
    after = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    return "".join([*lines[: node.lineno - 1], before + new + after, *lines[node.end_lineno :]])


def _write(file: Path, text: str, symbol: str) -> None:
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise StaleSabotageError(f"{symbol} does not parse any more: {error}") from error
    file.write_text(text)
