"""Turns a fresh copy into a repository: `git init`, `make setup`, the first commit.

Copier never runs this, because a template with tasks demands trust for every copy and every update.
Run it as `python post_copy.py [folder] [--no-commit]`, as often as you like: what is done stays.
"""

import argparse
import subprocess
import sys
from pathlib import Path

MESSAGE = "Begin with the Roadworthy template"


class HookError(RuntimeError):
    """A step failed; the message is one line that says which and why."""


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def need(step: str, done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()
        raise HookError(f"{step} failed: {said[-1]}")


def start_repository(folder: Path) -> bool:
    """Make a repository unless the folder already is in one; whether it has no history yet."""
    inside = git(folder, "rev-parse", "--show-toplevel")
    if inside.returncode:
        need("git init", git(folder, "init", "--quiet", "--initial-branch=main"))
        print("made a repository")
        return True
    if Path(inside.stdout.rstrip("\n")) != folder:
        print("the folder belongs to a larger repository: nothing is committed there")
        return False
    return git(folder, "rev-parse", "--verify", "--quiet", "HEAD").returncode != 0


def set_up(folder: Path) -> None:
    # Its output goes to the terminal: an installation may take a while.
    code = subprocess.run(["make", "setup"], cwd=folder, check=False).returncode
    if code:
        raise HookError(f"make setup ended with {code} (its own lines above say why)")


def first_commit(folder: Path) -> None:
    if git(folder, "var", "GIT_AUTHOR_IDENT").returncode:
        raise HookError("git does not know who commits: type git config --global user.name and user.email")
    need("git add", git(folder, "add", "--all"))
    need("git commit", git(folder, "commit", "--quiet", "--message", MESSAGE))
    print("committed everything")


def run(folder: Path, commit: bool) -> None:
    if not (folder / "Makefile").is_file():
        raise HookError(f"{folder} has no Makefile: is that the copied folder?")
    fresh = start_repository(folder)
    set_up(folder)
    if commit and fresh:
        first_commit(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", default=".", type=Path, help="the copied folder")
    parser.add_argument("--no-commit", action="store_true", help="leave the first commit to you")
    options = parser.parse_args()
    try:
        run(options.folder.resolve(), not options.no_commit)
    except HookError as error:
        print(f"post_copy: {error}", file=sys.stderr)
        return 1
    except FileNotFoundError as error:
        print(f"post_copy: {error.filename} is not installed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
