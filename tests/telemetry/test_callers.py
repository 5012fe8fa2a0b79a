"""What a caller says about its trace counts if it follows the W3C; otherwise nobody reads, forwards or logs it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.projects import Project, Service
from tests.sabotage import Body, Sabotage, Value
from tests.servers.server import serving
from tests.service.doors import lines_of, opened

pytestmark = pytest.mark.servers
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SENT_ON = ("traceparent", "tracestate", "baggage")
# https://www.w3.org/TR/trace-context/#versioning-of-traceparent: version 00 has exactly four fields, later ones may
# have more. Section 3.2: there is one `traceparent`.
VALID = {
    "version 00": PARENT,
    "a later version": f"01-{TRACE}-{SPAN}-01",
    "a later version with more fields": f"cc-{TRACE}-{SPAN}-01-what-the-future",
}
IGNORED: dict[str, list[str]] = {
    "version 00 with a suffix": [f"{PARENT}-more"],
    "version 00 with a dash": [f"{PARENT}-"],
    "a later version with a suffix": [f"01-{TRACE}-{SPAN}-01x"],
    "two": [PARENT, PARENT],
    "two, the second malformed": [PARENT, "junk"],
    "two, the first malformed": ["junk", PARENT],
    "two, of a later version": [f"01-{TRACE}-{SPAN}-01-a", PARENT],
    "two in one": [f"{PARENT},{PARENT}"],
    "version ff": [f"ff-{TRACE}-{SPAN}-01"],
    "upper case": [PARENT.upper()],
    "no trace": [f"00-{'0' * 32}-{SPAN}-01"],
    "no span": [f"00-{TRACE}-{'0' * 16}-01"],
    "short": [PARENT[:-1]],
}
# Sections 3.3.1 and 4.2: 32 members and 512 characters; https://www.w3.org/TR/baggage/#limits: 64 members, 8192 bytes.
STATES = {
    "tracestate": {
        "32 members": ",".join(f"k{n}=1" for n in range(32)),
        "512 characters": f"a={'x' * 256},b={'x' * 251}",
        "empty members": "a=1, ,b=2",
        "tenant": "0acme@vendor=1",
    },
    "baggage": {
        "64 members": ",".join(f"k{n}=1" for n in range(64)),
        "4096 bytes of a member": f"a={'x' * 4094}",
        "properties": "a=1;p;q=2,b = %C3%A9",
    },
}
BROKEN_STATES = {
    "tracestate": {
        "33 members": ",".join(f"k{n}=1" for n in range(33)),
        "513 characters": f"a={'x' * 256},b={'x' * 252}",
        "257 characters of a value": f"a={'x' * 257}",
        "upper case": "A=1",
        "no value": "a",
        "not ASCII": "a=\xe9",
    },
    "baggage": {
        "65 members": ",".join(f"k{n}=1" for n in range(65)),
        "8193 bytes": f"a={'x' * 4000},b={'x' * 4000},c={'x' * 186}",
        "4097 bytes of a member": f"a={'x' * 4095}",
        "no value": "a",
        "blank in a name": "a b=1",
        "quote": 'a="1"',
        "not ASCII": "a=\xe9",
        "empty member": "a=1,,b=2",
    },
}


@dataclass
class Far:
    """A server that a service calls: the trace headers of the last call."""

    port: int = 0
    received: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    """The server."""
    far = Far()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            far.received = {name: ",".join(self.headers.get_all(name, [])) for name in SENT_ON if self.headers[name]}
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as far.port:
        yield far


@pytest.fixture(scope="module")
def caller(bare_project: Project, far: Far, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that calls it."""
    with opened(bare_project, tmp_path_factory.mktemp("caller"), env=calls(far)) as service:
        yield service


def calls(far: Far) -> dict[str, str]:
    return {"CALL_URL": f"http://127.0.0.1:{far.port}/"}


def call(service: Service, far: Far, *sent: tuple[str, str]) -> str:
    """Have the service call the server: the trace id of the request."""
    far.received = {}
    headers = [(name.encode(), value.encode("latin-1")) for name, value in sent]
    answer = service.client.get("/kinds/call", headers=httpx.Headers(headers))
    assert answer.status_code == 200
    assert far.received["traceparent"].split("-")[1] == answer.headers["x-request-id"]
    return str(answer.headers["x-request-id"])


def warnings_of(service: Service) -> list[str]:
    return [line["event"] for line in lines_of(service) if line["level"] in ("warning", "error")]


@pytest.mark.parametrize("name", VALID)
def test_a_valid_parent_counts(caller: Service, far: Far, name: str) -> None:
    assert call(caller, far, ("traceparent", VALID[name]), ("tracestate", "a=1")) == TRACE
    assert far.received["tracestate"] == "a=1"


def ignores(service: Service, far: Far, name: str) -> None:
    sent = [("traceparent", value) for value in IGNORED[name]]
    assert call(service, far, *sent, ("tracestate", "a=1")) != TRACE
    assert "tracestate" not in far.received  # section 4.2: it belongs to the parent
    assert warnings_of(service) == []


@pytest.mark.parametrize("name", IGNORED)
def test_an_invalid_parent_is_ignored_by_everybody(caller: Service, far: Far, name: str) -> None:
    ignores(caller, far, name)


@pytest.mark.parametrize("flags", ["00", "01"], ids=["unsampled", "sampled"])
@pytest.mark.parametrize(("header", "name"), [(header, name) for header in STATES for name in STATES[header]])
def test_a_state_within_the_bounds_is_sent_on(caller: Service, far: Far, header: str, name: str, flags: str) -> None:
    call(caller, far, ("traceparent", PARENT[:-2] + flags), (header, STATES[header][name]))
    assert len(far.received[header].split(",")) == len([e for e in STATES[header][name].split(",") if e.strip()])


def bounded(service: Service, far: Far, header: str, name: str) -> None:
    for flags in ("00", "01"):
        sent = ("traceparent", PARENT[:-2] + flags), (header, BROKEN_STATES[header][name])
        assert call(service, far, *sent) == TRACE  # the parent counts all the same
        assert header not in far.received
    assert warnings_of(service) == []


@pytest.mark.parametrize(
    ("header", "name"), [(header, name) for header in BROKEN_STATES for name in BROKEN_STATES[header]]
)
def test_a_state_beyond_the_bounds_is_sent_to_nobody(caller: Service, far: Far, header: str, name: str) -> None:
    bounded(caller, far, header, name)


LAX = """{
    b"traceparent": re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"),
    b"tracestate": re.compile(b".*"),
    b"baggage": re.compile(b".*"),
}"""


@pytest.mark.sabotage
def test_lax_rules_are_noticed(bare_project: Project, far: Far, tmp_path: Path) -> None:
    with opened(bare_project, tmp_path, Value("trace_headers:RULES", LAX), env=calls(far)) as service:
        for name in ("version 00 with a suffix", "two, of a later version"):
            with pytest.raises(AssertionError):
                ignores(service, far, name)
        for header, name in (("tracestate", "33 members"), ("baggage", "65 members")):
            with pytest.raises(AssertionError):
                bounded(service, far, header, name)


KEEPS = """
headers = scope["headers"]
found = original(scope, given)
scope["headers"] = headers
return found
"""


@pytest.mark.sabotage
def test_headers_that_stay_are_noticed(bare_project: Project, far: Far, tmp_path: Path) -> None:
    sabotage: Sabotage = Body("trace_headers:read", KEEPS)
    with opened(bare_project, tmp_path, sabotage, env=calls(far)) as service, pytest.raises(AssertionError):
        bounded(service, far, "baggage", "65 members")
