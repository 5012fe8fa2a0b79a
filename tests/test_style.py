"""The style that reviews would otherwise repeat, read from the syntax tree: DESIGN, sections 3 and 8."""

import ast
import re
import statistics
from collections.abc import Callable, Iterator

import pytest

from tests.projects import ROOT

TEMPLATE = ROOT / "template"
LONGEST = 300
# What rooms may take from each other; all else goes through a protocol in `state`.
SHARED = {"codes", "problems", "redaction", "room", "routes", "settings", "state", "threads", "trace_headers", "values"}
PUBLIC = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CONTAINERS = {"Counter", "OrderedDict", "WeakKeyDictionary", "bytearray", "defaultdict", "deque", "dict", "list", "set"}
MUTATORS = {
    "add",
    "append",
    "clear",
    "discard",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
}


def modules() -> dict[str, str]:
    """The text of each module of the service and of `ready` by its path; a condition in a file name is part of it."""
    found = [*TEMPLATE.glob("src/**/*"), *TEMPLATE.glob("ready/**/*")]
    paths = (path for path in sorted(found) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(TEMPLATE).as_posix(): path.read_text() for path in paths if ".py" in path.name}


def stem(name: str) -> str:
    """The name of a module, without the condition that its file name may have."""
    return name.partition(".py")[0].split("/")[-1].split("}")[-1]


def name_of(node: ast.AST) -> str:
    """The last name of an expression: `c` of `a.b.c`, also where it is called."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def wraps_every_request(name: str, tree: ast.Module) -> Iterator[str]:
    """Starlette's wrapper costs a task and a queue per request, and loses context variables."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else [name_of(node)]
        if "BaseHTTPMiddleware" in names:
            yield "BaseHTTPMiddleware"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from ("@app.middleware" for each in node.decorator_list if name_of(each) == "middleware")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Call) and name_of(node.func) == "middleware":
            yield "app.middleware()"


def keeps_state(name: str, tree: ast.Module) -> Iterator[str]:
    """State of a module is shared by all applications of a process: it belongs into `State`."""
    changed = set(mutated(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"global {', '.join(node.names)}"
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        if isinstance(value, DISPLAYS) or (isinstance(value, ast.Call) and name_of(value) in CONTAINERS):
            bound = [target.id for target in targets if isinstance(target, ast.Name)]
            yield from (each for each in bound if not each.isupper() or each in changed)


def mutated(tree: ast.Module) -> Iterator[str]:
    """Names whose contents the module changes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            yield name_of(node.value)
        elif isinstance(node, ast.AugAssign):
            yield name_of(node.target)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            yield name_of(node.func.value)


def knows_another_room(name: str, tree: ast.Module) -> Iterator[str]:
    """A room that imports another cannot be read, replaced or removed alone; one of several files is a folder."""
    inside = name.rpartition("platform/")[2].count("/")
    if stem(name) == "__init__" and not inside:  # it puts them together
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1 + inside:
            taken = {node.module.partition(".")[0]} if node.module else {alias.name for alias in node.names}
            yield from sorted(taken - SHARED)
        elif isinstance(node, ast.ImportFrom) and node.level > 1 and (node.module or "").startswith("platform"):
            yield node.module or ""


def asks_by_name(name: str, tree: ast.Module) -> Iterator[str]:
    """What is found by a string is found by no type checker and by no "find usages"."""
    yield from ("hasattr" for node in ast.walk(tree) if isinstance(node, ast.Call) and name_of(node) == "hasattr")


def matches_too_much(name: str, tree: ast.Module) -> Iterator[str]:
    """Before Python 3.11.5 a possessive group matches too much (cpython issues 100061 and 106052)."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    yield from (group[0] for text in texts for group in re.finditer(r"\)(?:[*+?]|\{[\d,]+\})\+", text))


def says_nothing(name: str, tree: ast.Module) -> Iterator[str]:
    """One head sentence per module."""
    if not ast.get_docstring(tree):
        yield "module"


def explains_nothing(name: str, tree: ast.Module) -> Iterator[str]:
    """What others call is explained where it stands."""
    for node in tree.body:
        if isinstance(node, PUBLIC) and not node.name.startswith("_") and not ast.get_docstring(node):
            yield node.name


Rule = Callable[[str, ast.Module], Iterator[str]]
RULES: dict[Rule, str] = {
    asks_by_name: "",
    explains_nothing: "platform/",
    keeps_state: "platform/",
    knows_another_room: "platform/",
    matches_too_much: "",
    says_nothing: "",
    wraps_every_request: "",
}


def offences(rule: Rule, texts: dict[str, str]) -> list[str]:
    held = {name: text for name, text in texts.items() if RULES[rule] in name}
    assert held
    return [f"{name}: {what}" for name, text in held.items() for what in rule(name, ast.parse(text))]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_module_breaks_the_rule(rule: Rule) -> None:
    texts = modules()
    assert {stem(name) for name in texts} >= {"main", "capacity", "idempotency", "state", "migrate"}
    assert offences(rule, texts) == []


@pytest.mark.parametrize(
    ("rule", "text", "found"),
    [
        (wraps_every_request, "from starlette.middleware.base import BaseHTTPMiddleware", "BaseHTTPMiddleware"),
        (
            wraps_every_request,
            "from starlette.middleware import base\nclass A(base.BaseHTTPMiddleware): ...",
            "BaseHTTPM",
        ),
        (wraps_every_request, "@app.middleware('http')\nasync def f(request, call_next): ...", "@app.middleware"),
        (wraps_every_request, "app.middleware('http')(f)", "app.middleware()"),
        (keeps_state, "def f():\n    global pool\n    pool = 1", "global pool"),
        (keeps_state, "seen = {}", "seen"),
        (keeps_state, "seen: dict[str, int] = dict()", "seen"),
        (keeps_state, "seen = collections.deque(maxlen=3)", "seen"),
        (keeps_state, "SEEN = []\ndef f(x):\n    SEEN.append(x)", "SEEN"),
        (keeps_state, "SEEN = {}\ndef f(x):\n    SEEN[x] = 1", "SEEN"),
        (keeps_state, "SEEN = {1}\ndef f(x):\n    global SEEN\n    SEEN |= {x}", "SEEN"),
        (knows_another_room, "from .db import Base", "db"),
        (knows_another_room, "from . import logs, state", "logs"),
        (knows_another_room, "def f():\n    from .cache.redis import Redis", "cache"),
        (knows_another_room, "from ..platform.db import Base", "platform.db"),
        (asks_by_name, "if hasattr(room, 'begin'):\n    room.begin()", "hasattr"),
        (matches_too_much, "x = re.compile('(?:a|b)*+')", ")*+"),
        (says_nothing, "# why\nx = 1", "module"),
        (explains_nothing, "class Pool:\n    x = 1", "Pool"),
        (explains_nothing, "async def look(): ...", "look"),
    ],
)
def test_a_planted_offence_is_found(rule: Rule, text: str, found: str) -> None:
    assert any(line.startswith(f"platform/x.py: {found}") for line in offences(rule, {"platform/x.py": text}))


def test_a_room_of_several_files_knows_its_own_and_no_other() -> None:
    own, other = "from .breaker import Breaker\nfrom ..state import State", "from ..db import Base"
    for file in ("platform/cache/__init__.py", "platform/cache/redis.py"):
        assert offences(knows_another_room, {file: own}) == []
        assert offences(knows_another_room, {file: other}) == [f"{file}: db"]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (wraps_every_request, '"""Not BaseHTTPMiddleware."""\napp.add_middleware(Limit)'),
        (
            keeps_state,
            "LEVELS = {'info': 1}\n_NAMES = ['a']\ndef f():\n    found = []\n    found.append(1)\n    return LEVELS",
        ),
        (knows_another_room, "from .settings import part\nfrom . import state\nimport redis"),
        (explains_nothing, "def _f(): ...\ndef g():\n    '''Do.'''\n    def inner(): ..."),
    ],
)
def test_what_is_allowed_is_not_reported(rule: Rule, text: str) -> None:
    assert offences(rule, {"platform/x.py": text}) == []


def lengths(texts: dict[str, str]) -> dict[str, int]:
    return {name: len(text.splitlines()) for name, text in texts.items()}


def too_long(texts: dict[str, str]) -> list[str]:
    return [name for name, lines in lengths(texts).items() if lines > LONGEST]


def test_no_file_is_too_long() -> None:
    texts = modules()
    sizes = sorted(lengths(texts).values())
    ninth = statistics.quantiles(sizes, n=10)[-1]
    print(f"\n{len(sizes)} files: median {statistics.median(sizes):g} lines (aim 80), 90 % at most {ninth:g} (aim 200)")
    assert too_long(texts) == []
    assert too_long({**texts, "big.py": "x = 1\n" * 301, "full.py": "x = 1\n" * 300}) == ["big.py"]
