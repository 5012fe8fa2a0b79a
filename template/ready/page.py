"""A report as one HTML page for managers and engineers: no scripts, no external files, light and dark, printable."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template

from .report import SIGNS, Outcome, Report, Status, count

VERDICTS = (
    "No gaps in what was checked.",
    "Not ready: there are gaps.",
    "Unknown: some checks could not run.",
)
PAGE = Path(__file__).with_name("page.html")


def html(report: Report) -> str:
    """Render the page; every text of the run is escaped."""
    areas = list(report.areas())
    texts = {key: escape(report.service.get(key, "unknown")) for key in ("name", "version", "commit")}
    texts |= {key: escape(str(getattr(report, key))) for key in ("url", "profile", "source", "marker")}
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        texts,
        state=("proven", "gap", "unknown")[report.exit_code],
        verdict=VERDICTS[report.exit_code],
        summary=escape(report.summary()),
        began=escape(report.began[:19].replace("T", " ") + " UTC"),
        seconds=f"{report.seconds:.1f}",
        changes=f" Compared with the run of {escape(report.compared_with[:19])}." if report.compared_with else "",
        tiles="\n".join(_tile(name, worst, outcomes) for name, worst, outcomes in areas),
        sections="\n".join(_section(name, outcomes) for name, _, outcomes in areas),
    )


def _state(status: Status) -> str:
    return f'<span class="{status.replace(" ", "-")}"><span aria-hidden="true">{SIGNS[status]}</span> {status}</span>'


def _tile(name: str, worst: Status, outcomes: list[Outcome]) -> str:
    state = f'{_state(worst)} <small class="soft">{count(outcomes)}</small>'
    return f'<li><a href="#{escape(outcomes[0].area)}">{escape(name)}<br>{state}</a></li>'


def _section(name: str, outcomes: list[Outcome]) -> str:
    area = escape(outcomes[0].area)
    heads = "".join(f'<th scope="col">{each}</th>' for each in ("Promise", "State", "Evidence", "Time"))
    rows = "\n".join(_rows(outcomes))
    return (
        f'<section aria-labelledby="{area}"><h2 id="{area}">{escape(name)}</h2>'
        f"<table><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table></section>"
    )


def _rows(outcomes: list[Outcome]) -> Iterator[str]:
    for each in outcomes:
        step = escape(each.step)
        if each.link.startswith("https://"):
            step += f' <a href="{escape(each.link)}">How to: {escape(each.check)}</a>'
        seen = escape(each.seen) + (f'<p class="next"><strong>Next:</strong> {step}</p>' if each.step else "")
        before = f'<br><span class="soft">was {escape(each.before)}</span>' if each.before else ""
        took = each.took if each.seconds else ""
        promise = f'<th scope="row">{escape(each.title)}<br><code>{escape(each.check)}</code></th>'
        state = f'<td class="state">{_state(each.status)}{before}</td>'
        yield f'<tr>{promise}{state}<td>{seen}</td><td class="time">{took}</td></tr>'
