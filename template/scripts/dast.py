# mypy: disallow-untyped-decorators=False
"""What `make dast` changes in the requests that it makes up; a token that your routes need belongs here too."""

import re
import uuid
from typing import Any

import schemathesis  # type: ignore[import-not-found]  # of the group `dast`, installed by `make dast` alone

KEY = "Idempotency-Key"
# Values with which a precondition holds: to others 304 and 412 are right, and would count as refused requests.
HOLDS = {"If-Match": "*", "If-None-Match": '"another"'}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Send each valid key once, because a key that was used means its first request."""
    headers = case.headers or {}
    if isinstance(key := headers.get(KEY), str) and re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        headers[KEY] = f"{key[:200]}-{uuid.uuid4()}"
    for name, value in HOLDS.items():
        if name in headers:  # in any case
            headers[name] = value
