"""What every balancer does before instances of the emitted service."""

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from http.client import HTTPException

from websockets.sync.client import connect

from tests.balancer.balancer import HOST, Balancer
from tests.balancer.client import Client, context
from tests.plant import Feature
from tests.projects import Service

Services = tuple[Service, Service]
ROUTES = Feature(
    "through",
    '''"""Routes that a balancer may hurt."""

import asyncio
from collections.abc import AsyncIterable

from fastapi import APIRouter, Request, WebSocket
from fastapi.sse import EventSourceResponse, ServerSentEvent

router = APIRouter(prefix="/through")


@router.websocket("/echo")
async def echo(peer: WebSocket) -> None:
    await peer.accept()
    while True:
        await peer.send_text(await peer.receive_text())


@router.get("/who")
async def who(request: Request) -> list[str]:
    return [request.client.host if request.client else "", str(request.url)]


@router.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterable[ServerSentEvent]:
    yield ServerSentEvent(data="first")
    await asyncio.sleep(4)  # longer than any buffer may hold the first
    yield ServerSentEvent(data="second")
''',
)
# What the balancer needs the service to be told.
ENV = {"TRUSTED_HOSTS": HOST, "LOG_FORMAT": "json"}


def a_websocket_stays_open_over_a_reload(balancer: Balancer, services: Services) -> None:
    """And text goes both ways."""
    url = f"wss://{HOST}/through/echo"
    with (
        socket.create_connection(("127.0.0.1", balancer.port), 10) as raw,
        connect(url, sock=raw, ssl=context()) as peer,
    ):
        for text in ("before", "after"):
            peer.send(text)
            assert peer.recv(timeout=5) == text
            balancer.reload()
            time.sleep(0.5)


def events_come_one_by_one(balancer: Balancer, services: Services) -> None:
    """A balancer that collected them would deliver the first with the last."""
    with Client(balancer.port) as client:
        begun = time.monotonic()
        client.send(f"GET /through/events HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        received = b""
        while b"first" not in received:
            received += client.socket.recv(65_536)
        assert time.monotonic() - begun < 3
        assert b"second" not in received


def the_security_headers_of_the_service_are_there_once(balancer: Balancer, services: Services) -> None:
    """Also that which is only for https."""
    with Client(balancer.port) as client:
        answer = client.get("/version")
    assert answer.status == 200
    for name in ("strict-transport-security", "x-content-type-options", "content-security-policy", "x-request-id"):
        assert len(answer.all(name)) == 1, name


def the_service_knows_who_asked_for_what(balancer: Balancer, services: Services) -> None:
    """The client's address, the public URL, and the id, by which the logs of both can be joined."""
    marker = uuid.uuid4().hex
    with Client(balancer.port, source="127.0.0.77") as client:
        answer = client.get("/through/who", {"X-Request-ID": marker, "X-Forwarded-For": "203.0.113.9"})
    assert json.loads(answer.body) == ["127.0.0.77", f"https://{HOST}/through/who"]
    assert answer.headers["x-request-id"] == balancer.entry(client="127.0.0.77")["request_id"] == marker
    assert len([each for each in services if marker in each.log]) == 1


def no_request_is_lost_if_an_instance_is_killed(balancer: Balancer, services: Services) -> None:
    """What was sent to it is repeated: reads, by clients that never retry."""
    lost: list[str] = []
    done, counts = threading.Event(), [0] * 4

    def load(number: int) -> None:
        with Client(balancer.port, source=f"127.0.0.{30 + number}") as client:
            while not done.is_set():
                try:
                    answer = client.get("/version")
                except (OSError, HTTPException) as error:
                    lost.append(repr(error))
                    return
                if answer.status != 200:
                    lost.append(f"{answer.status} {answer.body.decode()}")
                counts[number] += 1
                time.sleep(0.025)  # below the limit of a client

    threads = [threading.Thread(target=load, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    time.sleep(1)  # of requests to both
    services[1].process.kill()
    time.sleep(1.5)  # of requests to one
    done.set()
    for thread in threads:
        thread.join(15)
    assert min(counts) > 10, counts
    assert lost == []


Scenario = Callable[[Balancer, Services], None]
SCENARIOS: Sequence[Scenario] = [
    a_websocket_stays_open_over_a_reload,
    events_come_one_by_one,
    the_security_headers_of_the_service_are_there_once,
    the_service_knows_who_asked_for_what,
    no_request_is_lost_if_an_instance_is_killed,
]
# What breaks an instance gets a pair of its own.
DEADLY = {no_request_is_lost_if_an_instance_is_killed}
