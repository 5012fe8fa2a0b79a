"""A report as text for terminals and logs, and as JUnit XML."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from .report import SIGNS, Outcome, Report, Status, count

STYLE = {
    Status.PROVEN: "green",
    Status.GAP: "bold red",
    Status.UNKNOWN: "bold magenta",
    Status.WAIVED: "yellow",
    Status.NOT_BUILT: "cyan",
    Status.CLAIMED: "blue",
    Status.NOT_APPLICABLE: "dim",
    Status.NOT_RUN: "dim",
}


@contextmanager
def progress(total: int) -> Iterator[Callable[[Outcome], None]]:
    """Report progress: a bar on a terminal, otherwise one line per check."""
    if not sys.stdout.isatty():
        yield lambda outcome: print(_line(outcome), flush=True)
        return
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), transient=True
    ) as bar:
        task = bar.add_task("checking", total=total)
        yield lambda outcome: bar.update(task, advance=1, description=outcome.title)


def _line(outcome: Outcome) -> str:
    return f"{outcome.status:14} {outcome.check:21} {_seen(outcome)}"


def _seen(outcome: Outcome) -> str:
    if outcome.status is Status.NOT_BUILT:
        return f"{outcome.seen}: {outcome.title}"
    return f"{outcome.seen} ({outcome.took})" if outcome.seconds else outcome.seen


def _last_lines(report: Report) -> Iterator[str]:
    """The next steps, what changed, and the summary."""
    steps: dict[str, list[Outcome]] = {}
    for _, _, outcomes in report.areas():
        for each in outcomes:
            if each.status in (Status.GAP, Status.UNKNOWN):
                steps.setdefault(each.step, []).append(each)
    for step, found in steps.items():
        link = f" ({found[0].link})" if found[0].link and len(found) == 1 else ""
        yield f"next for {', '.join(each.check for each in found)}: {step}{link}"
    changed = [f"{each.check} was {each.before}, is {each.status}" for each in report.outcomes if each.before]
    if report.compared_with:
        yield f"since {report.compared_with[:19]}: {'; '.join(changed) or 'no change'}"
    yield f"{report.summary()}; {report.seconds:.1f} s, marker {report.marker}"


def show(report: Report) -> None:
    """Print the areas and the last lines; a terminal also gets the evidence, which other outputs already have."""
    if sys.stdout.isatty():
        console = Console(highlight=False)
        console.print(f"[bold]{escape(report.judged)}[/]\n")
        for name, worst, outcomes in report.areas():
            console.print(f"[bold]{escape(name)}[/]: {_state(worst)} {count(outcomes)}".rstrip())
            console.print(_table(outcomes))
    else:
        print(f"\n{report.judged}\n")
        for name, worst, outcomes in report.areas():
            print(f"{worst:14} {name} {count(outcomes)}".rstrip())
        print()
    for line in _last_lines(report):
        print(line)


def _state(status: Status) -> str:
    return f"[{STYLE[status]}]{SIGNS[status]} {status}[/]"


def _table(outcomes: list[Outcome]) -> Table:
    """Name and evidence of each check: two columns, so that there is room for the evidence in a narrow terminal."""
    table = Table.grid(Column(width=14, overflow="fold"), Column(overflow="fold"), padding=(0, 1), pad_edge=True)
    for each in outcomes:
        table.add_row(escape(each.name), f"{_state(each.status)}: {escape(_seen(each))}")
    table.add_row()
    return table


def junit(report: Report) -> str:
    """The report as JUnit XML: `gap` is a failure, `unknown` an error; all else but `proven` is skipped."""
    tags = {Status.GAP: "failure", Status.UNKNOWN: "error", Status.PROVEN: "system-out"}
    root = ElementTree.Element("testsuites", name="ready")
    for name, _, outcomes in report.areas():
        found = [tags.get(each.status, "skipped") for each in outcomes]
        counts = {f"{tag}s": str(found.count(tag)) for tag in ("failure", "error")}
        counts |= {"skipped": str(found.count("skipped")), "tests": str(len(found))}
        suite = ElementTree.SubElement(root, "testsuite", counts, name=name)
        for tag, each in zip(found, outcomes, strict=True):
            about = {"classname": each.area, "name": each.check, "time": f"{each.seconds:.3f}"}
            text = f"{each.title} {each.seen}" + (f". Next: {each.step} {each.link}".rstrip() if each.step else "")
            case = ElementTree.SubElement(suite, "testcase", about)
            ElementTree.SubElement(case, tag, {} if tag == "system-out" else {"message": text}).text = text
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
