"""What HTTP/2 can carry and HTTP/1.1 cannot: it is refused, or reaches the service as one harmless request.

The frames are written by hand (RFC 9113, RFC 7541), because libraries refuse to send such requests.
"""

import socket
import time

import pytest

from tests.balancer.balancer import HOST, Balancer
from tests.balancer.client import Client, context
from tests.balancer.edge import SMUGGLED
from tests.balancer.upstream import Upstream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, END_STREAM, END_HEADERS = 0, 1, 4, 1, 4
LINE = b"\r\n\r\n" + SMUGGLED
HOSTILE: dict[str, tuple[dict[bytes, bytes], bytes]] = {
    "a line in a value": ({b"x-a": b"b\r\ntransfer-encoding: chunked"}, b"0\r\n\r\n" + SMUGGLED),
    "a request in a value": ({b"x-a": b"b" + LINE}, b""),
    "a bare line feed in a value": ({b"x-a": b"b\ntransfer-encoding: chunked"}, b"0\r\n\r\n" + SMUGGLED),
    "a null in a value": ({b"x-a": b"b\x00c"}, b""),
    "a line in a name": ({b"x-a: b\r\ntransfer-encoding": b"chunked"}, b"0\r\n\r\n" + SMUGGLED),
    "a colon in a name": ({b"transfer-encoding:": b"chunked"}, b"0\r\n\r\n" + SMUGGLED),
    "a space in a name": ({b"transfer-encoding ": b"chunked"}, b"0\r\n\r\n" + SMUGGLED),
    "a coding": ({b"transfer-encoding": b"chunked"}, b"0\r\n\r\n" + SMUGGLED),
    "a length that is too small": ({b"content-length": b"0"}, SMUGGLED),
    "a length that is too large": ({b"content-length": b"900"}, SMUGGLED),
    "an upgrade": ({b"connection": b"upgrade", b"upgrade": b"h2c"}, SMUGGLED),
    "a line in the path": ({b":path": b"/outer HTTP/1.1\r\nhost: " + HOST.encode() + LINE}, b""),
    "a space in the path": ({b":path": b"/outer HTTP/1.1 x"}, b""),
    "a line in the method": ({b":method": b"GET /smuggled HTTP/1.1\r\nx: "}, b""),
    "a line in the host": ({b":authority": HOST.encode() + LINE}, b""),
    "two hosts": ({b"host": b"evil.test"}, b""),
}


def text(value: bytes) -> bytes:
    """A string literal without Huffman coding."""
    size = len(value)
    if size < 127:
        return bytes([size]) + value
    rest, size = b"\x7f", size - 127
    while size >= 128:
        rest, size = rest + bytes([size % 128 + 128]), size // 128
    return rest + bytes([size]) + value


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def send(balancer: Balancer, headers: dict[bytes, bytes], body: bytes) -> bool:
    """Send one request, with headers that replace or extend the usual ones: whether there was any response."""
    usual = {b":method": b"POST", b":scheme": b"https", b":path": b"/outer", b":authority": HOST.encode()}
    block = b"".join(b"\x00" + text(name) + text(value) for name, value in {**usual, **headers}.items())
    speaks = context()
    speaks.set_alpn_protocols(["h2"])
    with Client(balancer.port, tls=speaks, seconds=0.3) as client:
        client.send(PREFACE + frame(SETTINGS, 0, 0))
        client.send(frame(HEADERS, END_HEADERS | (0 if body else END_STREAM), 1, block))
        try:
            if body:
                client.send(frame(DATA, END_STREAM, 1, body))
            received = client.rest()
        except (TimeoutError, BrokenPipeError):
            return True
    return bool(received)


def harmless(upstream: Upstream) -> None:
    """Check what has reached the service."""
    assert upstream.unreadable == []
    for each in upstream.requests:
        assert each.target == "/outer"
        assert each.all("host") == [HOST]
        assert each.all("content-length") in ([], [str(len(each.body))])
        assert not each.all("upgrade")
        assert not (each.all("content-length") and each.all("transfer-encoding"))


@pytest.mark.servers
def test_nothing_of_http2_becomes_a_second_request(balancer: Balancer, upstream: Upstream) -> None:
    assert send(balancer, {}, b"body")
    assert (upstream.last.target, upstream.last.body) == ("/outer", b"body")
    for name, (headers, body) in HOSTILE.items():
        before = len(upstream.requests)
        send(balancer, headers, body)
        assert len(upstream.requests) <= before + 1, name
        harmless(upstream)


@pytest.mark.sabotage
def test_a_second_request_would_be_noticed(upstream: Upstream) -> None:
    with socket.create_connection(("127.0.0.1", upstream.port)) as client:
        client.sendall(SMUGGLED)
        time.sleep(0.3)  # the smuggled request has arrived
    with pytest.raises(AssertionError):
        harmless(upstream)
