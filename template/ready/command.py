"""One run of `ready`, from the options to the exit code."""

import asyncio
import secrets
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from . import config, engine, links, page, profile, project, render, report, service
from .areas import AREAS, NOT_BUILT, PROFILE
from .client import open_client
from .config import ConfigurationError
from .engine import Probe, Profile
from .report import Outcome, Report

EXIT_UNKNOWN = 2
RUNS = Path(".ready")
PAGE = RUNS / "last.html"  # `/__dev__` links to it


def run(
    url: str,
    given: Profile | None,
    areas: list[str],
    *,
    drill: bool,
    yes: bool,
    as_json: bool,
    junit: Path | None,
    html: Path | None,
) -> int:
    """Run the checks, show the report and save it.

    Returns:
        0 no gap, 1 a gap, 2 a check could not run.
    """
    try:
        found = asyncio.run(_run_checks(url, given, areas, drill=drill, yes=yes, quiet=as_json))
        if as_json:
            print(found.as_json())
        else:
            render.show(found)
        for file, text in ((junit, render.junit), (html, page.html)):
            if file:
                file.write_text(text(found), encoding="utf-8")
        return found.exit_code
    except (ConfigurationError, OSError) as error:
        for line in str(error).splitlines():
            print(f"ready: {line}", file=sys.stderr)
        return EXIT_UNKNOWN


async def _run_checks(
    url: str, given: Profile | None, areas: list[str], *, drill: bool, yes: bool, quiet: bool
) -> Report:
    settings = config.load(Path("ready.toml"))
    checks = list(engine.find())
    _known("area", areas, {*AREAS, *(each.area for each in checks)})
    _known(
        "check",
        [each.check for each in settings.waivers],
        {*NOT_BUILT, PROFILE, *(each.name for each in checks)},
    )
    here, declared = ("", ("", "")) if url else project.declared()
    url, login = _without_login(url or here)
    began, marker = time.monotonic(), f"ready-{secrets.token_hex(8)}"
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    async with open_client(url, headers={"X-Request-ID": marker}, auth=login, timeout=10) as client:
        about = await service.about(client, url)
        if here and about["name"] != (project.name() or about["name"]):
            step = "set HOST or PORT, or type --url to check it nevertheless"
            raise ConfigurationError(f"{url} is {about['name']}, this project is {project.name()}: {step}")
        rules, source, contradiction = profile.decide(given, declared, about["environment"], url)
        found = Report(about, url, rules, source, marker, moment)
        chosen = [each for each in checks if not areas or each.area in areas]
        known = [contradiction] if contradiction else []
        known += [each for each in engine.not_built(checks) if not areas or each.area in areas]
        with nullcontext(_ignore) if quiet else render.progress(len(chosen) + len(known)) as done:
            for each in known:
                engine.waive(each, settings.waivers)
                done(each)
            probe = Probe(client, marker, rules, settings, about)
            found.outcomes = known + await engine.run(chosen, probe, drill=drill, yes=yes, done=done)
    link_of = links.docs_links(Path(".copier-answers.yml"))
    for each in found.outcomes:
        each.link = link_of(each)
    found.seconds = round(time.monotonic() - began, 3)
    report.compare(found, RUNS)
    try:
        report.save(found, RUNS)
        PAGE.write_text(page.html(found), encoding="utf-8")
    except OSError as error:
        print(f"ready: this report is not saved: {error}", file=sys.stderr)
    return found


def _ignore(outcome: Outcome) -> None:
    """Print no progress."""


def _known(kind: str, names: list[str], known: set[str]) -> None:
    """Refuse an unknown name with the nearest one, and with all that are possible: those of its area, or the areas."""
    for name in names:
        if name not in known:
            near, within = config.nearest(name, sorted(known)), f"{name.partition('.')[0]}."
            checks = sorted(each for each in known if each.startswith(within))
            areas = sorted({*AREAS, *(each for each in known if "." not in each)})
            listed = f"Checks: {', '.join(checks)}" if checks else f"Areas: {', '.join(areas)}"
            raise ConfigurationError(f"there is no {kind} {name!r}{near or '.'} {listed}")


def _without_login(url: str) -> tuple[str, tuple[str, str] | None]:
    """The URL as reports may show it, and the login that was in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError("--url: use one like http://127.0.0.1:8000") from None
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    return parts._replace(netloc=host).geturl().rstrip("/"), (unquote(user), unquote(password)) if login else None
