"""Takes secrets, and addresses of people, out of what leaves the service to be read: logs, spans, error reports.

By key, at any depth and within texts too, and by form. In doubt it hides: a marker too few costs a look, a secret too
many costs its rotation. Patterns begin at a boundary and do not go back, so time grows with the length and no faster.
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
_DEEPEST = 20
_MOST = 50_000  # values of one structure; what is beyond nobody would read
_PLAIN = (bool, type(None), datetime.date, datetime.time, datetime.timedelta, uuid.UUID)
_NUMBERS = (decimal.Decimal, float, int)
_KEY = re.compile(
    r"access[_-]?key|account[_-]?key|api[_-]?key|authorization|connection[_-]?string|cookie|credential|[cx]srf|dsn$"
    r"|encryption[_-]?key|jwt|master[_-]?key|pass(?:code|phrase|wd|word)|private[_-]?key|pwd|secret"
    r"|session(?:[_-]?id)?$|signature|signing[_-]?key|token"
    r"|(?<![a-z])(?:auth|bearer|cvc|cvv|otp|pass|pin|sid|sig|ssn)$",
    re.I,
)
_COUNT = re.compile(r"(?:completion|input|max|min|num|output|prompt|total)[_-]?tokens$", re.I)
_NAME = re.compile(r"[\w.-]{1,100}")
_LINES = re.compile(r"authorization|cookie", re.I)  # headers whose value has blanks
_QUERY = re.compile(r"(?<![a-z])query(?:[_-]?string)?$", re.I)
_FORMS = re.compile(
    r"(?<!\w)(?:"
    # who logs in, in an address: also a password that was not encoded and holds a slash
    r"(?P<url>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+://)"
    r"(?:[^\s/?#@:\"'<>]*+:(?!\d{1,5}(?:[\s/?#\"'<>]|$))[^\s\"'<>]{0,256}@|[^\s/?#\"'<>]*@)"
    r"|(?P<query>(?<=[?&#])[\w.~%\[\]-]++=)[^\s&#\"'<>]++"
    r"|(?P<pem>-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)(?:[^-]|-(?!----END))*+"
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
    # the key of a pair, and what stands before its value: `password=`, `"token": "`, `('pin', '`, `--api-key `, `<pin>`
    r"|(?P<key>(?<![\w.-])[\w.-]++)(?:\\{0,8}[\"')\]]{0,3}\s{0,3}(?:=>|[=:>]|,(?=\s?b?[\"']))\s{0,3})"
    r"|(?P<option>(?<![.\]-])--[\w-]++\s{1,3}))",
    re.I,
)
_VALUE = re.compile(
    r"\[redacted\]"
    r"|(?P<escaped>[bru]{0,2}+\\++[\"'])[^\\\"']*+"
    r"|(?P<double>[bru]{0,2}+\")(?:[^\"\\]|\\.)*+"
    r"|(?P<single>[bru]{0,2}+')(?:[^'\\]|\\.)*+"
    r"|[\[({][^\r\n]*+"
    r"|(?:basic|bearer|digest|negotiate|token)\s{1,3}[^\s\"<>]++"
    r"|[^\s&\"'<>][^\s&\"<>]*+",
    re.I | re.S,
)
_LINE = re.compile(r"[^\"'\r\n][^\r\n]*+")


def redact(value: Any, key: str = "") -> Any:
    """Copy a value without its secrets, as what JSON knows; doing it again changes nothing.

    Args:
        value: Anything that is about to be logged or sent.
        key: The name under which it stands; a telling one hides the value whole.
    """
    return _Copy().of(value, key, 0)


class _Copy:
    """One walk through a structure, which may be huge, or hold itself."""

    def __init__(self) -> None:
        self.left = _MOST

    def of(self, value: Any, key: str, depth: int) -> Any:
        self.left -= 1
        if isinstance(value, _PLAIN):
            return value
        if depth > _DEEPEST or self.left < 0 or (key and telling(key)):
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
                _text(_name(name)): self.of(item, _name(name), depth + 1) for name, item in self.some(value.items())
            }
        if isinstance(value, list | tuple | set | frozenset):
            return self.sequence(value, depth + 1)
        return self.text(_shown(value), key, depth)

    def some(self, items: Iterable[Any]) -> Iterable[Any]:
        return (item for item, _ in zip(items, range(max(self.left, 0) + 1), strict=False))

    def sequence(self, items: Any, depth: int) -> list[Any]:
        """A pair such as a header begins with its key, and so does a command's option with its value."""
        pair = len(items) == 2 and isinstance(items, list | tuple)
        found, before = [], ""
        for item in self.some(items):
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


def telling(key: str) -> bool:
    """Whether what stands under this name is a secret."""
    return _telling(key if len(key) <= 100 else key[:50] + key[-50:])


@lru_cache(1024)
def _telling(key: str) -> bool:
    return bool(_KEY.search(key)) and not _COUNT.search(key)


def _name(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _shown(value: Any) -> str:
    try:
        return repr(value) if isinstance(value, BaseException) else str(value)
    except Exception:  # what cannot be shown must not break the line that shows it
        return f"<{type(value).__name__}>"


def _text(text: str) -> str:
    """Hide what a text holds: each form as a whole, and each value whose key is telling."""
    found = _FORMS.search(text)
    if not found:
        return text
    parts, seen = [], 0
    while found:
        parts.append(text[seen : found.start()])
        seen = found.end()
        kind = found.lastgroup or ""
        if kind in ("key", "option"):
            parts.append(found[0])
            if telling(found[kind]) and (value := _value(found, text)):
                parts += [value[value.lastgroup] if value.lastgroup else "", HIDDEN]
                seen = value.end()
        elif kind == "card":
            parts.append(HIDDEN if _luhn(found[0]) else found[0])
        else:
            kept = found[kind] if kind in ("pem", "query", "scheme", "url") else ""
            parts += [kept, HIDDEN, "@" if kind == "url" else ""]
        found = _FORMS.search(text, seen)
    return "".join([*parts, text[seen:]])


def _value(found: re.Match[str], text: str) -> re.Match[str] | None:
    key = found["key"] or ""
    return (_LINES.search(key) and _LINE.match(text, found.end())) or _VALUE.match(text, found.end())


def _luhn(text: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in reversed(text) if char.isdigit()]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) % 10
