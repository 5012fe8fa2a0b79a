"""One profile for all checks of a run, with its source; and whose service it is, however badly it behaves."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.projects import Edit, Service
from tests.readiness.conftest import Prober
from tests.sabotage import Body, Sabotage, Value

pytestmark = pytest.mark.servers
HERE, THERE = "http://127.0.0.1:8000", "https://orders.acme.com"
VERSION, VARIABLE = "/version of the service", "the variable ENVIRONMENT"
# By --profile, this project's ENVIRONMENT, the service's, its URL: the profile, its source, whether they disagree.
CASES = [
    (None, "", "local", HERE, "local", VERSION, False),
    (None, "", "production", HERE, "production", VERSION, False),
    (None, "", "test", HERE, "local", "the URL, which is on this machine", False),
    (None, "", "staging", THERE, "production", "the URL, which is not on this machine", False),
    (None, "", "production", THERE, "production", VERSION, False),
    (
        None,
        "",
        "local",
        THERE,
        "production",
        "the URL, which is not on this machine",
        True,
    ),  # ENVIRONMENT is unset there
    (None, "local", "local", HERE, "local", VARIABLE, False),
    (None, "local", "production", HERE, "production", VERSION, True),
    (None, "production", "local", HERE, "production", VARIABLE, True),
    ("local", "", "production", HERE, "production", VERSION, True),
    ("local", "", "local", THERE, "local", "--profile", False),
    ("local", "", "staging", THERE, "local", "--profile", False),
    ("production", "", "local", HERE, "production", "--profile", False),  # on purpose
    ("production", "", "local", THERE, "production", "--profile", True),
    ("production", "", "production", THERE, "production", "--profile", False),
]
DECIDE = """
import json, sys
from ready.profile import decide
for given, declared, environment, url in json.loads(sys.stdin.read()):
    print(json.dumps(decide(given, ("the variable ENVIRONMENT", declared), environment, url), default=str))
"""


def decided(prober: Prober) -> list[list[object]]:
    given = json.dumps([case[:4] for case in CASES])
    code = f"import io, sys\nsys.stdin = io.StringIO({given!r})\n{DECIDE}"
    return [json.loads(line) for line in prober.python(code).splitlines()]


def test_the_profile_is_decided_once_with_its_source(prober: Prober) -> None:
    found = [(profile, source, finding is not None) for profile, source, finding in decided(prober)]
    assert found == [case[4:] for case in CASES]


@pytest.mark.sabotage
def test_a_profile_that_ignores_the_service_is_noticed(prober: Prober) -> None:
    Body("ready.profile:decide", 'return original(given, declared, "test", url)').apply(prober.project.root)
    assert [tuple(each[:2]) for each in decided(prober)] != [case[4:6] for case in CASES]


def test_a_contradiction_is_one_finding_and_one_profile_is_shown(prober: Prober, service: Service) -> None:
    """Issue 16: "judged as local" beside "this is production"."""
    (prober.project.root / ".env").write_text(f"PORT={service.port}\nENVIRONMENT=production\n")
    done = prober.command("security")
    assert done.returncode == 1
    said = f"{VERSION} says local, .env says production: the rules of production apply"
    assert [line.split(maxsplit=2) for line in done.stdout.splitlines() if " run.profile " in line] == [
        ["gap", "run.profile", said]
    ]
    assert "profile production (from .env)" in done.stdout
    assert "profile local (" not in done.stdout
    assert "next for run.profile: set ENVIRONMENT where it is wrong and restart the service" in done.stdout
    fine = prober.command("backups", PORT=str(service.port), ENVIRONMENT="local")
    assert (fine.returncode, f"profile local (from {VARIABLE})" in fine.stdout) == (0, True)


def test_the_service_of_another_project_is_not_judged_by_accident(prober: Prober, service: Service) -> None:
    Edit("pyproject.toml", 'name = "my-service"', 'name = "billing"').apply(prober.project.root)
    done = prober.command("backups", PORT=str(service.port))
    said = f"ready: http://127.0.0.1:{service.port} is my-service, this project is billing: set HOST or PORT, "
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{said}or type --url to check it nevertheless\n"
    assert prober.command("--url", f"http://127.0.0.1:{service.port}", "backups").returncode == 0


# --- services that misbehave ------------------------------------------------------------------------------------

ABOUT = {"name": "my-service", "version": "\x1b[31m1\n2", "commit": "x", "environment": "local"}
FINE = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
DRIP = 0.3  # seconds between two bytes: each comes in time, the whole never does
# By what `/version` gets: what is said, in one line.
BAD = {
    "": "does not respond within 1 s; see the log of the service, or set --url",
    "drip": "does not respond within 1 s; see the log of the service, or set --url",
    "flood": "/version is not this service's: it returned no JSON object; set --url, HOST or PORT",
    "SSH-2.0-OpenSSH_9.2\r\n": "start it with `make dev`, or set --url",
    f"{FINE}\r\n<html>": "/version is not this service's: it returned no JSON object; set --url, HOST or PORT",
    f"{FINE}\r\n[1]": "/version is not this service's: it returned no JSON object; set --url, HOST or PORT",
    "HTTP/1.1 301 Moved\r\nLocation: https://orders.test/version\r\nContent-Length: 0\r\n\r\n": (
        "/version redirects to https://orders.test/version; set --url to where the service is"
    ),
    'HTTP/1.1 400 No\r\nConnection: close\r\n\r\n{"code": "unknown-host"}': "set --url to one of its TRUSTED_HOSTS",
}


@contextmanager
def listening(responses: dict[str, str]) -> Iterator[str]:
    """A program at a port of its own that responds by path, to `/version` first of all."""
    end = threading.Event()

    def respond(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            path = connection.recv(65_536).decode().split()[1]
            text = responses.get(path, responses.get("else", ""))
            if text in ("", "drip"):
                for byte in FINE.encode() * 9 if text else b"":
                    connection.sendall(bytes([byte]))
                    if end.wait(DRIP):
                        return
                end.wait(60)
            if text == "flood":
                connection.sendall(f"{FINE}\r\n".encode())
                while not end.is_set():
                    connection.sendall(b"x" * 65_536)
            connection.sendall(text.encode())

    def accept() -> None:
        with suppress(OSError):
            while not end.is_set():
                threading.Thread(target=respond, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            end.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_what_is_not_the_service_ends_the_run_with_one_line(prober: Prober) -> None:
    Value("ready.service:SECONDS", "1.0").apply(prober.project.root)
    began = time.monotonic()
    for text, message in BAD.items():
        with listening({"/version": text}) as url:
            found = prober.look(url)
        assert (found.code, found.report, found.stderr.count("\n")) == (2, {}, 1), found.stderr
        assert found.stderr.startswith("ready: ")
        assert found.stderr.endswith(f"{message}\n"), found.stderr
    assert time.monotonic() - began < 60


def of_a_broken_service(prober: Prober) -> dict[str, str]:
    """What is found where everything but `/version` is a proxy's error page."""
    about = f"{FINE}\r\n{json.dumps(ABOUT)}"
    page = "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n<html>"
    with listening({"/version": about, "else": page}) as url:
        found = prober.look(url, "secrets", "scaling", "backups")
    assert found.code == 2
    assert found.report["service"]["version"] == " [31m1 2"  # nothing that moves a cursor or colours a terminal
    return found.statuses


def test_an_error_page_proves_nothing(prober: Prober) -> None:
    """An absent response contains no secret either."""
    found = of_a_broken_service(prober)
    assert "proven" not in found.values(), found
    assert found["secrets.silent"] == found["backups.schema"] == "unknown"


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Value("ready.engine:Claimed.status", "Status.PROVEN"),
        Body("ready.engine:not_built", "yield from ()"),
    ],
    ids=["claims", "nothing built"],
)
def test_a_report_that_calls_more_proven_is_noticed(prober: Prober, service: Service, sabotage: Sabotage) -> None:
    def unproven() -> int:
        last = prober.command("--url", f"http://127.0.0.1:{service.port}").stdout.splitlines()[-1]
        return sum(int(number) for number in re.findall(r"(\d+) (?:with gaps|not built|claimed)", last))

    before = unproven()
    sabotage.apply(prober.project.root)
    assert unproven() < before
