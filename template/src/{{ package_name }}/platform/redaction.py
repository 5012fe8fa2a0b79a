"""Removes secrets, card numbers and e-mail addresses from logs, spans and error reports.

It finds them by key, at any depth and within texts, and by their form. If in doubt it redacts, because a leaked secret
has to be rotated. Patterns start at a boundary and do not backtrack, so the time is linear in the length.
"""

import datetime
import decimal
import re
import uuid
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any

import orjson

HIDDEN = "[redacted]"
_MAX_DEPTH = 20
_MAX_VALUES = 50_000  # per structure; the rest is omitted
_SAFE_TYPES = (bool, type(None), datetime.date, datetime.time, datetime.timedelta, uuid.UUID)
_NUMBERS = (decimal.Decimal, float, int)
_KEY = re.compile(
    r"access[_-]?key|account[_-]?key|api[_-]?key|authorization|connection[_-]?string|cookie|credential|[cx]srf|dsn$"
    r"|encryption[_-]?key|jwt|master[_-]?key|pass(?:code|phrase|wd|word)|private[_-]?key|pwd|secret"
    r"|session(?:[_-]?id)?$|signature|signing[_-]?key|token"
    r"|(?<![a-z])(?:auth|bearer|cvc|cvv|otp|pass|pin|sid|sig|ssn)$",
    re.I,
)
_TOKEN_COUNT = re.compile(r"(?:completion|input|max|min|num|output|prompt|total)[_-]?tokens$", re.I)
_NAME = re.compile(r"[\w.-]{1,100}")
_HEADERS = re.compile(r"authorization|cookie", re.I)  # headers whose value may contain blanks
_QUERY = re.compile(r"(?<![a-z])query(?:[_-]?string)?$", re.I)
_FORMS = re.compile(
    r"(?<!\w)(?:"
    # credentials in a URL, including a password that was not encoded and contains a slash
    r"(?P<url>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+://)"
    r"(?:[^\s/?#@:\"'<>]*+:(?!\d{1,5}(?:[\s/?#\"'<>]|$))[^\s\"'<>]{0,256}@|[^\s/?#\"'<>]*@)"
    r"|(?P<query>(?<=[?&#])[\w.~%\[\]-]++=)[^\s&#\"'<>]++"
    r"|(?P<pem>-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)[\s\S]*?(?=-----END|\Z)"
    r"|(?P<scheme>(?<![\w-])(?:basic|bearer|digest|negotiate)\s{1,3})[\w.~+/=:-]{6,}+"
    # JWT, Vault and OpenBao, GitHub, GitLab, Slack, Stripe and OpenAI, AWS, Google, npm, PyPI, age
    r"|(?P<token>(?<!-)(?=[abeghnprsx])(?:eyJ[\w-]{5,}+\.[\w.-]++|hv[brs]\.[\w-]{8,}+"
    r"|[brs]\.(?=[a-z]{0,23}\d)[a-z\d]{24}(?:\.[a-z\d]{6})?(?![\w.-])|gh[opsu]_\w{16,}+"
    r"|github_pat_\w{16,}+|glpat-[\w-]{12,}+|xox[a-z]-[\w-]{8,}+"
    r"|[prs]k[_-][\w-]{12,}+|(?-i:A[KS]IA[A-Z0-9]{12,}+|AIza[\w-]{20,}+)"
    r"|npm_\w{20,}+|pypi-[\w-]{16,}+|AGE-SECRET-KEY-\w++))"
    r"|(?P<login>(?<![\w.+-])[\w.+-]++:[^\s/@:\"'<>]{1,256}+(?=@[\w\[]))"
    r"|(?P<mail>(?<![\w.+%-])[\w.+%-]++@(?:[\w-]++\.)+[a-z][\w-]++)"
    r"|(?P<card>(?<![\w.-])[3-6]\d{3}(?:[ -]?\d{2,4}){3,5}(?!\w|[.-]\d))"
    # the key and separator of a pair: `password=`, `"token": "`, `('pin', '`, `--api-key `, `<pin>`
    r"|(?P<key>(?<![\w.-])[\w.-]++)(?:\\{0,8}[\"')\]]{0,3}\s{0,3}(?:=>|[=:>]|,(?=\s?b?[\"']))\s{0,3})"
    r"|(?P<option>(?<![.\]-])--[\w-]++\s{1,3}))",
    re.I,
)
# Not `(…)*+`: in Python before 3.11.5 a possessive group matches too much (cpython issues 100061 and 106052).
_VALUE = re.compile(
    r"\[redacted\]"
    r"|(?P<escaped>[bru]{0,2}+\\++[\"'])[^\\\"']*+"
    r"|(?P<double>[bru]{0,2}+\")(?:[^\"\\]++|\\.)*"
    r"|(?P<single>[bru]{0,2}+')(?:[^'\\]++|\\.)*"
    r"|[\[({][^\r\n]*+"
    r"|(?:basic|bearer|digest|negotiate|token)\s{1,3}[^\s\"<>]++"
    r"|[^\s&\"'<>][^\s&\"<>]*+",
    re.I | re.S,
)
_REST_OF_LINE = re.compile(r"[^\"'\r\n][^\r\n]*+")


def redact(value: Any, key: str = "") -> Any:
    """Copy a value without its secrets, with JSON types only; redacting it again changes nothing.

    Args:
        value: Anything that will be logged or sent.
        key: Its name; the name of a secret hides the whole value.
    """
    return _Copy().of(value, key, 0)


class _Copy:
    """Copies one structure, which may be huge, or contain itself."""

    def __init__(self) -> None:
        self.left = _MAX_VALUES

    def of(self, value: Any, key: str, depth: int) -> Any:
        self.left -= 1
        if isinstance(value, _SAFE_TYPES):
            return value
        if depth > _MAX_DEPTH or self.left < 0 or (key and is_secret_name(key)):
            return HIDDEN
        if isinstance(value, _NUMBERS):
            return value
        if isinstance(value, Enum):
            return self.of(value.value, key, depth)
        if isinstance(value, str):
            return self.text(value, key, depth)
        if isinstance(value, bytes | bytearray | memoryview):
            return self.text(bytes(value).decode(errors="replace"), key, depth)
        if isinstance(value, Mapping):
            return {
                _text(_name(name)): self.of(item, _name(name), depth + 1) for name, item in self.limited(value.items())
            }
        if isinstance(value, list | tuple | set | frozenset):
            return self.sequence(value, depth + 1)
        return self.text(_to_text(value), key, depth)

    def limited(self, items: Iterable[Any]) -> Iterable[Any]:
        return (item for item, _ in zip(items, range(max(self.left, 0) + 1), strict=False))

    def sequence(self, items: Any, depth: int) -> list[Any]:
        """The first item of a pair, such as a header, and an option of a command are the key of the next item."""
        pair = len(items) == 2 and isinstance(items, list | tuple)
        found, before = [], ""
        for item in self.limited(items):
            found.append(self.of(item, before, depth))
            name = _name(item) if isinstance(item, str | bytes) else ""
            before = name if (pair or name.startswith("-")) and _NAME.fullmatch(name) else ""
        return found

    def text(self, text: str, key: str, depth: int) -> str:
        if text[:1] in ("{", "["):
            try:
                parsed = orjson.loads(text)
            except orjson.JSONDecodeError:
                pass
            else:
                shown = self.of(parsed, key, depth + 1)
                return text if shown == parsed else orjson.dumps(shown).decode()
        if key and _QUERY.search(key):
            return _text(f"?{text}")[1:]
        return _text(text)


def is_secret_name(key: str) -> bool:
    """Whether a value with this name is a secret."""
    return _is_secret_name(key if len(key) <= 100 else key[:50] + key[-50:])


@lru_cache(1024)
def _is_secret_name(key: str) -> bool:
    return bool(_KEY.search(key)) and not _TOKEN_COUNT.search(key)


def _name(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _to_text(value: Any) -> str:
    try:
        return repr(value) if isinstance(value, BaseException) else str(value)
    except Exception:  # a value without a working __str__ must not break the log line
        return f"<{type(value).__name__}>"


def _text(text: str) -> str:
    """Redact a text: each known form, and each value whose key is the name of a secret."""
    found = _FORMS.search(text)
    if not found:
        return text
    parts, done = [], 0
    while found:
        parts.append(text[done : found.start()])
        done = found.end()
        kind = found.lastgroup or ""
        if kind in ("key", "option"):
            parts.append(found[0])
            if is_secret_name(found[kind]) and (value := _value(found, text)):
                parts += [value[value.lastgroup] if value.lastgroup else "", HIDDEN]
                done = value.end()
        elif kind == "card":
            parts.append(HIDDEN if _luhn(found[0]) else found[0])
        else:
            visible = found[kind] if kind in ("pem", "query", "scheme", "url") else ""
            parts += [visible, HIDDEN, "@" if kind == "url" else ""]
        found = _FORMS.search(text, done)
    return "".join([*parts, text[done:]])


def _value(found: re.Match[str], text: str) -> re.Match[str] | None:
    key = found["key"] or ""
    return (_HEADERS.search(key) and _REST_OF_LINE.match(text, found.end())) or _VALUE.match(text, found.end())


def _luhn(text: str) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in reversed(text) if char.isdigit()]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) % 10
