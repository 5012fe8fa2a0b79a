"""The rules of the engine: bounded, never green without evidence, nothing intrusive unasked, yours are picked up."""

import time
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.projects import Edit, Project, Service
from tests.readiness.conftest import Prober, Served

pytestmark = pytest.mark.servers
ENGINE = "ready/engine.py"
LOCAL = '''"""Ours."""

import asyncio

from ..engine import Gap, NotApplicable, Probe, check


@check("billing", seconds=1, effect="{effect}")
async def invoices(probe: Probe) -> str:
    """Invoices are sent."""
    {body}
'''


def add(project: Project, body: str, effect: str = "reads") -> None:
    file = project.root / "ready/checks/local_billing.py"
    file.write_text(LOCAL.format(body=body, effect=effect))


@pytest.mark.parametrize(
    ("body", "status", "seen", "code"),
    [
        ('return f"asked as {probe.marker}"', "proven", "asked as ready-", 0),
        ('raise Gap("none was sent", "send one")', "gap", "none was sent", 1),
        ('raise NotApplicable("because nobody pays")', "not applicable", "because nobody pays", 0),
        ('return ""', "unknown", "the check shows no evidence", 2),
        ("return 1 / 0", "unknown", "the check failed (ZeroDivisionError", 2),
        ('await asyncio.sleep(60)\n    return "late"', "unknown", "no answer within 1 s", 2),
        ('return (await probe.client.get("http://127.0.0.1:1/")).text', "unknown", "the connection failed", 2),
    ],
    ids=["evidence", "gap", "not applicable", "no evidence", "breaks", "hangs", "cannot look"],
)
def test_a_check_of_yours_is_picked_up_and_held_to_the_rules(
    prober: Prober, service: Service, body: str, status: str, seen: str, code: int
) -> None:
    add(prober.project, body)
    began = time.monotonic()
    found = prober.look(service, "--area", "billing")
    assert time.monotonic() - began < 20
    outcome = found.outcome("billing.invoices")
    assert (outcome["status"], found.code) == (status, code)
    assert seen in outcome["seen"]
    assert outcome["title"] == "Invoices are sent."
    assert bool(outcome["step"]) == (status in ("gap", "unknown"))


@pytest.mark.parametrize(
    ("edit", "body"),
    [
        (Edit(ENGINE, "outcome.status is Status.PROVEN and not outcome.seen", "False"), 'return ""'),
        (Edit(ENGINE, "    outcome.status = Status.UNKNOWN\n", "    outcome.status = Status.PROVEN\n"), "return 1 / 0"),
    ],
)
def test_an_engine_that_shows_green_unseen_is_noticed(prober: Prober, service: Service, edit: Edit, body: str) -> None:
    add(prober.project, body)
    assert prober.look(service, "--area", "billing").code == 2
    edit.apply(prober.project.root)
    assert prober.look(service, "--area", "billing").code == 0


def test_could_not_look_wins_over_a_gap(prober: Prober, service: Service) -> None:
    add(prober.project, "return 1 / 0")
    assert prober.look(service).code == 2


def test_checks_run_at_the_same_time(prober: Prober, service: Service) -> None:
    add(prober.project, 'await asyncio.sleep(0.9)\n    return "slow"')
    file = prober.project.root / "ready/checks"
    for number in range(5):
        text = (file / "local_billing.py").read_text().replace("invoices", f"invoices_{number}")
        (file / f"local_{number}.py").write_text(text)
    found = prober.look(service, "--area", "billing")
    assert list(found.statuses.values()) == ["proven"] * 6
    assert found.report["seconds"] < 6 * 0.9


@pytest.mark.parametrize("effect", ["writes", "drill"])
def test_nothing_intrusive_happens_to_production_unasked(
    project: Project, served: Served, prober: Prober, tmp_path: Path, effect: str
) -> None:
    """Production is known by what the service says of itself, or by the profile."""
    add(prober.project, f'open("{tmp_path}/done", "a").write("x")\n    return "done"', effect)
    drill = ("--area", "billing", "--drill")
    edit = Edit(
        "src/my_service/platform/health.py", '"environment": settings.environment', '"environment": "production"'
    )
    with served(project) as local, served(project.variant(tmp_path / "production", edit), "production") as production:
        runs = [
            prober.look(production, *drill),
            prober.look(local, *drill, "--profile", "production"),
            prober.look(local, "--area", "billing") if effect == "drill" else prober.look(production, *drill),
        ]
        assert not (tmp_path / "done").exists()
        assert [(run.statuses["billing.invoices"], run.code) for run in runs] == [("not run", 0)] * 3
        assert [prober.look(each, *drill, "--yes").code for each in (local, production)] == [0, 0]
    assert (tmp_path / "done").read_text() == "xx"


def test_an_area_without_checks_says_so(prober: Prober, service: Service) -> None:
    found = prober.look(service, "--area", "usage")
    assert found.statuses == {"usage": "gap"}
    assert found.outcome("usage")["seen"] == "nothing looks at this area yet"
    assert len({each["area"] for each in prober.look(service).report["outcomes"]}) == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--area", "scalin"), "ready: there is no area 'scalin'; did you mean scaling?\n"),
        (("--url", "orders"), "ready: orders is not an address; type one like http://127.0.0.1:8000\n"),
        (("--url", "http://127.0.0.1:1"), "start it by `make dev`, or name it by --url\n"),
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


def test_another_server_is_not_taken_for_the_service(prober: Prober, project: Project, served: Served) -> None:
    edit = Edit("src/my_service/platform/health.py", '@app.get("/version"', '@app.get("/about"')
    with served(project.variant(prober.project.root.parent / "other", edit)) as other:
        found = prober.look(other)
    assert found.code == 2
    assert "/version is not this service's: it answered 404" in found.stderr


def test_a_check_that_cannot_be_imported_is_named(prober: Prober, service: Service) -> None:
    file = prober.project.root / "ready/checks/local_broken.py"
    file.write_text("import nothing_of_that_name\n")
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[probe]\nraed = "/x"', "ready.toml: probe.raed: unknown key; did you mean read?\n"),
        ("[thresholds]\nanswer_second = 1", "thresholds.answer_second: unknown key; did you mean answer_seconds?\n"),
        ("[far_end]\n", "ready.toml: far_end: unknown key; did you mean far_ends?\n"),
        ('[far_ends.trace]\nurl = "http://x"', "far_ends.trace: unknown key; did you mean traces?\n"),
        (
            '[far_ends.traces]\nurl = "http://x"\ntoken = "t"',
            "far_ends.traces.token: unknown key; did you mean token_var",
        ),
        ('[probe]\nread = "v1/items"', "probe.read: String should match pattern"),
        (
            '[probe]\nwrite = { path = "/x", rwo = "/x", body = {}, row = "/x" }',
            "write.rwo: unknown key; did you mean row?",
        ),
        ("probe = ", "ready.toml: Invalid value"),
        ("[thresholds]\nanswer_seconds = 0", "thresholds.answer_seconds: Input should be greater than 0"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_nearest_right_one(
    prober: Prober, service: Service, text: str, message: str
) -> None:
    (prober.project.root / "ready.toml").write_text(text)
    done = prober.look(service)
    assert done.code == 2
    assert message in done.stderr


def test_a_token_in_the_file_is_refused_and_not_shown(prober: Prober, service: Service) -> None:
    text = '[far_ends.tracker]\nurl = "https://sentry.acme.com"\ntoken_variable = "sntrys_s3cr3t"\n'
    (prober.project.root / "ready.toml").write_text(text)
    done = prober.look(service)
    assert done.code == 2
    assert "far_ends.tracker.token_variable: type the name of an environment variable" in done.stderr
    assert "s3cr3t" not in done.stderr


WAIVER = '\n[[waivers]]\ncheck = "{check}"\nreason = "the key comes later"\nowner = "ada"\nexpires = {day}\n'


@pytest.mark.parametrize(
    ("days", "status", "code", "says"),
    [
        (0, "waived", 0, "; waived by ada until "),
        (30, "waived", 0, ": the key comes later"),
        (-1, "gap", 1, "(the waiver of ada ended on "),
    ],
)
def test_a_waiver_holds_until_its_day(
    prober: Prober, service: Service, days: int, status: str, code: int, says: str
) -> None:
    day = date.today() + timedelta(days)
    with (prober.project.root / "ready.toml").open("a") as file:
        file.write(WAIVER.format(check="errors.raised", day=day))
    found = prober.look(service, "--area", "errors", READY_PROBE_KEY="")
    assert (found.statuses["errors.raised"], found.code) == (status, code)
    assert says in found.outcome("errors.raised")["seen"]
    well = prober.look(service, "--area", "errors")
    assert well.outcome("errors.raised")["seen"].endswith("(the waiver of ada is not needed)")


def test_a_waiver_covers_no_look_that_failed(prober: Prober, service: Service) -> None:
    add(prober.project, "return 1 / 0")
    with (prober.project.root / "ready.toml").open("a") as file:
        file.write(WAIVER.format(check="billing.invoices", day=date.today()))
    assert prober.look(service, "--area", "billing").statuses == {"billing.invoices": "unknown"}


def test_a_waiver_of_nothing_is_refused(prober: Prober, service: Service) -> None:
    with (prober.project.root / "ready.toml").open("a") as file:
        file.write(WAIVER.format(check="errors.raise", day=date.today()))
    found = prober.look(service)
    assert found.code == 2
    assert "there is no check 'errors.raise'; did you mean errors.raised?" in found.stderr
