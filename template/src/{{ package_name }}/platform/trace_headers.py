"""Reads the trace headers of the caller, and removes those that break the rules of the W3C.

Libraries read the headers again, each with other rules and with a warning per fault. Nor may a client decide how much
the service sends with each of its own calls.
"""

import re

from starlette.types import Scope

_BLANKS = r"[ \t]*"


def _list_of(member: str, *, max_members: int, max_bytes: int) -> re.Pattern[bytes]:
    members = rf"{_BLANKS}{member}(?:,{_BLANKS}{member}){{0,{max_members - 1}}}"
    return re.compile(rf"(?!.{{{max_bytes + 1}}}){members}".encode())


_KEY = r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_TOKEN = rf"[!#-'*+.0-9A-Z^-z|~-]+{_BLANKS}"
_VALUE = rf"={_BLANKS}(?:[!#-+\--:<-\[\]-~]+{_BLANKS})?"
RULES = {
    # https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, parent id, flags; all zero is invalid.
    # Versions after 00 may have more fields. Several headers are joined by a comma, so this one must be alone.
    b"traceparent": re.compile(
        rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-[^,]*)?"
    ),
    # https://www.w3.org/TR/trace-context/#tracestate-limits
    b"tracestate": _list_of(rf"(?:{_KEY}=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]{_BLANKS})?", max_members=32, max_bytes=512),
    # https://www.w3.org/TR/baggage/#limits; OpenTelemetry takes 4096 bytes per member
    b"baggage": _list_of(
        rf"(?![^,]{{4097}}){_TOKEN}{_VALUE}(?:;{_BLANKS}{_TOKEN}(?:{_VALUE})?)*", max_members=64, max_bytes=8192
    ),
}


def read(scope: Scope, given: dict[bytes, bytes]) -> re.Match[bytes] | None:
    """Return the caller's trace id, parent id and flags, if there is exactly one valid `traceparent`.

    Args:
        scope: Loses the headers that are invalid; without a trace also `tracestate`.
        given: The headers of `RULES` that the request has; several of one name are joined by commas.
    """
    valid = {name: match for name, value in given.items() if (match := RULES[name].fullmatch(value))}
    parent = valid.get(b"traceparent")
    if not parent:
        valid.pop(b"tracestate", None)
    if len(valid) < len(given):
        scope["headers"] = [each for each in scope["headers"] if each[0] not in given or each[0] in valid]
    return parent
