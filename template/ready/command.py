"""One run of `ready`, from the options to the exit code."""

import asyncio
import secrets
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from . import config, engine, links, page, project, render, report
from .client import LOOPBACK, open_client
from .config import ConfigurationError
from .engine import Probe, Profile
from .report import AREAS, Outcome, Report

EXIT_UNKNOWN = 2
RUNS = Path(".ready")
PAGE = RUNS / "last.html"  # `/__dev__` links to it


def run(
    url: str,
    profile: Profile | None,
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
        0 all proven, 1 a gap, 2 a check could not run.
    """
    try:
        url = url or project.url()
        host = urlsplit(url).hostname
        found = Report({}, url, profile or ("local" if host in LOOPBACK else "production"), "", "")
        asyncio.run(_run_checks(found, areas, drill=drill, yes=yes, quiet=as_json))
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


async def _run_checks(found: Report, areas: list[str], *, drill: bool, yes: bool, quiet: bool) -> None:
    settings = config.load(Path("ready.toml"))
    checks = list(engine.find())
    _known([each.check for each in settings.waivers], [each.name for each in checks], "check")
    _known(areas, [each.area for each in checks], "area")
    chosen = [each for each in checks if not areas or each.area in areas]
    began = time.monotonic()
    found.began = datetime.now(UTC).isoformat(timespec="milliseconds")
    found.marker = f"ready-{secrets.token_hex(8)}"
    async with open_client(found.url, headers={"X-Request-ID": found.marker}, timeout=10) as client:
        found.service = await _about(client, found.url)
        profile: Profile = "production" if found.profile == "production" else "local"
        probe = Probe(client, found.marker, profile, settings, found.service)
        with nullcontext(_ignore) if quiet else render.progress(len(chosen)) as done:
            found.outcomes = await engine.run(chosen, probe, drill=drill, yes=yes, done=done)
    missing = engine.without_checks(settings, checks)
    found.outcomes += [each for each in missing if not areas or each.area in areas]
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


def _ignore(outcome: Outcome) -> None:
    """Print no progress."""


def _known(names: list[str], known: list[str], kind: str) -> None:
    known = sorted({*known, *AREAS})
    for name in names:
        if name not in known:
            raise ConfigurationError(f"there is no {kind} {name!r}{config.nearest(name, known)}")


async def _about(client: httpx2.AsyncClient, url: str) -> dict[str, str]:
    try:
        response = await client.get("/version")
        about = response.json() if response.status_code == 200 else {}
        if not {"name", "version", "commit", "environment"} <= about.keys():
            raise ConfigurationError(f"{url}/version is not this service's: it returned {response.status_code}")
        return {str(key): str(value) for key, value in about.items()}
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
        raise ConfigurationError(f"{url} is not a URL; use one like http://127.0.0.1:8000") from None
    except httpx2.TransportError as error:
        raise ConfigurationError(
            f"no service responds at {url} ({error}); start it with `make dev`, or set --url"
        ) from None
    except (AttributeError, ValueError):
        raise ConfigurationError(f"{url}/version is not this service's: it returned no JSON object") from None
