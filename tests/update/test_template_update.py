"""`make update`: what Copier loses without a word is merged by it, or said."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hooks.repository import GIT
from tests.projects import Edit
from tests.sabotage import Body, Sabotage
from tests.update.command import refused, run
from tests.update.versions import (
    NEW,
    OLD,
    SOURCE,
    commit,
    duplicate,
    files,
    git,
    make_service,
    ours,
    release,
    unmerged,
    yours,
)

SRC = "src/my_service"
PLATFORM = f"{SRC}/platform"
LATIN = b"# caf\xe9 \xff, as an old editor saved it\n"
MINE = "\n\n\ndef ", "\n\nMINE = 1\n\n\ndef "
CHANGELOG = """# Changes

## [0.2.0] - 2026-12-24

- Shares are fair.

## [0.1.0] - 2026-11-27

- The first one.
"""


def second(template: Path) -> None:
    """What v0.2.0 does beside the usual: a file moves, one goes, names appear that services have too."""
    (template / SOURCE / "platform/redaction.py").rename(template / SOURCE / "platform/redact.py")
    (template / SOURCE / "platform/trace_headers.py").unlink()
    (template / "CHANGELOG.md").write_text(CHANGELOG)
    (template / "hooks/migrations").mkdir()
    (template / "hooks/migrations/v1.py").write_text(
        "import pathlib, sys\npathlib.Path(sys.argv[1], 'migrated').touch()\n"
    )
    Edit("template/Makefile.jinja", "\nalerts:", "\nshares:\n\ttrue\n\nalerts:").apply(template)
    questions = "fairness:\n  type: str\n  help: How fair?\n  default: very\n\n# --- identity"
    Edit("copier.yml", "# --- identity", questions).apply(template)
    Edit("includes/questions.jinja", '  "github_user"', '  "fairness": [],\n  "github_user"').apply(template)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two releases, the second with what hurts."""
    first = Edit("CHANGELOG.md", "## [0.2.0] - 2026-12-24\n", "## [0.1.0] - 2026-11-27\n\n- The first one.\n")
    return release(tmp_path_factory.mktemp("hurting") / "template", first, then=second)


@pytest.fixture(scope="module")
def origin(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service of v0.1.0. Do not change it: make a `duplicate`."""
    return make_service(template, tmp_path_factory.mktemp("origin") / "service")


@pytest.fixture
def service(origin: Path, tmp_path: Path) -> Path:
    return duplicate(origin, tmp_path / "service")


def test_a_clean_service_equals_a_fresh_one_outside_what_is_yours(
    service: Path, template: Path, tmp_path: Path
) -> None:
    before = files(service)
    done = run(service, check=False)
    fresh, found = files(make_service(template, tmp_path / "fresh", NEW)), files(service)
    assert ours(found) == ours(fresh)
    assert yours(found) == yours(before) != yours(fresh)
    assert unmerged(service) == []
    assert f"{OLD} -> {NEW}: " in done.stdout
    assert "- Shares are fair." in done.stdout
    assert "The first one." not in done.stdout
    assert "fairness: very (new; another: -d fairness=…)" in done.stdout
    assert "QUOTA_PER_DAY" in done.stdout
    assert "hooks/migrations/v1.py" in done.stdout
    assert done.returncode == 1  # the migration, and the date in uv.toml
    assert "tested were those of 2026-12-24: type make upgrade" in done.stdout
    (diff,) = [
        line.partition(": ")[2] for line in done.stdout.splitlines() if line.strip().startswith("README.md: git")
    ]
    assert "+## First steps" in git(service, *diff.split()[1:])
    commit(service)
    assert run(service).stdout == f"nothing to do: this service is at {NEW}\n"


# --- what Copier alone would lose ---------------------------------------------------------------------------------


def write(service: Path, name: str, text: str) -> None:
    (service / name).parent.mkdir(parents=True, exist_ok=True)
    (service / name).write_text(text)


def live_in(service: Path) -> None:
    """What teams do in a year, each in a file of its own."""
    Edit(f"{PLATFORM}/redaction.py", *MINE).apply(service)  # the release moves it
    Edit(f"{PLATFORM}/trace_headers.py", "\n\n\n", "\n\nMINE = 1\n\n\n").apply(service)  # it deletes it
    Edit(f"{PLATFORM}/cache/redis.py", "\n\n\n", "\n\nMINE = 1\n\n\n").apply(service)  # the answer is switched off
    Edit(f"{PLATFORM}/__init__.py", '    "idempotency",\n', '    "idempotency",\n    "mine",\n').apply(service)  # both
    with (service / f"{PLATFORM}/security.py").open("ab") as file:
        file.write(LATIN)
    (service / f"{PLATFORM}/cors.py").unlink()
    (service / "Makefile.local").write_text("shares:\n\ttrue\n")
    write(service, f"{SRC}/rooms/quota.py", '"""Ours."""\n')
    Edit(
        f"{SRC}/settings.py",
        "PlatformSettings):\n",
        "PlatformSettings):\n    quota_per_day: int = 3\n\n",
    ).apply(service)
    Edit("pyproject.toml", '    "wrapt>=1.17",\n', '    "wrapt>=1.17",\n    # ours\n    "AnyIO>=4.1",\n').apply(service)
    Edit("deploy/nginx/conf.d/peers.conf", "127.0.0.1:8001", "10.1.2.3:8000").apply(service)
    write(service, "docs/shares.md", "Ours.\n")
    commit(service)


@pytest.fixture(scope="module")
def lived_in(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The service of such a team after an update that also changes two answers, and what was said."""
    service = duplicate(origin, tmp_path_factory.mktemp("lived") / "service")
    live_in(service)
    done = run(service, "-d", "cache=memcached", "-d", "load_balancer=haproxy", check=False)
    assert done.returncode == 1
    return service, done.stdout


def test_an_edit_follows_a_file_that_the_template_moved(lived_in: tuple[Path, str]) -> None:
    service, _ = lived_in
    moved = (service / f"{PLATFORM}/redact.py").read_text()
    assert moved.startswith(f"# As of {NEW}.\n")
    assert "\nMINE = 1\n" in moved
    assert not (service / f"{PLATFORM}/redaction.py").exists()


def test_an_edit_of_a_file_that_goes_is_a_conflict_by_name(lived_in: tuple[Path, str]) -> None:
    service, said = lived_in
    gone = [f"{PLATFORM}/cache/redis.py", f"{PLATFORM}/trace_headers.py"]
    assert unmerged(service) == sorted([*gone, f"{PLATFORM}/__init__.py"])
    for name in gone:
        assert "MINE = 1" in (service / name).read_text()
        assert f"  {name}: you changed it, the template no longer has it\n" in said
    assert f"  {PLATFORM}/__init__.py: both changed it\n" in said
    assert "<<<<<<< template-update/yours\n" in (service / f"{PLATFORM}/__init__.py").read_text()


def test_bytes_that_are_no_utf8_survive(lived_in: tuple[Path, str]) -> None:
    service, _ = lived_in
    text = (service / f"{PLATFORM}/security.py").read_bytes()
    assert text.startswith(f"# As of {NEW}.\n".encode())
    assert text.endswith(LATIN)


def test_what_was_deleted_stays_deleted_and_is_named(lived_in: tuple[Path, str]) -> None:
    service, said = lived_in
    assert not (service / f"{PLATFORM}/cors.py").exists()
    assert f"Deleted or moved by you, and changed in the template:\n  {PLATFORM}/cors.py\n" in said


def test_names_that_meet_are_named(lived_in: tuple[Path, str]) -> None:
    _, said = lived_in
    assert f"{SRC}/rooms/quota.py has the name of {PLATFORM}/quota.py: rename yours" in said
    assert "Makefile.local has the target shares of the Makefile: rename yours" in said
    assert f"{SRC}/settings.py has the setting quota_per_day of the platform: rename yours" in said
    assert "pyproject.toml lists anyio twice in dependencies: delete one line" in said


def test_a_newly_chosen_answer_brings_what_is_yours_and_the_old_one_keeps_what_you_edited(
    lived_in: tuple[Path, str],
) -> None:
    service, said = lived_in
    assert "cache: memcached (was redis)" in said
    assert list((service / "deploy/haproxy/conf.d").iterdir())
    assert (service / "deploy/haproxy/site.cfg").is_file()
    assert "10.1.2.3:8000" in (service / "deploy/nginx/conf.d/peers.conf").read_text()
    assert "deploy/nginx/conf.d/peers.conf: the template no longer uses it" in said
    assert not (service / "deploy/nginx/nginx.conf").exists()
    assert (service / "docs/shares.md").read_text() == "Ours.\n"


def test_going_back_restores_every_byte(lived_in: tuple[Path, str], tmp_path: Path) -> None:
    service = duplicate(lived_in[0], tmp_path / "service")
    assert run(service, "--abort").stdout == "everything is as it was before the update\n"
    assert git(service, "status", "--porcelain") == ""
    assert "type make update" not in refused(service, "--abort")


# --- refused, and nothing touched ---------------------------------------------------------------------------------


def test_what_cannot_be_updated_is_refused_in_one_line(service: Path, template: Path) -> None:
    answers = service / ".copier-answers.yml"
    text = answers.read_text()
    (service / "README.md").write_text("mine\n")
    assert refused(service) == "README.md is not committed: type git commit, or git stash --include-untracked"
    git(service, "checkout", "--quiet", "README.md")
    for broken, said in {
        "": "is damaged",
        "- a\n": "is damaged",
        "a: [\n": "is damaged",
        text.replace("_commit", "_kommit"): "has no _src_path or no _commit",
        text.replace(f"_commit: {OLD}", "_commit: v9"): "the template has no version v9: correct _commit",
        text.replace(str(template), "/nowhere"): "the template /nowhere is unreachable",
        text.replace("package_name: my_service", "package_name: other"): "src/other/platform is not there",
    }.items():
        answers.write_text(broken)
        commit(service)
        assert said in refused(service), broken
    answers.unlink()
    commit(service)
    assert refused(service).startswith(".copier-answers.yml is missing: git log -- .copier-answers.yml")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["-d", "package_name=other"], "type -d package_name=my_service"),
        (["-d", "cahce=none"], "type -d cache=none"),
        (["-d", "cache=reddis"], "type -d cache=redis"),
        (["--vcs-ref", "v7"], "v7"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_wrong_answer_or_version_is_refused_in_one_line(service: Path, given: list[str], said: str) -> None:
    assert said in refused(service, *given)


def test_what_git_does_not_have_is_never_overwritten(service: Path) -> None:
    name = f"{PLATFORM}/quota.py"
    (service / ".git/info/exclude").write_text(f"{name}\n")
    (service / name).write_text("mine\n")
    assert f"type git add --force {name}" in refused(service)
    (service / name).unlink()
    git(service, "update-index", "--skip-worktree", "Makefile")
    (service / "Makefile").write_text("mine:\n")
    assert "--no-skip-worktree --no-assume-unchanged Makefile" in refused(service)


def test_an_older_version_is_refused(template: Path, tmp_path: Path) -> None:
    service = make_service(template, tmp_path / "service", NEW)
    assert refused(service, "--vcs-ref", OLD).startswith(f"{OLD} is older than {NEW}")
    assert "nothing to do" in run(service, "--vcs-ref", ":current:").stdout


# --- whatever git is set to, wherever the service is --------------------------------------------------------------

HOSTILE = {
    "apply.whitespace": "error",
    "color.ui": "always",
    "commit.gpgSign": "true",
    "core.autocrlf": "true",
    "core.hooksPath": "hooks-that-refuse",
    "diff.external": "false",
    "diff.noprefix": "true",
    "merge.conflictStyle": "zdiff3",
    "merge.renames": "false",
}


def test_no_setting_of_git_changes_the_result(origin: Path, lived_in: tuple[Path, str], tmp_path: Path) -> None:
    expected, _ = lived_in
    service = duplicate(origin, tmp_path / "mono/services/orders")
    live_in(service)
    (service / ".git").rename(tmp_path / "moved")  # the service becomes a folder of a larger repository
    whole = commit(tmp_path / "mono")
    for name, value in HOSTILE.items():
        git(whole, "config", name, value)
    (whole / "other.txt").write_text("not yours to commit\n")
    done = run(service, "-d", "cache=memcached", "-d", "load_balancer=haproxy", check=False)
    assert done.returncode == 1
    assert files(service) == files(expected)
    assert len({line.split("\t")[1] for line in git(whole, "ls-files", "--unmerged").splitlines()}) == 3
    assert (whole / "other.txt").is_file()
    run(service, "--abort")
    assert git(whole, "status", "--porcelain") == "?? other.txt\n"


def test_a_rehearsal_changes_nothing(service: Path) -> None:
    done = run(service, "--dry-run", check=False)
    assert (done.returncode, git(service, "status", "--porcelain")) == (1, "")
    assert "QUOTA_PER_DAY" in done.stdout
    assert done.stdout.endswith("\nNothing was changed.\n")


def test_migrations_run_when_asked(service: Path) -> None:
    done = run(service, "--run-hooks", check=False)
    assert "running hooks/migrations/v1.py" in done.stdout
    assert (service / "migrated").is_file()


def test_killed_while_it_writes_it_can_be_taken_back(service: Path) -> None:
    live_in(service)
    before = files(service)
    command = [sys.executable, "-m", "scripts.template_update", "--no-check"]
    running = subprocess.Popen(
        command, cwd=service, env={**os.environ, **GIT}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    note = service / ".git/template-update.json"
    deadline = time.monotonic() + 120
    while not note.exists() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.001)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert note.exists()
    if git(service, "status", "--porcelain"):
        assert "make update ARGS=--abort" in refused(service)
    run(service, "--abort")
    assert git(service, "status", "--porcelain") == ""
    assert files(service) == before


# --- the proofs can fail ------------------------------------------------------------------------------------------


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "lost"),
    [
        (
            Body("scripts.template_update.template:rules", "return (lambda path: False), (lambda path: False)"),
            "README.md",
        ),
        (Body("scripts.template_update.merge:conflicts", "yield from ()"), "conflicts"),
    ],
    ids=["ownership", "conflicts"],
)
def test_an_update_that_loses_something_is_noticed(
    origin: Path, lived_in: tuple[Path, str], tmp_path: Path, sabotage: Sabotage, lost: str
) -> None:
    service = duplicate(origin, tmp_path / "service")
    sabotage.apply(service)
    live_in(service)
    run(service, "-d", "cache=memcached", "-d", "load_balancer=haproxy", check=False)
    whole, found = files(lived_in[0]), files(service)
    different = {name for name in whole if whole[name] != found.get(name) and "template_update" not in name}
    assert any(name.endswith(lost) for name in different) or (lost == "conflicts" and unmerged(service) == [])


@pytest.mark.sabotage
def test_an_update_that_forgets_what_it_wrote_is_noticed(service: Path) -> None:
    Body("scripts.template_update.apply:began", "return {}").apply(service)
    commit(service)
    run(service, check=False)
    assert run(service, "--abort", check=False).returncode == 2
