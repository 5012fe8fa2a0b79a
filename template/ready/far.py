"""Queries the far ends: the stores that receive what the service sends, such as traces and errors."""

import asyncio
import json
import os
import time
from typing import Any
from urllib.parse import quote

import httpx2

from . import project
from .client import open_client
from .config import ConfigurationError, FarEnd
from .engine import CannotCheck, Gap, NotApplicable, Probe


def required(probe: Probe, name: str, what: str, lines: str = 'url = "https://…"') -> FarEnd:
    """A far end that `ready.toml` has to name in production.

    Args:
        probe: Of the check.
        name: Its table, below `far_ends`.
        what: What it is.
        lines: Of its table, to be added.

    Raises:
        Gap: It is not named, and the rules are those of production.
        NotApplicable: It is not named.
    """
    end: FarEnd | None = getattr(probe.config.far_ends, name)
    if end is None and not probe.production:
        raise NotApplicable(f"because only production needs a {what}, and ready.toml names none")
    if end is None:
        raise Gap(f"ready.toml names no {what}", f"add [far_ends.{name}] and below it {lines}")
    return end


async def find(end: FarEnd, path: str, wanted: str, seconds: float) -> tuple[str, float] | None:
    """Repeat a query until the response contains `wanted`.

    Args:
        end: From `ready.toml`.
        path: Of the query, below the URL of the far end.
        wanted: Text in the response once the data has arrived.
        seconds: How long to wait.

    Returns:
        The response and the seconds until the data arrived; None if it did not arrive.

    Raises:
        CannotCheck: As `fetch`.
    """
    began = time.monotonic()
    while True:
        text = await fetch(end, path)
        waited = time.monotonic() - began
        if wanted in text:
            return text, waited
        if waited > seconds:
            return None
        await asyncio.sleep(0.5)


async def fetch(end: FarEnd, path: str) -> str:
    """Send one query.

    Raises:
        CannotCheck: The far end is unreachable, or refuses access.
    """
    token = os.environ.get(end.token_variable or "", "")
    if end.token_variable and not token:
        raise CannotCheck(f"{end.token_variable} is not set", f"set {end.token_variable} to a token that may read")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with open_client(end.url, headers=headers, timeout=10) as client:
            response = await client.get(end.url.rstrip("/") + path)
    except ConfigurationError as error:
        raise CannotCheck(str(error), "correct it, or unset it") from None
    except httpx2.TransportError as error:
        raise CannotCheck(f"{end.url} is unreachable ({error})", "start it, or fix its url in ready.toml") from None
    if response.status_code in (401, 403):
        step = f"give {end.token_variable} a token that may read" if token else "name its token_variable in ready.toml"
        raise CannotCheck(f"{end.url} returned {response.status_code}", step)
    if not response.is_success and response.status_code != 404:  # 404: not there yet
        raise CannotCheck(f"{end.url} returned {response.status_code}", "check it, and the proxy before it")
    return response.text


async def query(end: FarEnd, promql: str) -> list[dict[str, Any]]:
    """The series that Prometheus has for a query.

    Raises:
        CannotCheck: As `fetch`; or what responds is not Prometheus.
    """
    text = await fetch(end, f"/api/v1/query?query={quote(promql)}")
    try:
        found: list[dict[str, Any]] = json.loads(text)["data"]["result"]
    except (LookupError, TypeError, ValueError):
        raise CannotCheck(f"{end.url} does not respond as Prometheus does", "fix its url in ready.toml") from None
    return found


async def total(end: FarEnd, metric: str) -> float:
    """The sum of a metric's series; 0 before the first sample.

    Raises:
        CannotCheck: As `query`.
    """
    series = await query(end, f"sum({metric})")
    return float(series[0]["value"][1]) if series else 0.0


def of_service(about: dict[str, str], **labels: str) -> str:
    """The label selector of one service: the store may have the metrics of many."""
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f'{{job=~"(.+/)?{project.name() or about["name"]}"{more}}}'
