"""What every balancer does with the instances of the service: retries, times, idle connections, reloads."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException

from tests.balancer.balancer import HOST, UPLOADS, Balancer
from tests.balancer.client import Client
from tests.balancer.edge import problem
from tests.balancer.upstream import Request, Upstream, response
from tests.servers.process import free_port


def point(balancer: Balancer, *ports: int) -> None:
    """Send requests to other instances."""
    balancer.write_peers(*ports)
    balancer.reload()


def targets(*upstreams: Upstream) -> Counter[str]:
    """How often each method reached any of the instances."""
    return Counter(request.method for upstream in upstreams for request in upstream.requests)


def requests_are_spread_over_the_instances(balancer: Balancer, upstream: Upstream) -> None:
    """Evenly."""
    with Upstream().run() as other:
        point(balancer, upstream.port, other.port)
        with Client(balancer.port) as client:
            for _ in range(40):
                assert client.get("/").status == 200
    assert abs(len(upstream.requests) - len(other.requests)) <= 2


def an_instance_that_is_down_costs_no_request(balancer: Balancer, upstream: Upstream) -> None:
    """It refuses connections: the other gets the requests, and no method is dangerous to repeat before it was sent."""
    point(balancer, free_port(), upstream.port)
    with Client(balancer.port) as client:
        for method in ("GET", "POST") * 8:
            assert client.request(method, "/", body=b"x" * (method == "POST")).status == 200
    assert targets(upstream) == {"GET": 8, "POST": 8}


def an_instance_that_does_not_accept_costs_little_time(balancer: Balancer, upstream: Upstream) -> None:
    """Its queue is full, as if a network dropped every packet: after the time to connect the other gets the request."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        point(balancer, full.getsockname()[1], upstream.port)
        with Client(balancer.port, seconds=5) as asking:
            for _ in range(2):
                assert asking.get("/").status == 200


def what_may_have_been_executed_is_repeated_only_if_that_is_harmless(balancer: Balancer, upstream: Upstream) -> None:
    """Three instances die with each request: GET is tried twice, POST once; the client gets a problem."""
    with Upstream().run() as second, Upstream().run() as third:
        peers = (upstream, second, third)
        for each in peers:
            each.reply = lambda request: None
        point(balancer, *(each.port for each in peers))
        for method in ("GET", "POST"):
            with Client(balancer.port) as client:
                problem(client.request(method, "/", body=b"x" * (method == "POST")), 502, "bad-gateway")
        assert targets(*peers) == {"GET": 2, "POST": 1}


def an_instance_that_is_slow_gets_no_second_chance(balancer: Balancer, upstream: Upstream) -> None:
    """After the time to read, the client gets a problem; the request is repeated nowhere, or all would get slow."""
    with Upstream().run() as other:
        for each in (upstream, other):
            each.reply = slow(6)
        point(balancer, upstream.port, other.port)
        with Client(balancer.port, seconds=4.5) as client:
            problem(client.get("/"), 504, "gateway-timeout")
        assert targets(upstream, other) == {"GET": 1}


def slow(seconds: float) -> Callable[[Request], bytes]:
    def reply(request: Request) -> bytes:
        time.sleep(seconds)
        return response()

    return reply


def an_instance_that_does_not_read_is_given_up(balancer: Balancer, upstream: Upstream) -> None:
    """It accepts the connection, and takes nothing of a large body: the client gets a problem in time."""
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        point(balancer, deaf.getsockname()[1])
        with Client(balancer.port, seconds=8) as client:
            begun = time.monotonic()
            answer = client.request("POST", UPLOADS, body=bytes(16 * 1_048_576))
            problem(answer, answer.status, {502: "bad-gateway", 504: "gateway-timeout"}[answer.status])
            assert time.monotonic() - begun < 6


def if_all_instances_are_down_the_client_gets_a_problem(balancer: Balancer, upstream: Upstream) -> None:
    """With the id of its request, which the log has, too."""
    point(balancer, free_port(), free_port())
    with Client(balancer.port) as client:
        answer = client.get("/gone", {"X-Request-ID": "all-are-down"})
        problem(answer, *balancer.down)
        assert answer.headers["x-request-id"] == "all-are-down"
        assert int(answer.headers["retry-after"]) > 0
    assert balancer.entry(request_id="all-are-down")["status"] == balancer.down[0]


def an_error_of_the_service_reaches_the_client_as_it_is(balancer: Balancer, upstream: Upstream) -> None:
    """It is not tried elsewhere, and its document is not replaced."""
    with Upstream().run() as other:
        for each in (upstream, other):
            each.reply = lambda request: response(b'{"own": 1}', "503 Service Unavailable", retry_after="7")
        point(balancer, upstream.port, other.port)
        with Client(balancer.port) as client:
            answer = client.get("/")
        assert (answer.status, answer.body, answer.headers["retry-after"]) == (503, b'{"own": 1}', "7")
        assert targets(upstream, other) == {"GET": 1}


def connections_to_the_service_are_used_again(balancer: Balancer, upstream: Upstream) -> None:
    """Otherwise each request costs a handshake, and a busy balancer runs out of ports."""
    for _ in range(20):
        with Client(balancer.port) as client:
            assert client.get("/").status == 200
    assert upstream.connections <= 8  # each worker has its own


def no_request_meets_a_connection_that_is_being_closed(balancer: Balancer, upstream: Upstream) -> None:
    """The service closes what was idle for KEEP_ALIVE_SECONDS, here 1.25 s: the balancer has closed it before.

    Real races are a matter of microseconds; this service closes when the late request comes.
    """
    upstream.reply = lambda request: response() if request.idle < 1.25 else None
    for _ in range(3):
        with Client(balancer.port) as client:
            for _ in range(4):
                assert client.request("POST", "/", body=b"x").status == 200
        time.sleep(1.6)  # longer than the shortened keep-alive
    with Client(balancer.port) as client:
        assert client.request("POST", "/", body=b"x").status == 200


# --- reloads


def an_idle_connection_survives_a_reload(balancer: Balancer, upstream: Upstream) -> None:
    """A client may send its next request just when the old worker would close."""
    with Client(balancer.port) as client:
        assert client.get("/").status == 200
        balancer.reload()
        time.sleep(0.5)  # an old worker would have closed it by now
        answer = client.request("POST", "/", body=b"x")
        assert (answer.status, answer.headers["connection"]) == (200, "close")


def an_upload_survives_a_reload(balancer: Balancer, upstream: Upstream) -> None:
    """Begun before it and finished after it."""
    with Client(balancer.port) as client:
        client.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\n12345".encode())
        time.sleep(0.2)  # the first half has arrived
        balancer.reload()
        time.sleep(0.5)  # longer than a sabotaged worker may live
        client.send(b"67890")
        assert client.answer().status == 200
    assert upstream.last.body == b"1234567890"


def no_request_is_lost_by_reloads(balancer: Balancer, upstream: Upstream) -> None:
    """Clients that never retry, and connect again only if they were told to."""
    lost: list[str] = []
    done, counts = threading.Event(), [0] * 6

    def load(number: int) -> None:
        client: Client | None = None
        while not done.is_set():
            method = ("GET", "POST")[counts[number] % 2]
            client = client or Client(balancer.port, source=f"127.0.0.{40 + number}")
            try:
                answer = client.request(method, "/", body=b"x" * (method == "POST"))
            except (OSError, HTTPException) as error:
                lost.append(f"{method}: {error!r}")
                return
            if answer.status != 200:
                lost.append(f"{method}: {answer.status}")
            if answer.headers["connection"] == "close":
                client.socket.close()
                client = None
            counts[number] += 1
            time.sleep(0.025)  # below the limit of a client
        if client:
            client.socket.close()

    threads = [threading.Thread(target=load, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    for _ in range(5):
        time.sleep(0.4)  # of requests before each reload, and after the last
        balancer.reload()
    time.sleep(0.4)
    done.set()
    for thread in threads:
        thread.join(15)
    assert lost == []
    assert min(counts) > 10


PEERS = [
    an_error_of_the_service_reaches_the_client_as_it_is,
    an_idle_connection_survives_a_reload,
    an_instance_that_does_not_accept_costs_little_time,
    an_instance_that_does_not_read_is_given_up,
    an_instance_that_is_down_costs_no_request,
    an_instance_that_is_slow_gets_no_second_chance,
    an_upload_survives_a_reload,
    connections_to_the_service_are_used_again,
    if_all_instances_are_down_the_client_gets_a_problem,
    no_request_is_lost_by_reloads,
    no_request_meets_a_connection_that_is_being_closed,
    requests_are_spread_over_the_instances,
    what_may_have_been_executed_is_repeated_only_if_that_is_harmless,
]
