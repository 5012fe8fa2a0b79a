"""What follows an update: its report, the migrations of the versions in between, the lock, the tests."""

import argparse
import subprocess
import sys
from collections.abc import Iterable

from .report import Report


def show(title: str, lines: Iterable[str]) -> bool:
    """Print a part of the report, unless it is empty."""
    found = list(lines)
    if found:
        print(f"\n{title}", *found, sep="\n  ")
    return bool(found)


def follow(report: Report, options: argparse.Namespace) -> int:
    """Print the report, then run what follows.

    Args:
        report: What was done.
        options: What was typed.

    Returns:
        The exit code of the command.
    """
    result, (was, version) = report.result, report.versions
    before, after = result.before, result.after
    if before == after:
        print(f"nothing to do: this service is at {version}")
        return 0
    changed = sum(before[path] != after[path] for path in before.keys() & after.keys())
    counts = f"{changed} files changed, {len(after.keys() - before.keys())} added"
    print(f"{was} -> {version}: {counts}, {len(before.keys() - after.keys())} removed")
    show("New in the template:", report.changelog())
    show("Answers:", report.questions())
    show("New settings:", report.settings())
    show("Yours, so left as they are, although the template has changed them:", report.kept())
    show("Deleted or moved by you, and changed in the template:", result.removed)
    left = show("Conflicts (edit, then git add):", (f"{each.path}: {each.why}" for each in result.conflicts))
    left |= show("To do:", [*report.meetings(), *report.date()])
    left |= migrate(report, options)
    if options.dry_run:
        print("\nNothing was changed.")
        return int(left)
    if not (left or options.no_check):
        print("\nmake setup check", flush=True)
        command = ["make", "--no-print-directory", "setup", "check"]
        left = bool(subprocess.run(command, check=False).returncode)  # noqa: S603 - our own words
    print(f"\n{'Then type' if left else 'Type'} git commit --all. To go back: make update ARGS=--abort")
    return int(left)


def migrate(report: Report, options: argparse.Namespace) -> bool:
    """Print the migrations of the versions in between, or run them.

    Returns:
        Whether some are left to do.
    """
    found = report.migrations()
    if not options.run_hooks or options.dry_run:
        return show("Migrations (read them, then make update ARGS='--abort' and ARGS='--run-hooks'):", found)
    for path in found:
        print(f"\nrunning {path}", flush=True)
        text = report.template.git("show", f"{report.versions[1]}:{path}")
        command = [sys.executable, "-", str(report.service.folder)]
        if subprocess.run(command, input=text, text=True, check=False).returncode:  # noqa: S603 - of the template
            return True
    return False
