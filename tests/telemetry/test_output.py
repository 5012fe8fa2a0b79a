"""A log call never raises, waits or avoids the redactor, whatever it is given and whether or not stdout is read."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.plant import Feature
from tests.projects import Project, Service
from tests.sabotage import Body, Sabotage, Value
from tests.servers.process import ServerError, free_port

pytestmark = pytest.mark.servers
ROUTES = '''"""Routes that log what is difficult to log."""

import asyncio
import gc
import logging
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import APIRouter

router = APIRouter(prefix="/odd")
log = structlog.get_logger("odd")
std = logging.getLogger("odd.std")


class Evil:
    def __repr__(self) -> str:
        raise RuntimeError("token=hunter2")


class EvilError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("token=hunter2")


class Dies:
    def __del__(self) -> None:
        raise ValueError("password=hunter2")


@dataclass
class User:
    name: str
    password: str


def fails() -> None:
    raise ValueError("password=hunter2")


def unraisable() -> None:
    Dies()
    gc.collect()


def bound() -> None:
    structlog.contextvars.bind_contextvars(tenant="t1", api_key="hunter2")
    log.info("said")
    std.warning("said too")


loop: list[Any] = []
loop.append(loop)
deep: Any = 1
for _ in range(5000):
    deep = [deep]
CALLS: dict[str, Any] = {
    "large": lambda: log.info("said", v=2**64, w=[-(2**70)]),
    "half a character": lambda: log.info("said \\ud800", v="\\udfff", **{"k\\ud800": 1}),
    "repr raises": lambda: log.info("said", v=Evil(), w=[Evil()], x={Evil(): 1}),
    "no end": lambda: log.info("said", v=loop, w=deep),
    "bytes": lambda: log.info("said", v=b"\\xff\\x00", n=float("nan")),
    "object": lambda: log.info("said", v=User("a", "hunter2"), w=object()),
    "huge": lambda: log.info("said", v="x " * 1_000_000, w=list(range(100_000))),
    "names of the platform": lambda: log.info("said", status="password=hunter2", route="a://b:hunter2@c", ms=2**64),
    "ids": lambda: log.info("said", trace_id="none", span_id=2**64, request_id=Evil(), timestamp="t", level=3),
    "arguments": lambda: log.info("said %d of %s", "hunter2"),
    "name of a parameter": lambda: log.info("said", method_name="GET", self=1, logger=2),
    "event twice": lambda: log.info("said", event="again"),
    "level": lambda: log.log(25, "said"),
    "no text": lambda: log.info(Evil()),
    "exception": lambda: log.error("said", exc_info=EvilError()),
    "no exception": lambda: log.exception("said"),
    "standard arguments": lambda: std.warning("said %s %s", "hunter2"),
    "standard type": lambda: std.warning("said %d", "hunter2"),
    "standard object": lambda: std.warning(Evil()),
    "extra": lambda: std.warning("said", extra={"order": 7, "password": "hunter2", "v": 2**64}),
    "bound": bound,
    "warning": lambda: warnings.warn("said password=hunter2", stacklevel=1),
    "thread": lambda: threading.Thread(target=fails).start(),
    "unraisable": unraisable,
}


@router.get("/call/{name}")
async def call(name: str) -> dict[str, str]:
    CALLS[name]()
    return {}


@router.get("/async")
async def asynchronous() -> dict[str, str]:
    await log.ainfo("said %d", "hunter2")
    await log.ainfo("said", v=2**64)
    task = asyncio.create_task(asyncio.to_thread(fails))
    await asyncio.sleep(0.1)
    del task
    gc.collect()
    return {}


@router.get("/flood")
async def flood(lines: int, size: int = 10) -> dict[str, str]:
    for number in range(lines):
        log.info("flood", number=number, pad="x" * size)
    return {}
'''
CALLS = [line.split('"')[1] for line in ROUTES.splitlines() if line.startswith('    "') and '": ' in line]
TEST = {"ENVIRONMENT": "staging", "LOG_FORMAT": "json", "SHUTDOWN_DRAIN_SECONDS": "0"}


@pytest.fixture(scope="module")
def odd(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service with these routes. Do not change it: make a `variant`."""
    return bare_project.variant(tmp_path_factory.mktemp("odd") / "service", Feature("odd", ROUTES))


@pytest.fixture(scope="module")
def service(odd: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that the tests of this module share: they leave it running."""
    with odd.serve(tmp_path_factory.mktemp("run"), TEST) as started:
        yield started


def lines_of(service: Service, trace_id: str) -> list[dict[str, Any]]:
    """The lines of a request; each line of the log is JSON, so nothing was printed beside it."""
    found = [json.loads(line) for line in service.log.splitlines()]
    return [line for line in found if trace_id in (line.get("trace_id"), line.get("request_id"))]


def logs_it(service: Service, path: str) -> list[dict[str, Any]]:
    trace_id = os.urandom(16).hex()
    headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-00"}
    answer = service.client.get(path, headers=headers)
    assert answer.status_code == 200
    lines = [line for line in lines_of(service, trace_id) if line["event"] != "request"]
    assert "hunter2" not in service.log
    return lines


LATE = {"thread", "unraisable"}  # logged by Python's hooks, perhaps without the ids of a request


@pytest.mark.parametrize("name", [name for name in CALLS if name not in LATE])
def test_a_log_call_never_raises_and_writes_its_line(service: Service, name: str) -> None:
    assert len(CALLS) >= 20
    lines = logs_it(service, f"/odd/call/{name}")
    assert lines
    assert all("said" in line["event"] or "Evil" in line["event"] for line in lines), lines


def test_an_asynchronous_log_call_is_no_exception(service: Service) -> None:
    assert [line["event"] for line in logs_it(service, "/odd/async")][:2] == ["said %d", "said"]
    assert "Task exception was never retrieved" in service.log


def catches_what_nobody_catches(service: Service) -> None:
    for name in LATE:
        logs_it(service, f"/odd/call/{name}")
    found = {line["event"]: line for line in map(json.loads, service.log.splitlines())}
    assert {"ignored exception", "uncaught exception in a thread"} <= found.keys()
    assert "ValueError: password=[redacted]" in found["uncaught exception in a thread"]["exception"]


def test_what_python_would_print_is_a_redacted_line(service: Service) -> None:
    catches_what_nobody_catches(service)


def has_its_context(service: Service) -> None:
    (line,) = logs_it(service, "/odd/call/extra")
    assert (line["order"], line["password"], line["logger"]) == (7, "[redacted]", "odd.std")
    trace_id = os.urandom(16).hex()
    service.client.get("/odd/call/bound", headers={"traceparent": f"00-{trace_id}-{'1' * 16}-00"})
    lines = lines_of(service, trace_id)
    assert [line["event"] for line in lines] == ["said", "said too", "request"]
    assert {(line["tenant"], line["api_key"]) for line in lines} == {("t1", "[redacted]")}
    (other,) = logs_it(service, "/odd/call/large")
    assert "tenant" not in other


def test_bound_values_and_those_of_extra_are_in_the_line(service: Service) -> None:
    has_its_context(service)


def never_raises(service: Service) -> None:
    for name in CALLS:
        logs_it(service, f"/odd/call/{name}")


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("check", "sabotage"),
    [
        (never_raises, Body("logs:Output._safe", "return method")),
        (never_raises, Body("logs:_Handler.emit", "record.getMessage()\noriginal(record)")),
        (never_raises, Body("redaction:redact", "return original(value, key) | value")),
        (catches_what_nobody_catches, Body("logs:_log_uncaught", "pass")),
        (has_its_context, Value("logs:RECORD_FIELDS", '{*vars(logging.makeLogRecord({})), "order"}')),
    ],
    ids=["arguments", "standard arguments", "redactor", "hooks", "extra"],
)
def test_a_sabotaged_log_call_is_noticed(odd: Project, tmp_path: Path, check: Any, sabotage: Sabotage) -> None:
    with (
        odd.variant(tmp_path / "sick", sabotage).serve(tmp_path / "run", TEST) as service,
        pytest.raises((AssertionError, KeyError, ValueError)),
    ):
        check(service)


# --- stdout ------------------------------------------------------------------------------------------------------


@contextmanager
def piped(project: Project, folder: Path, **env: str) -> Iterator[tuple[Service, int]]:
    """Serve into a pipe: the service, and the end that a test reads, or does not."""
    folder.mkdir()
    os.mkfifo(folder / "service.log")
    reader = os.open(folder / "service.log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with project.serve(folder, TEST | env) as service:
            try:
                yield service, reader
            finally:
                service.process.kill()
    finally:
        with contextlib.suppress(OSError):
            os.close(reader)


def read(reader: int, until: str) -> list[str]:
    """The lines of a pipe, until one with that text."""
    text, deadline = b"", time.monotonic() + 20
    while until.encode() not in text:
        assert time.monotonic() < deadline, f"no {until!r} in {text[-300:]!r}"
        with contextlib.suppress(BlockingIOError):
            text += os.read(reader, 1 << 20)
        time.sleep(0.001)
    return text.decode().splitlines()


def serves_without_a_reader(project: Project, folder: Path, log_format: str) -> None:
    port = free_port()
    metrics = {"OTEL_METRICS_EXPORTER": "prometheus", "METRICS_PORT": str(port)}
    with piped(project, folder, LOG_FORMAT=log_format, **metrics) as (service, reader):
        for _ in range(6):  # 9 MB: more than waits
            assert service.client.get("/odd/flood", params={"lines": 500, "size": 3000}, timeout=5).status_code == 200
        exported = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        (dropped,) = [
            float(line.split()[-1]) for line in exported.splitlines() if line.startswith("log_lines_dropped_")
        ]
        assert dropped > 0
        lines = read(reader, "log lines were lost")
        flood = [line for line in lines if "flood" in line and "/odd/" not in line]
        assert 0 < len(flood) < 3000
        numbers = [int(line.partition("number")[2].strip('":=').split(",")[0].split(" ")[0]) for line in flood]
        assert numbers[:500] == list(range(500))  # in order
        os.close(reader)
        assert service.client.get("/livez", timeout=5).status_code == 200
        service.process.send(signal.SIGTERM)
        assert service.process.wait(10) == 0


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_reader_of_stdout_that_stops_or_leaves_stops_neither_requests_nor_the_drain(
    odd: Project, tmp_path: Path, log_format: str
) -> None:
    serves_without_a_reader(odd, tmp_path / "run", log_format)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("threads:Writer.put", "_write(line)"),
        Body("threads:Writer.put", "self.size = 0\noriginal(line)"),
        Value("threads:Writer.dropped", "property(lambda writer: 0, lambda writer, value: None)"),
    ],
    ids=["waits", "without bound", "not counted"],
)
def test_a_writer_that_waits_for_its_reader_is_noticed(odd: Project, tmp_path: Path, sabotage: Sabotage) -> None:
    sick = odd.variant(tmp_path / "sick", sabotage)
    with pytest.raises((AssertionError, ServerError, httpx.TransportError)):
        serves_without_a_reader(sick, tmp_path / "run", "json")


def closed_from_the_start(project: Project, tmp_path: Path) -> None:
    command = project.command("serve")
    closed = Project(project.root)
    closed.venv = project.venv
    closed.command = lambda *arguments: ("sh", "-c", 'exec "$@" >&-', "sh", *command)  # type: ignore[method-assign]
    with closed.serve(tmp_path / "run", TEST) as service:
        assert service.client.get("/odd/call/bound").status_code == 200
        service.process.send(signal.SIGTERM)
        assert service.process.wait(10) == 0


def test_a_service_without_stdout_serves(odd: Project, tmp_path: Path) -> None:
    closed_from_the_start(odd, tmp_path)


def loses_nothing(project: Project, folder: Path) -> None:
    with project.serve(folder, TEST) as service:
        assert service.client.get("/odd/flood", params={"lines": 3000}).status_code == 200
        service.process.send(signal.SIGTERM)
        assert service.process.wait(10) == 0
        lines = [json.loads(line) for line in service.log.splitlines()]
    assert [line["number"] for line in lines if line["event"] == "flood"] == list(range(3000))
    assert lines[-1]["event"] == "stopped"


def test_an_exit_loses_no_line(odd: Project, tmp_path: Path) -> None:
    loses_nothing(odd, tmp_path / "run")


@pytest.mark.sabotage
def test_an_exit_that_does_not_wait_for_the_last_lines_is_noticed(odd: Project, tmp_path: Path) -> None:
    slow = Value("threads:PAUSE_SECONDS", "60"), Body("threads:Writer.flush", "pass")
    with pytest.raises(AssertionError):
        loses_nothing(odd.variant(tmp_path / "sick", *slow), tmp_path / "run")
