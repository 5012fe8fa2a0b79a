"""The rules of the engine: bounded, never green without evidence, nothing intrusive unasked, yours are picked up."""

import json
import re
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.projects import Project, Service
from tests.readiness.conftest import FOLDER, PACKAGE, Found, Local, Prober, Served
from tests.sabotage import Body, Line, Value
from tests.servers.otlp import open_collector

pytestmark = pytest.mark.servers
# By what it does: the check, and what its outcome says.
OURS = {
    "evidence": ('return f"asked as {probe.marker}"', "proven", "asked as ready-"),
    "nobody": ('raise NotApplicable("because nobody pays")', "not applicable", "because nobody pays"),
    "gap": ('raise Gap("none was sent", "send one")', "gap", "none was sent"),
    "nothing": ('return ""', "unknown", "the check returned no evidence"),
    "breaks": ("return str(1 / 0)", "unknown", "the check failed (ZeroDivisionError"),
    "hangs": ('await asyncio.sleep(60)\n    return "late"', "unknown", "no result within 1 s"),
    "away": ('return (await probe.client.get("http://127.0.0.1:1/")).text', "unknown", "the connection failed"),
}
# A run ends with the worst: an outcome that could not be seen wins over a gap.
AREAS = {"billing": ("evidence", "nobody"), "dunning": ("gap",), "ledger": ("nothing", "breaks", "hangs", "away")}


def test_checks_of_yours_are_picked_up_and_held_to_the_rules(prober: Prober, service: Service) -> None:
    for area, names in AREAS.items():
        for name in names:
            Local(OURS[name][0], area, name, f"The promise {name}.").apply(prober.project.root)
    began = time.monotonic()
    runs = [prober.look(service, *(f"--area={area}" for area in list(AREAS)[:many])) for many in (1, 2, 3)]
    assert time.monotonic() - began < 60
    assert [run.code for run in runs] == [0, 1, 2]
    for area, names in AREAS.items():
        for name in names:
            outcome, (_, status, seen) = runs[2].outcome(f"{area}.{name}"), OURS[name]
            assert outcome["status"] == status
            assert seen in outcome["seen"]
            assert outcome["title"] == f"The promise {name}."
            assert bool(outcome["step"]) == (status in ("gap", "unknown"))


@pytest.mark.sabotage
@pytest.mark.parametrize("name", ["nothing", "breaks"])
def test_an_engine_that_shows_green_unseen_is_noticed(prober: Prober, service: Service, name: str) -> None:
    Local(OURS[name][0]).apply(prober.project.root)
    assert prober.look(service, "--area", "billing").code == 2
    green = Body("ready.engine:_run_check", "await original(each, probe, outcome)\noutcome.status = Status.PROVEN")
    green.apply(prober.project.root)
    assert prober.look(service, "--area", "billing").code == 0


def test_checks_run_at_the_same_time(prober: Prober, service: Service) -> None:
    for number in range(6):
        Local('await asyncio.sleep(0.9)\n    return "slow"', name=f"slow_{number}").apply(prober.project.root)
    found = prober.look(service, "--area", "billing")
    assert list(found.statuses.values()) == ["proven"] * 6
    assert found.report["seconds"] < 6 * 0.9


def test_nothing_intrusive_happens_to_production_unasked(
    project: Project, served: Served, service: Service, prober: Prober, tmp_path: Path
) -> None:
    """Production is known by what the service says of itself, or by the profile."""
    for effect in ("writes", "drill"):
        body = f'open("{tmp_path}/done", "a").write("{effect} ")\n    return "done"'
        Local(body, name=effect, effect=effect).apply(prober.project.root)
    ask, drill = ("--area", "billing"), ("--area", "billing", "--drill")
    says = Body("health:install.version", 'return {**await original(request), "environment": "production"}')
    with served(project.variant(tmp_path / "production", says), "production") as production:
        for run in (prober.look(production, *drill), prober.look(service, *drill, "--profile", "production")):
            assert (run.statuses, run.code) == ({"billing.writes": "not run", "billing.drill": "not run"}, 0)
        assert not (tmp_path / "done").exists()
        asked = prober.look(service, *ask)
        assert (asked.statuses, asked.code) == ({"billing.writes": "proven", "billing.drill": "not run"}, 0)
        denied = prober.look(production, *drill, "--profile", "local")
        assert (denied.statuses, denied.code) == ({**run.statuses, "run.profile": "gap"}, 1)
        assert (denied.report["profile"], denied.report["source"]) == ("production", "/version of the service")
        finding = denied.outcome("run.profile")
        clear = "--profile says local, /version of the service says production: the rules of production apply"
        assert (finding["seen"], finding["step"]) == (clear, "leave out --profile local")
        assert prober.look(production, *drill, "--yes").code == 0
    assert sorted((tmp_path / "done").read_text().split()) == ["drill", "writes", "writes"]


def test_what_has_no_check_is_not_built_and_neither_proven_nor_red(prober: Prober, service: Service) -> None:
    """What nobody checks is not proven by other checks of its area. A check of yours with that name takes its place."""
    later = {"usage": "Something arrives.", "security.later": "Something is checked."}
    Value("ready.areas:NOT_BUILT", repr(later)).apply(prober.project.root)
    found = prober.look(service, "usage", "security")
    assert (found.statuses["usage"], found.statuses["security.later"], found.code) == ("not built", "not built", 0)
    assert found.outcome("usage")["seen"] == "the template has no check yet"
    shown = prober.command("--url", f"http://127.0.0.1:{service.port}", "security", "usage").stdout.splitlines()
    assert any(re.fullmatch(r"not built      Security \(\d of \d checks proven\)", line) for line in shown), shown
    assert shown[-1].startswith("0 of 2 areas proven, 2 not built; ")
    Local(OURS["gap"][0], "security", "later").apply(prober.project.root)
    Local(OURS["evidence"][0], "usage", "seen").apply(prober.project.root)
    built = prober.look(service, "usage", "security")
    assert (built.statuses["security.later"], built.code, "usage" in built.statuses) == ("gap", 1, False)


def test_what_the_service_says_of_itself_is_not_proven(prober: Prober, service: Service) -> None:
    Local('raise Claimed("all is well")').apply(prober.project.root)
    found = prober.look(service, "billing")
    assert (found.statuses, found.code) == ({"billing.invoices": "claimed"}, 0)
    assert found.outcome("billing.invoices")["seen"] == "the service says: all is well"
    shown = prober.command("--url", f"http://127.0.0.1:{service.port}", "billing").stdout
    assert "0 of 1 areas proven, 1 claimed; " in shown


LISTED = (
    "Areas: backups, caching, delivery, errors, observability, recovery, releases, scaling, secrets, security, usage"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scalin",), f"ready: there is no area 'scalin'; did you mean scaling? {LISTED}\n"),
        (("--area", "foo"), f"ready: there is no area 'foo'. {LISTED}\n"),
        (("--url", "http://ada:hunter2@127.0.0.1:1"), "no service responds at http://127.0.0.1:1 ("),
        (("--url", "orders"), "ready: orders is not a URL; use one like http://127.0.0.1:8000\n"),
        (("--url", "http://127.0.0.1:1"), "start it with `make dev`, or set --url\n"),
        (("--profile", "prod"), "Invalid value for '--profile'"),
        (("--html", "nowhere/page.html"), "ready: [Errno 2] No such file or directory: 'nowhere/page.html'\n"),
    ],
)
def test_a_wrong_word_is_answered_with_what_to_type(
    prober: Prober, service: Service, arguments: tuple[str, ...], message: str
) -> None:
    done = prober.command(*("--url", f"http://127.0.0.1:{service.port}", "--area", "usage"), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_another_server_is_not_taken_for_the_service(prober: Prober) -> None:
    with open_collector() as other:
        found = prober.look(other.url)
    assert found.code == 2
    assert "/version is not this service's: it returned 404" in found.stderr


def test_a_check_that_cannot_be_imported_is_named(prober: Prober, service: Service) -> None:
    (prober.project.root / FOLDER / "checks/local_broken.py").write_text("import nothing_of_that_name\n")
    found = prober.look(service)
    assert found.code == 2
    assert found.stderr == (
        "ready: ready/checks/local_broken.py cannot be imported: "
        "ModuleNotFoundError: No module named 'nothing_of_that_name'\n"
    )


def test_without_its_extra_the_command_says_what_to_install(prober: Prober) -> None:
    python = str(prober.project.venv / "bin/python")
    code = "import runpy, sys; sys.modules['httpx2'] = None; runpy.run_module('ready', run_name='__main__')"
    done = prober.project.run(python, "-c", code, check=False)
    assert (done.returncode, done.stderr) == (2, "ready: install the extra `ops`: it needs httpx2\n")


# --- ready.toml -------------------------------------------------------------------------------------------------

# By what the file says: what is said against it.
WRONG = {
    '[probe]\nraed = "/x"': "ready.toml: probe.raed: unknown key; did you mean read?",
    "[thresholds]\nanswer_second = 1": "thresholds.answer_second: unknown key; did you mean answer_seconds?",
    "[far_end]\n": "ready.toml: far_end: unknown key; did you mean far_ends?",
    '[far_ends.trace]\nurl = "http://x"': "far_ends.trace: unknown key; did you mean traces?",
    '[far_ends.traces]\nurl = "http://x"\ntoken = "t"': (
        "far_ends.traces.token: unknown key; did you mean token_variable?"
    ),
    '[probe]\nread = "v1/items"': "probe.read: String should match pattern",
    '[probe]\nwrite = { path = "/x", rwo = "/x", body = {}, row = "/x" }': (
        "write.rwo: unknown key; did you mean row?"
    ),
    "probe = ": "ready.toml: Invalid value",
    "[thresholds]\nanswer_seconds = 0": "thresholds.answer_seconds: Input should be greater than 0",
    '[far_ends.tracker]\nurl = "https://sentry.acme.com"\ntoken_variable = "sntrys_s3cr3t"': (
        "far_ends.tracker.token_variable: use the name of an environment variable"
    ),
}
LOAD = """
import json, sys
from pathlib import Path
from {package}.config import ConfigurationError, load
said = []
for text in {texts!r}:
    Path("ready.toml").write_text(text)
    try:
        said.append(repr(load(Path("ready.toml"))))
    except ConfigurationError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def test_a_wrong_key_or_value_is_named_with_the_nearest_right_one(prober: Prober) -> None:
    """And a token that stands there is not shown."""
    said = json.loads(prober.python(LOAD.format(package=PACKAGE, texts=list(WRONG))))
    for message, answer in zip(WRONG.values(), said, strict=True):
        assert message in answer
    assert "s3cr3t" not in str(said)


def test_a_wrong_file_ends_the_run_before_it_looks(prober: Prober, service: Service) -> None:
    prober.add("\n[far_end]\n")
    done = prober.look(service)
    assert (done.code, done.report) == (2, {})
    assert done.stderr == "ready: ready.toml: far_end: unknown key; did you mean far_ends?\n"


WAIVER = '\n[[waivers]]\ncheck = "{check}"\nreason = "the key comes later"\nowner = "ada"\nexpires = {day}\n'


def test_a_waiver_covers_a_gap_until_its_day_and_nothing_else(prober: Prober, service: Service) -> None:
    gap = Local(OURS["gap"][0], name="last_day")
    for each, days in (
        (gap, 0),
        (replace(gap, name="later"), 30),
        (replace(gap, area="dunning", name="ended"), -1),
        (Local(OURS["evidence"][0], name="well"), 30),
        (Local(OURS["breaks"][0], "ledger", "breaks"), 30),
    ):
        each.apply(prober.project.root)
        day = date.today() + timedelta(days)
        prober.add(WAIVER.format(check=f"{each.area}.{each.name}", day=day))
    waived = prober.look(service, "--area", "billing")
    assert waived.statuses == {"billing.last_day": "waived", "billing.later": "waived", "billing.well": "proven"}
    assert waived.code == 0
    assert "; waived by ada until " in waived.outcome("billing.later")["seen"]
    assert waived.outcome("billing.later")["seen"].endswith(": the key comes later")
    assert waived.outcome("billing.well")["seen"].endswith("(the waiver of ada is not needed)")
    bare = prober.look(service, "--area", "dunning", "--area", "ledger")
    assert bare.statuses == {"dunning.ended": "gap", "ledger.breaks": "unknown"}
    assert "(the waiver of ada ended on " in bare.outcome("dunning.ended")["seen"]


def test_a_waiver_of_nothing_is_refused(prober: Prober, service: Service) -> None:
    prober.add(WAIVER.format(check="errors.raise", day=date.today()))
    found = prober.look(service)
    assert found.code == 2
    listed = "Checks: errors.problems, errors.raised, errors.tracked"
    assert found.stderr == f"ready: there is no check 'errors.raise'; did you mean errors.raised? {listed}\n"
    Line("ready.toml", 'check = "errors.raise"', 'check = "bakups"').apply(prober.project.root)
    assert prober.look(service).stderr == f"ready: there is no check 'bakups'; did you mean backups.rows? {LISTED}\n"


def test_without_a_key_the_line_that_makes_one_is_named(prober: Prober, service: Service) -> None:
    found: Found = prober.look(service, "--area", "errors", READY_PROBE_KEY="")
    assert found.statuses["errors.raised"] == "gap"
    assert "READY_PROBE_KEY=" in found.outcome("errors.raised")["step"]
