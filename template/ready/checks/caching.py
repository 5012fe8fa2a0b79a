"""Performance and caching: caches save work, and no shared cache stores a personal response."""

import asyncio
import time

from ..engine import Gap, NotApplicable, Probe, check
from ..far import of_service, required, total
from ..project import has_room

SCRAPE_SECONDS = 70.0  # until a metric arrives: by default Prometheus scrapes once a minute

PERSONAL = {"Authorization": "Bearer {marker}", "Cookie": "ready={marker}"}
READ_SECONDS = 40.0  # so long that a slow route fails scaling.serves only


@check("caching", seconds=READ_SECONDS)
async def revalidation(probe: Probe) -> str:
    """A client whose copy is still current is not sent it again."""
    path = _path(probe)
    for _ in range(3):  # other clients may change it between two requests
        first = await probe.client.get(path)
        if not first.is_success:
            raise NotApplicable(f"because {path} returned {first.status_code}, see scaling.serves")
        tag = first.headers.get("etag")
        if not tag:
            raise Gap(f"{path} returned no ETag", "give the route an HttpPolicy, see docs/caching.md")
        again = await probe.client.get(path, headers={"If-None-Match": tag})
        if (again.status_code, again.content) == (304, b""):
            return f"a conditional GET of {path} returned 304, {len(first.content)} bytes were not sent again"
    step = "let platform/http_cache/ compare ETags, and let no proxy remove If-None-Match"
    raise Gap(f"a conditional GET of {path} with {tag} returned {again.status_code}", step)


@check("caching", seconds=READ_SECONDS)
async def private(probe: Probe) -> str:
    """A response to an authenticated request tells shared caches not to store it."""
    path = _path(probe)
    fresh = f"{path}{'&' if '?' in path else '?'}ready={probe.marker}"  # no cache has a copy of this URL yet
    for name, value in PERSONAL.items():
        response = await probe.client.get(fresh, headers={name: value.format(marker=probe.marker)})
        if not response.is_success:
            raise NotApplicable(f"because {path} returned {response.status_code} to a request with {name}")
        header = response.headers.get("cache-control", "")
        directives = {each.strip().partition("=")[0].lower() for each in header.split(",")}
        if not directives & {"no-store", "private"} or directives & {"public", "s-maxage"}:
            step = "let platform/http_cache/ set Cache-Control, and the route not"
            raise Gap(f"{path} returned Cache-Control: {header or 'nothing'} to a request with {name}", step)
    return f"{path} returned no-store or private to requests with {' or '.join(PERSONAL)}"


@check("caching", effect="writes", seconds=SCRAPE_SECONDS + 20)
async def hits(probe: Probe) -> str:
    """Repeated reads are cache hits, and the metrics store counts them."""
    write = probe.config.probe.write
    if not has_room("cache"):
        raise NotApplicable("because this project has no room cache")
    if write is None:
        raise NotApplicable("because ready.toml names no route that writes, see backups.rows")
    end = required(probe, "metrics", "metrics store")
    body = {key: probe.marker if value == "{marker}" else value for key, value in write.body.items()}
    hit = f"cache_requests_total{of_service(probe.about, cache_result='hit')}"
    before = await total(end, hit)
    created = await probe.client.post(write.path, json=body)
    if not created.is_success:
        raise NotApplicable(f"because {write.path} returned {created.status_code}, see backups.rows")
    row = write.row.replace("{id}", str(created.json().get("id")))
    try:
        for _ in range(3):
            await probe.client.get(row)
    finally:
        await probe.client.delete(row)
    began = time.monotonic()
    while (after := await total(end, hit)) <= before:
        if time.monotonic() > began + SCRAPE_SECONDS:
            step = "check CACHE_URL and the log of the room cache, then whether the route reads through the cache"
            raise Gap(f"{row} was read three times, the hits stayed at {before:g} for {SCRAPE_SECONDS:g} s", step)
        await asyncio.sleep(1)
    return f"{row} was read three times, the hits of all clients went from {before:g} to {after:g}"


def _path(probe: Probe) -> str:
    if not probe.config.probe.read:
        raise NotApplicable("because ready.toml names no route to read, see scaling.serves")
    return probe.config.probe.read
