"""The alert rule of `docs/errors.md`: typed as it stands there, it sends what Sentry's reference asks for."""

import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.errors.conftest import ERRORS
from tests.projects import Project
from tests.servers import packages

pytestmark = pytest.mark.servers
TOKEN = "sntrys_of-a-test"
INTERVALS = {"1m": 1, "5m": 5, "15m": 15, "1h": 60}


def typed(command: str) -> tuple[str, str, dict[str, Any]]:
    """Run the command of the page against a server of ours: what it sent as path, authorization and body."""
    seen: list[tuple[str, str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers["Authorization"], body))
            assert self.headers["Content-Type"] == "application/json"
            self.send_response(201)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        path = f"{packages.ensure('curl', 'curl').parent}:/usr/bin:/bin"
        env = {"PATH": path, "SENTRY_URL": f"http://127.0.0.1:{server.server_address[1]}", "SENTRY_AUTH_TOKEN": TOKEN}
        env |= {"SENTRY_ORG": "acme", "SENTRY_PROJECT": "orders", "NO_PROXY": "*"}
        done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr
        thread.join()
    return seen[0]


def wrong(rule: dict[str, Any], per_minute: int) -> list[str]:
    """What Sentry's reference would refuse, or what could never fire because the service reports no more.

    https://docs.sentry.io/api/alerts/create-an-issue-alert-rule-for-a-project/
    """
    found = [name for name in ("name", "frequency", "actionMatch", "conditions", "actions") if not rule.get(name)]
    if not 5 <= rule["frequency"] <= 43_200:
        found.append("frequency")
    if rule["actionMatch"] not in ("all", "any", "none"):
        found.append("actionMatch")
    for condition in rule["conditions"]:
        if not condition["id"].startswith("sentry.rules.conditions."):
            found.append(condition["id"])
        frequent = condition["id"].endswith("EventFrequencyCondition")
        if frequent and condition["value"] >= per_minute * INTERVALS[condition["interval"]]:
            found.append("value")
    return found


def test_the_alert_rule_of_the_page_is_what_the_api_asks_for(project: Project) -> None:
    page = (project.root / "docs/errors.md").read_text()
    (command,) = re.findall(r"```sh\n(.*?)```", page, re.S)
    most = re.search(r"^MAX_REPORTS_PER_KIND = (\d+)", (project.root / ERRORS).read_text(), re.M)
    assert most
    path, authorization, rule = typed(command)
    assert path == "/api/0/projects/acme/orders/rules/"
    assert authorization == f"Bearer {TOKEN}"
    assert wrong(rule, int(most[1])) == []


@pytest.mark.sabotage
def test_a_wrong_rule_and_a_wrong_command_are_noticed(project: Project) -> None:
    (command,) = re.findall(r"```sh\n(.*?)```", (project.root / "docs/errors.md").read_text(), re.S)
    _, _, rule = typed(command)
    assert wrong({**rule, "frequency": 1, "actionMatch": "some"}, 10) == ["frequency", "actionMatch"]
    assert wrong(rule, 1) == ["value"]
    with pytest.raises(AssertionError):
        typed(command.replace("--data @-", "--dat @-"))


def test_the_page_names_the_limits_of_the_code(project: Project) -> None:
    code = (project.root / ERRORS).read_text()
    page = " ".join((project.root / "docs/errors.md").read_text().split())
    limits = {
        name: int(value)
        for name, value in re.findall(r"^(MAX_REPORTS_PER_KIND|MAX_KINDS|WINDOW_SECONDS) = (\d+)", code, re.M)
    }
    assert limits == {"MAX_REPORTS_PER_KIND": 10, "MAX_KINDS": 50, "WINDOW_SECONDS": 60}
    assert "at most ten reports leave per minute" in page
    assert f"of all together {limits['MAX_REPORTS_PER_KIND'] * (limits['MAX_KINDS'] + 1)}" in page
    (headers,) = re.findall(r"^HEADERS = \{(.*)\}", code, re.M)
    assert [name.lower() for name in ("Accept", "Content-Length", "Content-Type")] == re.findall(r'b"(.*?)"', headers)
