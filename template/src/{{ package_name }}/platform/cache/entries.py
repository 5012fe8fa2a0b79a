"""What the cache server keeps: JSON below keys that name the service, the environment, the policy and its shape.

Never pickle: who can write to the server could run code here. What cannot be read is absent.
"""

import hashlib
import random
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic

import orjson
from pydantic import TypeAdapter

from ..state import CachePolicy, T


@dataclass(slots=True)
class Seen(Generic[T]):
    """What a look at the cache found; at a miss perhaps an old value. Without tokens nothing can be kept."""

    result: str
    tokens: list[str] = field(default_factory=list)
    value: T | None = None


class Entries:
    """Keys and contents.

    Args:
        namespace: What all keys begin with: services and environments may share a server.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.kinds: dict[CachePolicy[Any], tuple[str, TypeAdapter[Any]]] = {}

    def name(self, policy: CachePolicy[Any], key: bytes) -> str:
        """The key of a value; what it is made of may be secret, and too long for Memcached."""
        return f"{self.namespace}:{policy.name}:{self._kind(policy)[0]}:{_digest(key)}"

    def tag(self, tag: str) -> str:
        """The key of a tag's token, the same for every shape: old code invalidates for new code."""
        return f"{self.namespace}:tag:{_digest(tag.encode())}"

    def write(self, policy: CachePolicy[T], value: T, tokens: list[str]) -> bytes:
        """Make an entry."""
        until = time.time() + policy.seconds * random.uniform(0.9, 1.1)  # noqa: S311 it hides nothing
        return orjson.dumps([until, *tokens]) + b"\n" + self._kind(policy)[1].dump_json(value)

    def read(self, policy: CachePolicy[T], entry: bytes | None, tokens: list[str]) -> Seen[T]:
        """Read an entry; one that is none of ours, or was made before an invalidation, counts as absent."""
        about, _, body = (entry or b"").partition(b"\n")
        with suppress(TypeError, ValueError):
            until, *then = orjson.loads(about)
            if then == tokens:
                found = "hit" if time.time() < until else "miss"
                return Seen(found, tokens, self._kind(policy)[1].validate_json(body))
        return Seen("miss", tokens)

    def _kind(self, policy: CachePolicy[T]) -> tuple[str, TypeAdapter[T]]:
        if policy not in self.kinds:
            adapter = TypeAdapter(policy.kind)
            schema = orjson.dumps(adapter.json_schema(), option=orjson.OPT_SORT_KEYS)
            self.kinds[policy] = (_digest(schema)[:8], adapter)
        return self.kinds[policy]


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def new_token() -> bytes:
    """What no token was before: a counter that the server has thrown out would begin anew, and revive old values."""
    return secrets.token_hex(8).encode()
