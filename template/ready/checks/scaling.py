"""Scaling and load balancing: health checks are reliable, and a shutdown loses no request."""

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import httpx2

from ..client import open_client
from ..engine import CannotCheck, Gap, Probe, check
from ..project import command

LOG = Path(".ready/drain.log")  # of the drill's instance; it may contain secrets, so the report quotes nothing of it
DRAIN_SECONDS = 2.0  # of the drill's instance
START_SECONDS = 30.0  # until the instance is ready
EXIT_SECONDS = 15.0  # from the end of the drain to the exit


@check("scaling")
async def alive(probe: Probe) -> str:
    """The process is alive, and /livez accepts an IP address as Host."""
    began = time.perf_counter()
    response = await probe.client.get("/livez", headers={"Host": "10.0.0.1"})
    took = time.perf_counter() - began
    if response.status_code != 200:
        raise Gap(f"/livez returned {response.status_code} to an IP address as Host", "let /livez accept any Host")
    if took > probe.config.thresholds.answer_seconds:
        raise Gap(f"/livez took {took:.2f} s", "find what blocks the event loop; `make dev` shows slow requests")
    return f"/livez returned 200 to the Host 10.0.0.1 in {took * 1000:.0f} ms"


@check("scaling")
async def ready(probe: Probe) -> str:
    """A load balancer that asks /readyz sends requests to this instance."""
    response = await probe.client.get("/readyz")
    parts = response.json().get("parts", {})
    seen = "; ".join(f"{name}: {part['evidence']}" for name, part in parts.items()) or "it requires no part"
    if response.status_code != 200:
        raise Gap(f"/readyz returned {response.status_code} ({seen})", "fix the part that /readyz names")
    return f"/readyz returned 200; the service says: {seen}"


@check("scaling")
async def serves(probe: Probe) -> str:
    """A route that does real work responds in time."""
    path = probe.config.probe.read
    if not path:
        raise Gap("ready.toml names no route to read", 'add a line to ready.toml, below [probe]: read = "/v1/…"')
    began = time.perf_counter()
    response = await probe.client.get(path)
    took = time.perf_counter() - began
    if not response.is_success:
        raise Gap(f"{path} returned {response.status_code}", "search the log for the marker, it is the request id")
    if took > probe.config.thresholds.answer_seconds:
        raise Gap(f"{path} took {took:.2f} s", "find out why, or raise answer_seconds in ready.toml")
    return f"{path} returned {response.status_code} in {took * 1000:.0f} ms"


@check("scaling", effect="drill", seconds=START_SECONDS + DRAIN_SECONDS + EXIT_SECONDS)
async def drain(probe: Probe) -> str:
    """After SIGTERM an instance, started here, is not ready, still serves, finishes requests and exits with 0."""
    path, write = probe.config.probe.read or "/livez", probe.config.probe.write
    with _log() as log:
        async with _instance(log) as (process, client):
            await _until_ready(process, client)
            upload = await _upload(client, write.path if write else "/")
            signalled = time.monotonic()
            process.send_signal(signal.SIGTERM)
            statuses, readiness = [], 0
            while time.monotonic() < signalled + DRAIN_SECONDS * 0.8:
                statuses.append(await _status(client, path))
                readiness = await _status(client, "/readyz")
                await asyncio.sleep(0.02)
            await asyncio.sleep(signalled + DRAIN_SECONDS + 0.5 - time.monotonic())
            finished = await _finish(*upload)
            code = await asyncio.wait_for(process.wait(), EXIT_SECONDS)
            took = time.monotonic() - signalled
    lost = sum(status == 0 or status >= 500 for status in statuses)
    step = "see how platform/server drains, and SHUTDOWN_DRAIN_SECONDS"
    if readiness != 503:
        raise Gap(f"/readyz returned {readiness or 'nothing'} after SIGTERM instead of 503", step)
    if lost:
        raise Gap(f"{lost} of {len(statuses)} requests failed during the drain", step)
    if finished == 0 or finished >= 500:
        raise Gap(f"the request in flight got {finished or 'no response'}", step)
    if code:
        raise Gap(f"the instance exited with {code}", step)
    served = f"{len(statuses)} requests and one in flight were served"
    return f"an instance started here: after SIGTERM /readyz returned 503, {served}, exit 0 in {took:.1f} s"


def _log() -> IO[bytes]:
    LOG.parent.mkdir(exist_ok=True)
    return LOG.open("wb")


@asynccontextmanager
async def _instance(log: IO[bytes]) -> AsyncIterator[tuple[Process, httpx2.AsyncClient]]:
    """Start a second instance with the service's own command and port; stop it at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    own = {"HOST": "127.0.0.1", "PORT": port, "METRICS_PORT": "0", "SHUTDOWN_DRAIN_SECONDS": str(DRAIN_SECONDS)}
    serve = [sys.executable, "-c", command(), "serve"]
    process = await asyncio.create_subprocess_exec(*serve, env={**os.environ, **own}, stdout=log, stderr=log)
    try:
        # one connection per request, like the many clients of a load balancer
        async with open_client(f"http://127.0.0.1:{port}", keepalive=0, timeout=5) as client:
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _until_ready(process: Process, client: httpx2.AsyncClient) -> None:
    deadline = time.monotonic() + START_SECONDS
    while await _status(client, "/readyz") != 200:
        if process.returncode is not None or time.monotonic() > deadline:
            seen = f"it exited with {process.returncode}" if process.returncode else f"within {START_SECONDS:g} s"
            raise CannotCheck(f"a second instance did not become ready ({seen})", f"see {LOG}, then fix its start")
        await asyncio.sleep(0.1)


async def _status(client: httpx2.AsyncClient, path: str) -> int:
    try:
        return (await client.get(path)).status_code
    except httpx2.TransportError:
        return 0


async def _upload(client: httpx2.AsyncClient, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Begin a request and leave it unfinished; its body is not JSON, so nothing is stored."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n["
    writer.write(head.encode())
    await writer.drain()
    return reader, writer


async def _finish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Send the rest, and return the status of the response; 0 if there is none."""
    try:
        writer.write(b"[")
        line = await asyncio.wait_for(reader.readline(), EXIT_SECONDS)
        return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0
    except OSError:
        return 0
    finally:
        writer.close()
