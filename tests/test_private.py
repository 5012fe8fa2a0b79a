"""Emitted code leans on nothing private of a dependency, so a user can upgrade without waiting for us."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.projects import render
from tests.test_emitted import MINIMAL
from tests.test_render import Row

ANSWERS: Mapping[str, Row] = {
    "default": {},
    "minimal": MINIMAL,
    "other": {"cache": "memcached", "cdn": "cloudflare", "http_instrumentation": "native", "secrets_manager": "aws"},
}
OWN = {"my_service", "ready"}
# What stays, and why; an entry that nothing needs any more fails the test, too.
ALLOWED = {
    "os._exit": "Python documents it: the way out that runs nothing more",
    "parts._replace": "Python documents it: named tuples keep their methods apart from their fields",
    "logging.raiseExceptions": "Python documents it: no print to stderr of what cannot be logged",
    "sys.excepthook": "Python documents it: an exception that nothing catches is logged, redacted",
    "sys.unraisablehook": "as above",
    "threading.excepthook": "as above",
    "opentelemetry._logs": "the signal of logs has no other name: OpenTelemetry documents it under this one",
    "opentelemetry.exporter.otlp.proto.http._log_exporter": "as above",
    "opentelemetry.sdk._logs": "as above",
    "opentelemetry.sdk._logs.export": "as above",
}
APPLICATIONS = {"FastAPI", "Starlette"}
METHOD = "type: ignore[method-assign]"  # what mypy wants where a method is replaced


def private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def foreign_names(tree: ast.Module) -> dict[str, str]:
    """What a module binds by importing it from another package: the name here, and where it is from."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(each.asname or each.name).partition(".")[0]: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return {name: origin for name, origin in found.items() if origin.partition(".")[0] not in OWN}


def imports(tree: ast.Module) -> Iterator[str]:
    """Modules and names with an underscore."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if any(map(private, each.name.split("."))))
        elif isinstance(node, ast.ImportFrom) and not node.level and str(node.module).partition(".")[0] not in OWN:
            if any(map(private, str(node.module).split("."))):
                yield str(node.module)
            else:
                yield from (f"{node.module}.{each.name}" for each in node.names if private(each.name))


def reads(tree: ast.Module) -> Iterator[str]:
    """Attributes with an underscore of anything but the object itself, also by name; and `__slots__`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            mine = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if (private(node.attr) and not mine) or (node.attr == "__slots__" and not mine):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
            if private(str(name)) or name == "__slots__":
                yield ast.unparse(node)


def replaces(tree: ast.Module) -> Iterator[str]:
    """Assignments to attributes of a class or module from elsewhere, or of an application, which has no public ones."""
    known = foreign_names(tree)
    arguments = [node for node in ast.walk(tree) if isinstance(node, ast.arg) and node.annotation]
    types = {node.arg: ast.unparse(node.annotation) for node in arguments if node.annotation}
    owners = {name: name for name in known} | {name: kind for name, kind in types.items() if kind in APPLICATIONS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in owners:
            yield f"{owners[ast.unparse(node.value)]}.{node.attr}"


def overrides(tree: ast.Module) -> Iterator[str]:
    """Private methods of a class that comes from elsewhere's: they may be one of its own."""
    known = foreign_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).partition(".")[0] in known for base in node.bases):
            methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            yield from (f"{node.name}.{method}" for method in methods if private(method))


def uses(text: str) -> list[str]:
    tree = ast.parse(text)
    found = [use for rule in (imports, reads, replaces, overrides) for use in rule(tree)]
    return found + [line.strip() for line in text.splitlines() if METHOD in line]


@pytest.fixture(scope="module")
def found(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Each use, and the files in which it is; over all answers that bring other files."""
    used: dict[str, list[str]] = {}
    for name, answers in ANSWERS.items():
        root = render(template, tmp_path_factory.mktemp(name), **answers)
        for file in sorted(root.rglob("*.py")):
            for use in uses(file.read_text()):
                used.setdefault(use, []).append(file.relative_to(root).as_posix())
    return used


def test_nothing_private_of_a_dependency_is_used(found: dict[str, list[str]]) -> None:
    assert {use: files for use, files in found.items() if use not in ALLOWED} == {}


def test_no_exception_outlives_its_reason(found: dict[str, list[str]]) -> None:
    assert ALLOWED.keys() - found.keys() == set()


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("import sqlalchemy._x", "sqlalchemy._x"),
        ("from opentelemetry.sdk.metrics._internal.view import f", "opentelemetry.sdk.metrics._internal.view"),
        ("from fastapi import _compat", "fastapi._compat"),
        ("def f(x):\n    return x._reader", "x._reader"),
        ("def f(x):\n    return x.__slots__", "x.__slots__"),
        ("def f(x):\n    return getattr(x, '_reader', None)", "getattr(x, '_reader', None)"),
        ("def f(x):\n    return hasattr(x, '__slots__')", "hasattr(x, '__slots__')"),
        ("from fastapi import FastAPI\nFastAPI.setup = 1", "FastAPI.setup"),
        ("import sentry_sdk\ndef f():\n    sentry_sdk.init = 1", "sentry_sdk.init"),
        ("from fastapi import FastAPI\ndef f(app: FastAPI):\n    app.middleware_stack = 1", "FastAPI.middleware_stack"),
        ("x.stack = f  # type: ignore[method-assign]", "x.stack = f  # type: ignore[method-assign]"),
        ("from a import B\nclass C(B):\n    def _options(self): ...", "C._options"),
    ],
)
def test_a_planted_use_is_found(text: str, use: str) -> None:
    assert use in uses(text)


@pytest.mark.parametrize(
    "text",
    [
        "from __future__ import annotations",
        "from ._x import y",
        "from my_service.platform._x import y",
        "class A:\n    __slots__ = ('_x',)\n    def f(self):\n        return self._x",
        "from fastapi import FastAPI\ndef f(app: FastAPI):\n    app.state.platform = 1",
        "from fastapi import Response\ndef f(response: Response):\n    response.status_code = 503",
        "class A(B):\n    def _f(self): ...",
    ],
)
def test_what_is_our_own_is_not_reported(text: str) -> None:
    assert uses(text) == []
