"""The far end: what the service has sent is looked for where people will look for it."""

import asyncio
import json
import os
import time
from urllib.parse import quote

import httpx2

from .config import FarEnd
from .engine import CannotCheck


async def find(end: FarEnd, path: str, wanted: str, seconds: float) -> tuple[str, float] | None:
    """Ask until the answer holds what is wanted.

    Args:
        end: From `ready.toml`.
        path: What to ask of it, below its address.
        wanted: Stands in the answer once it has arrived.
        seconds: How long it may take.

    Returns:
        The answer and after how many seconds it came; None if it did not come.

    Raises:
        CannotCheck: As `ask`.
    """
    began = time.monotonic()
    while True:
        text = await ask(end, path)
        waited = time.monotonic() - began
        if wanted in text:
            return text, waited
        if waited > seconds:
            return None
        await asyncio.sleep(0.5)


async def ask(end: FarEnd, path: str) -> str:
    """Ask once.

    Raises:
        CannotCheck: The far end cannot be reached, or does not let us in.
    """
    token = os.environ.get(end.token_variable or "", "")
    if end.token_variable and not token:
        raise CannotCheck(f"{end.token_variable} is not set", f"set {end.token_variable} to a token that may read")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with httpx2.AsyncClient(headers=headers, timeout=10) as client:
            answer = await client.get(end.url.rstrip("/") + path)
    except httpx2.TransportError as error:
        raise CannotCheck(f"{end.url} does not answer ({error})", "start it, or mend its url in ready.toml") from None
    if answer.status_code in (401, 403):
        step = f"give {end.token_variable} a token that may read" if token else "name its token_variable in ready.toml"
        raise CannotCheck(f"{end.url} answered {answer.status_code}", step)
    return answer.text


async def total(end: FarEnd, metric: str) -> float:
    """The sum over a metric's series in Prometheus; 0 before the first sample.

    Raises:
        CannotCheck: As `ask`.
    """
    series = json.loads(await ask(end, f"/api/v1/query?query={quote(f'sum({metric})')}"))["data"]["result"]
    return float(series[0]["value"][1]) if series else 0.0
