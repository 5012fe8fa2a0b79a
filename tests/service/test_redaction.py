"""Secrets do not reach logs, spans or error reports: by key at any depth, by form within texts, in linear time."""

import importlib.util
import json
import shutil
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.projects import ROOT
from tests.proof import count
from tests.sabotage import Body, Sabotage, Value
from tests.service.forms import CARDS, TABLE

SOURCE = ROOT / "template/src/{{ package_name }}/platform"
SECRET = "s3cr3t-v4lue"
MARKER = "harmless-marker"
HIDDEN = "[redacted]"
BY_KEY: list[Any] = [
    {"password": SECRET},
    {"outer": [{"Authorization": SECRET}]},
    {"deep": {"er": {"api_key": SECRET}}},
    {"refresh_token": [SECRET, {"more": SECRET}]},
    {"Set-Cookie": SECRET},
    {"database_dsn": SECRET},
    {"client_secret": {"value": SECRET}},
    {"dbPassword": SECRET.encode()},
    {"headers": [(b"x-api-key", SECRET.encode())]},
    {"argv": ["deploy", "--token", SECRET]},
    {"session": SECRET},
    {"text": json.dumps({"credentials": {"user": SECRET}}, indent=1)},
    {"raw": json.dumps([{"X-CSRF-Token": SECRET}]).encode()},
    {"text": json.dumps([{"value": SECRET, "key": "password"}])},
    {"headers": [{"name": "Authorization", "value": SECRET}]},
]
BY_PAIR: list[Any] = [
    {"text": f"Cookie: a={SECRET}; b={SECRET}"},
    {"text": f"login failed, password={SECRET}"},
    {"text": f'{{"token": "{SECRET}"'},
    {"text": f'escaped {{\\"token\\": \\"{SECRET}\\"}}'},
    {"text": f"User(name='x', password='two words {SECRET}')"},
    {"text": f"[(b'x-api-key', b'{SECRET}')]"},
    {"text": f"Key (token)=({SECRET}) already exists."},
    {"text": f"run --api-key {SECRET} now"},
    {"text": f"<secret>{SECRET}</secret>"},
    {"text": f"{{'credentials': {{'user': '{SECRET}'}}}}"},
    {"raw": f"password={SECRET}&user=x".encode()},
    {"error": ValueError(f"clientSecret: {SECRET}")},
]
BY_FORM: list[Any] = [
    {"text": f"postgresql://app:{SECRET}@db/orders"},
    {"text": f"postgresql://app:not/encoded{SECRET}@db/orders"},
    {"text": f"redis://:{SECRET}@cache"},
    {"text": f"https://{SECRET}@o1.ingest.sentry.test/2"},
    {"text": f"GET https://api.test/x?key={SECRET}&user=a failed"},
    {"text": f"/callback?code={SECRET}#state={SECRET}"},
    {"query_string": f"a={SECRET}&b={SECRET}"},
    {"text": f"bearer {SECRET}"},
    {"text": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx{SECRET}.{SECRET}"},
    {"text": f"hvs.{SECRET}"},
    {"text": f"ghp_{'a' * 20}{SECRET}"},
    {"text": f"glpat-{SECRET}"},
    {"text": f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----"},
    {"text": f"app:{SECRET}@db:5432"},
    {"text": f"mail {SECRET}@acme.test."},
    {f"https://app:{SECRET}@host": "a key"},
    {"text": f"Authorization: Bearer {SECRET}"},
    {"text": f"AIza{'a' * 20}{SECRET}"},
    {"text": f"hvr.{SECRET}"},
]
PLANTED = [*BY_KEY, *BY_PAIR, *BY_FORM]
HARMLESS = [
    "request",
    "/v1/items/01890000-0000-7000-8000-000000000000",
    "my-service@0.1.0+4f3c2b1",
    "12:30:45 GET /v1/items 200",
    "https://acme.test:8443/docs",
    "http://127.0.0.1:8000/@me",
    "User(name='x', age=3)",
    "the author bypasses a compass",
    "1700000000000000000",
    "asiapacificregions akiaabcdefghijkl",
    "orders.placedByCustomersOfAcme r.getOrdersOfTheCustomerInEurope2",
    {"max_tokens": 100, "status": 200, "ok": True, "nothing": None, "path": ["body", "password"]},
]


def load(folder: Path, *sabotages: Sabotage) -> ModuleType:
    """The redactor as it is emitted, perhaps changed."""
    platform = folder / "src/my_service/platform"
    platform.mkdir(parents=True)
    shutil.copy2(SOURCE / "redaction.py", platform)
    for sabotage in sabotages:
        sabotage.apply(folder)
    spec = importlib.util.spec_from_file_location("redaction", platform / "redaction.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def redactor(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return load(tmp_path_factory.mktemp("redactor"))


def leaks(redactor: ModuleType) -> list[Any]:
    """The planted values whose secret comes through; a marker beside it always does, and redacting again is idle."""
    found = []
    for value in PLANTED:
        shown = redactor.redact({**value, "marker": MARKER})
        text = json.dumps(shown)
        assert shown["marker"] == MARKER
        assert redactor.redact(shown) == shown
        if SECRET in text or SECRET.split("-")[0] in text:
            found.append(value)
    return found


def test_planted_secrets_are_hidden_and_the_rest_is_shown(redactor: ModuleType) -> None:
    assert len(PLANTED) >= 25
    assert leaks(redactor) == []
    assert [redactor.redact(value) for value in HARMLESS] == HARMLESS
    assert redactor.redact("was s.7HqPz3mJwRk9TbXcVnYdLf2a, is") == "was [redacted], is"  # of Vault below 1.10, OpenBao
    assert redactor.redact("was s.hHqPzmJwRkTbXcVnYdLfaaBc, is") == "was [redacted], is"  # 1.5 % of them have no digit
    assert redactor.redact("was b.AAAAAQL_tyer2-KA9ZHRTPgcyJxxFkF6, is") == "was [redacted], is"  # a batch token
    assert redactor.redact("card 4111 1111 1111 1111, order 4111 1111 1111 1112") == (
        "card [redacted], order 4111 1111 1111 1112"
    )


@pytest.mark.parametrize("name", TABLE)
def test_a_secret_is_hidden_in_each_form_and_a_harmless_text_like_it_is_shown(redactor: ModuleType, name: str) -> None:
    secret, harmless = TABLE[name]
    for text in (secret, f"it failed: {secret}", f"({secret})", f"{secret} {MARKER}", json.dumps({"x": [secret]})):
        shown = redactor.redact(text.replace("{{", "{").replace("}}", "}").replace("{}", "hunter2zq"))
        assert "hunter2" not in shown
        assert "[redacted]" in shown
        assert redactor.redact(shown) == shown
    assert redactor.redact(harmless) == harmless


@pytest.mark.parametrize("name", CARDS)
def test_a_card_number_is_hidden_in_texts_and_as_a_number(redactor: ModuleType, name: str) -> None:
    """Numbers that the brands publish for tests; the harmless ones have a wrong check digit or no such prefix."""
    card, other = CARDS[name]
    assert redactor.redact(f"paid with {card}.") == "paid with [redacted]."
    assert redactor.redact(f"paid with {other}.") == f"paid with {other}."
    digits = "".join(filter(str.isdigit, card))
    assert redactor.redact({"ids": [int(digits), float(digits)], "json": f'{{"n": {digits}}}'}) == {
        "ids": ["[redacted]", "[redacted]"],
        "json": '{"n":"[redacted]"}',
    }


class Evil:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


class EvilMapping(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError(SECRET)


def unwritable() -> dict[str, Any]:
    """What `json` or a collector refuses, cannot be read, or has no end."""
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    return {
        "large": [2**64, -(2**63) - 1, 10**400],
        "float": [float("nan"), float("inf"), Decimal("NaN")],
        "half a character": "a\ud800",
        "a\udfff": "key",
        "raises": [Evil(), EvilMapping(a=1), {Evil(): 1}],
        "loop": loop,
        "deep": deep,
        "bytes": [b"\xff", bytearray(b"x"), memoryview(b"y")],
        "time": [datetime.now(UTC).timetz(), datetime.now(UTC), timedelta(1)],
        "object": object(),
        "set": {1, "a"},
    }


def test_whatever_is_redacted_can_be_written(redactor: ModuleType) -> None:
    shown = redactor.redact({**unwritable(), "marker": MARKER})
    json.dumps(shown, allow_nan=False).encode()
    json.dumps(shown, ensure_ascii=False).encode()
    assert shown["marker"] == MARKER
    assert shown["raises"][0] == "<Evil>"
    assert all(abs(each) < 2**63 for each in shown["large"] if isinstance(each, int))
    assert SECRET not in str(shown)


def test_a_long_text_is_cut_and_says_so(redactor: ModuleType) -> None:
    shown = redactor.redact("x " * 3_000_000)
    assert len(shown) < 250_000
    assert shown.endswith("… [6000000 characters]")


PLAIN_TEXT = 'return _text(f"?{text}")[1:] if key and _QUERY.search(key) else _text(text)'


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "leaked"),
    [
        (Body("redaction:is_secret_name", "return False"), [*BY_KEY, *BY_PAIR]),
        (Body("redaction:_value", "return None"), BY_PAIR),
        (Value("redaction:_FORMS", 're.compile("(?!)")'), [*BY_PAIR, *BY_FORM]),
        (Body("redaction:_Copy.text", PLAIN_TEXT), BY_KEY[-2:-1]),
    ],
    ids=["keys", "pairs", "forms", "JSON in texts"],
)
def test_a_sabotaged_redactor_leaks(tmp_path: Path, sabotage: Sabotage, leaked: list[Any]) -> None:
    sick = load(tmp_path, sabotage)
    found = [value for value in PLANTED if SECRET in str(sick.redact(value))]
    assert found == leaked


# --- properties --------------------------------------------------------------------------------------------------

VALUE = st.text("zqxj0123456789", min_size=12, max_size=24).map("zq{}".format)
TELLING = st.sampled_from(
    ["password", "X-Api-Key", "clientSecret", "refresh_token", "authorization", "Cookie", "sentry_dsn", "pin", "jwt"]
)
PLAIN_KEY = st.sampled_from(["name", "note", "status", "items", "a1", "éclair"])
FORMS = st.sampled_from(
    [
        "password={}",
        "Authorization: Bearer {}",
        '"api_key": "{}"',
        "postgresql://app:{}@db/x",
        "https://{}@o1.ingest.test/2",
        "see /x?next={}",
        "hvs.{}",
        "('token', '{}')",
        "{}@acme.test",
        '[{{"deep": {{"secret": ["{}"]}}}}]',
    ]
)
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_characters="z"), max_size=20),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value in up to four containers, among harmless others."""
    others = st.lists(LEAF, max_size=3)

    def wrap(deeper: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            st.tuples(others, deeper, others).map(lambda parts: [*parts[0], parts[1], *parts[2]]),
            st.tuples(PLAIN_KEY, deeper).map(lambda pair: {"before": 1, pair[0]: pair[1]}),
            deeper.map(lambda value: (value, 1, 2)),
        )

    return wrap(inner) | wrap(wrap(inner)) | wrap(wrap(wrap(wrap(inner))))


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, Any]:
    """A secret, and a structure that holds it at some depth: under a telling key, or in a form."""
    secret = draw(VALUE)
    text = draw(FORMS).format(secret)
    by_key = st.builds(lambda key, value: {key: value}, TELLING, nested(st.just(secret)) | st.just(secret))
    by_form = st.sampled_from([text, text.encode(), ValueError(text), f"so {text} it was"])
    return secret, draw(nested(by_key | by_form))


def holds(redactor: ModuleType, examples: int) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(planted(), nested(st.just(MARKER)))
    def attempt(case: tuple[str, Any], harmless: Any) -> None:
        secret, value = case
        shown = redactor.redact({"value": value, "harmless": harmless})
        text = json.dumps(shown)
        assert MARKER in text
        assert secret not in text
        assert redactor.redact(shown) == shown

    attempt()


WRAPS = [
    lambda text: text,
    lambda text: {"note": text},
    lambda text: [1, {"a": [text, None]}],
    lambda text: ("x", "y", text),
    lambda text: f"it failed: {text}",
    lambda text: f"first\n{text}\nlast",
    lambda text: json.dumps({"note": text}),
    lambda text: json.dumps([{"a": {"b": text}}], indent=2),
    lambda text: text.encode(),
]


def covers(redactor: ModuleType, examples: int) -> None:
    """Each form with any secret, wherever it stands; and what only looks like one."""

    @settings(max_examples=examples, derandomize=True, deadline=None, phases=[Phase.generate])
    @given(st.sampled_from(sorted(TABLE)), VALUE, st.sampled_from(WRAPS))
    def attempt(name: str, secret: str, wrap: Any) -> None:
        form, harmless = TABLE[name]
        planted = wrap(form.replace("{{", "{").replace("}}", "}").replace("{}", secret))
        assert secret not in json.dumps(redactor.redact({"value": planted})), (name, planted)
        assert HIDDEN not in json.dumps(redactor.redact({"value": wrap(harmless)})), (name, harmless)

    attempt()


def test_each_form_is_hidden_with_any_secret_wherever_it_stands(redactor: ModuleType) -> None:
    covers(redactor, count(600, 10_000))


@pytest.mark.sabotage
def test_a_form_that_is_not_known_is_noticed(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        covers(load(tmp_path, Value("redaction:_TOKENS", '"(?!)"')), 600)


PIECES = ["password", "=", ":", '"', "'", "\\", "://", "@", " ", "\n", "[redacted]", "?a=", "&", "bearer ", "hvs.", "x"]
PIECES += [
    "authorization",
    "cookie",
    "--token ",
    "a.b",
    "{",
    "[",
    "(",
    ",",
    "eyJaaaaaaa.b",
    "4111111111111111",
    "<",
    ">",
]


def settles(redactor: ModuleType, examples: int) -> None:
    @settings(max_examples=examples, derandomize=True, deadline=None, phases=[Phase.generate])
    @given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join))
    def attempt(text: str) -> None:
        shown = redactor.redact(text)
        assert redactor.redact(shown) == shown

    attempt()


def test_a_secret_in_any_structure_stays_in_and_a_marker_comes_out(redactor: ModuleType) -> None:
    holds(redactor, count(150, 3000))


def test_redacting_again_changes_nothing(redactor: ModuleType) -> None:
    settles(redactor, count(500, 20_000))


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [Body("redaction:is_secret_name", "return False"), Value("redaction:_MAX_DEPTH", "2")],
    ids=["keys", "markers are lost"],
)
def test_a_sabotaged_redactor_breaks_the_property(tmp_path: Path, sabotage: Sabotage) -> None:
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        holds(load(tmp_path, sabotage), 300)


WITHOUT_END = """
shown = original(value, key)
return f"{shown}!" if isinstance(shown, str) and HIDDEN in shown else shown
"""


@pytest.mark.sabotage
def test_a_redactor_that_changes_what_is_hidden_does_not_settle(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        settles(load(tmp_path, Body("redaction:redact", WITHOUT_END)), 1000)


# --- time --------------------------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
ADVERSARIES = [
    *("a", "a:", "a=", "a@", "a@b.", "a@1.", "a://", "a://b:c/", "http://a:b", "http://a:1/", "a:!", "a,'", "é", "x "),
    *("-", "--a ", "--token ", "-----BEGIN PRIVATE KEY-----", "password", "password=", 'password="', "password='\\"),
    *(
        '\\"',
        "bearer ",
        "bearer x",
        "basic  ",
        "eyJaaaaaaa.",
        "eyJaaaaa.",
        "4111 ",
        "4",
        "[",
        "{",
        '[{"a":',
        "?a=",
        "&a",
    ),
    *("cookie:x\n", "cookie: x ", "token: [", "a:" + "b" * 255 + " ", "sk-", "[redacted]", "password=[redacted]"),
    "a password = x bearer eyJ:// ",
]


def seconds(redactor: ModuleType, value: Any) -> float:
    begun = time.process_time()
    redactor.redact(value)
    return time.process_time() - begun


def slow(redactor: ModuleType, seed: str) -> bool:
    """Whether a short text, and only then a megabyte, takes long: what goes back would take hours for the latter."""
    text = seed * (MEGABYTE // len(seed))
    return seconds(redactor, text[:30_000]) > 0.5 or seconds(redactor, text) > 6


@pytest.mark.timing
def test_a_megabyte_takes_linear_time_whatever_it_holds(redactor: ModuleType) -> None:
    assert [seed for seed in ADVERSARIES if slow(redactor, seed)] == []


@pytest.mark.timing
def test_a_huge_structure_takes_bounded_time(redactor: ModuleType) -> None:
    loop: list[Any] = []
    loop += [loop, loop, loop]
    wide = [{"name": MARKER, "password": SECRET}] * 200_000
    deep = json.dumps(wide[:30_000])
    for value in (loop, wide, deep, json.loads("[" * 900 + "]" * 900)):
        assert seconds(redactor, value) < 5
    assert SECRET not in json.dumps(redactor.redact(wide))


GOES_BACK = r"""
re.search(r"[\w.+%-]+@", text)
return original(text)
"""


@pytest.mark.timing
def test_a_pattern_that_goes_back_is_noticed(tmp_path: Path) -> None:
    assert slow(load(tmp_path, Body("redaction:_text", GOES_BACK)), "a")
