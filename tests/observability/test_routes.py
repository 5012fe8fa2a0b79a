"""The way of an alert: from a failing service to whoever is woken, and to nobody while a canary runs."""

import copy
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability.loopback import Webhook, answering, exporter
from tests.projects import Change, Edit, Project, render
from tests.sabotage import Line
from tests.servers.alertmanager import Alertmanager, amtool
from tests.servers.prometheus import Prometheus

pytestmark = pytest.mark.servers
ALERTMANAGER = "observability/alertmanager.yaml"
SECONDS = 30.0
# A minute in the emitted rules and routes lasts a fifth of a second here.
FASTER = 300
UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def shortened(text: str) -> str:
    """The same rules or routes, each duration divided."""

    def shorter(found: re.Match[str]) -> str:
        return f"{max(int(found[1]) * UNITS[found[2]] // FASTER, 1)}ms"

    return re.sub(r"(?<=[\[: ])(\d+)([smhd])(?=[\]:\n])", shorter, text)


def routes(project: Project, webhook: str) -> dict[str, Any]:
    """The emitted routes; each receiver keeps its name and becomes a webhook."""
    config: dict[str, Any] = yaml.safe_load(shortened((project.root / ALERTMANAGER).read_text()))
    receivers = copy.deepcopy(config["receivers"])
    for receiver in receivers:
        if len(receiver) > 1:
            name = receiver["name"]
            receiver.clear()
            receiver |= {"name": name, "webhook_configs": [{"url": f"http://{webhook}"}]}
    return {**config, "receivers": receivers}


def wait(seconds: float, *, until: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# --- a page ----------------------------------------------------------------------------------------------------


@contextmanager
def monitored(project: Project, folder: Path, failing: float) -> Iterator[tuple[Webhook, Prometheus]]:
    """A service's exporter, Prometheus with the emitted rules, Alertmanager with the emitted routes."""
    rules = folder / "alerts.yaml"
    rules.write_text(shortened((project.root / "observability/alerts.yaml").read_text()))
    webhook = Webhook()
    with (
        answering(webhook) as hook,
        answering(exporter(failing)) as target,
        Alertmanager(routes(project, hook)) as alertmanager,
        Prometheus(
            {
                "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
                "rule_files": [str(rules)],
                "scrape_configs": [{"job_name": "my-service", "static_configs": [{"targets": [target]}]}],
                "alerting": {
                    "alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}],
                },
            }
        ) as prometheus,
    ):
        yield webhook, prometheus


def told(project: Project, folder: Path) -> tuple[str, dict[str, Any]]:
    """Who hears of a service that fails half of its requests, and what."""
    with monitored(project, folder, failing=0.5) as (webhook, prometheus):

        def receivers() -> list[str]:
            return [name for name in ("page", "ticket") if "AvailabilityBurnsFast" in webhook.heard(name)]

        assert wait(SECONDS, until=lambda: bool(receivers())), f"nothing came; firing: {prometheus.query('ALERTS')}"
        receiver = receivers()[0]
        return receiver, webhook.heard(receiver)["AvailabilityBurnsFast"]


def test_a_page_travels_from_a_failing_service_to_the_webhook(emitted: Project, tmp_path: Path) -> None:
    receiver, page = told(emitted, tmp_path)
    assert receiver == "page"
    assert (page["status"], page["labels"]["severity"], page["labels"]["slo"]) == ("firing", "page", "availability")
    assert page["labels"]["service"] == "my-service"
    assert "my-service for availability" in page["annotations"]["summary"]
    assert page["annotations"]["runbook_url"].endswith("runbook.md#availabilityburnsfast")


def test_a_healthy_service_wakes_nobody(emitted: Project, tmp_path: Path) -> None:
    with monitored(emitted, tmp_path, failing=0) as (webhook, prometheus):
        ratio = 'slo:bad:rate5m{slo="availability"} / slo:requests:rate5m{slo="availability"}'
        assert wait(SECONDS, until=lambda: [s["value"][1] for s in prometheus.query(ratio)] == ["0"])
        time.sleep(2)  # longer than a failing service takes
        assert prometheus.query('ALERTS{alertname!="BackupAbsent"}') == []  # nobody reports backups here
        assert webhook.calls == []


@pytest.mark.sabotage
def test_a_page_that_goes_astray_is_noticed(emitted: Project, tmp_path: Path) -> None:
    astray = Line(ALERTMANAGER, 'matchers: [severity="page"]', 'matchers: [severity="pages"]')
    assert told(emitted.variant(tmp_path / "sick", astray), tmp_path)[0] == "ticket"


# --- who hears what --------------------------------------------------------------------------------------------

TICKET = {"alertname": "EventLoopLags", "severity": "ticket", "service": "my-service"}
OTHERS = {**TICKET, "service": "other-service"}
PAGE = {"alertname": "AvailabilityBurnsFast", "severity": "page", "service": "my-service", "slo": "availability"}
SAME = {"alertname": "AvailabilityBurns", "severity": "ticket", "service": "my-service", "slo": "availability"}
CANARY = {"alertname": "CanaryRuns", "severity": "none", "service": "my-service"}
ABSENT = {"alertname": "MetricsAbsent", "severity": "page", "service": "my-service"}


Case = tuple[list[dict[str, str]], dict[str, set[str]]]
# Alerts, and who hears of which.
CASES: dict[str, Case] = {
    "a ticket": ([TICKET], {"ticket": {"EventLoopLags"}}),
    "a page": ([PAGE], {"page": {"AvailabilityBurnsFast"}}),
    "a page and its ticket": ([PAGE, SAME], {"page": {"AvailabilityBurnsFast"}}),
    "a page and another ticket": ([PAGE, TICKET], {"page": {"AvailabilityBurnsFast"}, "ticket": {"EventLoopLags"}}),
    "a canary": ([CANARY], {}),
    "quiet during a canary": ([CANARY, TICKET], {}),
    "a page during a canary": ([CANARY, PAGE], {"page": {"AvailabilityBurnsFast"}}),
    "the canary of another service": ([CANARY, OTHERS], {"ticket": {"EventLoopLags"}}),
    "without metrics": ([ABSENT, TICKET], {"page": {"MetricsAbsent"}}),
}


def astray(project: Project, *names: str) -> dict[str, dict[str, set[str]]]:
    """The cases in which others hear than should, and who does: the real Alertmanager decides all of them at once.

    Each case is about services of its own.
    """
    webhook = Webhook()
    cases = {name: CASES[name] for name in names or CASES}
    alerts = [{**alert, "case": name, "service": alert["service"] + name} for name in cases for alert in cases[name][0]]

    def found() -> dict[str, dict[str, set[str]]]:
        each = {name: {who: set(webhook.heard(who, case=name)) for who in ("page", "ticket")} for name in cases}
        return {name: {who: told for who, told in heard.items() if told} for name, heard in each.items()}

    with answering(webhook) as hook, Alertmanager(routes(project, hook)) as server:
        server.send(alerts)
        wait(5, until=lambda: found() == {name: hear for name, (_, hear) in cases.items()})
        time.sleep(1)  # past every group_wait
        return {name: heard for name, heard in found().items() if heard != cases[name][1]}


def test_each_alert_reaches_who_should_hear_it(emitted: Project) -> None:
    assert astray(emitted) == {}


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("change", "case"),
    [
        (
            Line(
                ALERTMANAGER,
                '- source_matchers: [alertname="CanaryRuns"]',
                '- source_matchers: [alertname="Canary"]',
            ),
            "quiet during a canary",
        ),
        (Edit(ALERTMANAGER, "equal: [service]", "equal: []"), "the canary of another service"),
        (Line(ALERTMANAGER, "equal: [service, slo]", "equal: [service]"), "a page and another ticket"),
        (Line(ALERTMANAGER, 'matchers: [severity="none"]', 'matchers: [severity="no"]'), "a canary"),
    ],
    ids=["the canary's name", "of any service", "of any promise", "nobody"],
)
def test_a_changed_route_is_noticed(emitted: Project, tmp_path: Path, change: Change, case: str) -> None:
    assert astray(emitted.variant(tmp_path / "sick", change), case).keys() == {case}


def test_amtool_finds_no_fault(emitted: Project, template: Path, tmp_path: Path) -> None:
    longest = render(template, tmp_path / "long", project_slug="a" * 40)
    for root in (emitted.root, longest):
        done = amtool("check-config", root / ALERTMANAGER)
        assert (done.returncode, "SUCCESS" in done.stdout) == (0, True)


@pytest.mark.sabotage
def test_amtool_finds_a_planted_fault(emitted: Project, tmp_path: Path) -> None:
    sick = emitted.variant(tmp_path / "sick", Line(ALERTMANAGER, "- receiver: nobody", "- receiver: everybody"))
    assert amtool("check-config", sick.root / ALERTMANAGER).returncode != 0


def test_no_key_stands_in_the_file(emitted: Project) -> None:
    config = yaml.safe_load((emitted.root / ALERTMANAGER).read_text())
    settings = [item for receiver in config["receivers"] for key, item in receiver.items() if key != "name"]
    keys = {key for each in settings for item in each for key in item if "key" in key or "url" in key}
    assert keys == {"routing_key_file", "api_url_file"}
