"""Nothing secret or personal leaves with a report, nor with the log: over 25 planted forms, each beside a marker."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.errors.conftest import reporting
from tests.projects import Project, Service
from tests.sabotage import Argument, Body, Value
from tests.servers.bugsink import Sink

pytestmark = pytest.mark.servers


class Planted:
    """Secrets by where they were planted; each is another text, so that a leak names its way."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def __call__(self, where: str) -> str:
        return self.secrets.setdefault(where, f"pl4nted{len(self.secrets):02}zq")

    def leaks(self, text: str) -> list[str]:
        return [where for where, secret in self.secrets.items() if secret in text]


MESSAGES: dict[str, Callable[[str], str]] = {
    "pair": "login failed, password={}".format,
    "quoted pair": '"api_key": "{}"'.format,
    "escaped JSON": '{{\\"token\\": \\"{}\\"}}'.format,
    "JSON in a line": '{{"a": {{"client_secret": "{}"}}}}'.format,
    "header": "Authorization: Bearer {}".format,
    "cookie header": "Cookie: sid={}; x=1".format,
    "database URL": "postgresql://app:{}@db.acme.test/orders".format,
    "URL without a name": "redis://:{}@cache.acme.test".format,
    "DSN": "https://{}@o1.ingest.acme.test/2".format,
    "query of a URL": "GET https://api.acme.test/x?anything={}".format,
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.{}".format,
    "Vault token": "hvs.{}".format,
    "private key": "-----BEGIN PRIVATE KEY-----{}-----END PRIVATE KEY-----".format,
    "e-mail": "{}@acme.test".format,
    "bytes shown": "(b'x-api-key', b'{}')".format,
    "row of PostgreSQL": "Key (token)=({}) already exists.".format,
}


def plant(service: Service) -> Planted:
    """Fail with secrets everywhere: in what the client sends, in what is raised, and in what is logged."""
    planted = Planted()
    lines = [f"harmless {way}: {form(planted(f'message, {way}'))}" for way, form in MESSAGES.items()]
    body = {
        "local": planted("local variable"),
        "cause": f"harmless cause secret={planted('cause')}",
        "message": "\n".join(lines),
        "password": planted("body"),
        "deep": [{"er": {"note": planted("nested body")}}],
    }
    headers = {
        "Authorization": f"Bearer {planted('authorization')}",
        "Content-Type": f"application/json; token={planted('allowed header')}",
        "Cookie": f"session={planted('cookie')}",
        "Referer": f"https://acme.test/{planted('referer')}",
        "User-Agent": planted("user agent"),
        "X-Api-Key": planted("api key"),
        "X-Customer": planted("unknown header"),
        "X-Forwarded-For": planted("forwarded for"),
    }
    path = f"/fault/raise/harmless?token={planted('query')}&q={planted('plain query')}"
    assert service.client.post(path, content=json.dumps(body), headers=headers).status_code == 500
    logged = {
        "message": f"harmless log pwd={planted('logged message')}",
        "nested": {"list": [{"deeper": {"refresh_token": planted("nested key")}}], "note": "harmless note"},
        "raw": f"harmless bytes password={planted('bytes')}",
        "headers": {"x-api-key": planted("pair in a list"), "x-note": "harmless header"},
    }
    assert service.client.post("/fault/log", json=logged).status_code == 200
    service.client.get(f"/fault/thread/harmless%20path%20token={planted('path')}")
    return planted


HARMLESS = ["cause", "log", "note", "bytes", "header", "path", *MESSAGES]


def shown(texts: Any) -> str:
    """The events or the log as one text, after a look that it is about the planted errors at all."""
    text = texts if isinstance(texts, str) else json.dumps(texts)
    assert [name for name in HARMLESS if f"harmless {name}" not in text] == []
    return text


def test_no_planted_secret_arrives_but_every_marker_does(faulty: Project, sink: Sink, tmp_path: Path) -> None:
    with reporting(faulty, tmp_path, sink.dsn) as service:
        planted = plant(service)
        events = sink.wait(3)
    assert len(planted.secrets) >= 25
    assert planted.leaks(shown(events)) == []
    assert planted.leaks(shown(service.log)) == []
    (raised,) = [event for event in events if event.get("transaction") == "/fault/raise/{name}"]
    assert raised["request"].keys() == {"method", "url", "headers"}
    assert {name.lower() for name in raised["request"]["headers"]} <= {"accept", "content-length", "content-type"}
    assert "user" not in raised
    frames = [frame for value in raised["exception"]["values"] for frame in value["stacktrace"]["frames"]]
    assert len(frames) > 5
    assert not any("vars" in frame for frame in frames)


BY_MESSAGE = {f"message, {way}" for way in MESSAGES} | {"cause", "logged message", "path"}


SHOWN = "return orjson.loads(orjson.dumps(value, default=str))"  # JSON types, as they leave it


@pytest.mark.sabotage
def test_without_the_redactor_texts_leak_to_the_report_and_to_the_log(
    faulty: Project, sink: Sink, tmp_path: Path
) -> None:
    with reporting(faulty, tmp_path, sink.dsn, Body("redaction:redact", SHOWN)) as service:
        planted = plant(service)
        assert set(planted.leaks(shown(sink.wait(3)))) >= BY_MESSAGE
    assert set(planted.leaks(service.log)) >= BY_MESSAGE


@pytest.mark.sabotage
def test_one_more_header_leaks_exactly_that(faulty: Project, sink: Sink, tmp_path: Path) -> None:
    more = Value("errors:HEADERS", '{b"accept", b"content-length", b"content-type", b"x-customer"}')
    with reporting(faulty, tmp_path, sink.dsn, more) as service:
        assert plant(service).leaks(shown(sink.wait(3))) == ["unknown header"]


@pytest.mark.sabotage
def test_a_report_with_local_variables_leaks(faulty: Project, sink: Sink, tmp_path: Path) -> None:
    with_them = Argument("errors:Reports.__init__", "include_local_variables", "True")
    with reporting(faulty, tmp_path, sink.dsn, with_them) as service:
        assert "local variable" in plant(service).leaks(shown(sink.wait(3)))
