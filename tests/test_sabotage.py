"""Sabotages find their symbols whatever the code around looks like, fail loudly without, and stay in their own area."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plant import Feature, Revision
from tests.projects import ROOT, render
from tests.sabotage import Argument, Body, Gone, Line, Sabotage, StaleSabotageError, Value, defined

ROOM = '''"""A room."""

from contextlib import contextmanager

FRESH: float = 1.0
LIMITS = dict(
    seconds=3,
    size=4,
)


class Parts:
    """Of the room."""

    seen = 0
    name: str

    @staticmethod
    def double(number: int) -> int:
        return 2 * number

    async def look(
        self,
        much: int = 1,
    ) -> int:
        """Looks."""
        return self._count() + much

    def _count(self) -> int:
        return 5


if True:

    def guarded() -> str:
        return "é"  # not ASCII

    @contextmanager
    def opened():
        yield 1
'''
SHOW = """
import asyncio, room
with room.opened() as opened:
    print([room.FRESH, room.LIMITS, room.Parts.seen, room.Parts.double(2), asyncio.run(room.Parts().look()),
           room.guarded(), opened, getattr(room.Parts, "name", None)])
"""
SOUND = [1.0, {"seconds": 3, "size": 4}, 0, 4, 6, "é", 1, None]


@pytest.fixture
def emitted(tmp_path: Path) -> Path:
    """What a project looks like to a sabotage."""
    room = tmp_path / "src/my_service/platform/room"
    room.mkdir(parents=True)
    (tmp_path / "src/my_service/features").mkdir()
    (room / "__init__.py").write_text(ROOM)
    (room / "other.py").write_text('"""Another."""\n')
    (tmp_path / "settings.yaml").write_text("a: 1\nb:\n  c: 2\n")
    return tmp_path


def shown(root: Path) -> list[object]:
    command = [sys.executable, "-B", "-c", SHOW]  # no .pyc: within a second it would pass for the changed file's
    done = subprocess.run(command, cwd=root / "src/my_service/platform", capture_output=True, text=True, check=True)
    found: list[object] = ast.literal_eval(done.stdout)
    return found


@pytest.mark.parametrize(
    ("sabotage", "place", "value"),
    [
        (Value("room:FRESH", "9.5"), 0, 9.5),
        (Argument("room:LIMITS", "size", "(5,\n6)"), 1, {"seconds": 3, "size": (5, 6)}),
        (Value("room:Parts.seen", "7"), 2, 7),
        (Body("room:Parts.double", "return original(number) + 1"), 3, 5),
        (Body("room:Parts.look", "return await original(10) + 1"), 4, 16),
        (Body("room:Parts._count", "return 0"), 4, 1),
        (Body("room:guarded", 'if original() == "é":\n    return "è"'), 5, "è"),
        (Body("room:opened", "with original() as one:\n    yield one + 1"), 6, 2),
        (Value("room:Parts.name", '"given"'), 7, "given"),
    ],
)
def test_a_sabotage_changes_its_symbol_and_nothing_else(
    emitted: Path, sabotage: Sabotage, place: int, value: object
) -> None:
    assert shown(emitted) == SOUND
    sabotage.apply(emitted)
    assert shown(emitted) == [*SOUND[:place], value, *SOUND[place + 1 :]]


def test_a_line_of_a_configuration_is_replaced_or_dropped(emitted: Path) -> None:
    Line("settings.yaml", "c:", "c: 3").apply(emitted)
    Line("settings.yaml", "a:").apply(emitted)
    assert (emitted / "settings.yaml").read_text() == "b:\n  c: 3\n"
    Gone("settings.yaml").apply(emitted)
    assert not (emitted / "settings.yaml").exists()


@pytest.mark.parametrize(
    "sabotage",
    [
        Body("room:Parts.lost", "pass"),
        Body("nowhere:Parts.look", "pass"),
        Body("room:FRESH", "pass"),
        Body("room:guarded", "return ("),
        Value("room:Parts.look", "1"),
        Value("room:LOST", "1"),
        Argument("room:LIMITS", "lost", "1"),
        Line("settings.yaml", "lost"),
        Line("lost.yaml", "a"),
        Line("src/my_service/platform/room/other.py", '"""'),
        Gone("lost.yaml"),
    ],
)
def test_a_sabotage_without_its_target_fails_loudly(emitted: Path, sabotage: Sabotage) -> None:
    with pytest.raises(StaleSabotageError):
        sabotage.apply(emitted)


def test_a_symbol_that_is_defined_twice_is_refused(emitted: Path) -> None:
    (emitted / "src/my_service/platform/room/other.py").write_text("FRESH = 2\n")
    with pytest.raises(StaleSabotageError, match=r"twice|2 times"):
        Value("room:FRESH", "1").apply(emitted)


# --- of all sabotages in these tests ------------------------------------------------------------------------------

PYTHON = {"Argument", "Body", "Value"}
# The rooms whose private names the tests of an area may know, beside those that are called like it.
OWN = {
    "backup": {"ops"},
    "caching": {"cache"},
    "database": {"db", "idempotency", "migrations", "ops"},
    "observability": {"dev", "logs", "scripts", "telemetry"},
    "own_rooms": {"__init__"},
    "readiness": {"probe", "ready"},
    "rollout": {"deploy"},
    "service": {
        "api_docs",
        "codes",
        "cors",
        "health",
        "http",
        "idempotency",
        "logs",
        "problems",
        "redaction",
        "security",
        "server",
        "settings",
    },
    "telemetry": {"dev", "http", "logs"},
    "vault": {"secrets"},
    "update": {"scripts"},
}
# Between them they have all rooms.
ANSWERS: tuple[dict[str, object], ...] = (
    {"cdn": "cloudflare"},
    {"cache": "memcached", "database": "none", "http_instrumentation": "native", "secrets_manager": "aws"},
    {"cache": "none", "error_monitoring": "none", "load_balancer": "haproxy", "secrets_manager": "none"},
)


def addressed() -> Iterator[tuple[str, str, str, str]]:
    """Of each sabotage of Python code: the area of the test, where it is written, its kind, and the symbol."""
    for file in sorted((ROOT / "tests").rglob("*.py")):
        if file == Path(__file__):
            continue
        area = file.relative_to(ROOT / "tests").parts[0].removeprefix("test_").removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PYTHON:
                symbol = node.args[0] if node.args else None
                where = f"{file.relative_to(ROOT)}:{node.lineno}"
                assert isinstance(symbol, ast.Constant), f"{where}: write the symbol out, so that it can be checked"
                yield area, where, node.func.id, str(symbol.value)


def refusal(root: Path, symbol: str, kind: str) -> str:
    """Why a sabotage would not find its symbol; empty if it would."""
    try:
        defined(root, symbol, kind)
    except StaleSabotageError as error:
        return str(error)
    return ""


def test_no_sabotage_is_out_of_date(template: Path, tmp_path: Path) -> None:
    known = {row.partition(":")[0] for row in (template / "copier.yml").read_text().splitlines()}
    kinds = [
        render(template, tmp_path / str(number), **{name: value for name, value in answers.items() if name in known})
        for number, answers in enumerate(ANSWERS)
    ]
    stale = []
    for _, where, kind, symbol in addressed():
        reasons = [reason for root in kinds if (reason := refusal(root, symbol, kind))]
        ambiguous = [reason for reason in reasons if "defined 0 times" not in reason and "defined" in reason]
        if ambiguous or len(reasons) == len(kinds):
            stale.append(f"{where}: {(ambiguous or reasons)[0]}")
    assert stale == []


def test_a_private_name_of_a_room_is_known_to_its_own_area_alone() -> None:
    strangers = [
        f"{where}: {symbol}"
        for area, where, _, symbol in addressed()
        if any(part.startswith("_") and not part.endswith("__") for part in symbol.partition(":")[2].split("."))
        and symbol.partition(":")[0].split(".")[0] not in {area, *OWN.get(area, ())}
    ]
    assert strangers == []


def test_planted_features_and_revisions_stand_where_a_user_puts_them(emitted: Path) -> None:
    Feature("lamp", "router = None\n").apply(emitted)
    assert (emitted / "src/my_service/features/lamp/routes.py").read_text() == "router = None\n"
    Revision("op.execute('x')\nop.execute('y')").apply(emitted)
    text = (emitted / "migrations/versions/0002_later.py").read_text()
    assert "\n    op.execute('x')\n    op.execute('y')\n" in text
    ast.parse(text)
