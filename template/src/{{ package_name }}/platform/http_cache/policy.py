"""How a route declares its HTTP caching: who may cache its responses, which tags a write invalidates, `If-Match`.

Declarations only. The room `http_cache` sends the headers, and `cdn` the purges; without the room they have no effect.
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
    """The strong entity tag of a response body: a hash of all its bytes."""
    return f'"{sha256(body).hexdigest()[:32]}"'


def matches(field: str, tag: str, *, weak: bool) -> bool:
    """Whether `If-Match` or `If-None-Match` contains a tag (RFC 9110 section 13.1); a malformed field contains none.

    Args:
        field: The value of the header; several lines are joined by commas.
        tag: The entity tag of the current representation.
        weak: Whether to ignore the prefix `W/`.
    """
    if field.strip() == "*":
        return True
    if _ENTITY_TAG.sub("", field).strip(" \t,"):
        return False
    tags = _ENTITY_TAG.findall(field)
    if weak:
        return tag.removeprefix("W/") in (each.removeprefix("W/") for each in tags)
    return not tag.startswith("W/") and tag in tags


def _quoted(tags: Iterable[str]) -> list[str]:
    """Percent-encode tags: commas and spaces are separators, and a header takes visible ASCII only."""
    return [quote(each, safe="/:@=+*") for each in tags]


def tag_headers(tags: Iterable[str]) -> Headers:
    """The headers with the tags of a response for a CDN: `Surrogate-Key` (Fastly) and `Cache-Tag` (Cloudflare)."""
    names = _quoted(tags)
    return [(b"surrogate-key", " ".join(names).encode()), (b"cache-tag", ",".join(names).encode())] if names else []


@dataclass(frozen=True, kw_only=True)
class HttpPolicy:
    """Allows caching of a route's 200 responses, and gives them entity tags: `@HttpPolicy(max_age=60)`.

    Put it below `@router.get(…)`. `add_tags` adds tags that depend on the request.

    Args:
        max_age: Seconds for which a copy may be used without a request; 0: revalidate each time, which costs a 304.
        s_maxage: The same for balancers and CDNs, if they may cache it for longer.
        stale_while_revalidate: Seconds for which an old copy may be used while a new one is fetched (RFC 5861).
        stale_if_error: Seconds for which an old copy may be used while the service fails (RFC 5861).
        private: Whether the response depends on the user: then only the user's browser may cache it.
        vary: Request headers on which the response depends.
        tags: Names by which a CDN purges its copies, see `Invalidates`.

    Raises:
        ValueError: The arguments contradict each other.
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
            raise ValueError("balancers and CDNs do not cache private responses: remove s_maxage and tags")
        if (self.stale_while_revalidate or self.stale_if_error) and not (self.max_age or self.s_maxage):
            raise ValueError("a response that is always revalidated is never stale: set max_age or s_maxage")

    def __call__(self, endpoint: Endpoint) -> Endpoint:
        """Declare it for an endpoint."""
        endpoint.http_policy = self  # type: ignore[attr-defined]
        return endpoint

    @cached_property
    def header(self) -> bytes:
        """The value of `Cache-Control`."""
        directives = "private" if self.private else "public"
        directives += f", max-age={self.max_age}" if self.max_age or self.s_maxage else ", no-cache"
        for name in ("s_maxage", "stale_while_revalidate", "stale_if_error"):
            if seconds := getattr(self, name):
                directives += f", {name.replace('_', '-')}={seconds}"
        return directives.encode()


class Invalidates:
    """Declares that a write invalidates copies with these tags: `@Invalidates("items")`, below `@router.put(…)`.

    The CDN is purged when the response starts, which is after the transaction, and only if it is no error.
    `invalidate_tags` adds tags that depend on the request.
    """

    def __init__(self, *tags: str) -> None:
        self.tags = tags

    def __call__(self, endpoint: Endpoint) -> Endpoint:
        """Declare it for an endpoint."""
        endpoint.http_invalidates = self.tags  # type: ignore[attr-defined]
        return endpoint


def add_tags(request: Request, *tags: str) -> None:
    """Add tags to the response of one request."""
    request.scope[TAGS] = (*request.scope.get(TAGS, ()), *tags)


def invalidate_tags(request: Request, *tags: str) -> None:
    """Add tags that one request invalidates."""
    request.scope[INVALIDATED] = (*request.scope.get(INVALIDATED, ()), *tags)


def policy_of(scope: Scope) -> HttpPolicy | None:
    """The policy of the route that serves a request."""
    return getattr(scope.get("endpoint"), "http_policy", None)


def invalidated_tags(scope: Scope) -> list[str]:
    """The tags that a request invalidates."""
    return _quoted((*getattr(scope.get("endpoint"), "http_invalidates", ()), *scope.get(INVALIDATED, ())))


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The headers `If-Match` and `If-None-Match` of a write; false if the client sent neither.

    Args:
        if_match: All lines of the header; None if there is none, which is not the same as an empty one.
        if_none_match: Likewise.
    """

    if_match: str | None
    if_none_match: str | None

    def __bool__(self) -> bool:
        return (self.if_match, self.if_none_match) != (None, None)


def require_match(if_match: Preconditions, current: BaseModel) -> None:
    """Check the preconditions of a write by RFC 9110 section 13.2.2.

    Args:
        if_match: From `IfMatch`.
        current: The stored version; its row must be locked until the transaction ends.

    Raises:
        PreconditionFailed: The client has seen another version, or none (412).
    """
    tag = entity_tag(current.model_dump_json().encode())
    if if_match.if_match is not None and not matches(if_match.if_match, tag, weak=False):
        raise PreconditionFailed("Someone else has changed it: read it again.")
    if if_match.if_none_match is not None and matches(if_match.if_none_match, tag, weak=True):
        raise PreconditionFailed("It exists already: read it first.")


# For the OpenAPI document only: the values are read from the request, because a header may have several lines.
_IfMatchHeader = Annotated[str | None, Header(description="Entity tag of the version to change: 412 if outdated.")]
_IfNoneMatchHeader = Annotated[str | None, Header(description="`*`: 412 if there is a version already.")]


async def _preconditions(
    request: Request, if_match: _IfMatchHeader = None, if_none_match: _IfNoneMatchHeader = None
) -> Preconditions:
    lines = (request.headers.getlist(name) for name in ("if-match", "if-none-match"))
    return Preconditions(*(",".join(each) if each else None for each in lines))


# The preconditions, for `require_match`. False if the client sent none: then it overwrites any version.
IfMatch = Annotated[Preconditions, Depends(_preconditions)]
