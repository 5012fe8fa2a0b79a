"""Entity tags, 304 and who may keep what, by RFC 9110 and 9111: over a socket, on the service as it runs."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.projects import Project, Service
from tests.proof import count
from tests.sabotage import Body, Sabotage, Value
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
STRONG = re.compile(r'"[0-9a-f]{32}"')
CREDENTIALS = [{"Authorization": "Bearer alice"}, {"Cookie": "session=alice"}]
WORDS = st.text(st.characters(codec="ascii", exclude_characters='"\x7f', min_codepoint=0x21), max_size=12)


# --- what may be kept -------------------------------------------------------------------------------------------


def silent(client: httpx.Client) -> None:
    """Nothing may be kept of which nobody has said that it may: neither an answer, nor an error, nor a refusal."""
    for path, status in (("/kept/silent", 200), ("/nowhere", 404), ("/kept/absent", 404), ("/kept/text", 422)):
        answer = client.get(path)
        assert (answer.status_code, answer.headers.get_list("cache-control")) == (status, ["no-store"])
        assert "etag" not in answer.headers
    assert client.post("/kept/silent").headers["cache-control"] == "no-store"  # 405


def spoken(client: httpx.Client) -> None:
    """A policy says who may keep an answer, for how long, by which headers and under which tags."""
    headers = client.get("/kept/rich").headers
    said = "public, max-age=60, s-maxage=120, stale-while-revalidate=30, stale-if-error=600"
    assert headers.get_list("cache-control") == [said]
    assert headers.get_list("vary") == ["accept-encoding, Accept-Language"]
    assert (headers["surrogate-key"], headers["cache-tag"]) == ("a b", "a,b")
    assert STRONG.fullmatch(headers["etag"])
    assert client.get("/kept/starred").headers.get_list("vary") == ["*"]
    assert client.get("/kept/shared").headers["cache-control"] == "public, max-age=0, s-maxage=60"
    assert client.get("/kept/own").headers.get_list("cache-control") == ["max-age=5"]


def included(client: httpx.Client) -> None:
    """A policy goes with its route through routers in routers, and into the API's description."""
    assert client.get("/kept/inner/7/first").headers["cache-control"] == "public, max-age=3"
    paths = client.get("/openapi.json").json()["paths"]
    kept = {path for path, each in paths.items() if "304" in each.get("get", {}).get("responses", ())}
    assert kept >= {"/kept/inner/{number}/first", "/kept/rich", "/v1/items", "/v1/items/{item_id}"}
    assert "/kept/silent" not in kept
    named = {path for path, each in paths.items() if "If-None-Match" in str(each.get("get", {}).get("parameters"))}
    assert named == kept


def personal(client: httpx.Client) -> None:
    """What was asked for with credentials, or gives some, is kept by nobody, unless it is declared private."""
    for who in CREDENTIALS:
        answer = client.get("/kept/shared", headers=who)
        assert answer.headers.get_list("cache-control") == ["no-store"]
        assert "surrogate-key" not in answer.headers
        assert STRONG.fullmatch(answer.headers["etag"])  # for If-Match
        private = client.get("/kept/private", headers=who)
        assert private.headers.get_list("cache-control") == ["private, max-age=60"]
        assert private.headers["vary"] == "Authorization, Cookie"
        assert "cache-tag" not in private.headers
    assert client.get("/kept/cookie", headers={"X-Name": "alice"}).headers["cache-control"] == "no-store"


def tags(client: httpx.Client) -> None:
    """A request may add tags; whatever is in them, each stays one, and adds no header."""
    headers = client.get("/kept/tags").headers
    found = ["fixed", "item-7", "a%20b", "c%2Cd", "e%0D%0AX-Injected:%20yes", "%C3%BC"]
    assert (headers["surrogate-key"].split(" "), headers["cache-tag"].split(",")) == (found, found)
    assert "x-injected" not in headers


# --- 304 --------------------------------------------------------------------------------------------------------


def revalidated(client: httpx.Client) -> None:
    """A copy that is right costs a 304 with what keeps it fresh, and nothing of the content (RFC 9110, 15.4.5)."""
    first = client.get("/kept/rich")
    second = client.get("/kept/rich", headers={"If-None-Match": first.headers["etag"]})
    assert (second.status_code, second.content) == (304, b"")
    for name in ("cache-control", "content-location", "etag", "expires", "surrogate-key", "vary", "x-own"):
        assert second.headers[name] == first.headers[name]
    assert "date" in second.headers
    for name in ("content-language", "content-length", "content-type", "last-modified", "transfer-encoding"):
        assert name not in second.headers
    assert client.get("/kept/rich").text == "hello"  # on the same connection


CASES = [
    ("{tag}", 304),
    ("W/{tag}", 304),
    ("*", 304),
    ('"a", W/"b" ,, \t{tag}', 304),
    ('"a,b", {tag}', 304),
    ('"other"', 200),
    ('"*"', 200),
    ("", 200),
    ("{bare}", 200),
    ("w/{tag}", 200),
    ("W/ {tag}", 200),
    ('x, {tag}"', 200),
    ("*, {tag}", 200),
    ('"{tag}"', 200),
]


def compared(client: httpx.Client) -> None:
    """Lists, weak tags and `*` are compared as RFC 9110, 13.1.2 says; what is malformed counts as absent."""
    tag = client.get("/kept/rich").headers["etag"]
    found = {}
    for field, _ in CASES:
        header = field.replace("{tag}", tag).replace("{bare}", tag.strip('"'))
        found[field] = client.get("/kept/rich", headers={"If-None-Match": header}).status_code
    assert found == dict(CASES)
    lines = [("If-None-Match", '"a"'), ("If-None-Match", tag)]
    assert client.get("/kept/rich", headers=lines).status_code == 304
    assert client.get("/kept/silent", headers={"If-None-Match": "*"}).status_code == 200
    assert client.get("/kept/absent", headers={"If-None-Match": "*"}).status_code == 404


def own_tags(client: httpx.Client) -> None:
    """A route's own tag stays, weak or strong, with commas and all, and gives 304 as well."""
    for tag in ('"v,1"', 'W/"v1"', '"é"'):
        first = client.get("/kept/tagged", params={"tag": tag})
        assert first.headers.get_list("etag") == [tag]
        for field in (tag, f'"x", {tag}'):
            again = client.get("/kept/tagged", params={"tag": tag}, headers={b"If-None-Match": field.encode("latin-1")})
            assert again.status_code == 304


def large(client: httpx.Client) -> None:
    """An answer of more than 256 KiB is not held back for a tag."""
    assert "etag" in client.get("/kept/size", params={"size": 262_144}).headers
    answer = client.get("/kept/size", params={"size": 262_145}, headers={"If-None-Match": "*"})
    assert (answer.status_code, len(answer.content), "etag" in answer.headers) == (200, 262_145, False)
    assert answer.headers["cache-control"] == "public, max-age=0, s-maxage=60"


# --- HEAD -------------------------------------------------------------------------------------------------------


def head(client: httpx.Client) -> None:
    """HEAD is GET without the content (RFC 9110, 9.3.2): on each route, its tags, 304 and errors included."""
    for path in ("/kept/rich", "/kept/silent", "/kept/tagged?tag=%22t%22", "/v1/items", "/version", "/nowhere"):
        get, seen = client.get(path), client.head(path)
        assert (seen.status_code, seen.content) == (get.status_code, b"")
        differ = {"date", "x-request-id", "content-length" if get.status_code == 404 else ""}
        assert {k: v for k, v in seen.headers.items() if k not in differ} == {
            k: v for k, v in get.headers.items() if k not in differ
        }
    tag = client.get("/kept/rich").headers["etag"]
    assert client.head("/kept/rich", headers={"If-None-Match": tag}).status_code == 304
    assert client.head("/kept/changed").status_code == 405
    for path, methods in (("/v1/items", "GET, HEAD, POST"), ("/kept/changed", "POST"), ("/version", "GET, HEAD")):
        assert client.patch(path).headers["allow"] == methods  # RFC 9110, 10.2.1
    assert client.head("/kept/stream", timeout=2).headers["content-type"].startswith("text/event-stream")


def head_sends_no_content(port: int) -> None:
    """What follows the headers on the wire is the next answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for path in ("/kept/rich", "/nowhere"):
            connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 ")
            assert b"content-length" in answer
            assert answer.endswith(b"\r\n\r\n")


# --- streams ----------------------------------------------------------------------------------------------------


def streamed(client: httpx.Client) -> None:
    """A stream passes as it comes: its headers before its first part, that before its second; without a tag."""
    with client.stream("GET", "/kept/stream", headers={"If-None-Match": "*"}, timeout=2) as answer:
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=0, s-maxage=60"
        assert "etag" not in answer.headers
        parts = answer.iter_raw()
        for number in (0, 1):
            assert client.post(f"/kept/stream/{number}").status_code == 200
            assert next(parts) == f"part {number};".encode()
        assert list(parts) == []


Proof = Callable[[httpx.Client], None]
PROOFS: list[Proof] = [
    compared,
    head,
    included,
    large,
    own_tags,
    personal,
    revalidated,
    silent,
    spoken,
    streamed,
    tags,
]


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__)
def test_the_service_keeps_to_the_rfc(client: httpx.Client, proof: Proof) -> None:
    proof(client)


def test_head_puts_no_content_on_the_wire(kept: Service) -> None:
    head_sends_no_content(kept.port)
    assert '"method":"HEAD","path":"/kept/rich","route":"/kept/rich","status":200,"bytes":0' in kept.log


def test_head_does_not_wait_for_the_end_of_a_stream(kept: Service) -> None:
    since = len(kept.log)
    assert kept.client.head("/kept/stream", timeout=2).status_code == 200
    line = '"method":"HEAD","path":"/kept/stream","route":"/kept/stream","status":200,"bytes":0'
    kept.process.wait_until(lambda: line in kept.log[since:], 5)  # logged when the route has ended


HOLDS_ALL = """
    self.start = original(message, policy)
    return self.start
"""
NO_HEAD = """
    if scope.get("method") == "HEAD":
        await self.app(scope, receive, send)
    else:
        await original(scope, receive, send)
"""
UNQUOTED = 'return [(b"surrogate-key", " ".join(tags).encode()), (b"cache-tag", ",".join(tags).encode())]'
# Each service is broken in several places that do not touch each other, because a start costs more than a proof.
SABOTAGES: list[dict[Sabotage, set[Proof]]] = [
    {
        Body("http_cache:CachingSend._apply", HOLDS_ALL): {head, large, own_tags, streamed},
        Body("http_cache.__init__:respond", "return"): {silent},
        Body("http_cache:tag_headers", UNQUOTED): {tags},
    },
    {
        Body("http_cache:HttpCache.__call__", NO_HEAD): {head},
        Body("http_cache:describe", "return"): {included},
        Body("http_cache:_merge", 'headers += [(b"vary", each.encode()) for each in more]'): {spoken},
        Body("http_cache:matches", 'return field == "*" or tag.removeprefix("W/") in field'): {compared},
        Value("http_cache:NOT_IN_304", '{b"content-length"}'): {revalidated},
        Value("http_cache:PERSONAL", "()"): {personal},
    },
]


def fails(proof: Proof, client: httpx.Client) -> bool:
    client.cookies.clear()
    try:
        proof(client)
    except (AssertionError, KeyError, httpx.TransportError):
        return True
    return False


@pytest.mark.sabotage
@pytest.mark.parametrize("sabotage", SABOTAGES, ids=["first", "second"])
def test_exactly_the_sabotaged_promises_fail(
    keeper: Project, tmp_path: Path, sabotage: dict[Sabotage, set[Proof]]
) -> None:
    env = migrated(keeper, f"sqlite:///{tmp_path}/service.db")
    with keeper.variant(tmp_path / "sick", *sabotage).serve(tmp_path / "run", env) as service:
        failed = {proof for proof in PROOFS if fails(proof, service.client)}
    assert failed == set().union(*sabotage.values())


# --- properties -------------------------------------------------------------------------------------------------


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[str], str]:
    """Entity tags and a field that lists them, with blanks and empty elements as RFC 9110, 5.6.1 allows."""
    found = draw(st.lists(st.builds("{}{}".format, st.sampled_from(["", "W/"]), WORDS.map('"{}"'.format)), max_size=5))
    blank = st.text(" \t", max_size=2)
    field = draw(blank)
    for tag in found:
        field += tag + draw(blank) + "," * draw(st.integers(1, 2)) + draw(blank)
    return found, field.strip(" \t")


def test_any_well_formed_list_is_understood(client: httpx.Client) -> None:
    @settings(max_examples=count(100, 2000), deadline=None)
    @given(own=WORDS.map('"{}"'.format), weak=st.booleans(), listed=lists(), member=st.integers(0, 9))
    def holds(own: str, weak: bool, listed: tuple[list[str], str], member: int) -> None:
        named, field = listed
        if named and member < len(named):
            own = named[member].removeprefix("W/")
        expected = 304 if own in [each.removeprefix("W/") for each in named] else 200
        tag = f"W/{own}" if weak else own
        answer = client.get("/kept/tagged", params={"tag": tag}, headers={"If-None-Match": field})
        assert answer.status_code == expected, (tag, field)

    holds()


def test_whatever_a_header_holds_the_answer_is_right(client: httpx.Client) -> None:
    tag = client.get("/kept/rich").headers["etag"]
    pieces = st.sampled_from([tag, "W/", '"', ",", "*", " ", "\t", "\\", "x", "\xe9"])

    @settings(max_examples=count(100, 2000), deadline=None)
    @given(st.lists(pieces, max_size=8).map("".join) | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
    def holds(field: str) -> None:
        answer = client.get("/kept/rich", headers={b"If-None-Match": field.strip(" \t").encode("latin-1")})
        assert answer.status_code in (200, 304)
        if answer.status_code == 304:
            assert tag in field or field.strip() == "*"

    holds()


def test_a_tag_changes_with_every_byte_and_with_nothing_else(client: httpx.Client) -> None:
    seen: dict[str, str] = {}

    @settings(max_examples=count(50, 1000), deadline=None)
    @given(st.text(st.characters(codec="utf-8"), max_size=20))
    def holds(text: str) -> None:
        answers = [getattr(client, how)("/kept/text", params={"text": text}) for how in ("get", "get", "head")]
        (tag,) = {answer.headers["etag"] for answer in answers}
        assert seen.setdefault(tag, text) == text

    holds()
    assert len(seen) > 5
