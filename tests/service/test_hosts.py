"""One request has one host, for every reader of it; a page of a foreign origin opens no WebSocket."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.projects import Project, Service
from tests.sabotage import Body, Sabotage
from tests.service.doors import ask, opened, shake

pytestmark = pytest.mark.servers
CLOSE = "Connection: close"
# RFC 9112 section 3.2: no Host, two of them and one with an invalid value are 400; RFC 3986 sections 3.2.2 and 3.2.3
# say what a host and a port are; RFC 9110 section 4.2.1: the host is not empty; section 4.2.4: there is no user.
INVALID = {
    "none": (),
    "two": ("Host: localhost", "Host: evil.test"),
    "two, the known one last": ("Host: evil.test", "Host: localhost"),
    "two equal ones": ("Host: localhost", "Host: localhost"),
    "two, one of them empty": ("Host:", "Host: localhost"),
    "empty": ("Host:",),
    "user": ("Host: user@localhost",),
    "user and password": ("Host: localhost:80@evil.test",),
    "port that is no number": ("Host: localhost:http",),
    "port out of range": ("Host: localhost:65536",),
    "port with a sign": ("Host: localhost:+80",),
    "empty port": ("Host: localhost:",),
    "two ports": ("Host: localhost:80:80",),
    "port alone": ("Host: :80",),
    "blank": ("Host: local host",),
    "tab": ("Host: local\thost",),
    "list": ("Host: localhost,evil.test",),
    "path": ("Host: localhost/evil",),
    "query": ("Host: localhost?evil",),
    "backslash": ("Host: localhost\\evil",),
    "URL": ("Host: http://localhost",),
    "not ASCII": ("Host: l\xf6calhost",),
    "percent": ("Host: local%68ost",),
    "address without brackets": ("Host: ::1",),
    "no address in brackets": ("Host: [localhost]",),
    "short address in brackets": ("Host: [1:2]",),
    "open bracket": ("Host: [::1",),
}
VALID = ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:65535")


@pytest.fixture(scope="module")
def trusting(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that trusts its default hosts."""
    with opened(bare_project, tmp_path_factory.mktemp("trusting")) as service:
        yield service


@pytest.fixture(scope="module")
def any_host(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that trusts any host."""
    with opened(bare_project, tmp_path_factory.mktemp("any"), env={"TRUSTED_HOSTS": "*"}) as service:
        yield service


def refuses(service: Service, *hosts: str) -> None:
    """Every reader says the same, probes and WebSockets included."""
    for path in ("/kinds/plain", "/livez", "/readyz", "/nowhere", "/files/main.py"):
        reply = ask(service, "GET", path, *hosts, CLOSE)
        assert reply.status == 400, path
        assert reply.code == "invalid-host"
    reply = shake(service, "/kinds/echo", *hosts)
    assert (reply.status, reply.code) == (400, "invalid-host")


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_host_is_400_for_every_reader(trusting: Service, any_host: Service, name: str) -> None:
    refuses(trusting, *INVALID[name])
    refuses(any_host, *INVALID[name])


@pytest.mark.parametrize("host", VALID)
def test_a_valid_host_is_read_alike_by_everybody(trusting: Service, host: str) -> None:
    reply = ask(trusting, "GET", "/kinds/plain", f"Host: {host}", CLOSE)
    assert reply.status == 200
    assert f'"host":"{host}"' in reply.body.decode()
    assert f'"url":"http://{host}/kinds/plain"'.lower() in reply.body.decode().lower()
    assert shake(trusting, "/kinds/echo", f"Host: {host}").status == 101


@pytest.mark.parametrize("host", ["10.0.0.7:8000", "my_pod-1.svc.", "[fd00::1]:8000"])
def test_probes_answer_any_valid_host(trusting: Service, any_host: Service, host: str) -> None:
    assert ask(trusting, "GET", "/livez", f"Host: {host}", CLOSE).status == 200
    assert ask(any_host, "GET", "/kinds/plain", f"Host: {host}", CLOSE).status == 200
    reply = ask(trusting, "GET", "/kinds/plain", f"Host: {host}", CLOSE)
    assert (reply.status, reply.code) == (400, "unknown-host")


def test_http_1_0_has_no_host(trusting: Service, any_host: Service) -> None:
    """As HAProxy's default health check; RFC 9112 section 3.2 demands a Host of HTTP/1.1 only."""
    assert ask(trusting, "GET", "/livez", version="1.0").status == 200
    assert ask(any_host, "GET", "/kinds/plain", version="1.0").status == 200
    assert ask(trusting, "GET", "/kinds/plain", version="1.0").code == "unknown-host"
    two = ("Host: localhost", "Host: localhost")
    assert ask(trusting, "GET", "/kinds/plain", *two, version="1.0").code == "invalid-host"


def targets(service: Service) -> None:
    for target in ("http://evil.test/kinds/plain", "http://localhost%2Fx/kinds/plain", "http://localhost:81/livez"):
        for reply in (ask(service, "GET", target, "Host: localhost", CLOSE), shake(service, target, "Host: localhost")):
            assert reply.status == 400, target
            assert reply.code in ("invalid-host", "malformed-request")


def test_a_target_with_another_host_is_refused(trusting: Service, any_host: Service) -> None:
    """RFC 9112 section 3.2.2: the host of the target counts; so it must be that of the header."""
    reply = ask(trusting, "GET", "http://LocalHost/kinds/plain?q=1", "Host: localhost", CLOSE)
    assert reply.status == 200
    assert '"url":"http://localhost/kinds/plain?q=1"' in reply.body.decode()
    assert shake(trusting, "http://localhost/kinds/echo", "Host: localhost").status == 101
    targets(trusting)
    targets(any_host)


# RFC 6455 section 10.2 and CWE-1385: an origin is checked before the handshake; RFC 6454 section 7 has its form.
FOREIGN = {
    "another site": "https://evil.test",
    "null": "null",
    "host within": "https://localhost.evil.test",
    "host at the end": "https://evillocalhost",
    "user": "https://localhost@evil.test",
    "path": "https://localhost/",
    "no scheme": "localhost",
    "another scheme": "app://localhost",
    "bad port": "http://localhost:x",
    "empty": "",
    "two": "http://localhost http://evil.test",
}
OWN = ("http://localhost", "https://LOCALHOST:3000", "http://127.0.0.1:5173", "http://[::1]:8000")


@pytest.mark.parametrize("name", FOREIGN)
def test_a_page_of_a_foreign_origin_opens_no_socket(trusting: Service, any_host: Service, name: str) -> None:
    for service in (trusting, any_host):
        reply = shake(service, "/kinds/echo", "Host: localhost", f"Origin: {FOREIGN[name]}")
        assert (reply.status, reply.code) == (403, "foreign-origin")


def test_an_own_page_and_clients_without_origin_open_sockets(trusting: Service, any_host: Service) -> None:
    for origin in OWN:
        assert shake(trusting, "/kinds/echo", "Host: localhost", f"Origin: {origin}").status == 101
    assert shake(any_host, "/kinds/echo", "Host: shop.test", "Origin: https://shop.test:3000").status == 101
    assert shake(trusting, "/kinds/echo", "Host: localhost").status == 101
    two = ("Origin: http://localhost", "Origin: http://evil.test")
    assert shake(trusting, "/kinds/echo", "Host: localhost", *two).status in (400, 403)


def test_an_origin_matters_to_sockets_only(trusting: Service) -> None:
    assert ask(trusting, "GET", "/kinds/plain", "Host: localhost", "Origin: https://evil.test", CLOSE).status == 200


def foreign(service: Service) -> None:
    assert shake(service, "/kinds/echo", "Host: localhost", "Origin: https://evil.test").status == 403


def two_hosts(service: Service) -> None:
    refuses(service, "Host: localhost", "Host: localhost")


def bad_port(service: Service) -> None:
    refuses(service, "Host: localhost:http")


FIRST = """
scope["headers"] = [*dict(scope["headers"]).items()]
await original(scope, receive, send)
"""


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("holds", "sabotage"),
    [
        (two_hosts, Body("security:RequestLimits.__call__", FIRST)),
        (bad_port, Body("security:host_name", 'return host.decode("latin-1").partition(":")[0]')),
        (targets, Body("security:_make_relative", "return host")),
        (foreign, Body("security:RequestLimits._may_connect", "return True")),
        (foreign, Body("security:RequestLimits._trusted", "return True")),
    ],
)
def test_a_sabotaged_check_of_hosts_is_noticed(
    bare_project: Project, tmp_path: Path, holds: Callable[[Service], None], sabotage: Sabotage
) -> None:
    with opened(bare_project, tmp_path, sabotage) as service, pytest.raises(AssertionError):
        holds(service)
