"""The systemd units on a real systemd: what they allow, how an instance starts, fails and ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import commands
from tests.host.conftest import UNIT, Site
from tests.projects import Project
from tests.sabotage import Line
from tests.servers import packages

pytestmark = pytest.mark.servers
UNITS = "deploy/host/systemd"
# How exposed a unit is, as systemd 252 counts from 0 to 10: it may sink, never grow.
EXPOSURE = {"my-service@": 1.2, "my-service-migrate@": 1.2, "my-service-backup": 1.2, "my-service-drill": 1.2}
RESTART_SECONDS = 3  # longer than RestartSec
VERSIONS = "/opt/my-service/source/deploy/host/versions"
NOTIFY = "/opt/my-service/one/.venv/lib/python3*/site-packages/my_service/platform/server/systemd.py"


def exposures(root: Path) -> dict[str, float]:
    """What `systemd-analyze security` counts for each unit of a project."""
    program = packages.ensure("systemd-analyze", "systemd")
    files = {unit: root / UNITS / f"{unit}.service" for unit in EXPOSURE}
    said = {
        unit: commands.run(program, "security", "--offline=yes", "--no-pager", file) for unit, file in files.items()
    }
    return {unit: float(done.stdout.rsplit(": ", 1)[1].split()[0]) for unit, done in said.items()}


def grown(root: Path) -> set[str]:
    return {unit for unit, seen in exposures(root).items() if seen > EXPOSURE[unit]}


@contextmanager
def changed(site: Site, lines: str = "", settings: str = "") -> Iterator[None]:
    """The first instance with other lines in its unit, or other settings; afterwards it is as before."""
    drop_in, file = f"/etc/systemd/system/{UNIT}.service.d/test.conf", "/etc/my-service/one.env"
    before = site.host.run("cat", file).stdout
    site.host.write(drop_in, f"[Service]\n{lines}\n")
    site.host.write(file, before + settings, 0o600)
    site.host.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        site.host.run("rm", drop_in)
        site.host.write(file, before, 0o600)
        site.host.run("systemctl", "daemon-reload")
        site.host.run("systemctl", "restart", UNIT)


def confined(site: Site) -> dict[str, str]:
    """What the kernel says that the process of an instance may do."""
    root = site.host.run("grep", " / / ", f"/proc/{site.pid}/mountinfo").stdout.split()[5]
    return {**site.status("CapBnd", "NoNewPrivs", "Seccomp"), "root": root.split(",")[0]}


def refused(site: Site) -> None:
    """A start with a setting that is refused names it, and is the only one."""
    said = site.shell(f"{VERSIONS} start one 0.1.0", check=False)
    assert said.startswith("versions: 0.1.0 does not start as one: ")
    assert "TRUSTED_HOSTS" in said
    time.sleep(RESTART_SECONDS)
    found = site.host.properties(UNIT)
    assert (found["ActiveState"], found["ExecMainStatus"], found["NRestarts"]) == ("failed", "78", "0")


def drained(site: Site) -> None:
    """A stop lets an instance say that it is not ready, serve for SHUTDOWN_DRAIN_SECONDS, and end with 0."""
    began = time.monotonic()
    site.host.run("systemctl", "stop", "--no-block", UNIT)
    site.host.wait(UNIT, ActiveState="deactivating")
    assert site.get("one", "/readyz").status_code == 503
    found = site.host.wait(UNIT, SubState="dead")
    assert (found["Result"], found["ExecMainStatus"]) == ("success", "0")
    assert time.monotonic() - began > 1
    assert '"draining"' in site.host.journal(UNIT)


def revived(site: Site) -> None:
    """An instance that is blocked is killed and started again; one that is well is left alone."""
    site.host.run("systemctl", "restart", UNIT)
    time.sleep(4)  # longer than WatchdogSec
    assert site.host.properties(UNIT)["NRestarts"] == "0"
    site.host.run("kill", "-STOP", str(site.pid))
    site.host.wait(UNIT, seconds=15, ActiveState="active", NRestarts="1")


def test_systemd_finds_no_fault_in_a_unit(site: Site) -> None:
    units = [UNIT, "my-service-migrate@0.1.0", "my-service-backup", "my-service-drill"]
    timers = ["my-service-backup.timer", "my-service-drill.timer"]
    done = site.host.run("systemd-analyze", "verify", *(f"{each}.service" for each in units), *timers)
    assert done.stderr == ""


def test_no_unit_is_more_exposed_than_recorded(project: Project) -> None:
    assert grown(project.root) == set()


def test_two_instances_serve_inside_the_sandbox(site: Site) -> None:
    for name in ("one", "two"):
        assert site.get(name, "/readyz").status_code == 200
        assert site.get(name, "/version").json()["version"] == "0.1.0"
        assert len(site.get(name, "/version").json()["commit"]) == 40
        assert site.get(name, "/v1/items").json()["items"] == []
    assert confined(site) == {"CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2", "root": "ro"}
    assert site.status("Uid")["Uid"].split()[0] != "0"
    assert '"serving"' in site.host.journal(UNIT)


def test_a_refused_configuration_is_named_and_not_tried_again(site: Site) -> None:
    with changed(site, settings="TRUSTED_HOSTS=\n"):
        refused(site)


def test_an_instance_that_dies_is_started_again(site: Site) -> None:
    before = site.pid
    site.host.run("kill", "-KILL", str(before))
    assert site.host.wait(UNIT, ActiveState="active", NRestarts="1")["MainPID"] != str(before)
    assert site.get("one", "/livez").status_code == 200


@pytest.mark.wide
def test_an_instance_that_is_blocked_is_killed_and_started_again(site: Site) -> None:
    with changed(site, "WatchdogSec=3"):
        revived(site)


def test_a_stop_drains_and_ends_with_0(site: Site) -> None:
    drained(site)
    site.host.run("systemctl", "start", UNIT)


def test_the_timers_keep_to_the_recovery_plan(site: Site) -> None:
    for unit, calendar in (("backup", "*-*-* 00:00:00"), ("drill", "*-*-01 00:00:00")):
        found = site.host.properties(f"my-service-{unit}.timer")
        assert f"OnCalendar={calendar} " in found["TimersCalendar"]
        assert (found["Persistent"], found["FixedRandomDelay"]) == ("yes", "yes")


def test_a_backup_is_made_by_its_unit(site: Site) -> None:
    site.shell("install -d -o my-service -g my-service /mnt/backups/my-service")
    own = "BACKUP_URL=file:///mnt/backups/my-service\nBACKUP_AGE_RECIPIENT=off\n"
    site.host.write("/etc/my-service/backup.env", own, 0o600)
    site.host.run("systemctl", "start", "my-service-backup")
    assert site.host.properties("my-service-backup")["Result"] == "success", site.host.journal("my-service-backup")
    assert site.shell("ls /mnt/backups/my-service/*/manifest.json").count("\n") == 1


# --- versions ---------------------------------------------------------------------------------------------------


def release(site: Site, version: str) -> None:
    """Make a release in the repository that the host clones."""
    site.shell(f"""
        cd /opt/repository; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@acme.test
        export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@acme.test
        sed -i 's/^version = .*/version = "{version}"/' pyproject.toml
        sed -i '/^name = "my-service"/{{n;s/^version = .*/version = "{version}"/}}' uv.lock
        git commit --quiet --all --message=release; git tag v{version}
    """)


def test_a_version_is_installed_migrated_started_and_the_old_one_can_return(site: Site) -> None:
    release(site, "0.2.0+a-b")
    assert site.shell(f"{VERSIONS} prepare 0.2.0+a-b; {VERSIONS} start one 0.2.0+a-b") == ""
    assert "schema" in site.host.journal("my-service-migrate@0.2.0\\x2ba\\x2db")
    assert [site.get(name, "/version").json()["version"] for name in ("one", "two")] == ["0.2.0+a-b", "0.1.0"]
    assert site.shell(f"{VERSIONS} start one 0.1.0") == ""
    assert site.get("one", "/version").json()["version"] == "0.1.0"


@pytest.mark.parametrize(
    ("typed", "said", "code"),
    [
        ("", "type: versions prepare VERSION, or versions start INSTANCE VERSION", 2),
        ("prepare ../etc", "../etc is no version and no instance", 2),
        ("prepare 9.9.9", "/opt/my-service/source has no tag or commit 9.9.9", 1),
        ("start one 9.9.9", "/opt/my-service/source has no tag or commit 9.9.9", 1),
    ],
)
def test_what_cannot_be_is_said_in_one_line(site: Site, typed: str, said: str, code: int) -> None:
    assert site.shell(f"{VERSIONS} {typed} || echo $?") == f"versions: {said}\n{code}\n"
    assert site.get("one", "/version").json()["version"] == "0.1.0"


# --- sabotages --------------------------------------------------------------------------------------------------


@pytest.mark.sabotage
@pytest.mark.parametrize("line", ["CapabilityBoundingSet=", "NoNewPrivileges=", "ProtectSystem=", "User="])
def test_a_unit_that_may_do_more_is_noticed(project: Project, tmp_path: Path, line: str) -> None:
    sick = project.variant(tmp_path / "sick", Line(f"{UNITS}/my-service@.service", line))
    assert grown(sick.root) == {"my-service@"}


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("line", "proof", "settings"),
    [
        ("RestartPreventExitStatus=", refused, "TRUSTED_HOSTS=\n"),
        ("Type=exec", refused, "TRUSTED_HOSTS=\n"),
        ("TimeoutStopSec=500ms", drained, ""),
        ("WatchdogSec=0", revived, ""),
    ],
)
def test_a_unit_without_its_line_is_noticed(
    site: Site, line: str, proof: Callable[[Site], None], settings: str
) -> None:
    with changed(site, line, settings), pytest.raises((AssertionError, OSError)):
        proof(site)


@pytest.mark.sabotage
def test_a_service_that_never_says_that_it_listens_does_not_start(site: Site) -> None:
    before = site.shell(f"cat {NOTIFY}")
    site.shell(f"echo 'def notify(state): pass' >$(echo {NOTIFY})")
    with changed(site, "TimeoutStartSec=8"):
        assert site.host.run("systemctl", "restart", UNIT, check=False).returncode == 1
        assert "timeout" in site.host.properties(UNIT)["Result"]
        site.shell(f"cat >$(echo {NOTIFY}) <<'END'\n{before}END\n")
