"""Rooms declare themselves by one typed object, and the door runs their hooks in order, whatever one of them does."""

import json
from pathlib import Path

import pytest

from tests.projects import Project

SECURITY = "src/my_service/platform/security.py"
DECLARED = "ROOM = Room("
PLANTED = {
    "a misspelt hook": (
        'ROOM = Room(respnd=lambda context, headers: headers.append((b"x", b"y")))\n',
        'Unexpected keyword argument "respnd" for "Room"; did you mean "respond"?',
    ),
    "a hook of another signature": (
        "def late(context: RequestContext, headers: bytes) -> None: ...\n\n\nROOM = Room(respond=late)\n",
        'Argument "respond" to "Room" has incompatible type "Callable[[RequestContext, bytes], None]"',
    ),
    "a hook that must not be awaited": (
        "async def late(context: RequestContext) -> None: ...\n\n\nROOM = Room(finish=late)\n",
        'Argument "finish" to "Room" has incompatible type "Callable[[RequestContext], Coroutine[Any, Any, None]]"',
    ),
}


def types(project: Project) -> str:
    """What the emitted type check says of one room and of all that it imports."""
    return project.run(str(project.venv / "bin/mypy"), SECURITY, check=False).stdout


@pytest.mark.parametrize("fault", PLANTED)
def test_the_type_checker_refuses(project: Project, tmp_path: Path, fault: str) -> None:
    made = project.variant(tmp_path / "service")
    assert "Success" in types(made)
    file, (planted, message) = made.root / SECURITY, PLANTED[fault]
    declared = file.read_text().partition(DECLARED)
    assert declared[1]
    file.write_text(declared[0] + planted)
    assert message in types(made)


DOOR = """
import asyncio, json, sys
from functools import partial
import structlog
from my_service.platform.http import Door
from my_service.platform.room import Room
from my_service.platform.settings import RoomSettings
from my_service.platform.state import State

seen = []

def hook(kind, name, *given):
    seen.append(f"{kind} {name}")
    if name == sys.argv[1]:
        raise LookupError(f"planted in {name}")

def room(name):
    def begin(context): hook("begin", name)
    def respond(context, headers): hook("respond", name)
    def finish(context): hook("finish", name)
    return Room(begin=begin, respond=respond, finish=finish)

async def app(scope, receive, send):
    seen.append("app")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})

async def send(message):
    seen.append(message.get("body", b"").decode() or message["status"])

with structlog.testing.capture_logs() as lines:
    door = Door(app, [room(name) for name in "abc"], State(RoomSettings()))
    asyncio.run(door({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send))
failed = [[line["log_level"], line["hook"].rpartition(".")[2], str(line.get("exc_info"))] for line in lines]
print(json.dumps([seen, failed]))
"""
IN_ORDER = """
    begin a, begin b, begin c, app, respond c, respond b, respond a, 200, fine, finish c, finish b, finish a
"""


def passage(project: Project, failing: str) -> tuple[list[str | int], list[list[str]]]:
    """Send one request through a door with three rooms: what ran, and what was logged."""
    done = project.run(str(project.venv / "bin/python"), "-c", DOOR, failing)
    seen, failed = json.loads(done.stdout)
    return [str(each) for each in seen], failed


def test_hooks_run_inwards_at_the_beginning_and_outwards_at_the_end(project: Project) -> None:
    assert passage(project, "none") == (IN_ORDER.strip().split(", "), [])


def test_a_hook_that_raises_is_logged_and_stops_no_other(project: Project) -> None:
    seen, failed = passage(project, "b")
    assert seen == IN_ORDER.strip().split(", ")
    assert failed == [["error", hook, "True"] for hook in ("begin", "respond", "finish")]
