"""The ladder of `scripts/uv`: each rung when the one before is missing, at last one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NO_PIP = """
case "$2" in
pip) exit 1 ;;
venv) {venv} ;;
esac
"""
# As Debian's python3 without python3-venv: it says so, and leaves a folder that is of no use.
NO_VENV = 'mkdir -p "$3/bin"; echo ensurepip is not available; exit 1'


class Machine:
    """A machine with little more than a shell: PATH has our stand-ins and a few small tools."""

    def __init__(self, root: Path) -> None:
        self.checkout = root / "checkout"
        self.bin = root / "bin"
        (self.checkout / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy2(ROOT / "scripts" / "uv", self.checkout / "scripts")
        for tool in ("cat", "chmod", "dirname", "env", "mkdir", "rm", "touch"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.put("id", "echo 1000")

    def put(self, name: str, body: str) -> Path:
        """Give it a command."""
        file = self.bin / name
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
        return file

    def run(self) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": str(self.bin)}
        return subprocess.run([self.checkout / "scripts" / "uv"], env=env, capture_output=True, text=True, check=False)

    @property
    def installed(self) -> Path:
        return self.checkout / ".cache" / "uv" / "bin" / "uv"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(scope="module")
def make_venv() -> str:
    """What stands in for `python3 -m venv FOLDER` where this machine has no venv itself."""
    uv = subprocess.check_output([ROOT / "scripts" / "uv"], text=True).strip()
    return f'exec {uv} venv --quiet --python {sys.executable} --seed "$3"'


@pytest.fixture(scope="module")
def python_with_pip(make_venv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeded")
    subprocess.run(["sh", "-c", make_venv, "sh", "-m", "venv", folder], check=True)
    return folder / "bin" / "python3"


def answers_version(uv: Path) -> bool:
    return subprocess.check_output([uv, "--version"], text=True).startswith("uv ")


def test_a_uv_on_path_is_used_as_it_is(machine: Machine) -> None:
    uv = machine.put("uv", "echo --group")
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{uv}\n", "")
    assert not (machine.checkout / ".cache").exists()


@pytest.mark.parametrize("body", ["exit 1", "echo an old one"])
def test_a_uv_on_path_that_cannot_serve_is_passed_over(machine: Machine, body: str) -> None:
    machine.put("uv", body)
    machine.put("python3", NO_PIP.format(venv=NO_VENV))
    assert machine.run().returncode == 1


def test_pip_puts_a_working_uv_into_the_checkout_once(machine: Machine, python_with_pip: Path) -> None:
    machine.put("python3", f'exec {python_with_pip} "$@"')
    done = machine.run()
    assert (done.returncode, done.stdout) == (0, f"{machine.installed}\n"), done.stderr
    assert done.stderr == "scripts/uv: putting uv into .cache/ ...\n"
    assert answers_version(machine.installed)

    machine.put("python3", "exit 1")
    again = machine.run()
    assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")


def test_without_pip_a_venv_brings_it(machine: Machine, make_venv: str) -> None:
    machine.put("python3", NO_PIP.format(venv=make_venv))
    done = machine.run()
    assert (done.returncode, done.stdout) == (0, f"{machine.installed}\n"), done.stderr
    assert answers_version(machine.installed)


def test_without_venv_root_installs_packages_of_debian(machine: Machine, make_venv: str, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    venv = f"test -f {asked}.install || {{ {NO_VENV}; }}; {make_venv}"
    machine.put("python3", NO_PIP.format(venv=venv))
    machine.put("id", "echo 0")
    machine.put("apt-get", f'echo "$@" >>{asked}; touch {asked}."$1"')
    done = machine.run()
    assert (done.returncode, done.stdout) == (0, f"{machine.installed}\n"), done.stderr
    packages = "install -y --no-install-recommends python3-venv ca-certificates"
    assert asked.read_text().splitlines() == ["update", packages]


def test_a_user_who_is_not_root_gets_one_line_that_says_what_to_type(machine: Machine) -> None:
    machine.put("python3", NO_PIP.format(venv=NO_VENV))
    machine.put("apt-get", "echo apt-get was called >&2")
    done = machine.run()
    assert (done.returncode, done.stdout) == (1, "")
    notice, advice = done.stderr.splitlines()
    assert notice == "scripts/uv: putting uv into .cache/ ..."
    assert advice.endswith("type as root: apt-get update && apt-get install -y python3-venv ca-certificates")


@pytest.mark.parametrize("missing", ["python3", "apt-get"])
def test_a_machine_without_the_last_rung_gets_the_line_too(machine: Machine, missing: str) -> None:
    machine.put("id", "echo 0")
    if missing != "python3":
        machine.put("python3", NO_PIP.format(venv=NO_VENV))
    done = machine.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert "type as root: apt-get update" in done.stderr.splitlines()[-1]


def test_a_failed_download_shows_what_pip_said_and_adds_no_package(machine: Machine) -> None:
    pip = machine.put("no-network", "echo index is away; exit 1")
    venv = f"mkdir -p $3/bin; echo exec {pip} >$3/bin/python3; chmod +x $3/bin/python3"
    machine.put("python3", NO_PIP.format(venv=venv))
    machine.put("id", "echo 0")
    machine.put("apt-get", "echo apt-get was called")
    done = machine.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert "index is away" in done.stderr
    assert "was called" not in done.stderr
    assert "uv could not be downloaded (see above)" in done.stderr.splitlines()[-1]
