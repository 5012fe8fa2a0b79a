"""Node from its wheel, and npm packages as a lock file has them: each set installed once into `.cache/`."""

import fcntl
import hashlib
import shutil
from pathlib import Path

from tests import commands
from tests.servers import wheels
from tests.servers.packages import CACHE

NPM = "../lib/node_modules/npm/bin/npm-cli.js"  # from the program


def install(folder: Path) -> Path:
    """Install what `package-lock.json` in a folder names; a copy of the folder with it."""
    every = b"".join(file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file())
    home = CACHE / "npm" / f"{folder.name}-{hashlib.sha256(every).hexdigest()[:16]}"
    if home.exists():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # one installer at a time among all test workers of this checkout
        if not home.exists():
            made = home.with_name(f"{home.name}.new")
            shutil.rmtree(made, ignore_errors=True)
            shutil.copytree(folder, made)
            node = wheels.ensure("node")
            npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            commands.must(node, node.parent / NPM, *npm, cwd=made)
            made.rename(home)  # the last step: what has this name is whole
    return home


def run(script: Path, text: str) -> str:
    """Run a script that reads `text`: what it prints."""
    return commands.must(wheels.ensure("node"), script, cwd=script.parent, text=text)
