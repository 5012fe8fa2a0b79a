"""Takes secrets out of whatever leaves the service for people to read.

By key, at any depth, and by form within texts: credentials in URLs, bearer tokens, JWTs, `password=…`. One pass per
value with patterns that cannot backtrack, so a megabyte of text costs milliseconds.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

HIDDEN = "[redacted]"
_DEEPEST = 20
_KEY = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|authorization|cookie|dsn$|session$",
    re.I,
)
_TEXT = re.compile(
    r"(?P<url>[a-z][a-z0-9+.-]{1,30}://[^\s:/@]{0,256}:)[^\s/@]{1,1024}@"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"
    r"|\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"
    r"|(?P<pair>\b(?:password|passwd|secret|token|api[_-]?key)\b[\"']?\s{0,3}[=:]\s{0,3}[\"']?)[^\s,;&\"']{1,1024}"
    r"|\bhvs\.[\w-]{10,}",
    re.I,
)


def redact(value: Any, key: str = "", depth: int = 0) -> Any:
    """Copy a value without its secrets.

    Args:
        value: Anything that is about to be logged or sent.
        key: The name under which it stands; a telling one hides the value whole.
        depth: How deep in a structure it stands; below 20 nothing is shown.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth > _DEEPEST or _telling(key):
        return HIDDEN
    if isinstance(value, str):
        return _TEXT.sub(_hide, value)
    if isinstance(value, bytes):
        return _TEXT.sub(_hide, value.decode(errors="replace"))
    if isinstance(value, Mapping):
        return {name: redact(item, str(name), depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, "", depth + 1) for item in value]
    return value


@lru_cache(1024)
def _telling(key: str) -> bool:
    return bool(_KEY.search(key))


def _hide(found: re.Match[str]) -> str:
    end = "@" if found["url"] else ""
    return (found["url"] or found["scheme"] or found["pair"] or "") + HIDDEN + end
