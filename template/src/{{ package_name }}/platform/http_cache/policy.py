"""What a route says of copies: who may keep its answers, which writes make them wrong, which copy a writer has seen.

Declarations only. The rooms `http_cache` and `cdn` act on them; where a room is absent, its part has no effect.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from starlette.types import Scope

from ..problems import PreconditionFailed
from ..state import Headers

TAGS = "http_cache.tags"  # in the scope of a request
INVALIDATED = "http_cache.invalidated"
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')  # RFC 9110 section 8.8.3
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def entity_tag(body: bytes) -> str:
    """The strong entity tag of a representation: it changes with every byte."""
    return f'"{sha256(body).hexdigest()[:32]}"'


def matches(field: str, tag: str, *, weak: bool) -> bool:
    """Whether `If-Match` or `If-None-Match` names a tag (RFC 9110 section 13.1); a malformed field names none.

    Args:
        field: The value, lines joined by commas.
        tag: Of the current representation.
        weak: Whether `W/` makes no difference.
    """
    if field.strip() == "*":
        return True
    if _ENTITY_TAG.sub("", field).strip(" \t,"):
        return False
    named = _ENTITY_TAG.findall(field)
    if weak:
        return tag.removeprefix("W/") in (each.removeprefix("W/") for each in named)
    return not tag.startswith("W/") and tag in named


def _quoted(tags: Iterable[str]) -> list[str]:
    """Cache-Tag separates tags by commas, Surrogate-Key by spaces; a header takes visible ASCII."""
    return [quote(each, safe="/:@=+*") for each in tags]


def tag_headers(tags: Iterable[str]) -> Headers:
    """What tells a CDN under which tags a copy is kept: Fastly's header, and Cloudflare's."""
    names = _quoted(tags)
    return [(b"surrogate-key", " ".join(names).encode()), (b"cache-tag", ",".join(names).encode())] if names else []


@dataclass(frozen=True, kw_only=True)
class HttpPolicy:
    """Lets copies of a route's answers (200) be kept, and gives them entity tags: `@HttpPolicy(max_age=60)`.

    It stands below `@router.get(…)`. `add_tags` adds what only the request knows.

    Args:
        max_age: Seconds for which a copy may be used without asking; 0: ask each time, which costs a 304.
        s_maxage: Seconds for balancers and CDNs, where they may keep it longer.
        stale_while_revalidate: Seconds for which an old copy may be used while a new one is fetched (RFC 5861).
        stale_if_error: Seconds for which an old copy may be used while the service fails (RFC 5861).
        private: Whether the answer depends on who asks: then only their own browser may keep it.
        vary: Request headers on which the answer depends.
        tags: Names by which a CDN forgets its copies, see `Invalidates`.

    Raises:
        ValueError: The parts contradict each other.
    """

    max_age: int = 0
    s_maxage: int = 0
    stale_while_revalidate: int = 0
    stale_if_error: int = 0
    private: bool = False
    vary: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.max_age, self.s_maxage, self.stale_while_revalidate, self.stale_if_error) < 0:
            raise ValueError("seconds cannot be negative")
        if self.private and (self.s_maxage or self.tags):
            raise ValueError("no balancer and no CDN keeps what is private: leave out s_maxage and tags")
        if (self.stale_while_revalidate or self.stale_if_error) and not (self.max_age or self.s_maxage):
            raise ValueError("what is asked for each time is never stale: set max_age or s_maxage")

    def __call__(self, endpoint: Endpoint) -> Endpoint:
        """Declare it for an endpoint."""
        endpoint.http_policy = self  # type: ignore[attr-defined]
        return endpoint

    @cached_property
    def header(self) -> bytes:
        """The value of `Cache-Control`."""
        said = "private" if self.private else "public"
        said += f", max-age={self.max_age}" if self.max_age or self.s_maxage else ", no-cache"
        for name in ("s_maxage", "stale_while_revalidate", "stale_if_error"):
            if seconds := getattr(self, name):
                said += f", {name.replace('_', '-')}={seconds}"
        return said.encode()


class Invalidates:
    """Says that a write makes copies with these tags wrong: `@Invalidates("items")`, below `@router.put(…)`.

    The CDN is told once the answer starts, which is after the transaction, and only if it is none of an error.
    `invalidate_tags` adds what only the request knows.
    """

    def __init__(self, *tags: str) -> None:
        self.tags = tags

    def __call__(self, endpoint: Endpoint) -> Endpoint:
        """Declare it for an endpoint."""
        endpoint.http_invalidates = self.tags  # type: ignore[attr-defined]
        return endpoint


def add_tags(request: Request, *tags: str) -> None:
    """Add tags to the answer of one request."""
    request.scope[TAGS] = (*request.scope.get(TAGS, ()), *tags)


def invalidate_tags(request: Request, *tags: str) -> None:
    """Add tags to what one request changes."""
    request.scope[INVALIDATED] = (*request.scope.get(INVALIDATED, ()), *tags)


def policy_of(scope: Scope) -> HttpPolicy | None:
    """What the route has declared that serves a request."""
    return getattr(scope.get("endpoint"), "http_policy", None)


def invalidated_tags(scope: Scope) -> list[str]:
    """The tags of all that a request has changed."""
    return _quoted((*getattr(scope.get("endpoint"), "http_invalidates", ()), *scope.get(INVALIDATED, ())))


def require_match(if_match: str, current: BaseModel) -> None:
    """Compare what a client has seen with what a read would answer now.

    Args:
        if_match: From `IfMatch`.
        current: What is stored; nobody else may write it before the transaction ends.

    Raises:
        PreconditionFailed: It is another one (412).
    """
    if not matches(if_match, entity_tag(current.model_dump_json().encode()), weak=False):
        raise PreconditionFailed("Someone else has changed it: read it again.")


# For the API's description: the value is read from the request, where it may stand in several lines.
_Seen = Annotated[str | None, Header(description="The tag of the copy that is changed: 412 if it is no longer right.")]


async def _if_match(request: Request, if_match: _Seen = None) -> str:
    return ",".join(request.headers.getlist("if-match"))


# What the client has seen of what it writes: for `require_match`. Empty: it did not say, and writes whatever is there.
IfMatch = Annotated[str, Depends(_if_match)]
