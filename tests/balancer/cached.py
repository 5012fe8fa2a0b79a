"""What every balancer does with responses: a cache for seconds, and compression."""

import gzip
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.balancer.balancer import CACHED, Balancer
from tests.balancer.client import Answer, Client
from tests.balancer.upstream import Request, Upstream, response

SHARED = "public, max-age=0, s-maxage=60"


def get(balancer: Balancer, target: str, source: str = "127.0.0.1", **headers: str) -> Answer:
    """The response on a connection of its own."""
    with Client(balancer.port, source=source) as client:
        return client.get(target, headers)


def count(upstream: Upstream, cache_control: str, **headers: str) -> None:
    """Let the service count its responses."""

    def reply(request: Request) -> bytes:
        return response(str(len(upstream.requests)).encode(), cache_control=cache_control, **headers)

    upstream.reply = reply


def the_service_decides_what_is_cached(balancer: Balancer, upstream: Upstream) -> None:
    """Its `Cache-Control` holds; each target has a copy of its own."""
    count(upstream, SHARED)
    for number, target in enumerate(("a", "a?b", "a?c", "b"), 1):
        assert [get(balancer, CACHED + target).body for _ in range(2)] == [str(number).encode()] * 2, target
    for number, forbidden in enumerate(("no-store", "private", "no-cache", "max-age=0")):
        count(upstream, forbidden)
        first, second = (get(balancer, f"{CACHED}{number}").body for _ in range(2))
        assert first != second, forbidden
    count(upstream, SHARED, set_cookie="a=b")
    first, second = (get(balancer, f"{CACHED}cookie").body for _ in range(2))
    assert first != second


def what_is_not_listed_is_not_cached(balancer: Balancer, upstream: Upstream) -> None:
    """And its requests do not wait for each other, as they do for a copy."""
    both = threading.Barrier(2, timeout=1.5)

    def reply(request: Request) -> bytes:
        both.wait()
        return response(cache_control=SHARED)

    upstream.reply = reply
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda source: get(balancer, "/stream", source), ("127.0.0.1", "127.0.0.2"))
        assert [answer.status for answer in answers] == [200, 200]
    assert len(upstream.requests) == 2


def a_user_never_gets_and_never_leaves_a_copy(balancer: Balancer, upstream: Upstream) -> None:
    """Requests with `Authorization` or `Cookie` go to the service, even if it allows to share the response."""
    for name, value in {"Authorization": "Bearer alice", "Cookie": "session=alice"}.items():
        count(upstream, SHARED)
        target = CACHED + name
        own = get(balancer, target, **{name: value}).body
        shared = get(balancer, target).body
        assert own != shared
        assert get(balancer, target).body == shared
        assert get(balancer, target, **{name: value}).body != shared


def of_100_parallel_misses_one_reaches_the_service(balancer: Balancer, upstream: Upstream) -> None:
    """The others wait for its response."""

    def reply(request: Request) -> bytes:
        time.sleep(0.5)  # so that the others arrive meanwhile
        return response(b"1", cache_control=SHARED)

    upstream.reply = reply
    with ThreadPoolExecutor(100) as pool:
        sources = [f"127.0.0.{2 + number % 3}" for number in range(100)]
        answers = [*pool.map(lambda source: get(balancer, f"{CACHED}miss", source), sources)]
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"1")}
    assert len(upstream.requests) == 1


def nobody_waits_for_a_new_copy(balancer: Balancer, upstream: Upstream) -> None:
    """With `stale-while-revalidate` the old one is used while one request fetches the new one."""
    count(upstream, "public, s-maxage=1, stale-while-revalidate=30")
    target = f"{CACHED}stale"
    assert get(balancer, target).body == b"1"
    time.sleep(2.1)  # it is stale: times in a cache are whole seconds
    inner, release = upstream.reply, threading.Event()

    def reply(request: Request) -> bytes | None:
        release.wait(5)
        return inner(request)

    upstream.reply = reply
    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda _: get(balancer, target).body, range(4))]
    assert answers == [b"1"] * 4
    release.set()
    deadline = time.monotonic() + 5
    while get(balancer, target).body == b"1" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert get(balancer, target).body == b"2"
    assert len(upstream.requests) == 2


def while_the_service_fails_an_old_copy_is_used(balancer: Balancer, upstream: Upstream) -> None:
    """With `stale-if-error`, and only with it."""
    for number, (directive, status) in enumerate({", stale-if-error=30": 200, "": 502}.items()):
        count(upstream, f"public, s-maxage=1{directive}")
        target = f"{CACHED}failing{number}"
        assert get(balancer, target).status == 200
        upstream.reply = lambda request: None
        time.sleep(2.1)  # it is stale: times in a cache are whole seconds
        assert get(balancer, target).status == status


def an_old_copy_is_revalidated(balancer: Balancer, upstream: Upstream) -> None:
    """By its entity tag: the service answers with 304, without a body."""

    def reply(request: Request) -> bytes:
        if '"v1"' in request.all("if-none-match"):
            return response(b"", "304 Not Modified", cache_control="public, s-maxage=1", etag='"v1"')
        return response(b"body", cache_control="public, s-maxage=1", etag='"v1"')

    upstream.reply = reply
    target = f"{CACHED}tagged"
    assert get(balancer, target).body == b"body"
    time.sleep(2.1)  # it is stale: times in a cache are whole seconds
    assert (answer := get(balancer, target)).body == b"body"
    assert answer.status == 200
    assert upstream.last.all("if-none-match") == ['"v1"']


def large_responses_are_compressed(balancer: Balancer, upstream: Upstream) -> None:
    """JSON of more than a packet, for clients that want it; caches learn that."""
    text = b'{"a": "' + b"a" * 2_000 + b'"}'
    upstream.reply = lambda request: response(text if request.target == "/large" else text[-500:])
    answer = get(balancer, "/large", **{"Accept-Encoding": "gzip", "Via": "1.1 cdn"})
    assert (answer.headers["content-encoding"], gzip.decompress(answer.body)) == ("gzip", text)
    assert [value.lower() for value in answer.all("vary")] == ["accept-encoding"]
    for target, wanted in (("/large", "identity"), ("/small", "gzip")):
        assert get(balancer, target, **{"Accept-Encoding": wanted}).headers["content-encoding"] is None


CACHING = [
    a_user_never_gets_and_never_leaves_a_copy,
    an_old_copy_is_revalidated,
    large_responses_are_compressed,
    nobody_waits_for_a_new_copy,
    of_100_parallel_misses_one_reaches_the_service,
    the_service_decides_what_is_cached,
    what_is_not_listed_is_not_cached,
    while_the_service_fails_an_old_copy_is_used,
]
