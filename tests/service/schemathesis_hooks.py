"""Hooks for schemathesis, loaded by SCHEMATHESIS_HOOKS: what a schema cannot say."""

import re
import uuid
from typing import Any

import schemathesis

KEY = "Idempotency-Key"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Send each well-formed key once: a key that comes back means the request before, by design.

    And let preconditions hold, as far as a value can that is made up: 304 and 412 are right answers to the others.
    """
    key = (case.headers or {}).get(KEY)
    if isinstance(key, str) and re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        case.headers[KEY] = f"{key[:200]}-{uuid.uuid4()}"
    for name, value in (("If-Match", "*"), ("If-None-Match", '"another"')):
        if name in (case.headers or {}):
            case.headers[name] = value
