"""Programs newer than those of Debian 12: packages of a later Debian, unpacked into `.cache/` and run from there.

apt finds, checks and fetches them as always, with its state in that folder. Nothing is installed; root is not needed.
"""

import fcntl
import os
import re
import shutil
from pathlib import Path

from tests import commands
from tests.servers import packages
from tests.servers.packages import CACHE
from tests.servers.process import ServerError

SUITE = "forky"  # Debian 14
HOME = CACHE / SUITE
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# By program: its package, where it is in it, and the oldest version that does.
PROGRAMS = {
    "haproxy": ("haproxy", "usr/sbin/haproxy", (3, 0)),
    "nginx": ("nginx", "usr/sbin/nginx", (1, 27, 4)),
    "valkey-server": ("valkey-server", "usr/bin/valkey-server", (8, 0)),
}
# With the libraries that it was built for; `--argv0`, since some programs start themselves again.
LAUNCHER = """#!/bin/sh
root=${{0%/*}}/../root
exec "$root/{loader}" --library-path "$root/{libraries}" --argv0 "$0" "$root/{program}" "$@"
"""


def ensure(program: str) -> Path:
    """Where a program is that is new enough: the system's own, or one that is fetched if need be."""
    own = packages.find(program)
    if own and version(own) >= PROGRAMS[program][2]:
        return own
    launcher = HOME / "bin" / program
    if not launcher.exists():
        CACHE.mkdir(exist_ok=True)
        with (CACHE / f"{SUITE}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time among all test workers of this checkout
            if not launcher.exists():
                _fetch(program)
    return launcher


def version(program: Path) -> tuple[int, ...]:
    """What a program says of itself."""
    done = commands.run(program, "-v")
    found = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return tuple(map(int, found[0].split("."))) if found else ()


def _fetch(program: str) -> None:
    least = ".".join(map(str, PROGRAMS[program][2]))
    needed = f"{program} {least} or newer is needed by the tests"
    if not all(map(shutil.which, ("apt-get", "dpkg-deb"))) or not (sites := _sites()):
        raise ServerError(f"{needed}: install it so that it is on PATH")
    made = HOME.with_name(f"{SUITE}.new")
    shutil.rmtree(made, ignore_errors=True)
    for folder in ("bin", "root", "state/lists/partial", "cache/archives/partial"):
        (made / folder).mkdir(parents=True)
    (made / "status").touch()  # nothing is installed there
    (made / "sources.list").write_text(f"deb [signed-by={KEYRING}] {sites[0]} {SUITE} main\n")
    try:
        _apt(made, "update")
        _apt(made, "install", *(package for package, *_ in PROGRAMS.values()))
        for archive in sorted((made / "cache/archives").glob("*.deb")):
            commands.must("dpkg-deb", "--extract", archive, made / "root")
    except ServerError as error:
        raise ServerError(f"{needed}, and could not be fetched: install it so that it is on PATH\n{error}") from error
    loader = next((made / "root").glob("usr/lib/*/ld-linux*"))
    for name, (_, inside, _) in PROGRAMS.items():
        places = (path.relative_to(made / "root") for path in (loader, loader.parent))
        text = LAUNCHER.format(**dict(zip(("loader", "libraries"), places, strict=True)), program=inside)
        (made / "bin" / name).write_text(text)
        (made / "bin" / name).chmod(0o755)
    for folder in ("cache", "state"):
        shutil.rmtree(made / folder)
    shutil.rmtree(HOME, ignore_errors=True)
    made.rename(HOME)  # the last step: what has this name is whole


def _sites() -> list[str]:
    """The mirrors that apt is configured to use; it knows their labels after the first `update`."""
    ask = ("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Label: Debian")
    if not (said := commands.must(*ask)) and os.getuid() == 0:
        commands.must("apt-get", "update")
        said = commands.must(*ask)
    return sorted(set(said.split()))


def _apt(home: Path, *arguments: str) -> None:
    options = {
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Dir::Cache": home / "cache",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourcelist": home / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": home / "state",
        "Dir::State::status": home / "status",
    }
    flags = [text for name, value in options.items() for text in ("-o", f"{name}={value}")]
    commands.must("apt-get", *flags, "--yes", "--download-only", *arguments)
