"""What HAProxy promises beyond the scenarios of all balancers: health checks, weights, retries, its sockets."""

import grp
import os
import pwd
import re
import select
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.balancer.balancer import INSIDE
from tests.balancer.client import Client
from tests.balancer.conftest import RED
from tests.balancer.edge import problem
from tests.balancer.haproxy import HAProxyBalancer, line
from tests.balancer.upstream import Request, Upstream, response
from tests.projects import Change, Edit
from tests.sabotage import Line
from tests.servers.process import ServerError, descendants, free_port

Open = Callable[..., HAProxyBalancer]
Scenario = Callable[[Open, Upstream, Upstream], None]
RELOAD = "deploy/haproxy/reload.sh"


@pytest.fixture
def one() -> Iterator[Upstream]:
    """An instance."""
    with Upstream().run() as running:
        yield running


@pytest.fixture
def two() -> Iterator[Upstream]:
    """Another one."""
    with Upstream().run() as running:
        yield running


def until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def send(balancer: HAProxyBalancer, count: int, method: str = "GET") -> list[int]:
    """The statuses of as many requests, one after the other."""
    with Client(balancer.port) as client:
        return [client.request(method, "/").status for _ in range(count)]


def weights(balancer: HAProxyBalancer) -> dict[str, str]:
    """The weights of the instances by name."""
    rows = [row.split() for row in balancer.say("show servers state service").splitlines() if " service " in row]
    return {row[3]: row[7] for row in rows}


def status_of(balancer: HAProxyBalancer, name: str) -> str:
    """Of an instance."""
    rows = [row.split(",") for row in balancer.say("show stat").splitlines() if row.startswith(f"service,{name},")]
    return rows[0][17]


def an_instance_that_is_not_ready_gets_no_requests(start: Open, one: Upstream, two: Upstream) -> None:
    """Two failed health checks, a second apart, take it out; one good check takes it back."""
    with start(one.port, two.port) as balancer:
        assert send(balancer, 4) == [200] * 4
        assert len(one.requests) == len(two.requests) == 2
        two.ready = False
        assert until(lambda: status_of(balancer, "two") == "DOWN")
        assert send(balancer, 4) == [200] * 4
        assert (len(one.requests), len(two.requests)) == (6, 2)
        two.ready = True
        assert until(lambda: status_of(balancer, "two") == "UP")
        assert send(balancer, 4) == [200] * 4
        assert len(two.requests) == 4


def a_weight_is_the_share_of_the_requests(start: Open, one: Upstream, two: Upstream) -> None:
    """Set by the admin socket, exact to the request, and without a reload."""
    with start(one.port, two.port) as balancer:
        balancer.say("set server service/one weight 30")
        balancer.say("set server service/two weight 10")
        assert send(balancer, 40) == [200] * 40
        assert (len(one.requests), len(two.requests)) == (30, 10)
        balancer.say("set server service/two weight 0")
        assert send(balancer, 10) == [200] * 10
        assert len(two.requests) == 10


def a_reload_keeps_the_weights(start: Open, one: Upstream, two: Upstream) -> None:
    """A release sets them at run time. An instance with another address begins anew."""
    with start(one.port, two.port) as balancer:
        balancer.say("set server service/two weight 1")
        balancer.reload()
        assert weights(balancer) == {"one": "100", "two": "1"}
        balancer.write_peers(one.port, one.port)
        balancer.reload()
        assert weights(balancer) == {"one": "100", "two": "100"}
        assert send(balancer, 4) == [200] * 4
        assert len(one.requests) == 4
        assert not (balancer.home / "state").exists()


def only_the_owner_may_use_the_admin_socket(start: Open, one: Upstream, two: Upstream) -> None:
    """Who writes to it decides where requests go."""
    with start(one.port, two.port) as balancer:
        assert stat.S_IMODE((balancer.home / "admin.sock").stat().st_mode) == 0o600


def a_broken_configuration_is_named_and_not_loaded(start: Open, one: Upstream, two: Upstream) -> None:
    """The old processes continue to serve."""
    with start(one.port, two.port) as balancer:
        own = balancer.folder / "conf.d/own.cfg"
        own.write_text("broken\n")
        said = ""
        try:
            balancer.reload()
        except ServerError as error:
            said = str(error)
        assert "own.cfg:1]: unknown keyword 'broken'" in said
        assert send(balancer, 2) == [200] * 2
        own.write_text(f"frontend own from clients\n    bind 127.0.0.1:{free_port()}\n    default_backend service\n")
        balancer.reload()


def an_instance_that_stops_between_two_checks_costs_no_request(start: Open, one: Upstream, two: Upstream) -> None:
    """It refuses connections: nothing was sent yet, so every method goes to another instance."""
    with ExitStack() as running:
        gone = running.enter_context(Upstream().run())
        with start(one.port, gone.port) as balancer:
            assert send(balancer, 4) == [200] * 4
            running.close()
            assert send(balancer, 8, "POST") == [200] * 8
    assert len(gone.requests) == 2


def only_a_safe_request_is_repeated_and_only_once(start: Open, one: Upstream, two: Upstream) -> None:
    """An instance that dies meanwhile may have executed the request: a second POST would be a second order."""

    def dies(request: Request) -> None:
        return None

    one.reply = dies
    with start(one.port, two.port) as balancer:
        assert send(balancer, 4) == [200] * 4
        assert one.requests and len(two.requests) == 4
        one.requests.clear()
        two.requests.clear()
        assert sorted(send(balancer, 4, "POST")) == [200, 200, 502, 502]
        assert len(one.requests) == len(two.requests) == 2
        two.reply = dies
        one.requests.clear()
        two.requests.clear()
        assert send(balancer, 1) == [502]
        assert len(one.requests) == len(two.requests) == 1


def no_instance_is_a_problem_with_the_id_of_the_request(start: Open, one: Upstream, two: Upstream) -> None:
    """Whether the health checks know it already, or not."""
    one.ready = two.ready = False
    with start(one.port, two.port) as balancer:
        assert until(lambda: status_of(balancer, "BACKEND") == "DOWN")
        with Client(balancer.port) as client:
            answer = client.get("/", {"X-Request-ID": "of-the-client"})
    assert (answer.status, answer.all("retry-after")) == (503, ["5"])
    assert answer.all("content-type") == ["application/problem+json"]
    assert answer.all("x-request-id") == ["of-the-client"]
    assert b'"code":"unavailable"' in answer.body and b'"request_id":"of-the-client"' in answer.body


def an_idle_connection_is_closed_by_the_balancer_first(start: Open, one: Upstream, two: Upstream) -> None:
    """Before KEEP_ALIVE_SECONDS, here 1 s instead of 65, so that no request meets one that the service is closing."""
    with start(one.port, hasty=True) as balancer:
        assert send(balancer, 3) == [200] * 3
        assert {request.connection for request in one.requests} == {one.requests[0].connection}
        assert until(lambda: not one.open)
        with Client(balancer.port) as client:
            assert client.get("/").status == 200
            assert until(lambda: not one.open)


def a_reload_leaves_no_old_process_behind(start: Open, one: Upstream, two: Upstream) -> None:
    """What is still open after `hard-stop-after` is closed."""

    def slow(request: Request) -> bytes:
        time.sleep(6)  # longer than hard-stop-after
        return response()

    one.reply = slow
    hasty = Edit("deploy/haproxy/haproxy.cfg", "hard-stop-after 60s", "hard-stop-after 1s")
    with start(one.port, changes=(hasty,)) as balancer, Client(balancer.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: orders.test\r\n\r\n")
        assert until(lambda: len(one.requests) == 1)
        before = descendants(balancer.process.pid)
        balancer.reload()
        assert before & descendants(balancer.process.pid)
        with suppress(OSError, HTTPException):
            assert client.answer().status != 200
        assert until(lambda: not before & descendants(balancer.process.pid), 2)


def the_connections_of_one_address_are_limited(start: Open, one: Upstream, two: Upstream) -> None:
    """Whether or not it sends something; other clients are served."""
    with start(one.port) as balancer, ExitStack() as opened:
        held = [
            opened.enter_context(socket.create_connection(("127.0.0.1", balancer.port), 5, ("127.0.0.6", 0)))
            for _ in range(210)
        ]
        assert until(lambda: len(select.select(held, [], [], 0)[0]) == 10)
        assert send(balancer, 1) == [200]


def a_head_that_comes_byte_by_byte_ends_in_time(start: Open, one: Upstream, two: Upstream) -> None:
    """After `timeout http-request`, here 1 s instead of 10."""
    with start(one.port, hasty=True) as balancer, Client(balancer.port) as client:
        began = time.monotonic()
        with suppress(OSError):
            for _ in range(40):
                client.send(b"G")
                time.sleep(0.1)
        assert time.monotonic() - began < 3
        assert one.requests == []


def a_body_that_does_not_begin_in_time_is_a_problem(start: Open, one: Upstream, two: Upstream) -> None:
    """Without an instance."""
    with start(one.port, hasty=True) as balancer, Client(balancer.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: orders.test\r\nContent-Length: 10\r\n\r\nabc")
        problem(client.answer(), 408, "request-timeout")
        assert not one.requests


def what_cannot_be_read_is_refused_by_a_page_of_its_own(start: Open, one: Upstream, two: Upstream) -> None:
    """The parser responds before any rule: without an id, and as HTML."""
    head = b"GET / HTTP/1.1\r\nHost: orders.test\r\n"
    heads = {
        400: head + b"no colon\r\n\r\n",
        414: b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n\r\n",
        431: head + b"X-Large: " + b"a" * 17_000 + b"\r\n\r\n",
    }
    with start(one.port) as balancer:
        for status, data in heads.items():
            with Client(balancer.port) as client:
                client.send(data)
                answer = client.answer()
                assert (answer.status, answer.headers["content-type"]) == (status, "text/html")
        assert one.requests == []


def a_load_balancer_in_front_may_check_the_health(start: Open, one: Upstream, two: Upstream) -> None:
    """By its address, with any Host and in plain text; nobody else, and nothing else."""
    with start(one.port) as balancer:
        for tls in (True, False):
            port = balancer.port if tls else balancer.plain
            with Client(port, tls=tls, source=INSIDE) as client:
                assert client.get("/livez", {"Host": "10.1.2.3"}).status == 200
            with Client(port, tls=tls) as client, suppress(HTTPException):
                assert client.get("/livez", {"Host": "10.1.2.3"}).status == 421
            with Client(port, tls=tls, source=INSIDE) as client, suppress(HTTPException):
                assert client.get("/", {"Host": "10.1.2.3"}).status == 421
        assert [request.target for request in one.requests] == ["/livez"] * 2


def a_copy_belongs_to_what_its_vary_names(start: Open, one: Upstream, two: Upstream) -> None:
    """A page of each origin has its own, also of half a megabyte."""

    def reply(request: Request) -> bytes:
        (origin,) = request.all("origin")
        return response(origin.encode() * 25_000, cache_control="public, s-maxage=60", vary="Origin")

    one.reply = reply
    with start(one.port) as balancer:
        for origin in ("https://a.example.com", "https://b.example.com") * 2:
            with Client(balancer.port) as client:
                assert client.get("/", {"Origin": origin}).body == origin.encode() * 25_000
        assert len(one.requests) == 2


def a_long_entry_is_whole(start: Open, one: Upstream, two: Upstream) -> None:
    """Also if each byte has to be escaped. A connection without a request is none."""
    with start(one.port) as balancer:
        with Client(balancer.port) as client:
            assert client.get("/" + "a" * 7_000, {"User-Agent": "\x01" * 1_000}).status == 200
        entry = balancer.entry(status=200)
        assert (entry["path"], entry["user_agent"]) == ("/" + "a" * 1_023, "\x01" * 300)
        assert len(balancer.entries()) == 1


def a_failed_handshake_is_an_entry_too(start: Open, one: Upstream, two: Upstream) -> None:
    """With its reason."""
    with start(one.port) as balancer:
        with socket.create_connection(("127.0.0.1", balancer.port), 5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: orders.test\r\n\r\n")
            assert client.recv(1) == b""
        assert until(lambda: any("http request" in str(entry.get("error")) for entry in balancer.entries()))


def workers_are_not_root(start: Open, one: Upstream, two: Upstream) -> None:
    """The first process opens ports and reads keys; what clients reach runs as another user and group."""
    if os.getuid() != 0:
        pytest.skip("only root can give the workers another user")
    site = Edit(
        "deploy/haproxy/haproxy.cfg",
        "presetenv LB_CERT",
        "setenv LB_USER nobody\n    setenv LB_GROUP nogroup\n    presetenv LB_CERT",
    )
    with start(one.port, changes=(site,)) as balancer:
        assert send(balancer, 1) == [200]
        for worker in descendants(balancer.process.pid):
            ids = re.findall(r"^[UG]id:\t(\d+)", Path(f"/proc/{worker}/status").read_text(), re.M)
            assert ids == [str(pwd.getpwnam("nobody").pw_uid), str(grp.getgrnam("nogroup").gr_gid)]


SCENARIOS: Mapping[Scenario, Sequence[Change]] = {
    a_broken_configuration_is_named_and_not_loaded: [Line(RELOAD, "*) echo", "*) ;;")],
    a_failed_handshake_is_an_entry_too: [line("error-log-format")],
    a_body_that_does_not_begin_in_time_is_a_problem: [
        line("http-error status 408"),
        line("http-request wait-for-body"),
    ],
    a_head_that_comes_byte_by_byte_ends_in_time: [line("timeout http-request", "timeout http-request 1h")],
    a_load_balancer_in_front_may_check_the_health: [
        line("acl internal", "acl internal path,url_dec -m str /x"),
        line("acl inside", "acl inside src 127.0.0.1"),
    ],
    a_long_entry_is_whole: [line("log stdout", "log stdout format raw local0"), line("option dontlognull")],
    a_copy_belongs_to_what_its_vary_names: [line("process-vary"), line("max-object-size")],
    a_reload_keeps_the_weights: [
        line("default-server", "default-server check inter 1s fall 2 rise 1"),
        line("load-server-state-from-file"),
        line("server-state-file"),
        Line(RELOAD, "/^[0-9]+ /", "$4 == 0"),
        Line(RELOAD, "{ print }"),
        Line(RELOAD, "trap"),
    ],
    a_reload_leaves_no_old_process_behind: [line("hard-stop-after", "hard-stop-after 60s")],
    a_weight_is_the_share_of_the_requests: [line("balance roundrobin", "balance random")],
    an_instance_that_stops_between_two_checks_costs_no_request: [line("retries", "retries 0")],
    an_instance_that_is_not_ready_gets_no_requests: [
        line("default-server", "default-server weight 100"),
        line("option httpchk"),
        line("http-check send"),
    ],
    an_idle_connection_is_closed_by_the_balancer_first: [
        line("http-reuse", "http-reuse safe"),
        line("timeout http-keep-alive", "timeout http-keep-alive 90s"),
    ],
    no_instance_is_a_problem_with_the_id_of_the_request: [line("http-error status 503")],
    only_a_safe_request_is_repeated_and_only_once: [
        line("http-request disable-l7-retry"),
        line("option redispatch"),
        line("retries"),
        line("retry-on"),
    ],
    only_the_owner_may_use_the_admin_socket: [line("stats socket", 'stats socket "${LB_RUN}/admin.sock" level admin')],
    the_connections_of_one_address_are_limited: [line("tcp-request connection reject")],
    what_cannot_be_read_is_refused_by_a_page_of_its_own: [],
    workers_are_not_root: [line("user"), line("group")],
}
BROKEN = [(scenario, change) for scenario, changes in SCENARIOS.items() for change in changes]


@pytest.fixture
def start(rendered: Callable[[str], Path]) -> Open:
    """Start HAProxy before instances."""

    def opened(*ports: int, **options: Any) -> HAProxyBalancer:
        return HAProxyBalancer(rendered("haproxy"), *ports, **options)

    return opened


@pytest.mark.servers
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_it_holds(start: Open, one: Upstream, two: Upstream, scenario: Scenario) -> None:
    scenario(start, one, two)


@pytest.mark.sabotage
@pytest.mark.parametrize(("scenario", "change"), BROKEN, ids=lambda each: getattr(each, "__name__", None))
def test_it_does_not_hold_without_its_directive(
    start: Open, one: Upstream, two: Upstream, scenario: Scenario, change: Change
) -> None:
    def sick(*ports: int, changes: Sequence[Change] = (), **options: Any) -> HAProxyBalancer:
        return start(*ports, changes=(*changes, change), **options)

    with pytest.raises(RED):
        scenario(sick, one, two)


@pytest.mark.servers
def test_its_configuration_has_no_warning(start: Open, one: Upstream) -> None:
    assert [row for row in start(one.port).check().splitlines() if "[NOTICE]" not in row] == []


def test_its_times_and_sizes_fit_those_of_the_service(rendered: Callable[[str], Path]) -> None:
    project = rendered("haproxy")
    text = (project / "deploy/haproxy/haproxy.cfg").read_text()
    settings = dict(re.findall(r"^#([A-Z_]+)=(\d+)$", (project / ".env.example").read_text(), re.M))
    times = {name: int(seconds) for name, seconds in re.findall(r"timeout ([a-z-]+) (\d+)s", text)}
    assert times["http-keep-alive"] <= int(settings["KEEP_ALIVE_SECONDS"]) - 10
    assert times["connect"] < times["check"] + 1 <= times["server"]
    assert f"req.body_size gt {settings['MAX_BODY_BYTES']} " in text
