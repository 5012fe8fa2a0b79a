"""Removes secrets, card numbers and e-mail addresses from logs, spans and error reports.

It finds them by key, at any depth and within texts, and by their form. If in doubt it redacts, because a leaked secret
has to be rotated. Patterns start at a boundary and do not backtrack, so the time is linear in the length.
"""

import datetime
import decimal
import html
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from itertools import islice, takewhile
from typing import Any
from urllib.parse import unquote

import orjson

HIDDEN = "[redacted]"
_MAX_DEPTH = 20
_MAX_VALUES = 50_000  # per structure; the rest is omitted
_MAX_CHARACTERS = 200_000  # per text; the rest is omitted
_MAX_CACHED_CHARACTERS = 256  # of a text that is kept with its redacted form
_MAX_BRACKETS = 5_000  # characters that are searched for the closing bracket
_HARMLESS = (datetime.date, datetime.time, datetime.timedelta, uuid.UUID)
_MAX_INTEGER = 2**63 - 1  # JSON writers and OTLP take no larger one
# Names of secrets, in snake case: anywhere in a name, and only at its end.
_KEY = re.compile(
    r"assertion|authorization|connection_?string|cookie|credential|[cx]srf|input_value|jwt|mnemonic|pwd|secret"
    r"|pass_?(?:code|key|phrase|wd|wor[dt])|seed_?phrase|signature|token(?!iz)"
    r"|(?:access|account|admin|api|app|auth|(?:de|en)?crypt\w*|deploy|hmac|master|private|service|shared|signing|ssh"
    r"|storage|subscription|webhook)_?keys?(?:_|$)"
    r"|(?:auth\w*|backup|card|mfa|one_?time|pin|recovery|security|[th]?otp|verification|2fa)_?(?:code|number|value)s?$"
    r"|(?:^|_)(?:auth|bearer|c[vs][cv]2?|dsn|[th]?otp|pass|pin|psw|pswd?|pw|sid|sig|ssn)(?:_?(?:hash|text|value))?$"
    r"|(?:admin|db|login|mail|my|proxy|root|smtp|user)pass$|dsn$|(?:^|_|asp|j|php)sess_?id$|session(?:_?(?:data|id|key))?$"
)
_TOKEN_COUNT = re.compile(
    r"(?:completion|input|max|min|num|output|prompt|total)_tokens$|tokens?_(?:count|limit|total|type|used)$"
)
_WORD = re.compile(r"(?<=[a-z\d])(?=[A-Z])|[\W_]+")  # what begins a word of a name in camel, kebab or snake case
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_SECOND_WORDS = {"code", "hash", "key", "keys", "number", "phrase", "value"}
_NAME = re.compile(r"[\w.-]{1,100}")
_HEADERS = re.compile(r"authorization|cookie", re.I)  # headers whose value may contain blanks
_QUERY = re.compile(r"(?<![a-z])query(?:[_-]?string)?$", re.I)
# Tokens known by their beginning: age, Anthropic, Atlassian, AWS, Databricks, DigitalOcean, Docker, GitHub, GitLab,
# Google, Grafana, Hugging Face, JWT, Mailgun, npm, OpenAI, PyPI, SendGrid, Sentry, Shopify, Slack, Stripe, Vault, etc.
_TOKENS = (
    r"AGE-SECRET-KEY-\w++|ATATT3[\w=-]{16,}+|(?-i:A[KS]IA[A-Z0-9]{12,}+)|dapi[0-9a-f]{32}|do[opr]_v1_\w{16,}+"
    r"|dckr_\w{3,4}_[\w-]{16,}+|gh[opsur]_\w{16,}+|github_pat_\w{16,}+|gl[a-z]{2,5}-[\w.-]{12,}+"
    r"|(?-i:AIza[\w-]{20,}+)|ya29\.[\w.-]{16,}+|GOCSPX-[\w-]{16,}+|gls[ar]_\w{16,}+|(?:hf|api_org)_[a-z0-9]{16,}+"
    r"|eyJ[\w-]{5,}+\.[\w.-]++|key-[0-9a-f]{32}|npm_\w{20,}+|pypi-[\w-]{16,}+|SG\.[\w-]{16,}+\.[\w-]{16,}+"
    r"|sntry[su]_[\w=+/-]{16,}+|shp(?:at|ca|pa|ss)_[0-9a-f]{32}|x(?:ox[a-z]|app)-[\w-]{8,}+"
    r"|[prs]k[_-][\w-]{12,}+|whsec_\w{16,}+|\d{8,10}:AA[\w-]{32,}+|(?-i:SK[0-9a-f]{32})"
    r"|hv[brs]\.[\w-]{8,}+|(?-i:b\.AAAA[\w-]{20,}+)"
    r"|[brs]\.(?-i:(?=[a-z]{0,23}[A-Z\d]))[a-z\d]{24}(?:\.[a-z\d]{6})?(?![\w.-])"
)
_CARD = r"(?:[3-6]\d{3}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))(?:[ .\u00a0-]?\d{2,4}){3,5}"
_PEM = r"-{4,5} ?BEGIN [A-Z\d ]{0,30}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
_QUOTE = r"""[bfru@$]{0,2}\\{0,8}["'`\u201c\u2018\u00ab]"""
_FORMS = re.compile(
    r"(?<!\w)(?:"
    # credentials in a URL, also if the password was not encoded
    r"(?P<url>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+://)"
    r"(?:[^\s/?#@:\"'<>]*+:(?!\d{1,5}(?:[\s/?#\"'<>,;)\]}]|$))(?:[^\s\"'<>]{0,256}|[^\r\n@]{0,256})@|[^\s/?#\"'<>]*@)"
    r"|(?P<hook>https://(?:hooks\.slack\.com|(?:canary\.|ptb\.)?discord(?:app)?\.com/api/webhooks|[\w-]++\.webhook\.office"
    r"\.com)/)[\w/@=-]++"
    r"|(?P<query>(?<=[?&#])[\w.~%\[\]-]++=)[^\s&#\"'<>]++"
    rf"|(?P<pem>{_PEM})[\s\S]*?(?=-----END|---- END|\Z)"
    r"|(?P<scheme>(?<![\w-])(?:basic|bearer|digest|negotiate)\s{1,3})[\w.~+/=:-]{6,}+"
    rf"|(?P<token>(?<!-)(?=[abdeghknprswxy\d])(?:{_TOKENS}))"
    r"|(?P<login>(?<![\w.+-])[\w.+-]++:[^\s/@:\"'<>]{1,256}+(?=@[\w\[]))"
    r"|(?P<mail>(?<![\w.+%-])[\w.+%-]++@(?:[\w-]++\.)+[a-z][\w-]++)"
    rf"|(?P<card>(?<![\w.-]){_CARD}(?!\w|[.-]\d))"
    # errors of libraries that contain a header, a row or the parameters of a statement
    rf"|(?P<phrase>header (?:line|value)\W{{1,3}}?(?=(?:bytearray\()?{_QUOTE})|failing row contains (?=\()"
    r"|(?<=\[)parameters: )"
    r"|(?P<user>(?<![^\s(\"'])(?:(?:-u|--(?:proxy-)?user)[ =][^\s:]++:|(?:conn(?:ect)?|expdp|impdp|sqlldr|sqlplus)"
    r"\s{1,3}(?:-\w++\s)?[^\s/@]++/(?=[^\s@]*+@)|jdbc:oracle:\w++:[^\s/@]*+/))\S++"
    # an element: its attributes, and its text
    r"|(?<=[<:])(?P<tag>[\w.-]++)(?=[\s>])"
    # the key and separator of a pair: `password=`, `"token": "`, `('pin', '`, `name: pin, value: `, `pin is '`
    r"|(?P<key>(?<![\w.-])[\w.\u00ad\u200b-\u200f\u2060\ufeff-]++)"
    r"(?:\[\d{0,6}\])?\\{0,8}[\"'`*\u201d\u2019\u00bb)\]]{0,3}(?:"
    rf"\((?={_QUOTE}|[^()\s]{{1,100}}\)(?!\s?[=:]))|\t|(?:\r?\n){{2}}|\s{{0,64}}+(?:"
    r":\s?(?:bytes|secretstr|str|string)(?:\s\|\snone)?\s{0,3}=|[=:~!\uff1a\uff1d]{1,3}>?|[-=]?>|\u2192|\|"
    rf"|\([^()\r\n\"']{{0,30}}\)\s?[=:]|[,;]?\s{{0,64}}\\{{0,8}}[\"']?value\\{{0,8}}[\"']?\s{{0,3}}[=:]|,(?=\s?{_QUOTE})"
    rf"|(?<=\s)(?:(?:as|by|equals|i?like|in|is|not|set|to|value|was)\s{{1,3}}){{0,3}}(?=\(?{_QUOTE})"
    r"|(?<=\s)(?:is|was)\s(?=[^\s\d]{0,64}\d)))\s{0,64}+"
    r"|(?P<option>(?<![.\]\w-])--?[a-z][\w-]++\s{1,3}))",
    re.I,
)
# Not `(…)*+`: in Python before 3.11.5 a possessive group matches too much (cpython issues 100061 and 106052).
_VALUE = re.compile(
    rf"\[redacted\]|{_PEM}[\s\S]*?(?=-----END|---- END|\Z)"
    r"|(?P<escaped>[bfru@$]{0,2}+(?P<mark>\\++[\"']))(?:(?!(?<!\\)(?P=mark)).)*"
    r"|(?P<double>[bfru@$]{0,2}+\")(?:[^\"\\]++|\\.|\"\")*"
    r"|(?P<single>[bfru@$]{0,2}+')(?:[^'\\]++|\\.|'')*"
    r"|(?P<other>[`\u201c\u2018\u00ab])[^`\u201d\u2019\u00bb]*+"
    r"|[|>][+-]?[ \t]*+\r?\n(?:[ \t]++[^\r\n]*+(?:\r?\n)?)+"  # a block of YAML
    r"|(?:basic|bearer|digest|negotiate|token)\s{1,3}[^\s\"<>]++"
    r"|[^\s&\"'<>;][^&\"'<>;\r\n]{0,256}(?=;)"  # connection strings may contain blanks
    r"|(?![\w.]{0,100}(?-i:Error|Exception)\b)[^\s&\"'<>][^\s&\"<>]*+",
    re.I | re.S,
)
_BRACKETED = re.compile(r"(?!\[redacted\])(?:[\w.]{0,100}[\[({])")
_BRACKET = re.compile(r"\\.|[\[({\])}\"']", re.S)
_LINE = re.compile(r"([ \t]*+)[^\r\n]+")
_REST_OF_LINE = re.compile(r"[^\"'\r\n][^\r\n]*+")
_ELEMENT = re.compile(r"(?P<attributes>[^<>]*+>)(?:<!\[CDATA\[)?[^<]+")
_ENCODED_BLANK = re.compile("%(?=20|0[9ad])", re.I)
_ESCAPED = re.compile(r"\\{1,8}(?:u00|x)([2-7][0-9a-f])", re.I)
_MAY_BE_ENCODED = re.compile(r"[%&\\]").search
_ENCODED = re.compile(r"(?<!\S)\S*?(?:%[0-9a-f]{2}|&[#a-z]|\\[ux])\S*+", re.I)


def redact(value: Any, key: str = "") -> Any:
    """Copy a value without its secrets, with JSON types only; redacting it again changes nothing.

    Args:
        value: Anything that will be logged or sent.
        key: Its name; the name of a secret hides the whole value.
    """
    if type(value) is str and len(value) <= _MAX_CACHED_CHARACTERS:
        return _redact_short(value, key)
    return _Copy().of(value, key, 0)


_redact_short = lru_cache(1024)(lambda text, key: _Copy().of(text, key, 0))  # the same paths and hosts come often


class _Copy:
    """Copies one structure, which may be huge, contain itself, or have methods that raise."""

    def __init__(self) -> None:
        self.left = _MAX_VALUES

    def of(self, value: Any, key: str, depth: int) -> Any:
        self.left -= 1
        if value is None or isinstance(value, bool):
            return value
        if depth > _MAX_DEPTH or self.left < 0 or (key and is_secret_name(key)):
            return HIDDEN
        try:
            return self.copy(value, key, depth)
        except Exception:  # a value that cannot be read must not break the log line
            return f"<{type(value).__name__}>"

    def copy(self, value: Any, key: str, depth: int) -> Any:
        if isinstance(value, Enum):
            return self.of(value.value, key, depth)
        if isinstance(value, str):
            return self.text(value, key, depth)
        if isinstance(value, decimal.Decimal | float | int):
            return _number(value)
        if isinstance(value, _HARMLESS):
            return str(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self.text(bytes(value).decode(errors="replace"), key, depth)
        if isinstance(value, Mapping):
            named = str(value.get("name") or value.get("key") or "")  # the key of its `value`, as in a list of headers
            return {
                _text(name): self.of(item, named or name if name == "value" else name, depth + 1)
                for name, item in ((_name(name), item) for name, item in islice(value.items(), max(self.left, 0) + 1))
            }
        if isinstance(value, list | tuple | set | frozenset):
            return self.sequence(value, depth + 1)
        return self.text(repr(value) if isinstance(value, BaseException) else str(value), key, depth)

    def sequence(self, items: Any, depth: int) -> list[Any]:
        """The first item of a pair, such as a header, and an option of a command are the key of the next item."""
        pair = len(items) == 2 and isinstance(items, list | tuple)
        found, before = [], ""
        for item in islice(items, max(self.left, 0) + 1):
            found.append(self.of(item, before, depth))
            name = _name(item) if isinstance(item, str | bytes) else ""
            before = name if (pair or name.startswith("-")) and _NAME.fullmatch(name) else ""
        return found

    def text(self, text: str, key: str, depth: int) -> str:
        if len(text) > _MAX_CHARACTERS:  # a secret at the cut would not be recognized, so the last 1,000 go, too
            return f"{_text(text[:_MAX_CHARACTERS])[:-1000]}… [{len(text)} characters]"
        if text[:1] in ("{", "["):
            with suppress(orjson.JSONDecodeError):
                shown = self.of(parsed := orjson.loads(text), key, depth + 1)
                return text if shown == parsed else orjson.dumps(shown).decode()
        if key and _QUERY.search(key):
            return _text(f"?{text}")[1:]
        return _text(text)


def is_secret_name(key: str) -> bool:
    """Whether a value with this name is a secret."""
    return _is_secret_name(key if len(key) <= 100 else key[:50] + key[-50:])


@lru_cache(1024)
def _is_secret_name(key: str) -> bool:
    words = _WORD.sub("_", _INVISIBLE.sub("", key)).strip("_").lower()
    return bool(_KEY.search(words)) and not _TOKEN_COUNT.search(words)


def _name(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _number(value: decimal.Decimal | float) -> Any:
    if isinstance(value, decimal.Decimal) or not -_MAX_INTEGER <= value <= _MAX_INTEGER:  # infinite or NaN, too
        return str(value)
    return HIDDEN if value > 1e12 and re.fullmatch(_CARD, digits := f"{value:.0f}") and _luhn(digits) else value


def _text(text: str, decoded: int = 0) -> str:
    """Redact a text, also if it is encoded for a URL, HTML or JSON, perhaps several times."""
    if not text.isascii():
        text = text.encode(errors="replace").decode()  # half of a surrogate pair
    shown = _redact(text)

    def decode(found: re.Match[str]) -> str:
        plain = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), found[0])
        plain = html.unescape(unquote(_ENCODED_BLANK.sub("%25", plain)))
        clean = _text(plain, decoded + 1) if plain != found[0] else plain
        return found[0] if clean == plain else clean

    return _ENCODED.sub(decode, shown) if decoded < 3 and _MAY_BE_ENCODED(shown) else shown


def _redact(text: str) -> str:
    """Redact each known form, and each value whose key is the name of a secret."""
    found = _FORMS.search(text)
    parts, done = [], 0
    while found:
        parts.append(text[done : found.start()])
        done = found.end()
        kind = found.lastgroup or ""
        if kind in ("key", "option", "phrase", "tag"):
            secret = kind == "phrase" or is_secret_name(_full_name(kind, found, text))
            if secret and (value := _value(kind, found, text)):
                parts += [found[0], value[0], HIDDEN]
                done = value[1]
            else:
                done = found.end(kind)
                parts.append(text[found.start() : done])
        elif kind == "card" and not _luhn(found[0]):
            parts.append(found[0])
        else:
            visible = found[kind] if kind in ("hook", "pem", "query", "scheme", "url", "user") else ""
            parts += [visible, HIDDEN, "@" if kind == "url" else ""]
        found = _FORMS.search(text, done)
    return "".join([*parts, text[done:]])


def _full_name(kind: str, found: re.Match[str], text: str) -> str:
    """The name of a value, which may be two words, as in `API key: …`."""
    before = text[max(found.start() - 21, 0) : found.start()]
    two = found[kind].lower() in _SECOND_WORDS and before.endswith(" ")
    return f"{before[:-1].rpartition(' ')[2]} {found[kind]}" if two else found[kind]


def _value(kind: str, found: re.Match[str], text: str) -> tuple[str, int] | None:
    """What is shown of the value after a key, such as its quotation mark, and where the value ends."""
    start = found.end()
    if kind == "tag":
        return (element["attributes"], element.end()) if (element := _ELEMENT.match(text, start)) else None
    if kind == "key" and _HEADERS.search(found["key"]) and (line := _REST_OF_LINE.match(text, start)):
        return "", line.end()
    if opened := _BRACKETED.match(text, start):
        return "", _end_of_brackets(text, opened.end() - 1)
    value = _VALUE.match(text, start)
    return (next(filter(None, value.group("escaped", "double", "single", "other")), ""), value.end()) if value else None


def _end_of_brackets(text: str, start: int) -> int:
    """Where a value in brackets ends; without a closing bracket, with the last line that is indented further."""
    depth, quote = 0, ""
    for token in _BRACKET.finditer(text, start, start + _MAX_BRACKETS):
        char = token[0]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in "[({") - (char in "])}")
        if depth == 0:
            return token.end()
        if depth > _MAX_DEPTH:
            break
    lines = _LINE.finditer(text, text.rfind("\n", 0, start) + 1)
    first = next(lines)
    deeper = takewhile(lambda line: len(line[1]) > len(first[1]), lines)
    return max((line.end() for line in deeper), default=first.end())


def _luhn(text: str) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in reversed(text) if char.isdigit()]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) % 10
