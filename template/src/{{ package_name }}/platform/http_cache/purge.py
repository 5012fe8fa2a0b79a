"""Tells the CDN which of its copies a write has made wrong: Cloudflare's purge by tag, in a thread beside the requests.

A purge that fails costs one line of the log; the copies end by their own age.
"""

import http.client
import json
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from typing import Annotated
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI
from pydantic import Field, SecretStr, model_validator

from ..room import Room
from ..settings import RoomSettings, part
from ..state import Headers, RequestContext, state_of
from .policy import changes_of

# https://developers.cloudflare.com/cache/how-to/purge-cache/: operations per request, on every plan
MOST = 100
GATHER = 0.05  # seconds in which tags are gathered: many writes are one request
WAITING = 10_000  # tags
ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt, doubled before each other one
LONGEST = 30.0  # seconds that a 429 may ask for
TIMEOUT = 5.0  # seconds for each step of a request


class Settings(RoomSettings):
    """Which CDN is told; none by default."""

    cdn_api_url: Annotated[str, Field(pattern=r"^https?://")] = "https://api.cloudflare.com/client/v4"
    cdn_token: SecretStr | None = None  # may purge the zone, and nothing else
    cdn_zone: Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]+$")] | None = None

    @model_validator(mode="after")
    def _both(self) -> "Settings":
        if (self.cdn_zone is None) != (self.cdn_token is None):
            raise ValueError("CDN_ZONE and CDN_TOKEN need each other: set both, or neither")
        return self


class Cloudflare:
    """Sends purges.

    Args:
        url: Where the API is.
        zone: The id of the zone whose copies are meant.
        token: An API token with the permission Cache Purge.
    """

    def __init__(self, url: str, zone: str, token: str) -> None:
        self.url = urlsplit(f"{url.rstrip('/')}/zones/{zone}/purge_cache")
        self.token = token
        self.waiting: dict[str, None] = {}  # a set in the order of its making
        self.closing = False
        self.news = threading.Condition()
        self.log = structlog.get_logger("cdn")
        self.thread = threading.Thread(target=self._work, name="cdn", daemon=True)

    def purge(self, tags: Iterable[str]) -> None:
        """Have copies forgotten soon; the caller waits for nothing."""
        with self.news:
            if len(self.waiting) < WAITING:  # so many wait only where the CDN fails, and then the log says so
                self.waiting |= dict.fromkeys(tags)
            self.news.notify()

    def close(self) -> None:
        """Send what waits. It blocks, under somebody else's deadline."""
        with self.news:
            self.closing = True
            self.news.notify()
        self.thread.join()

    def _work(self) -> None:
        while tags := self._next():
            self._send(tags)

    def _next(self) -> list[str]:
        """Some tags, when there are any; none at the end."""
        with self.news:
            self.news.wait_for(lambda: self.waiting or self.closing)
            self._pause(GATHER)
            tags = list(self.waiting)[:MOST]
            for tag in tags:
                del self.waiting[tag]
            return tags

    def _pause(self, seconds: float) -> None:
        with self.news:
            self.news.wait_for(lambda: self.closing, seconds)

    def _send(self, tags: list[str]) -> None:
        pause = PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            wait = pause
            try:
                status, body, after = self._post(tags)
                if status == 200 and json.loads(body)["success"]:
                    return
                why, again = f"it answered {status}", status == 429 or status >= 500
                wait = min(max(wait, after), LONGEST)
            except Exception as error:  # whatever it is, the thread has to live on
                why, again = type(error).__name__, True
            if not again or attempt == ATTEMPTS:
                break
            self._pause(wait)
            pause *= 2
        self.log.error("the CDN was not told", why=why, attempts=attempt, tags=len(tags), first=tags[0])

    def _post(self, tags: list[str]) -> tuple[int, bytes, int]:
        """The status and body of the answer, and the seconds that it asks to wait for."""
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        with closing(kind(self.url.hostname or "", self.url.port, timeout=TIMEOUT)) as connection:
            connection.request("POST", self.url.path, json.dumps({"tags": tags}), headers)
            answer = connection.getresponse()
            after = answer.getheader("Retry-After", "")
            return answer.status, answer.read(65_536), int(after) if after.isdigit() else 0


def respond(context: RequestContext, headers: Headers) -> None:
    """Pass on what a request has changed: its transaction is over, its answer not yet out."""
    cdn: Cloudflare | None = context.state.own.get(Cloudflare)
    if cdn and context.status < 400 and (tags := changes_of(context.scope)):
        cdn.purge(tags)


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Have somebody tell the CDN, where there is one; what waits at the end is sent with all that is flushed."""
    mine, state = part(settings, Settings), state_of(app)
    if mine.cdn_zone is None or mine.cdn_token is None:
        yield
        return
    cdn = Cloudflare(mine.cdn_api_url, mine.cdn_zone, mine.cdn_token.get_secret_value())

    async def rotated(token: str) -> None:
        cdn.token = token

    if state.secrets:
        state.secrets.on_change("cdn_token", rotated)
    cdn.thread.start()
    state.own[Cloudflare] = cdn
    yield
    state.flushes.append(cdn.close)


ROOM = Room(settings=Settings, respond=respond, lifespan=lifespan)
