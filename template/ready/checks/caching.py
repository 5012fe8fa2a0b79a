"""Performance and caching: copies save work where they are right, and nobody keeps what is somebody's own."""

import asyncio
import time

from ..engine import Gap, NotApplicable, Probe, check
from ..far import total
from ..project import has_room

HITS = 'cache_requests_total{cache_result="hit"}'
SCRAPE = 70.0  # seconds for a metric: Prometheus looks once a minute where nobody has told it otherwise

PERSONAL = {"Authorization": "Bearer {marker}", "Cookie": "ready={marker}"}
SLOW = 40.0  # seconds, so that a slow route is the business of scaling.serves alone


@check("caching", seconds=SLOW)
async def revalidation(probe: Probe) -> str:
    """Who asks whether a copy is still right is not sent it again."""
    path = _path(probe)
    for _ in range(3):  # others may change it between two looks
        first = await probe.client.get(path)
        if not first.is_success:
            raise NotApplicable(f"because {path} answered {first.status_code}, see scaling.serves")
        tag = first.headers.get("etag")
        if not tag:
            raise Gap(f"{path} answered without an ETag", "give the route an HttpPolicy, see docs/caching.md")
        again = await probe.client.get(path, headers={"If-None-Match": tag})
        if (again.status_code, again.content) == (304, b""):
            return f"{path} answered 304 to who has {tag}, {len(first.content)} bytes were not sent again"
    step = "let platform/http_cache/ compare, and no proxy remove If-None-Match"
    raise Gap(f"{path} answered {again.status_code} to who has {tag}", step)


@check("caching", seconds=SLOW)
async def private(probe: Probe) -> str:
    """What somebody was given under their own name is kept by no cache that others share."""
    path = _path(probe)
    fresh = f"{path}{'&' if '?' in path else '?'}ready={probe.marker}"  # of which no cache has a copy yet
    for name, value in PERSONAL.items():
        answer = await probe.client.get(fresh, headers={name: value.format(marker=probe.marker)})
        said = answer.headers.get("cache-control", "")
        words = {word.strip().partition("=")[0].lower() for word in said.split(",")}
        if not words & {"no-store", "private"} or words & {"public", "s-maxage"}:
            step = "let platform/http_cache/ say who may keep it, and the route nothing else"
            raise Gap(f"{path} answered with Cache-Control: {said or 'nothing'} to a request with {name}", step)
    return f"{path} answered with no-store or private to requests with {' or '.join(PERSONAL)}"


@check("caching", effect="writes", seconds=SCRAPE + 20)
async def hits(probe: Probe) -> str:
    """What is read again comes from the cache, and is counted where metrics are kept."""
    end, write = probe.config.far_ends.metrics, probe.config.probe.write
    if not has_room("cache"):
        raise NotApplicable("because the room cache is gone")
    if write is None:
        raise NotApplicable("because no route that writes is named, see backups.rows")
    if end is None and not probe.production:
        raise NotApplicable("because only production needs a place where metrics are kept, and none is named")
    if end is None:
        raise Gap("no place is named where metrics are kept", 'add to ready.toml: [far_ends.metrics] url = "https://…"')
    body = {key: probe.marker if value == "{marker}" else value for key, value in write.body.items()}
    before = await total(end, HITS)
    made = await probe.client.post(write.path, json=body)
    if not made.is_success:
        raise NotApplicable(f"because {write.path} answered {made.status_code}, see backups.rows")
    row = write.row.replace("{id}", str(made.json().get("id")))
    try:
        for _ in range(3):
            await probe.client.get(row)
    finally:
        await probe.client.delete(row)
    began = time.monotonic()
    while (after := await total(end, HITS)) <= before:
        if time.monotonic() > began + SCRAPE:
            step = "look at CACHE_URL and at the log of the room cache, then whether the route reads through the cache"
            raise Gap(f"{row} was read three times, the hits stayed at {before:g} for {SCRAPE:g} s", step)
        await asyncio.sleep(1)
    return f"{row} was read three times, the hits went from {before:g} to {after:g}"


def _path(probe: Probe) -> str:
    if not probe.config.probe.read:
        raise NotApplicable("because no route is named, see scaling.serves")
    return probe.config.probe.read
