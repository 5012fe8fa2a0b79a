"""`make profile` profiles the real service under requests, and a wrong call is told in one line."""

import json
import re
import socket
from pathlib import Path

import pytest

from tests.projects import Project
from tests.sabotage import Body, Sabotage
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
SCRIPT = "scripts/profiling.py"


def profile(project: Project, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the emitted script as `make profile` does, while others have the ports: exit code, stdout, stderr."""
    env = migrated(project, f"sqlite:///{folder}/service.db") if arguments and arguments[0].isdigit() else {}
    python = str(project.venv / "bin/python")
    with socket.create_server(("127.0.0.1", 0)) as dev, socket.create_server(("127.0.0.1", 0)) as metrics:
        env |= {"PORT": str(dev.getsockname()[1]), "METRICS_PORT": str(metrics.getsockname()[1])}
        # Without the page for developers, which loads OpenTelemetry while the seconds already run.
        env |= {"ENVIRONMENT": "test", "OTEL_METRICS_EXPORTER": "prometheus"}
        done = project.run(python, SCRIPT, *arguments, env=env, check=False)
    return done.returncode, done.stdout, done.stderr


def says_where_time_goes(project: Project, folder: Path) -> None:
    code, told, _ = profile(project, folder, "3", "/v1/items")
    assert code == 0
    assert re.match(
        r"profiling http://127\.0\.0\.1:\d+ for 3 s, its log goes to profile\.log\n/v1/items: \d+ req", told
    )
    log = [json.loads(line) for line in (project.root / "profile.log").read_text().splitlines()]
    assert {"path": "/v1/items", "status": 200}.items() <= next(each for each in log if "status" in each).items()
    assert (log[-1]["event"], [each for each in log if each["event"] == "no metrics"]) == ("stopped", [])
    assert '"event"' not in told
    assert " with 200" in told
    assert "list_items  my_service/features/items/routes.py" in told  # the path, down to the store
    assert "store.py" in told
    assert "list_items" in (project.root / "profile.html").read_text()
    assert told.rstrip().endswith("wrote profile.html: open it in a browser")


def test_a_profile_says_where_the_time_goes(project: Project, tmp_path: Path) -> None:
    says_where_time_goes(project.variant(tmp_path / "own"), tmp_path)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("scripts.profiling:request", 'original(port, seconds, "/livez")'),
        Body("scripts.profiling:log_to", "yield"),
        Body("scripts.profiling:main", 'done = original(arguments)\nPath("profile.html").write_text("")\nreturn done'),
    ],
    ids=["another path", "no log", "no report"],
)
def test_a_profile_of_something_else_is_noticed(project: Project, tmp_path: Path, sabotage: Sabotage) -> None:
    with pytest.raises(AssertionError):
        says_where_time_goes(project.variant(tmp_path / "sick", sabotage), tmp_path)


def test_without_a_path_it_waits_for_other_peoples_requests(project: Project, tmp_path: Path) -> None:
    code, told, _ = profile(project.variant(tmp_path / "own"), tmp_path, "1")
    assert (code, "requests/s" in told, "wrote profile.html" in told) == (0, False, True)


WRONG = [["x"], ["0"], ["-1"], ["5", "v1/items"], ["5", "/a", "/b"]]
EACH = f"from profiling import main; print([main(arguments) for arguments in {WRONG}])"


def test_a_wrong_call_is_told_in_one_line(project: Project, tmp_path: Path) -> None:
    code, told, error = profile(project, tmp_path)
    assert (code, told, len(error.splitlines())) == (2, "", 1)
    assert error.startswith("type: make profile seconds=10 path=/v1/items")
    done = project.run(str(project.venv / "bin/python"), "-c", EACH, env={"PYTHONPATH": str(project.root / "scripts")})
    assert (done.stdout.strip(), done.stderr) == (str([2] * len(WRONG)), error * len(WRONG))


def test_make_profile_calls_it(project: Project) -> None:
    made = project.run("make", "-n", "profile", "seconds=3", "path=/v1/items").stdout
    assert made.rstrip().endswith("python scripts/profiling.py 3 /v1/items")
    assert project.run("make", "-n", "profile").stdout.rstrip().endswith("python scripts/profiling.py 10")
