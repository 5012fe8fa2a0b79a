"""What `ready` says of CI/CD: the forge is asked for the commit that is served, by the public API of GitHub."""

from collections.abc import Mapping

import pytest

from tests.readiness.conftest import Prober, Served
from tests.servers.forge import TOKEN, Forge, open_forge

pytestmark = pytest.mark.servers
COMMIT = "0123456789abcdef0123456789abcdef01234567"
AREAS = ("--area", "delivery", "--area", "security")
Outcome = tuple[str, str, str]
Runs = Mapping[tuple[str, str], str | None]


def asked(prober: Prober, served: Served, *ran: Runs, commit: str = COMMIT) -> list[dict[str, Outcome]]:
    """What both checks say of a service of that commit, for each state of the forge."""
    with open_forge() as forge, served(prober.project, GIT_COMMIT=commit) as service:
        prober.far_end("forge", forge.url, "FORGE_TOKEN")
        return [look(prober, f"http://127.0.0.1:{service.port}", forge, runs) for runs in ran]


def look(prober: Prober, url: str, forge: Forge, runs: Runs) -> dict[str, Outcome]:
    forge.runs = dict(runs)
    found = prober.look(url, *AREAS, FORGE_TOKEN=TOKEN)
    outcomes = {check: found.outcome(check) for check in ("delivery.tested", "security.scanned")}
    return {check: (each["status"], each["seen"], each["step"]) for check, each in outcomes.items()}


def test_a_commit_that_its_pipeline_passed_is_proven(prober: Prober, served: Served) -> None:
    green = {(COMMIT, "required"): "success", (COMMIT, "secure"): "success"}
    (found,) = asked(prober, served, green)
    assert found == {
        "delivery.tested": ("proven", f"required of {COMMIT} ended with success", ""),
        "security.scanned": ("proven", f"secure of {COMMIT} ended with success", ""),
    }


def test_a_commit_that_nothing_ran_for_is_a_gap(prober: Prober, served: Served) -> None:
    another = {("f" * 40, "required"): "success", ("f" * 40, "secure"): "success"}
    (found,) = asked(prober, served, another)
    assert {each[0] for each in found.values()} == {"gap"}
    assert "push this commit" in found["delivery.tested"][2]


def test_a_service_that_names_no_commit_is_a_gap(prober: Prober, served: Served) -> None:
    (unknown,) = asked(prober, served, {}, commit="unknown")
    assert unknown["delivery.tested"][:2] == ("gap", "/version names no commit: unknown")


@pytest.mark.sabotage
def test_delivery_tested_turns_red(prober: Prober, served: Served) -> None:
    sick: list[Runs] = [
        {(COMMIT, "required"): conclusion, (COMMIT, "secure"): "success"} for conclusion in ("failure", None)
    ]
    failed, running = asked(prober, served, *sick)
    assert failed["delivery.tested"][:2] == ("gap", f"required of {COMMIT} ended with failure")
    assert "deploy what is green" in failed["delivery.tested"][2]
    assert running["delivery.tested"][0] == "gap"
    assert failed["security.scanned"][0] == "proven"


@pytest.mark.sabotage
def test_security_scanned_turns_red(prober: Prober, served: Served) -> None:
    (found,) = asked(prober, served, {(COMMIT, "required"): "success", (COMMIT, "secure"): "failure"})
    assert {check: each[0] for check, each in found.items()} == {"delivery.tested": "proven", "security.scanned": "gap"}
