"""The format of cache entries: JSON, under keys made of the service, the environment, the policy and its schema.

Never pickle: anyone who can write to the server could then run code here. An entry that cannot be read is a cache miss.
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
class Lookup(Generic[T]):
    """The result of a cache lookup; at a miss it may have a stale value. Without tokens the value cannot be stored."""

    result: str
    tokens: list[str] = field(default_factory=list)
    value: T | None = None


class Entries:
    """Builds keys, and encodes and decodes entries.

    Args:
        namespace: The prefix of all keys, because services and environments may share a server.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.kinds: dict[CachePolicy[Any], tuple[str, TypeAdapter[Any]]] = {}

    def name(self, policy: CachePolicy[Any], key: bytes) -> str:
        """The key of a value; hashed, because its parts may be secret, or too long for Memcached."""
        return f"{self.namespace}:{policy.name}:{self._kind(policy)[0]}:{_digest(key)}"

    def tag(self, tag: str) -> str:
        """The key of a tag's token; without the schema, so that during a release old code invalidates for new code."""
        return f"{self.namespace}:tag:{_digest(tag.encode())}"

    def write(self, policy: CachePolicy[T], value: T, tokens: list[str]) -> bytes:
        """Encode an entry."""
        until = time.time() + policy.seconds * random.uniform(0.9, 1.1)  # noqa: S311 not for security
        return orjson.dumps([until, *tokens]) + b"\n" + self._kind(policy)[1].dump_json(value)

    def read(self, policy: CachePolicy[T], entry: bytes | None, tokens: list[str]) -> Lookup[T]:
        """Decode an entry; one that is malformed, or older than an invalidation, is a miss."""
        about, _, body = (entry or b"").partition(b"\n")
        with suppress(TypeError, ValueError):
            until, *stored = orjson.loads(about)
            if stored == tokens:
                found = "hit" if time.time() < until else "miss"
                return Lookup(found, tokens, self._kind(policy)[1].validate_json(body))
        return Lookup("miss", tokens)

    def _kind(self, policy: CachePolicy[T]) -> tuple[str, TypeAdapter[T]]:
        if policy not in self.kinds:
            adapter = TypeAdapter(policy.kind)
            schema = orjson.dumps(adapter.json_schema(), option=orjson.OPT_SORT_KEYS)
            self.kinds[policy] = (_digest(schema)[:8], adapter)
        return self.kinds[policy]


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def new_token() -> bytes:
    """A random token: a counter would restart when the server evicts it, and old values would be valid again."""
    return secrets.token_hex(8).encode()
