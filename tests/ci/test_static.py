"""What GitHub will say of the emitted workflows, before it sees them: schema, semantics, pins, permissions, gates.

Files below `.github` carry no Jinja and follow the question `ci` alone, so one render has them as each answer has them.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ci import actions
from tests.projects import ROOT, render
from tests.servers import act, node

LANGUAGE = Path(__file__).parent / "language"
SOURCE = ROOT / "template" / "{% if ci == 'github' %}.github{% endif %}"
# None inside of `run:`, where a title or the name of a branch would be code.
EXPRESSION = re.compile(r"\$\{\{")
LAST = {"ci.yml": "required", "security.yml": "secure", "scheduled.yml": "scheduled"}
# Events that come with the rights of the repository and the code of a stranger.
DANGEROUS = {"pull_request_target", "workflow_run"}
Sick = Callable[[str, str, str], Path]


@pytest.fixture(scope="module")
def github(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emitted `.github`."""
    return render(template, tmp_path_factory.mktemp("static") / "service") / ".github"


@pytest.fixture
def sick(github: Path, tmp_path: Path) -> Sick:
    """A copy of it with a fault: in a file, other text in place of the first such text."""

    def changed(file: str, old: str, new: str) -> Path:
        for each in actions.files(github):
            place = tmp_path / ".github" / each.relative_to(github)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(each.read_text())
        text = (tmp_path / ".github" / file).read_text()
        assert old in text
        (tmp_path / ".github" / file).write_text(text.replace(old, new, 1))
        return tmp_path / ".github"

    return changed


def schema(github: Path) -> list[str]:
    """What JSON Schema says."""
    said = []
    for kind, files in (("workflows", "workflows/*.yml"), ("actions", "actions/*/action.yml")):
        command = [sys.executable, "-m", "check_jsonschema", f"--builtin-schema=vendor.github-{kind}"]
        done = subprocess.run([*command, *sorted(github.glob(files))], capture_output=True, text=True, check=False)
        said += [done.stdout] if done.returncode else []
    return said


def language(github: Path) -> list[str]:
    """What GitHub's own language service says: contexts, `needs`, expressions, inputs of actions."""
    files = {str(file.relative_to(github)): file.read_text() for file in actions.files(github)}
    asked = json.dumps({"catalogue": actions.CATALOGUE, "files": files})
    said = json.loads(node.run(node.install(LANGUAGE) / "check.js", asked))
    assert said.keys() == files.keys()
    return [f"{file}, {each}" for file, messages in said.items() for each in messages]


def pins(github: Path) -> list[str]:
    """Actions that are not pinned to what the catalogue has, with its version beside."""
    said = []
    for file in actions.files(github):
        text = file.read_text()
        uses = [line for line in re.findall(r"uses: (.*)", text) if not line.startswith("./")]
        found = {f"{pin['name']}@{pin['sha']} # {pin['tag']}": pin["name"] for pin in actions.PIN.finditer(text)}
        for line in uses:
            known = actions.CATALOGUE.get(found.get(line, ""), {})
            if line != f"{found.get(line)}@{known.get('sha')} # {known.get('tag')}":
                said.append(f"{file.name}: {line}")
    return said


def rules(github: Path) -> list[str]:
    """What has to hold of each workflow and job."""
    return [f"{file.name}: {each}" for file in github.glob("workflows/*.yml") for each in _rules(act.load(file))]


def _rules(workflow: dict[str, Any]) -> Iterator[str]:
    if workflow.get("permissions") != {}:
        yield "has permissions at the top"
    if "concurrency" not in workflow:
        yield "has no concurrency"
    if DANGEROUS & set(workflow["on"]):
        yield "runs a stranger's code with the repository's rights"
    if any("paths" in (each or {}) for each in workflow["on"].values() if isinstance(each, dict | None)):
        yield "has a filter of paths: a required check that never starts stays pending"
    for name, job in workflow["jobs"].items():
        if "timeout-minutes" not in job and "uses" not in job:
            yield f"{name} has no time-out"
        if not job.get("runs-on", act.RUNNER).startswith(act.RUNNER):
            yield f"{name} does not run on {act.RUNNER}"
        yield from _steps(name, job.get("steps", []))
        shells = {step.get("shell", workflow.get("defaults", {}).get("run", {}).get("shell")) for step in piped(job)}
        if shells - {"bash"}:  # GitHub gives a step that names no shell no pipefail, act does
            yield f"{name} hides that a command of a pipe failed"


def piped(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps that write to the summary through a pipe, and say nothing more."""
    return [step for step in job.get("steps", []) if re.search(r"\| tee\b.*\s*$", step.get("run", ""))]


def _steps(job: str, steps: list[dict[str, Any]]) -> Iterator[str]:
    for step in steps:
        if EXPRESSION.search(step.get("run", "")):
            yield f"{job} has an expression in run:"
        checks_out = step.get("uses", "").startswith("actions/checkout@")
        if checks_out and step.get("with", {}).get("persist-credentials") is not False:
            yield f"{job} leaves the token in the checkout"


def gates(github: Path) -> list[str]:
    """Jobs that the last job of their workflow does not cover."""
    said = []
    for file in github.glob("workflows/*.yml"):
        jobs = act.load(file)["jobs"]
        last = jobs[LAST[file.name]]
        said += [f"{file.name}: {name}" for name in jobs.keys() - {LAST[file.name]} - set(last["needs"])]
        if last.get("if") != "always()":
            said.append(f"{file.name}: the last job does not always run")
    return said


CHECKS = {"schema": schema, "language": language, "pins": pins, "rules": rules, "gates": gates}
Check = Callable[[Path], list[str]]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_it_finds_nothing(github: Path, check: Check) -> None:
    assert actions.files(github)
    assert check(github) == []


def test_workflows_depend_on_no_other_answer() -> None:
    inside = [path.relative_to(SOURCE) for path in SOURCE.rglob("*")]
    assert Path("workflows/ci.yml") in inside
    assert [path for path in inside if path.suffix == ".jinja" or "{" in str(path)] == []


def test_ci_needs_no_secret_and_no_variable(github: Path) -> None:
    """So a repository in its first minute and one with everything configured run the same."""
    text = (github / "workflows/ci.yml").read_text()
    assert re.findall(r"\b(?:secrets|vars)\b", text) == []
    assert "github.event" in text  # the proof looks where contexts are


def test_services_are_healthy_before_a_step_runs(github: Path) -> None:
    """act has no service containers, so what GitHub is told of them is compared here."""
    services = [job["services"] for job in act.load(github / "workflows/ci.yml")["jobs"].values() if "services" in job]
    assert {name for each in services for name in each} == {"postgres", "redis"}
    for name, service in (pair for each in services for pair in each.items()):
        assert "--health-cmd=" in service["options"], name
        assert service["ports"] == {"postgres": ["5432:5432"], "redis": ["6379:6379"]}[name]


CI = "workflows/ci.yml"
CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
SABOTAGES: dict[str, tuple[Check, str, str, str, str]] = {
    "unknown key": (schema, CI, "timeout-minutes: 10", "timeout-minute: 10", "timeout-minute"),
    "context": (language, CI, "github.event.pull_request.number", "githb.number", "Unrecognized named-value: 'githb'"),
    "context of a job": (
        language,
        CI,
        "  lint:\n",
        "  lint:\n    env: { PORT: '${{ job.services.postgres.id }}' }\n",
        "Unrecognized named-value: 'job'",
    ),
    "needs": (language, CI, "needs: [migrations]", "needs: [migration]", "migration"),
    "input": (language, CI, "persist-credentials", "persist-credential", "Invalid action input"),
    "input of an action": (language, "actions/setup/action.yml", "python-version:", "python:", "Invalid action input"),
    "tag": (pins, CI, CHECKOUT, "actions/checkout@v7", "actions/checkout@v7"),
    "other commit": (pins, CI, "@3d3c", "@4d3c", "@4d3c"),
    "wrong version": (pins, CI, "# v7.0.1", "# v7.0.0", "# v7.0.0"),
    "rights": (rules, CI, "permissions: {}", "permissions: read-all", "permissions at the top"),
    "time-out": (rules, CI, "    timeout-minutes: 10\n", "", "has no time-out"),
    "token": (rules, CI, "persist-credentials: false", "persist-credentials: true", "leaves the token"),
    "script": (rules, CI, "make lint", "make lint ${{ github.head_ref }}", "has an expression in run:"),
    "stranger": (rules, CI, "pull_request:", "pull_request_target:", "stranger's code"),
    "pipe": (rules, "workflows/scheduled.yml", "{ shell: bash }", "{ working-directory: . }", "a pipe failed"),
    "paths": (rules, CI, "branches: [main]", "paths: [src]", "filter of paths"),
    "concurrency": (rules, CI, "concurrency:", "env:", "has no concurrency"),
    "gate": (gates, CI, "needs: [lint, types,", "needs: [types,", "ci.yml: lint"),
    "always": (gates, CI, "if: always()", "if: success()", "does not always run"),
}


@pytest.mark.sabotage
@pytest.mark.parametrize(("check", "file", "old", "new", "said"), SABOTAGES.values(), ids=SABOTAGES)
def test_it_finds_a_fault(sick: Sick, check: Check, file: str, old: str, new: str, said: str) -> None:
    assert any(said in each for each in check(sick(file, old, new)))
