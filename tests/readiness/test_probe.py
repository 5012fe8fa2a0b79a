"""`/__probe__/error` raises for who has the key, once, in time, a few times; everybody else finds nothing there."""

import hashlib
import hmac
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.projects import Project, Service
from tests.readiness.conftest import KEY, Served
from tests.sabotage import Body, Sabotage, Value

pytestmark = pytest.mark.servers
PATH = "/__probe__/error"
SECRET = KEY["READY_PROBE_KEY"]


def signed(marker: str, then: float | None = None, key: str = SECRET) -> str:
    """The header as the contract has it, made without the service's code."""
    text = f"{marker}.{int(time.time() if then is None else then)}"
    return f"{text}.{hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}"


def ask(service: Service, header: str | bytes, method: str = "POST", path: str = PATH) -> httpx.Response:
    value = header if isinstance(header, bytes) else header.encode()
    return service.client.request(method, path, headers={b"X-Ready-Probe": value})


def mask(answer: httpx.Response) -> tuple[int, dict[str, str], dict[str, object]]:
    """An answer without what differs between any two."""
    ids = ("date", "x-request-id", "content-length")
    body = answer.json() if "json" in answer.headers.get("content-type", "") and answer.content else {}
    return (
        answer.status_code,
        {name: text for name, text in answer.headers.items() if name not in ids},
        {name: text for name, text in body.items() if name not in ("request_id", "trace_id")},
    )


def forgeries() -> dict[str, str | bytes]:
    right = signed("forgery-1")
    marker, then, code = right.split(".")
    return {
        "nothing": "",
        "no signature": f"{marker}.{then}.",
        "zeros": f"{marker}.{then}.{'0' * 64}",
        "another key": signed("forgery-1", key="b" * 40),
        "another marker": f"forgery-2.{then}.{code}",
        "another time": f"{marker}.{int(then) + 1}.{code}",
        "upper case": f"{marker}.{then}.{code.upper()}" if code.upper() != code else "x",
        "late": signed("late-one", time.time() - 62),
        "from the future": signed("early-one", time.time() + 62),
        "far future": signed("early-two", 9_999_999_999),
        "short marker": signed("x"),
        "header injection": signed("a-marker\tx"),
        "other digits": signed("forgery-1").replace("1", "\u0661").encode(),
        "bytes": b"\xff\xfe" * 40,
        "10 kB": "a" * 10_000,
        "a newline at the end is stripped, a space inside is not": right.replace(".", ". "),
    }


def test_a_signed_request_raises_once(service: Service) -> None:
    header = signed("ready-0123456789abcdef")
    first, again = ask(service, header), ask(service, header)
    nowhere = service.client.post("/__probe__/nowhere")
    assert first.status_code == 500
    assert first.json()["code"] == "internal-error"
    assert "ready-0123456789abcdef" not in first.text
    assert "requested by the readiness check ready-0123456789abcdef" in service.log
    assert mask(again) == mask(nowhere)
    assert again.status_code == 404


def test_whoever_has_no_key_finds_nothing_there(service: Service) -> None:
    unknown = "/__probe__/nowhere"
    for name, header in forgeries().items():
        assert mask(ask(service, header)) == mask(ask(service, header, path=unknown)), name
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "MADE-UP"):
        assert mask(ask(service, signed("by-method"), method)) == mask(service.client.request(method, unknown))
    assert PATH not in service.client.get("/openapi.json").text
    assert ask(service, signed("still-works")).status_code == 500


def test_without_a_key_there_is_no_probe(project: Project, served: Served) -> None:
    with served(project, READY_PROBE_KEY="") as service:
        answer = ask(service, signed("ready-1", key=""))
        assert mask(answer) == mask(service.client.post("/__probe__/nowhere"))
        assert answer.status_code == 404


def test_a_flood_raises_a_few_errors_only(project: Project, served: Served) -> None:
    with served(project) as service, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: ask(service, signed(f"flooding-{n}")).status_code, range(200)))
    assert answers.count(500) == 6
    assert answers.count(404) == 194


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "attack"),
    [
        (Body("probe:sign", "return f\"{marker}.{int(now)}.{'0' * 64}\""), "zeros"),
        (Value("probe:WINDOW_SECONDS", "63"), "late"),
        (Value("probe:WINDOW_SECONDS", "63"), "from the future"),
        (Value("probe:_SIGNED", 're.compile(r"(.+)\\.(.+)\\.(.+)", re.ASCII)'), "short marker"),
    ],
    ids=["signature", "window", "clock ahead", "marker"],
)
def test_a_sabotaged_probe_lets_an_attack_through(
    project: Project, served: Served, tmp_path: Path, sabotage: Sabotage, attack: str
) -> None:
    with served(project.variant(tmp_path / "sick", sabotage)) as service:
        assert ask(service, forgeries()[attack]).status_code == 500


@pytest.mark.sabotage
def test_without_its_limit_a_flood_gets_through(project: Project, served: Served, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Value("probe:MAX_ERRORS", "1_000"))
    with served(sick) as service:
        answers = [ask(service, signed(f"flooding-{n}")).status_code for n in range(20)]
    assert answers == [500] * 20


def test_a_weak_key_is_refused_without_being_shown(project: Project) -> None:
    done = project.cli("serve", env={"READY_PROBE_KEY": "short-secret", "PORT": "0"})
    assert done.returncode == 78
    assert done.stderr.startswith("configuration refused: READY_PROBE_KEY: ")
    assert "short-secret" not in done.stdout + done.stderr
