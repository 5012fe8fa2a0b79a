"""What a run leaves for people and programs: lines, JSON, JUnit, a page for both themes, the runs before."""

import json
import os
import pty
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser

from tests.pages import faults
from tests.projects import Project, Service
from tests.readiness.conftest import FOLDER, KEY, PACKAGE, Local, Prober
from tests.sabotage import Body, Line
from tests.test_weight import code_lines

PARTS = ("engine.py", "page.html", "page.py", "render.py", "report.py")
NO_ROUTE = Line("ready.toml", "read = ", 'read = "/v1/nothing"')
servers = pytest.mark.servers


@servers
def test_engine_and_renderers_stay_small(project: Project) -> None:
    lines = {name: code_lines(project.root / FOLDER / name) for name in PARTS}
    assert min(lines.values()) > 10
    assert sum(lines.values()) <= 415


@servers
def test_elsewhere_than_on_a_terminal_there_are_plain_lines(prober: Prober, service: Service) -> None:
    NO_ROUTE.apply(prober.project.root)
    done = prober.command("--url", f"http://127.0.0.1:{service.port}")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert re.search(
        r"^proven +backups\.rows +a row marked ready-\w{16} was written, read and deleted \(", done.stdout, re.M
    )
    assert "not built      Usage tracking" in lines
    assert next(line for line in lines if line.startswith("next for ")).startswith("next for scaling.serves: ")
    summary = r"\d of 11 areas proven, 1 with gaps, \d not built, \d claimed, \d not applicable; \d+\.\d s, "
    assert re.fullmatch(rf"{summary}marker ready-\w{{16}}", lines[-1])
    assert "\x1b" not in done.stdout


def terminal(prober: Prober, service: Service, columns: int, **env: str) -> tuple[int, str]:
    """Exit code and output of a run in a terminal."""
    areas = ("observability", "caching", "security", "recovery")
    command = list(prober.arguments("--url", f"http://127.0.0.1:{service.port}", *areas))
    env = prober.project.env({**KEY, "COLUMNS": str(columns), "TERM": "xterm-256color", **env})
    try:
        child, end = pty.fork()
    except OSError as error:
        pytest.skip(f"this machine has no terminals, as a root without /dev/pts: {error}")
    if child == 0:
        os.chdir(prober.project.root)
        os.execvpe(command[0], command, env)  # noqa: S606
    shown = b""
    while True:
        try:
            shown += os.read(end, 65_536)
        except OSError:  # Linux's way to say that the other end is closed
            break
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), shown.decode()


def is_readable_at(prober: Prober, service: Service, columns: int, **env: str) -> str:
    """Nothing is wider than the terminal, and no letter of the evidence is cut; returns what was printed."""
    code, shown = terminal(prober, service, columns, **env)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown)
    table, _, last = text[text.index("my-service 0.1.0 at") :].partition("\nnext for ")
    assert (code, max(map(len, table.splitlines())) <= columns) == (1, True), table
    for area in ("Observability: ◐ claimed", "Performance and caching: ✗ gap", "Disaster recovery: ○ not applicable"):
        assert re.search(rf"^{area}", table, re.M), table
    report = json.loads(max((prober.project.root / ".ready").glob("*.json")).read_text())
    letters = re.sub(r"\s", "", table)
    for each in report["outcomes"]:
        assert re.sub(r"\s", "", each["seen"]) in letters, each
    assert "\nsince " in last or " of 4 areas proven, " in last
    return shown


@servers
def test_a_terminal_of_80_or_60_columns_shows_all_of_it(prober: Prober, service: Service) -> None:
    """https://no-color.org: with NO_COLOR there is no colour, and the states still have their words and signs."""
    Local('raise Gap("none was " + "x" * 90, "send one")', "caching", "unsent").apply(prober.project.root)
    assert "\x1b[" in is_readable_at(prober, service, 80)
    bare = is_readable_at(prober, service, 60, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", bare[bare.index("Observability") :])


@servers
@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("ready.render:_table", "table = original(outcomes)\ntable.columns[1].no_wrap = True\nreturn table"),
        Body("ready.render:_state", "return str(status)"),
    ],
    ids=["cut", "no sign"],
)
def test_a_table_that_does_not_fit_is_noticed(prober: Prober, service: Service, sabotage: Body) -> None:
    Local('raise Gap("none was " + "x" * 90, "send one")', "caching", "unsent").apply(prober.project.root)
    sabotage.apply(prober.project.root)
    with pytest.raises(AssertionError):
        is_readable_at(prober, service, 60)


@servers
def test_the_runs_are_kept_and_compared(prober: Prober, service: Service) -> None:
    """Also when a run looks at one area only; a drill that was not asked for is no change."""
    Local('return "done"', name="drill", effect="drill").apply(prober.project.root)
    first = prober.look(service)
    assert first.report["compared_with"] == ""
    drilled = prober.look(service, "--area", "billing", "--drill")
    NO_ROUTE.apply(prober.project.root)
    worse = prober.look(service)
    assert (drilled.statuses["billing.drill"], worse.statuses["billing.drill"]) == ("proven", "not run")
    assert worse.outcome("scaling.serves")["before"] == "proven"
    changed = {each["check"] for each in worse.report["outcomes"] if each["before"]}
    assert changed == {"caching.private", "caching.revalidation", "scaling.serves"}
    done = prober.command("--url", f"http://127.0.0.1:{service.port}")
    assert f"since {worse.report['began'][:19]}: no change" in done.stdout
    files = sorted((prober.project.root / ".ready").glob("*.json"))
    assert len(files) == 4
    assert json.loads(files[0].read_text()) == first.report
    assert first.report["exit_code"] == first.code == 0


@servers
def test_old_and_foreign_files_do_no_harm(prober: Prober, service: Service) -> None:
    folder = prober.project.root / ".ready"
    folder.mkdir()
    for number in range(30):
        (folder / f"2020-01-{number + 1:02}.json").write_text("{" if number % 2 else '{"outcomes": 1}')
    assert prober.look(service, "--area", "security").code == 0
    assert len(list(folder.glob("*.json"))) == 20
    shutil.rmtree(folder)
    folder.write_text("in the way")
    found = prober.look(service, "--area", "security")
    assert found.code == 0
    assert found.stderr.startswith("ready: this report is not saved: ")


@servers
def test_junit_counts_gaps_as_failures_and_failed_looks_as_errors(
    prober: Prober, service: Service, tmp_path: Path
) -> None:
    NO_ROUTE.apply(prober.project.root)
    Local("return str(1 / 0)", title='Odd <texts> & "quotes" are right.').apply(prober.project.root)
    found = prober.look(service, "--junit", str(tmp_path / "junit.xml"))
    root = ElementTree.fromstring((tmp_path / "junit.xml").read_text())  # noqa: S314
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert cases.keys() == found.statuses.keys()
    tags = {name: case[0].tag for name, case in cases.items()}
    expected = {"gap": "failure", "unknown": "error", "proven": "system-out"}
    assert tags == {name: expected.get(status, "skipped") for name, status in found.statuses.items()}
    for suite in root.iter("testsuite"):
        inside = [case[0].tag for case in suite]
        counts = {name: int(suite.get(name, "-1")) for name in ("tests", "failures", "errors", "skipped")}
        assert counts == {
            "tests": len(inside),
            "failures": inside.count("failure"),
            "errors": inside.count("error"),
            "skipped": inside.count("skipped"),
        }
    usage = cases["usage"][0].get("message")
    assert usage == "A usage event arrives where usage is analysed. the template has no check yet"
    assert "search the log for the marker" in (cases["scaling.serves"][0].get("message") or "")


# --- the link to the docs ---------------------------------------------------------------------------------------


LINKS = [
    ("gh:acme/roadworthy", "v1.2.0", "https://github.com/acme/roadworthy/blob/v1.2.0/"),
    (
        "https://github.com/acme/roadworthy.git",
        "v1.2.0-3-gabcdef1",
        "https://github.com/acme/roadworthy/blob/abcdef1/",
    ),
    ("git+https://github.com/acme/roadworthy", "v1", "https://github.com/acme/roadworthy/blob/v1/"),
    ("git@github.com:acme/road.worthy.git", "v1", "https://github.com/acme/road.worthy/blob/v1/"),
    ("ssh://git@git.acme.com:2222/team/fork.git", "v1", "https://git.acme.com/team/fork/blob/v1/"),
    ("https://ada:s3cr3t@gitlab.com/a/b/c.git", "v1", "https://gitlab.com/a/b/c/-/blob/v1/"),
    ("gl:team/fork", "'1.0'", "https://gitlab.com/team/fork/-/blob/1.0/"),
    ("'/srv/templates/roadworthy'", "v1", "/srv/templates/roadworthy/"),
]
EXPLAIN = """
from pathlib import Path
from {package}.links import docs_links
from {package}.report import Outcome, Status
for answers in {answers!r}:
    Path(".copier-answers.yml").write_text(answers)
    page = docs_links(Path(".copier-answers.yml"))
    mine = page(Outcome("billing", "billing.mine", "", Status.GAP, "", "do it"))
    print(page(Outcome("errors", "errors.raised", "", Status.GAP, "", "do it")) + mine)
"""


@servers
def test_the_next_step_links_to_the_docs_of_the_template_in_use(prober: Prober) -> None:
    answers = [f"_commit: {commit}\n_src_path: {source}\nlicense: mit\n" for source, commit, _ in LINKS]
    found = prober.python(EXPLAIN.format(package=PACKAGE, answers=answers)).splitlines()
    assert found == [f"{link}docs/how-to/errors.md#raised" for *_, link in LINKS]


# --- the page ---------------------------------------------------------------------------------------------------

PAGE = f"{FOLDER}/page.html"
ROOT = ":root { color-scheme"


def rendered(prober: Prober, service: Service, file: Path) -> Path:
    (prober.project.root / ".copier-answers.yml").write_text("_commit: v1.0.0\n_src_path: gh:acme/roadworthy\n")
    prober.look(service, "--html", str(file), READY_PROBE_KEY="")
    return file


@servers
def test_the_page_is_right_in_both_themes_and_on_paper(
    browser: Browser, prober: Prober, service: Service, tmp_path: Path
) -> None:
    file = rendered(prober, service, tmp_path / "report.html")
    assert faults(browser, file.as_uri(), "light") == faults(browser, file.as_uri(), "dark") == []
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(file.as_uri())
    assert page.locator("h1").inner_text() == "my-service 0.1.0"
    assert page.locator(".verdict").inner_text() == "Not ready: there are gaps."
    assert page.locator("ul.tiles > li").count() == page.locator("section").count() == 11
    link = page.get_by_role("link", name="How to: errors.raised")
    assert link.get_attribute("href") == "https://github.com/acme/roadworthy/blob/v1.0.0/docs/how-to/errors.md#raised"
    assert len(page.pdf(format="A4")) > 10_000
    page.close()


@servers
@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("line", "new", "fault"),
    [
        (ROOT, ":root { color-scheme: light dark; --ink: #c9ced4; --soft: #c9ced4;", "axe: color-contrast"),
        ('<html lang="en">', "<html>", "axe: html-has-lang"),
        (ROOT, ":root { color-scheme: light; --ink: #1a1d21; --soft: #555d66;", "not dark"),
        ("@media (max-width", "@media (max-width: 1px) {", "narrow on a phone: observability.traces"),
        ("table {", "table { width: 60rem }", "wider than a phone"),
        (
            "<header>",
            '<header><img alt="" src="http://127.0.0.1:9/logo.png">',
            "asks for http://127.0.0.1:9/logo.png",
        ),
    ],
    ids=["contrast", "language", "theme", "letters", "wide", "foreign"],
)
def test_a_sabotaged_page_is_noticed(
    browser: Browser, prober: Prober, service: Service, tmp_path: Path, line: str, new: str, fault: str
) -> None:
    Line(PAGE, line, new).apply(prober.project.root)
    file = rendered(prober, service, tmp_path / "report.html")
    assert fault in [*faults(browser, file.as_uri(), "light"), *faults(browser, file.as_uri(), "dark")]


@servers
def test_no_text_of_the_service_becomes_markup(
    browser: Browser, prober: Prober, service: Service, tmp_path: Path
) -> None:
    hostile = "<script>document.title = 'taken'</script><b>$marker</b>"
    Local(f"return {hostile!r}", "a<b>", title="Odd <i>text</i>.").apply(prober.project.root)
    page = browser.new_page()
    page.goto(rendered(prober, service, tmp_path / "report.html").as_uri())
    assert page.title() == "my-service: readiness"
    assert hostile in page.locator("section").last.inner_text()
    assert page.locator("section b, section i").count() == 0
    page.close()
