"""What every balancer does with clients: names, TLS, addresses, ids, sizes, rates and times."""

import json
import re
import socket
import ssl
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from tests import commands
from tests.balancer.balancer import AUTHORITY, HOST, INSIDE, OUTER, UPLOADS, Balancer
from tests.balancer.client import Answer, Client, context, statuses
from tests.balancer.upstream import Request, Upstream, response
from tests.servers import packages

FORGED = "203.0.113.9"
LIMIT = 1_048_576  # the default of MAX_BODY_BYTES
CIPHERS = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": True,
    "ECDHE-ECDSA-AES256-GCM-SHA384": True,
    "ECDHE-ECDSA-CHACHA20-POLY1305": True,
    "ECDHE-ECDSA-AES128-SHA256": False,  # CBC
    "ECDHE-ECDSA-AES256-SHA": False,
}


def problem(answer: Answer, status: int, code: str) -> None:
    """Check that a response is a problem document of the balancer, with the id of the request, once."""
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    document = json.loads(answer.body)
    assert (document["status"], document["code"], document["type"]) == (status, code, f"/problems/{code}")
    assert document["title"] and document["detail"]
    assert answer.all("x-request-id") == [document["request_id"]]
    assert answer.all("cache-control") == ["no-store"]
    assert re.fullmatch(r"[A-Za-z0-9._-]{8,128}", document["request_id"])


def once(balancer: Balancer, data: bytes, source: str = "127.0.0.1", seconds: float = 10) -> Answer:
    """The response to bytes on a connection of their own."""
    with Client(balancer.port, source=source, seconds=seconds) as client:
        client.send(data)
        return client.answer()


# --- names and TLS


def an_unknown_host_is_refused(balancer: Balancer, upstream: Upstream) -> None:
    """Without a certificate in the handshake, with 421 after one for another name, silently in plain text."""
    with Client(balancer.port) as client:
        assert client.get("/").status == 200
    anyone = context(check_hostname=False, verify_mode=ssl.CERT_NONE)
    for name in ("evil.test", "127.0.0.1", f"www.{HOST}"):
        try:
            Client(balancer.port, tls=anyone, host=name).socket.close()
        except (ssl.SSLError, ConnectionError):
            pass
        else:
            raise AssertionError(f"there was a handshake for {name}")
        with Client(balancer.port) as client:
            problem(client.get("/", {"Host": name}), 421, "misdirected-request")
        with Client(balancer.plain, tls=False, seconds=4) as client:
            client.send(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            assert client.rest() == b""
    assert len(upstream.requests) == 1


def plain_http_is_sent_to_https(balancer: Balancer, upstream: Upstream) -> None:
    """With the same target and method; nothing of it reaches the service."""
    with Client(balancer.plain, tls=False) as client:
        answer = client.request("POST", "/v1/items?a=%20b", body=b"x")
    assert (answer.status, answer.headers["location"]) == (308, f"https://{HOST}/v1/items?a=%20b")
    assert upstream.requests == []


def plain_http_on_the_tls_port_is_a_problem(balancer: Balancer, upstream: Upstream) -> None:
    """And not a page, a reset or a wait."""
    with Client(balancer.port, tls=False) as client:
        client.send(f"GET /x HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        problem(client.answer(), 400, "malformed-request")
    assert upstream.requests == []


def handshake(balancer: Balancer, **options: object) -> ssl.SSLSocket:
    """The TLS of a connection; SSLError if there is none."""
    ciphers = options.pop("ciphers", None)
    made = context(**options)
    if ciphers:
        made.set_ciphers(str(ciphers))
    with Client(balancer.port, tls=made) as client:
        assert client.get("/").status == 200
        assert isinstance(client.socket, ssl.SSLSocket)
        return client.socket


def tls_is_that_of_mozillas_intermediate_configuration(balancer: Balancer, upstream: Upstream) -> None:
    """TLS 1.2 and 1.3, forward secrecy and authenticated encryption only, in real handshakes."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        handshake(balancer, minimum_version=version, maximum_version=version)
    old = {"minimum_version": ssl.TLSVersion.TLSv1, "maximum_version": ssl.TLSVersion.TLSv1_1}
    tries: dict[str, tuple[dict[str, object], bool]] = {"TLS 1.1": ({**old, "ciphers": "ALL:@SECLEVEL=0"}, False)}
    for name, accepted in CIPHERS.items():
        tries[name] = ({"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": f"{name}:@SECLEVEL=0"}, accepted)
    for name, (options, accepted) in tries.items():
        try:
            handshake(balancer, **options)
        except (ssl.SSLError, ConnectionError):
            assert not accepted, f"{name} was refused"
        else:
            assert accepted, f"{name} was accepted"


def a_tls_session_is_resumed_without_a_ticket(balancer: Balancer, upstream: Upstream) -> None:
    """Tickets would be encrypted with a key that lives as long as the process: no forward secrecy."""
    made = context(maximum_version=ssl.TLSVersion.TLSv1_2)
    session, reused = None, []
    for _ in range(4):  # a server forgets the session of a connection that did not end in order
        with socket.create_connection(("127.0.0.1", balancer.port), 10) as raw:
            client = made.wrap_socket(raw, server_hostname=HOST, session=session)
            client.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            while client.recv(4096):
                pass
            reused.append(client.session_reused)
            session = client.session
            assert session and not session.has_ticket
            client.close()
    assert reused[0] is False
    assert True in reused


def http2_is_spoken(balancer: Balancer, upstream: Upstream) -> None:
    """By curl, which says which version it was."""
    ca = balancer.home / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(ca))
    curl = packages.ensure("curl", "curl")
    url = f"https://{HOST}:{balancer.port}/two"
    options: list[str | Path] = [
        "-sS",
        "--max-time",
        "10",
        "--cacert",
        ca,
        "--resolve",
        f"{HOST}:{balancer.port}:127.0.0.1",
    ]
    assert commands.must(curl, *options, "-w", "%{http_version} %{http_code}", "-o", "/dev/null", url) == "2 200"
    assert (upstream.last.target, upstream.last.all("host")) == ("/two", [HOST])


def the_server_does_not_say_its_version(balancer: Balancer, upstream: Upstream) -> None:
    """Neither in its own responses nor in those of the service."""
    with Client(balancer.port) as client:
        for path in ("/", "/livez"):
            assert not re.search(r"\d", " ".join(client.get(path).all("server")))


# --- who asks


def a_forged_address_never_reaches_the_service(balancer: Balancer, upstream: Upstream) -> None:
    """Whatever a client claims, the service gets the address that the balancer sees; another balancer is believed."""
    claims = {"X-Forwarded-For": f"{FORGED}, 127.0.0.1", "X-Forwarded-Proto": "http", "Forwarded": f"for={FORGED}"}
    claims |= {"X-Real-IP": FORGED, "X-Forwarded-Host": "evil.test"}
    with Client(balancer.port, source="127.0.0.5") as client:
        client.get("/forged", claims)
    assert upstream.last.all("x-forwarded-for") == ["127.0.0.5"]
    assert upstream.last.all("x-forwarded-proto") == ["https"]
    assert FORGED not in str(upstream.last)
    assert "evil.test" not in str(upstream.last)
    assert balancer.entry(path="/forged")["client"] == "127.0.0.5"


def the_address_of_another_balancer_is_replaced_by_its_clients(balancer: Balancer, upstream: Upstream) -> None:
    """Only if it is named, and only the part of the list that trusted ones have written."""
    for claim in ("198.51.100.7", f"{FORGED}, 198.51.100.7", f"{FORGED}, 198.51.100.7, {OUTER}"):
        with Client(balancer.port, source=OUTER) as client:
            client.get("/", {"X-Forwarded-For": claim})
        assert upstream.last.all("x-forwarded-for") == ["198.51.100.7"]


def a_request_id_that_is_unsafe_in_logs_is_replaced(balancer: Balancer, upstream: Upstream) -> None:
    """8 to 128 letters, digits, dots, hyphens and underscores, as the service checks it; a good one is kept."""
    good = ("12345678", "a-B_9.z" * 18 + "ab")
    for sent in (*good, "1234567", "x" * 129, "with space", "a<b>c<d>e<f>", '{"a": 1, "b": 2}', "\xfcnicode1", ""):
        with Client(balancer.port) as client:
            assert client.get("/", {"X-Request-ID": sent}).status == 200
        (seen,) = upstream.last.all("x-request-id")
        assert (seen == sent) == (sent in good)
        assert re.fullmatch(r"[A-Za-z0-9._-]{8,128}", seen)
        balancer.entry(request_id=seen)
    twice = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Request-ID: 12345678\r\nX-Request-ID: abcdefgh\r\n\r\n"
    assert once(balancer, twice.encode()).status == 200
    (seen,) = upstream.last.all("x-request-id")
    assert seen not in ("12345678", "abcdefgh")


def the_service_gets_the_name_that_was_asked_for(balancer: Balancer, upstream: Upstream) -> None:
    """In lower case and without a port."""
    with Client(balancer.port) as client:
        assert client.get("/", {"Host": f"{HOST.upper()}:{balancer.port}"}).status == 200
    assert upstream.last.all("host") == [HOST]


def internal_paths_are_closed_to_the_outside(balancer: Balancer, upstream: Upstream) -> None:
    """However they are written; who is inside gets them, and the signed probe is open."""
    closed = (
        "/livez",
        "/readyz",
        "/metrics",
        "/__dev__",
        "/__dev__/1",
        "//livez",
        "/x/../livez",
        "/%6civez",
        "/livez?a",
    )
    for path in closed:
        with Client(balancer.port) as client:
            problem(client.get(path), 404, "not-found")
    assert upstream.requests == []
    for path, source in (("/livez", INSIDE), ("/readyz", INSIDE), ("/version", "127.0.0.1"), ("/livezoo", "127.0.0.1")):
        with Client(balancer.port, source=source) as client:
            assert client.get(path).status == 200
    with Client(balancer.port) as client:
        assert client.request("POST", "/__probe__/error").status == 200
    assert len(upstream.requests) == 5


def the_access_log_is_json_without_query_strings(balancer: Balancer, upstream: Upstream) -> None:
    """One object per request, whatever bytes a client sends."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with Client(balancer.port) as client:
        client.get("/who?token=hunter2", {"traceparent": trace, "User-Agent": 'a"b\\c\x01', "Referer": "/?x=hunter2"})
        client.get("/%22%0a%ff?hunter2", {"User-Agent": "\xff", "traceparent": "\xff"})
        client.get("/%22%5c")
        client.get("/", {"Host": "\xff"})
    with Client(balancer.port) as client:
        client.send(b'\x16\x03 \x00"\\ hunter2\r\n\r\n')
        client.rest()
    entry = balancer.entry(path="/who")
    expected = {"status": 200, "method": "GET", "host": HOST, "client": "127.0.0.1", "upstream_status": "200"}
    assert expected.items() <= entry.items()
    assert entry["upstream"] in (f"127.0.0.1:{upstream.port}", "one")
    assert trace in entry.values()
    assert entry["request_id"] == upstream.requests[0].all("x-request-id")[0]
    assert entry.get("seconds", 0) + entry.get("milliseconds", 0) / 1000 < 10 and entry["bytes"] >= 100
    assert len(balancer.entries()) >= 3
    assert b"hunter2" not in b"\n".join(balancer.lines())


# --- what a client can cost


def a_body_that_is_too_large_is_refused(balancer: Balancer, upstream: Upstream) -> None:
    """With 413, before it comes; one of the limit passes, and a path may have its own."""
    for path, limit in (("/", LIMIT), (UPLOADS, 16 * LIMIT)):
        with Client(balancer.port) as client:
            assert client.request("POST", path, body=bytes(limit)).status == 200
        assert len(upstream.last.body) == limit
        with Client(balancer.port, seconds=4) as client:
            problem(client.request("POST", path, {"Content-Length": str(limit + 1)}), 413, "content-too-large")


def a_body_without_a_length_is_refused_while_it_comes(balancer: Balancer, upstream: Upstream) -> None:
    """With 413; a smaller one passes."""
    chunks = b"%x\r\n%s\r\n" % (LIMIT, bytes(LIMIT))
    head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    problem(once(balancer, head + chunks + b"1\r\nx\r\n0\r\n\r\n"), 413, "content-too-large")
    assert upstream.requests == []
    assert once(balancer, head + b"1\r\nx\r\n0\r\n\r\n").status == 200
    assert upstream.last.body == b"x"


def headers_that_are_too_large_are_refused(balancer: Balancer, upstream: Upstream) -> None:
    """431 for headers, 414 for a URL; what the service itself takes of a URL passes."""
    with Client(balancer.port) as client:
        assert client.get("/" + "a" * 8_000).status == 200
    with Client(balancer.port) as client:
        problem(client.get("/", {"X-Large": "a" * 9_000}), 431, "headers-too-large")
    with Client(balancer.port) as client:
        problem(client.get("/", {f"X-{n}": "a" * 4_000 for n in range(12)}), 431, "headers-too-large")
    with Client(balancer.port) as client:
        problem(client.get("/" + "a" * 9_000), 414, "url-too-long")
    assert len(upstream.requests) == 1


def a_client_that_asks_too_often_is_slowed_down(balancer: Balancer, upstream: Upstream) -> None:
    """429 beyond the burst, for its address only."""
    with Client(balancer.port, source="127.0.0.6") as client:
        client.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() * 400)
        answers = [client.answer() for _ in range(400)]
    refused = [answer for answer in answers if answer.status != 200]
    assert 200 <= 400 - len(refused) < 390
    problem(refused[-1], 429, "too-many-requests")
    assert refused[-1].headers["retry-after"] == "1"
    with Client(balancer.port) as client:
        assert client.get("/").status == 200


def a_client_may_not_have_all_connections(balancer: Balancer, upstream: Upstream) -> None:
    """100 requests at a time are an address's; the next gets 429, that of another address does not."""
    release = threading.Event()

    def reply(request: Request) -> bytes:
        release.wait(8)
        return response()

    upstream.reply = reply
    get = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    with ExitStack() as stack:
        sources = ["127.0.0.7"] * 101 + ["127.0.0.1"]
        tls = context()
        clients = [stack.enter_context(Client(balancer.port, source=source, tls=tls)) for source in sources]
        for client in clients:
            client.send(get)
        deadline = time.monotonic() + 5
        while len(upstream.requests) < 101 and time.monotonic() < deadline:
            time.sleep(0.02)
        release.set()
        answers = [client.answer() for client in clients]
    assert answers[-1].status == 200
    refused = [answer for answer in answers if answer.status != 200]
    assert len(refused) == 1
    problem(refused[0], 429, "too-many-requests")


def a_slow_client_costs_the_service_nothing(balancer: Balancer, upstream: Upstream) -> None:
    """Half a head or half a body: the connection is closed in time, and the service has not heard of it."""
    head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n".encode()
    for begun in (head, head + b"\r\n12345"):
        with Client(balancer.port, seconds=4) as client:
            client.send(begun)
            assert statuses(client.rest()) in ([], [408])
    assert upstream.requests == []


def a_client_that_does_not_read_is_left(balancer: Balancer, upstream: Upstream) -> None:
    """And the service has been rid of the response long before."""
    size = 30_000_000
    sent = threading.Event()

    def reply(request: Request) -> bytes:
        sent.set()
        return response(bytes(size))

    upstream.reply = reply
    with Client(balancer.port, seconds=10) as client:
        client.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        assert sent.wait(5)
        threading.Event().wait(3)
        assert len(client.rest()) < size


# --- smuggling

SMUGGLED = f"GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
_HEAD = f"POST /outer HTTP/1.1\r\nHost: {HOST}\r\n".encode()
_CHUNKED = b"0\r\n\r\n"
_LENGTH = b"Content-Length: %d\r\n"
AMBIGUOUS = {
    "both lengths": _HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKED + SMUGGLED,
    "both, swapped": _HEAD
    + b"Transfer-Encoding: chunked\r\n"
    + _LENGTH % (5 + len(SMUGGLED))
    + b"\r\n0\r\n\r\n"
    + SMUGGLED,
    "two lengths": _HEAD + _LENGTH % 0 + _LENGTH % len(SMUGGLED) + b"\r\n" + SMUGGLED,
    "a list of lengths": _HEAD + b"Content-Length: 0, %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "a signed length": _HEAD + b"Content-Length: +%d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "another coding": _HEAD + b"Transfer-Encoding: xchunked\r\n" + _LENGTH % len(SMUGGLED) + b"\r\n" + SMUGGLED,
    "chunked twice": _HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + _CHUNKED + SMUGGLED,
    "a space before the colon": _HEAD
    + b"Transfer-Encoding : chunked\r\n"
    + _LENGTH % len(SMUGGLED)
    + b"\r\n"
    + SMUGGLED,
    "a folded header": _HEAD
    + b"X-Fold: a\r\n Transfer-Encoding: chunked\r\n"
    + _LENGTH % len(SMUGGLED)
    + b"\r\n"
    + SMUGGLED,
    "a folded coding": _HEAD + b"Transfer-Encoding:\r\n chunked\r\n" + _LENGTH % len(SMUGGLED) + b"\r\n" + SMUGGLED,
    "bare line feeds": _HEAD.replace(b"\r\n", b"\n") + _LENGTH % len(SMUGGLED) + b"\n" + SMUGGLED,
    "a bare carriage return": _HEAD
    + b"X: a\rTransfer-Encoding: chunked\r\n"
    + _LENGTH % len(SMUGGLED)
    + b"\r\n"
    + SMUGGLED,
    "a chunk extension": _HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n%x\r\n" % len(SMUGGLED)
    + SMUGGLED
    + b"\r\n0\r\n\r\n",
    "a long chunk size": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 40 + b"\r\n\r\n" + SMUGGLED,
    "a null": _HEAD + b"Transfer-Encoding: chunked\x00\r\n" + _LENGTH % len(SMUGGLED) + b"\r\n" + SMUGGLED,
    "length of a GET": _HEAD.replace(b"POST", b"GET") + _LENGTH % len(SMUGGLED) + b"\r\n" + SMUGGLED,
}


def what_balancer_and_service_could_read_differently_is_one_request(balancer: Balancer, upstream: Upstream) -> None:
    """Where the client's own second request is legal, it is told apart by an answer of its own."""
    for name, data in AMBIGUOUS.items():
        before = len(upstream.requests)
        with Client(balancer.port, seconds=0.7) as client:
            client.send(data)
            received = b""
            try:
                while piece := client.socket.recv(65_536):
                    received += piece
            except OSError:
                pass
        seen = upstream.requests[before:]
        answered = [status for status in statuses(received) if status < 400]
        assert len(seen) <= len(answered), f"{name}: {[each.target for each in seen]}, {statuses(received)}"
        assert all(not (each.all("content-length") and each.all("transfer-encoding")) for each in seen), name
        assert all(len(each.all("content-length")) < 2 for each in seen), name
    assert upstream.unreadable == []


def an_upgrade_to_anything_but_websockets_is_not_passed_on(balancer: Balancer, upstream: Upstream) -> None:
    """A server that takes it would read the body as the next request (uvicorn issue 2722)."""
    offers = {
        "h2c": "Upgrade, HTTP2-Settings",
        "TLS/1.0": "upgrade",
        "websocket, h2c": "upgrade",
        "websocket": "upgrade",
    }
    for protocol, connection in offers.items():
        with Client(balancer.port) as client:
            offer = {"Connection": connection, "Upgrade": protocol, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
            assert client.request("POST", "/outer", offer, body=SMUGGLED).status == 200
        assert upstream.last.body == SMUGGLED
        assert upstream.last.all("upgrade") == []
        assert "upgrade" not in "".join(upstream.last.all("connection")).lower()
    assert {each.target for each in upstream.requests} == {"/outer"}


EDGE = [
    a_body_that_is_too_large_is_refused,
    a_body_without_a_length_is_refused_while_it_comes,
    a_client_may_not_have_all_connections,
    a_client_that_asks_too_often_is_slowed_down,
    a_client_that_does_not_read_is_left,
    a_forged_address_never_reaches_the_service,
    a_request_id_that_is_unsafe_in_logs_is_replaced,
    a_slow_client_costs_the_service_nothing,
    a_tls_session_is_resumed_without_a_ticket,
    an_unknown_host_is_refused,
    an_upgrade_to_anything_but_websockets_is_not_passed_on,
    headers_that_are_too_large_are_refused,
    http2_is_spoken,
    internal_paths_are_closed_to_the_outside,
    plain_http_is_sent_to_https,
    plain_http_on_the_tls_port_is_a_problem,
    the_access_log_is_json_without_query_strings,
    the_address_of_another_balancer_is_replaced_by_its_clients,
    the_server_does_not_say_its_version,
    the_service_gets_the_name_that_was_asked_for,
    tls_is_that_of_mozillas_intermediate_configuration,
    what_balancer_and_service_could_read_differently_is_one_request,
]
