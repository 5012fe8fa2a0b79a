"""The scanners of the emitted CI run for real: nothing is found as emitted, and each weakness turns its own job red."""

import json
import sys
from pathlib import Path

import pytest

from tests import commands
from tests.ci.conftest import Commit
from tests.plant import Feature
from tests.projects import Change, Edit, Project
from tests.proof import FULL
from tests.servers.osv import open_osv
from tests.test_secrets_scan import DEFAULT

pytestmark = pytest.mark.servers
SECURITY = "security.yml"
OFFLINE = {"sast", "secrets", "workflows"}
CHEAP = {"secrets", "workflows"}
RULES = Path(__file__).parent / "rules" / "fastapi.py"
WEEKLY, MONTHLY = "41 4 * * 1", "23 5 1 * *"
# What ruff cannot know to be SQL.
INJECTION = Feature(
    "newest",
    '''"""The newest items."""

from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.sql.elements import TextClause

router = APIRouter()


def ordered(column: str) -> TextClause:
    """The order that a client wishes."""
    return text(f"{column} DESC")
''',
)


class Token:
    """A token of Vault in a file of the deployment."""

    def apply(self, root: Path) -> None:
        """Write it."""
        (root / "deploy" / "vault.env").write_text(f"{DEFAULT['Vault'][1]}\n")


WEAKNESSES: dict[str, tuple[str, Change, str]] = {
    "an SQL injection": ("sast", INJECTION, "sql-from-strings"),
    "a token of Vault": ("secrets", Token(), "vault-service-token"),
    "a token left in the checkout": (
        "workflows",
        Edit(".github/workflows/ci.yml", "          persist-credentials: false\n", "          clean: true\n"),
        "artipacked",
    ),
}


def semgrep_test(project: Project) -> str:
    """What `semgrep test` says of the emitted rules, about code that each has to find or to leave alone."""
    (pin,) = [line for line in (project.root / "Makefile").read_text().splitlines() if line.startswith("SEMGREP := ")]
    command = ["uv", "run", "--quiet", "--isolated", "--no-project", "--with", pin.partition(":= ")[2], "semgrep"]
    env = {"SEMGREP_SEND_METRICS": "off", "SEMGREP_ENABLE_VERSION_CHECK": "0"}
    done = project.run(
        *command, "test", "--config", ".semgrep/fastapi.yaml", str(RULES), "--json", env=env, check=False
    )
    found = json.loads(done.stdout)
    (results,) = found["results"].values()
    assert results["checks"], done.stdout
    return " ".join(sorted(name for name, check in results["checks"].items() if not check["passed"]))


def test_each_rule_finds_what_it_should_and_nothing_else(project: Project) -> None:
    assert semgrep_test(project) == ""


@pytest.mark.sabotage
def test_a_rule_that_finds_nothing_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Edit(".semgrep/fastapi.yaml", "sqlalchemy.text(", "sqlalchemy.words("))
    assert semgrep_test(sick) == "sql-from-strings"


def test_on_the_first_day_what_needs_nothing_runs_and_the_rest_says_why_not(commit: Commit) -> None:
    done = commit().run(workflow=SECURITY, event="push", payload={"ref": "refs/heads/main"})
    assert done.of("success") == OFFLINE | {"secure"}, done.said
    assert done.of("skipped") == {"audit", "dependencies", "codeql", "image"}
    assert "codeql: skipped, because the variable CODE_SECURITY has to be true" in done.logs["secure"]


@pytest.mark.sabotage
@pytest.mark.parametrize(("job", "weakness", "says"), WEAKNESSES.values(), ids=WEAKNESSES)
def test_a_weakness_turns_its_own_job_red(commit: Commit, job: str, weakness: Change, says: str) -> None:
    jobs = OFFLINE if FULL else CHEAP | {job}
    done = commit(weakness).run(*jobs, "secure", workflow=SECURITY, event="push")
    assert done.of("failure") == {job, "secure"}, done.said
    assert says in done.logs[job], done.said


def test_dependencies_without_a_known_weakness_are_green_and_one_with_it_is_red(commit: Commit) -> None:
    repository = commit()
    with open_osv() as osv:
        env = {"ARGS": f"--service-url={osv.url}"}
        well = repository.run("audit", "secure", workflow=SECURITY, event="pull_request", env=env)
        assert well.of("success") == {"audit", "secure"}, well.said
        assert {"fastapi", "schemathesis", "uvicorn"} <= set(osv.asked)
        osv.known["uvicorn"] = "GHSA-aaaa-bbbb-cccc"
        sick = repository.run("audit", "secure", workflow=SECURITY, event="pull_request", env=env)
    assert sick.of("failure") == {"audit", "secure"}, sick.said
    assert "GHSA-aaaa-bbbb-cccc" in sick.logs["audit"]


def test_a_database_of_weaknesses_that_is_away_is_no_all_clear(project: Project) -> None:
    done = project.run("make", "audit", "ARGS=--service-url=http://127.0.0.1:9", check=False)
    assert done.returncode
    assert "http://127.0.0.1:9/v1/querybatch" in done.stderr


@pytest.mark.parametrize(
    ("cron", "variables", "runs"),
    [
        (WEEKLY, {}, set()),
        (WEEKLY, {"STAGING_URL": "http://127.0.0.1:9", "BACKUP_URL": "file:///nowhere"}, {"zap"}),
        (MONTHLY, {"STAGING_URL": "http://127.0.0.1:9", "BACKUP_URL": "file:///nowhere"}, {"drill"}),
    ],
    ids=["first day", "weekly", "monthly"],
)
def test_what_is_scheduled_waits_for_its_variable(
    commit: Commit, cron: str, variables: dict[str, str], runs: set[str]
) -> None:
    """A job that runs fails here: ZAP and containers are only at GitHub."""
    payload = {"schedule": cron}
    done = commit().run(workflow="scheduled.yml", event="schedule", payload=payload, variables=variables)
    jobs = {"zap", "drill", "newest", "drift", "review", "scorecard"}
    assert done.of("skipped") == jobs - runs, done.said


def validated(kind: str, file: Path) -> str:
    """What is wrong with a file by the schema of its tool; empty if nothing is."""
    done = commands.run(sys.executable, "-m", "check_jsonschema", f"--builtin-schema=vendor.{kind}", file)
    return done.stdout if done.returncode else ""


def test_renovate_knows_each_of_its_settings(project: Project, tmp_path: Path) -> None:
    config = project.root / "renovate.json"
    assert validated("renovate", config) == ""
    wrong = tmp_path / "renovate.json"
    wrong.write_text(config.read_text().replace('"minimumReleaseAge": "7 days"', '"minimumReleaseAge": 7'))
    assert "minimumReleaseAge" in validated("renovate", wrong)


def hooks(root: Path) -> tuple[int, str]:
    """What the hooks say of all files, and of what is staged."""
    done = commands.run(Path(sys.executable).with_name("prek"), "run", "--all-files", cwd=root)
    return done.returncode, done.stdout


def test_hooks_pass_and_stop_a_secret(commit: Commit) -> None:
    root = commit().root
    code, said = hooks(root)
    assert code == 0, said
    Token().apply(root)
    assert commands.run("git", "add", "--all", cwd=root).returncode == 0
    code, said = hooks(root)
    assert code == 1
    assert [line.split(".")[0] for line in said.splitlines() if line.endswith("Failed")] == ["secrets"]
