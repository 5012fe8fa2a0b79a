"""The service with a feature that fails in all the ways in which one can."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.plant import Feature
from tests.projects import Project, Service
from tests.sabotage import Sabotage
from tests.servers.bugsink import Sink

FEATURE = '''"""Routes that fail on request."""

import logging
from typing import Any

import sentry_sdk
import structlog
from fastapi import APIRouter, HTTPException, WebSocket

from ...platform.problems import ServiceError, Unavailable

sentry_sdk.set_tag("region", "eu")
log = structlog.get_logger("fault")
router = APIRouter(prefix="/fault")


@router.get("/fine")
async def fine() -> dict[str, str]:
    return {"fine": "yes"}


@router.post("/raise/{name}")
async def fail(name: str, body: dict[str, Any]) -> None:
    kept_here = body["local"]
    try:
        raise ValueError(body["cause"])
    except ValueError as error:
        raise RuntimeError(body["message"]) from error
    print(kept_here)


@router.get("/thread/{name}")
def fail_in_a_thread(name: str) -> None:
    raise RuntimeError(f"thread {name}")


@router.post("/log")
async def tell(body: dict[str, Any]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in body["headers"].items()]
    log.error(body["message"], nested=body["nested"], raw=body["raw"].encode(), headers=pairs)


@router.get("/stdlib")
async def tell_by_the_standard_library() -> None:
    logging.getLogger("library").error("stdlib says %s", "harmless")


@router.get("/caught")
async def tell_what_was_caught(again: bool = False) -> None:
    try:
        raise KeyError("caught")
    except KeyError:
        log.exception("told")
        if again:
            raise


@router.get("/answered")
async def answer() -> None:
    raise HTTPException(500, "harmless answer")


@router.get("/answered/service")
async def answer_as_the_service() -> None:
    raise ServiceError("harmless service answer")


@router.get("/away")
async def away() -> None:
    raise Unavailable("harmless, it is away")


@router.get("/mine/{who}")
async def use_the_sdk(who: str, fails: bool = False) -> None:
    if who != "nobody":
        sentry_sdk.set_tag("who", who)
        sentry_sdk.set_context("mine", {"password": "s3cr3t-mine", "note": "harmless-note"})
        sentry_sdk.add_breadcrumb(message="token=s3cr3t-crumb harmless-crumb")
    sentry_sdk.capture_message(f"mine of {who}", level="error")


@router.get("/tagged/{who}")
def use_the_sdk_in_a_thread(who: str) -> None:
    sentry_sdk.set_level("fatal")
    sentry_sdk.set_tag("who", who)
    raise RuntimeError(f"tagged by {who}")


@router.get("/storm/{number}")
async def storm(number: int) -> None:
    raise RuntimeError(f"storm {number}")


@router.get("/storm/{number}/logged")
async def logged_storm(number: int) -> None:
    log.error(f"failed for order {number}")


@router.get("/kind/{name}")
async def kind(name: str) -> None:
    log.error(f"failed for {name}")


@router.websocket("/socket")
async def socket(socket: WebSocket) -> None:
    await socket.accept()
    raise RuntimeError("in a socket")
'''
ERRORS = "src/my_service/platform/errors.py"
SCHEMA = "schema.sqlite"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass(frozen=True)
class Since(Sink):
    """The project without the events that were there before: tests that share a service do not see each other's."""

    known: frozenset[str] = frozenset()

    def events(self) -> list[dict[str, Any]]:
        """Those that have come since, the latest first."""
        return [event for event in super().events() if event["event_id"] not in self.known]

    @classmethod
    def now(cls, sink: Sink) -> "Since":
        """From here on."""
        known = frozenset(str(event["event_id"]) for event in sink.events())
        return cls(sink.dsn, sink.number, sink.client, known)


@pytest.fixture(scope="session")
def faulty(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service with routes that fail, and a database with the schema. Do not change it: make a `variant`."""
    made = project.variant(tmp_path_factory.mktemp("faulty") / "service", Feature("fault", FEATURE))
    made.cli("migrate", env={"DATABASE_URL": f"sqlite:///{SCHEMA}"}, check=True)
    return made


@contextmanager
def reporting(project: Project, folder: Path, dsn: str, *sabotages: Sabotage, **env: str) -> Iterator[Service]:
    """Run the service, perhaps a changed one, that reports to `dsn`."""
    made = project.variant(folder / "sick", *sabotages) if sabotages else project
    database = shutil.copy(made.root / SCHEMA, folder / SCHEMA)
    settings = {"ENVIRONMENT": "staging", "GIT_COMMIT": "4f3c2b1", "SHUTDOWN_DRAIN_SECONDS": "0", "SENTRY_DSN": dsn}
    with made.serve(folder / "run", {**settings, "DATABASE_URL": f"sqlite:///{database}", **env}) as service:
        yield service


def parent(flags: str = "01") -> dict[str, str]:
    """A header of who called, sampled by default."""
    return {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-{flags}"}


def by_text(sink: Sink, count: int) -> dict[str, dict[str, Any]]:
    """The events that arrived by what they say."""
    found = {}
    for event in sink.wait(count):
        values = (event.get("exception") or {}).get("values") or [{}]
        found[str((event.get("logentry") or {}).get("message") or event.get("message") or values[-1]["value"])] = event
    return found
