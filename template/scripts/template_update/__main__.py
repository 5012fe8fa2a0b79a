"""Updates this service to a newer version of its template: `make update`.

Copier renders the template twice, as of the last update and as of the new version, and git merges the difference into
your files: what you renamed, switched off, or edited beside a change of ours is merged or ends as a conflict in sight.
`copier update` alone carries your edits over as patches, and drops those for which it finds no file.

Exit codes: 0 done · 1 something is left for you to do · 2 refused, nothing was changed.
"""

import argparse
import contextlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from .apply import abort, apply, began
from .drift import drift
from .follow import follow
from .merge import merge
from .report import Report
from .repository import Repository, UpdateError
from .template import ANSWERS, answers_of, check_untracked, clone, finish, render, rules

MERGES = (2, 38)  # git merge-tree --write-tree


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(prog="make update ARGS=", description="Update this service to a newer template.")
    parser.add_argument("-d", "--data", action="append", default=[], metavar="NAME=VALUE", help="change an answer")
    parser.add_argument("--vcs-ref", default="", metavar="REF", help="a tag, a branch, :current: (default: newest tag)")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    parser.add_argument("--abort", action="store_true", help="go back to before the update")
    parser.add_argument("--drift", action="store_true", help="only compare the files with the answers")
    parser.add_argument("--run-hooks", action="store_true", help="run the migrations of the versions in between")
    parser.add_argument("--no-check", action="store_true", help="do not lock and test the service afterwards")
    return parser.parse_args()


def check(service: Repository, package: str) -> None:
    """Check what must hold before anything is rendered.

    Args:
        service: To update.
        package: Its name in the answers.

    Raises:
        UpdateError: It does not hold.
    """
    version = service.git("version").split()[2]
    if tuple(map(int, version.split(".")[:2])) < MERGES:
        raise UpdateError(f"git {version} is too old, 2.38 is needed: update git, or type uvx copier update")
    if began(service).get("done") is False:
        raise UpdateError("an update was interrupted: type make update ARGS=--abort, then again")
    if changed := service.git("status", "--porcelain", "--", ".").splitlines():
        raise UpdateError(f"{changed[0][3:]} is not committed: type git commit, or git stash --include-untracked")
    if not (service.folder / f"src/{package}/platform").is_dir():
        raise UpdateError(f"src/{package}/platform is not there: restore package_name in {ANSWERS}, or the folder")
    for line in service.git("ls-files", "-v", "-z").split("\0"):
        if line[:1] == "S" or line[:1].islower():
            hint = "git update-index --no-skip-worktree --no-assume-unchanged"
            raise UpdateError(f"git is told to ignore changes of {line[2:]}: type {hint} {line[2:]}")


def update(service: Repository, options: argparse.Namespace, folder: Path) -> Report:
    """Render, merge and, unless it is a rehearsal, write the result into the work tree.

    Args:
        service: To update.
        options: What was typed.
        folder: An empty one, for what is rendered.

    Raises:
        UpdateError: It cannot be done; nothing was changed.
    """
    answers = answers_of(service.folder)
    check(service, str(answers.get("package_name")))
    template = clone(service, answers, folder / "template")
    was, wanted = str(answers["_commit"]), options.vcs_ref
    given = [word for each in options.data for word in ("-d", each)]
    quiet = [] if sys.stdin.isatty() and sys.stderr.isatty() else ["--defaults"]
    with contextlib.ExitStack() as running:
        first = render(service, folder / "old", was, "--defaults")
        running.callback(first.kill)
        second = render(service, folder / "new", was if wanted == ":current:" else wanted, *given, *quiet)
        running.callback(second.kill)
        finish(second)
        finish(first)
    fresh = answers_of(folder / "new")
    version = str(fresh["_commit"])
    before, after = template.resolve(was), template.resolve(version)
    if not after:
        raise UpdateError(f"{version} is no commit of the template: commit its changes first")
    if before != after and template.git("merge-base", before, after).strip() == after:
        raise UpdateError(f"{version} is older than {was}, and an update only goes forward: type another --vcs-ref")
    old, new = (service.add(folder / name, folder / "index") for name in ("old", "new"))
    check_untracked(service, old, new)
    result = merge(service, old, new, rules(template, was, version), version, folder / "index")
    if not options.dry_run:
        apply(service, result, folder / "index")
    return Report(service, template, result, answers, fresh)


def main() -> int:
    """Run the command."""
    options = arguments()
    try:
        service = Repository(Path.cwd())
        if options.abort:
            abort(service)
            print("everything is as it was before the update")
            return 0
        with TemporaryDirectory() as folder:
            if not options.drift:
                return follow(update(service, options, Path(folder)), options)
            drift(service, Path(folder))
            return 0
    except (OSError, UpdateError) as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("error: interrupted, nothing was changed", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
