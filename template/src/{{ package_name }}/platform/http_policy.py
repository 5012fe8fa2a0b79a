"""What a route says of copies: who may keep its answers, which writes make them wrong, which copy a writer has seen.

Declarations only. The rooms `http_cache` and `cdn` act on them; where a room is absent, its part has no effect.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from .problems import PreconditionFailed

DECLARED = "http_policy"  # in the scope of a request: its policy and tags
CHANGED = "http_changes"  # in the scope of a request: the tags of what it changes
TAG = re.compile(r"[\x21-\x2b\x2d-\x7e]+")  # Cache-Tag separates by commas, Surrogate-Key by spaces
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')  # RFC 9110 section 8.8.3

# For the API's description; the values are read from the request, where they may stand in several lines.
_Known = Annotated[str | None, Header(description="Tags of copies that the client has: 304 if one is right.")]
_Seen = Annotated[str | None, Header(description="The tag of the copy that is changed: 412 if it is no longer right.")]


def entity_tag(body: bytes) -> str:
    """The strong entity tag of a representation: it changes with every byte."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


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


@dataclass(frozen=True, kw_only=True)
class HttpPolicy:
    """Lets copies of a route's answers (200) be kept, and gives them entity tags: `dependencies=[Depends(policy)]`.

    As a parameter, `Annotated[list[str], Depends(policy)]`, its value takes tags that only the request knows.

    Args:
        max_age: Seconds for which a copy may be used without asking; 0: ask each time, which costs a 304.
        s_maxage: Seconds for balancers and CDNs, where they are others.
        stale_while_revalidate: Seconds for which an old copy may be used while a new one is fetched (RFC 5861).
        stale_if_error: Seconds for which an old copy may be used while the service fails (RFC 5861).
        private: Whether the answer depends on who asks: then only their own browser may keep it.
        vary: Request headers on which the answer depends.
        tags: Names by which a CDN forgets its copies, see `Changes`.

    Raises:
        ValueError: The parts contradict each other, or a tag has a space or a comma.
    """

    max_age: int = 0
    s_maxage: int | None = None
    stale_while_revalidate: int = 0
    stale_if_error: int = 0
    private: bool = False
    vary: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.max_age, self.s_maxage or 0, self.stale_while_revalidate, self.stale_if_error) < 0:
            raise ValueError("seconds cannot be negative")
        if self.private and (self.s_maxage is not None or self.tags):
            raise ValueError("no balancer and no CDN keeps what is private: leave out s_maxage and tags")
        if (self.stale_while_revalidate or self.stale_if_error) and not (self.max_age or self.s_maxage):
            raise ValueError("what is asked for each time is never stale: set max_age or s_maxage")
        for tag in self.tags:
            if not TAG.fullmatch(tag):
                raise ValueError(f"{tag!r} is no tag: visible ASCII without a comma")

    async def __call__(self, request: Request, if_none_match: _Known = None) -> list[str]:
        """Declare it for one request (FastAPI calls this)."""
        tags = list(self.tags)
        request.scope[DECLARED] = (self, tags)
        return tags

    @cached_property
    def header(self) -> bytes:
        """The value of `Cache-Control`."""
        parts = {
            "private" if self.private else "public": True,
            f"max-age={self.max_age}" if self.max_age or self.s_maxage else "no-cache": True,
            f"s-maxage={self.s_maxage}": self.s_maxage is not None,
            f"stale-while-revalidate={self.stale_while_revalidate}": self.stale_while_revalidate,
            f"stale-if-error={self.stale_if_error}": self.stale_if_error,
        }
        return ", ".join(part for part, said in parts.items() if said).encode()


class Changes:
    """Says that a write makes copies wrong: `dependencies=[Depends(Changes("items"))]`.

    The CDN is told once the answer starts, which is after the transaction, and only if it is none of an error. As a
    parameter, `Annotated[list[str], Depends(Changes())]`, its value takes tags that only the request knows.
    """

    def __init__(self, *tags: str) -> None:
        self.tags = tags

    async def __call__(self, request: Request) -> list[str]:
        """Declare it for one request (FastAPI calls this)."""
        changed: list[str] = request.scope.setdefault(CHANGED, [])
        changed += self.tags
        return changed


class Precondition:
    """`If-Match` of one request: the client writes only if what it has seen is still current. Absent: it always may."""

    def __init__(self, field: str) -> None:
        self.field = field

    def __bool__(self) -> bool:
        return bool(self.field)

    def check(self, current: BaseModel) -> None:
        """Compare with what a read would answer now; nobody else may write it before the transaction ends.

        Raises:
            PreconditionFailed: It is another one (412).
        """
        if self.field and not matches(self.field, entity_tag(current.model_dump_json().encode()), weak=False):
            raise PreconditionFailed("Someone else has changed it: read it again.")


async def _if_match(request: Request, if_match: _Seen = None) -> Precondition:
    return Precondition(",".join(request.headers.getlist("if-match")))


IfMatch = Annotated[Precondition, Depends(_if_match)]
