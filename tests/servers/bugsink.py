"""Bugsink, a server that speaks Sentry's protocol and can be asked what it got; from PyPI, on SQLite.

It lives in an environment of its own: its Django and ours want different versions of much. Environment and migrated
databases are made once and kept in `.cache/`; each server works on a copy of the databases.
"""

import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests import commands
from tests.servers.packages import CACHE
from tests.servers.process import POLL_SECONDS, ServerError
from tests.servers.server import Server

VERSION = "2.6.1"
HOME = CACHE / f"bugsink-{VERSION}"
CONFIGURATION = """
import os
from bugsink.settings.default import *

SECRET_KEY = "of a server that lives for some seconds on the loopback interface"
DATABASES["default"]["NAME"] = "db.sqlite3"
DATABASES["snappea"]["NAME"] = "snappea.sqlite3"
SNAPPEA = {"TASK_ALWAYS_EAGER": True}
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
BUGSINK = {
    "BASE_URL": os.environ.get("BUGSINK_URL", "http://127.0.0.1:8000"),
    "INGEST_STORE_BASE_DIR": "ingestion",
    "PHONEHOME": False,
    "SINGLE_USER": True,
}
"""


@dataclass(frozen=True)
class Sink:
    """One project of the server: a DSN to report to, and what arrived there."""

    dsn: str
    number: str
    client: httpx.Client

    def events(self) -> list[dict[str, Any]]:
        """All events that arrived, the latest first, as the server stored them."""
        found = []
        for issue in self._get("issues/", project=self.number)["results"]:
            for event in self._get("events/", issue=issue["id"])["results"]:
                found.append(self._get(f"events/{event['id']}/"))
        found.sort(key=lambda event: str(event["ingested_at"]), reverse=True)
        return [event["data"] for event in found]

    def wait(self, count: int = 1, seconds: float = 10.0) -> list[dict[str, Any]]:
        """The events, once there are at least `count`."""
        deadline = time.monotonic() + seconds
        while len(found := self.events()) < count:
            if time.monotonic() > deadline:
                raise ServerError(f"Bugsink got {len(found)} events of {count} within {seconds:g} s")
            time.sleep(POLL_SECONDS)
        return found

    def _get(self, path: str, **query: str) -> Any:
        answer = self.client.get(path, params=query)
        answer.raise_for_status()
        return answer.json()


class Bugsink(Server):
    """One server, for as long as the `with` block runs."""

    name = "Bugsink"
    seconds = 60.0
    version = VERSION

    def __init__(self) -> None:
        super().__init__()
        self.url = f"http://{self.address}"
        self.client = httpx.Client(base_url=f"{self.url}/api/canonical/0/", timeout=30, trust_env=False)

    def command(self) -> list[str | Path]:
        address = f"--bind={self.address}"
        return [HOME / "venv/bin/gunicorn", address, "--threads=4", "--graceful-timeout=1", "bugsink.wsgi"]

    def environment(self) -> dict[str, str]:
        return _env(self.home, BUGSINK_URL=self.url)

    def start(self) -> None:
        """Start, with the databases as they were made."""
        prepare()
        for file in ("bugsink_conf.py", "db.sqlite3", "snappea.sqlite3"):
            shutil.copy(HOME / file, self.home / file)
        self.client.headers["Authorization"] = f"Bearer {(HOME / 'token').read_text()}"
        super().start()

    def close(self) -> None:
        """Stop it for good."""
        self.client.close()
        super().close()

    def answers(self) -> bool:
        """Whether the API lets a client in."""
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("projects/").status_code == 200
        return False

    def create_project(self) -> Sink:
        """A new project, without events."""
        name = uuid.uuid4().hex
        team = self._post("teams/", name=name)
        number = str(self._post("projects/", name=name, team=team["id"])["id"])
        answer = self.client.get(f"projects/{number}/")
        answer.raise_for_status()
        return Sink(answer.json()["dsn"], number, self.client)

    def _post(self, path: str, **body: str) -> Any:
        answer = self.client.post(path, json=body)
        answer.raise_for_status()
        return answer.json()


def prepare() -> None:
    """Make environment, databases and token, where they are not there yet."""
    CACHE.mkdir(exist_ok=True)
    with _alone():
        if (HOME / "token").exists():
            return
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir()
        _run("uv", "venv", "--quiet", str(HOME / "venv"))
        python = str(HOME / "venv/bin/python")
        _run("uv", "pip", "install", "--quiet", "--compile-bytecode", f"--python={python}", f"bugsink=={VERSION}")
        (HOME / "bugsink_conf.py").write_text(CONFIGURATION.lstrip())
        manage = str(HOME / "venv/bin/bugsink-manage")
        _run(manage, "migrate", "--verbosity=0")
        _run(manage, "migrate", "--verbosity=0", "--database=snappea")
        token = _run(manage, "create_auth_token").split()[-1]
        (HOME / "token").write_text(token)  # the last step: what has it is whole


def _env(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "SENTRY", "VIRTUAL"))}
    return {**kept, "DJANGO_SETTINGS_MODULE": "bugsink_conf", "PYTHONPATH": str(folder), **more}


def _run(*command: str) -> str:
    return commands.must(*command, cwd=HOME, env=_env(HOME))


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    with (CACHE / "bugsink.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
