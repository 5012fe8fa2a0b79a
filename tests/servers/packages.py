"""Finds a server's program or installs its package: a missing server is an error, never a skip."""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

from tests.servers.process import ServerError

CACHE = Path(__file__).parents[2] / ".cache"
POLICY = Path("/usr/sbin/policy-rc.d")


def find(program: str) -> Path | None:
    """Where a program is: on PATH, where Debian keeps servers, or the newest PostgreSQL."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    if on_path := shutil.which(program, path=path):
        return Path(on_path).resolve()
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{program}")
    return max(versions, key=lambda file: int(re.sub(r"\D", "", file.parts[4]) or 0), default=None)


def ensure(program: str, package: str) -> Path:
    """Where a program is, after installing its package if need be and if we are root."""
    _provide(program, package, lambda: find(program) is not None)
    found = find(program)
    assert found
    return found


def ensure_library(name: str, package: str) -> None:
    """Install the package of a shared library that a program from PyPI counts on, as `ensure` does."""
    _provide(f"the library {name}", package, lambda: find_library(name) is not None)


def ensure_file(file: Path, package: str) -> None:
    """Install the package of a file that is no program on PATH, as `ensure` does."""
    _provide(str(file), package, file.exists)


def update(program: Path, least: str, *packages: str) -> None:
    """Update the packages of a program that is older than `least`, such as `15.19`, as `ensure` installs them."""
    wanted = f"{program.name} {least} or newer (there is {version(program)})"
    _provide(wanted, " ".join(packages), lambda: _numbers(version(program)) >= _numbers(least))


def version(program: Path) -> str:
    """The first version that it prints, such as `15.20`."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else "0"


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _provide(what: str, package: str, there: Callable[[], bool]) -> None:
    if there():
        return
    needed = f"{what} is needed by the tests"
    advice = f"type as root: apt-get install -y --no-install-recommends {package}"
    if os.getuid() != 0 or not shutil.which("apt-get"):
        raise ServerError(f"{needed}; {advice}")
    with _alone():
        if not there():
            _install(package, there)
    if not there():
        raise ServerError(f"{needed}, and is not in the package {package}")


def _install(package: str, there: Callable[[], bool]) -> None:
    with _no_daemons():
        # Lists may be absent or too old to find the package: refreshed only then.
        if _apt("install", *package.split()).returncode != 0 or not there():
            _apt("update")
            if (tried := _apt("install", *package.split())).returncode != 0:
                raise ServerError(f"apt-get install {package} failed\n{tried.stdout}")


def _apt(action: str, *packages: str) -> subprocess.CompletedProcess[str]:
    options = ["-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    return subprocess.run(
        ["apt-get", action, *options, *packages],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@contextmanager
def _alone() -> Iterator[None]:
    """One installer at a time among all test workers of this checkout."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _no_daemons() -> Iterator[None]:
    """Debian starts what it installs unless policy-rc.d says 101 (invoke-rc.d(8))."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
