"""What each value of a setting becomes, or that it is refused: many values, all in one process."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests import commands
from tests.projects import Project
from tests.sabotage import Body, Sabotage, Value

Outcome = str | int | float | bool | Mapping[str, str] | Sequence[str | int] | None
REFUSED = "refused"
# Reads each environment as the commands do: the value, or "refused"; a traceback ends it.
READ = """
import contextlib, io, json, os, sys
from pydantic import SecretStr
from my_service.platform.settings import load
from my_service.settings import Settings

class Mine(Settings):
    prices: list[int] = []

for name, value in json.loads(sys.stdin.read()):
    clean = dict(os.environ)
    os.environ[name] = value
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            read = getattr(load(Mine), name.lower(), "no setting of ours")
        outcome = read.get_secret_value() if isinstance(read, SecretStr) else read
    except SystemExit as error:
        assert error.code == 78, error.code
        assert said.getvalue().startswith(f"configuration refused: {name}: "), said.getvalue()
        assert said.getvalue().count("\\n") == 1, said.getvalue()
        outcome = "refused"
    os.environ.clear()
    os.environ.update(clean)
    print(json.dumps(outcome, default=str))
"""


def outcomes(project: Project, asked: Sequence[tuple[str, str]]) -> list[Outcome]:
    """What the service has for each variable and value."""
    python = project.venv / "bin/python"
    done = commands.must(python, "-c", READ, cwd=project.root, env=project.env(), text=json.dumps(asked))
    return [json.loads(line) for line in done.splitlines()]


def wrong(project: Project, table: Mapping[str, Mapping[str, Outcome]]) -> list[tuple[str, str, Outcome]]:
    """What differs from a table: the variable, the value, and what it became instead."""
    asked = [(name, value) for name, values in table.items() for value in values]
    found = zip(asked, outcomes(project, asked), strict=True)
    return [(name, value, seen) for (name, value), seen in found if seen != table[name][value]]


LISTS: dict[str, dict[str, Outcome]] = {
    "TRUSTED_HOSTS": {
        "a.com": ["a.com"],
        "A.com, B.COM ": ["a.com", "b.com"],
        "a.com b.com\n": ["a.com", "b.com"],
        '["a.com", " B.com"]': ["a.com", "b.com"],  # as a secrets store gives a list
        "a.com,*.a.com": ["a.com", "*.a.com"],
        "*": ["*"],
        "my_service": ["my_service"],
        "bücher.de": ["xn--bcher-kva.de"],  # RFC 5891: so a Host header has it
        "::1": ["[::1]"],
        "[0:0::1],127.0.0.1": ["[::1]", "127.0.0.1"],
        "": ["localhost", "127.0.0.1", "[::1]"],
        **dict.fromkeys(
            [",", "[]", '[""]', "[1]", '{"a": 1}', "https://a.com", "a.com:443", "a.com/", "[::1]:80"], REFUSED
        ),
        **dict.fromkeys(["*a.com", "a.*.com", "*.", ".a.com", "a.com.", "10.0.0.0/8", "'a.com'", "[a.com]"], REFUSED),
        **dict.fromkeys(["ü" * 70, "a..com", "me@a.com", "a.com;b.com", '"a.com","b.com"'], REFUSED),
    },
    "FORWARDED_ALLOW_IPS": {
        "10.0.0.1,::1": ["10.0.0.1", "::1"],
        "10.0.0.1/8": ["10.0.0.0/8"],  # uvicorn takes one with host bits for a name, which matches nothing
        "10.0.0.0/255.0.0.0": ["10.0.0.0/8"],
        '["10.0.0.1"]': ["10.0.0.1"],
        "[::1]": ["::1"],
        "*": ["*"],
        **dict.fromkeys(["nginx", "localhost", "10.0.0.*", "10.0.0.1:80", "10.0.0.0/33", "http://10.0.0.1"], REFUSED),
    },
}
BLANKS: dict[str, dict[str, Outcome]] = {
    "ENVIRONMENT": {"staging\n": "staging", " test ": "test", **dict.fromkeys(["", " ", "\n", "Local"], REFUSED)},
    "CACHE_URL": {"OFF\n": None, " redis://h/0\r\n": "redis://h/0"},
    "DATABASE_URL": {"sqlite:///./x.db\n": "sqlite:///./x.db", "\udcff": REFUSED},
    "EXPOSE_DOCS": {"true\n": True},
    "HOST": {" ": "", " ::1\n": "::1"},
    "LOG_LEVEL": {"INFO\n": "INFO"},
    "MAX_BODY_BYTES": {" 5\n": 5},
    "PRICES": {"[1, 2]\n": [1, 2], "1,2": REFUSED},
    "SECRETS_DIR": {"/run/x\n": "/run/x"},
    "SENTRY_DSN": {"https://public@sentry.acme.test/1\n": "https://public@sentry.acme.test/1"},
}
LINK = "tcp://10.0.0.1:9464"
PORTS: dict[str, dict[str, Outcome]] = {
    "METRICS_PORT": {LINK: 9464, "80\n": 80, **dict.fromkeys(["eighty", "-1", "65536", "10.0.0.1:9464"], REFUSED)},
    "PORT": {"tcp://[fd00::1]:80": 8000, "0": 0, **dict.fromkeys(["http", "http://a:80", "8000,8001"], REFUSED)},
}
REDIS = [
    "redis://h/0",
    "redis://h",
    "redis://h/",
    "redis://h?socket_timeout=1.5&client_name=x",
    "rediss://h?ssl_cert_reqs=none",
]
CACHES: dict[str, dict[str, Outcome]] = {
    "CACHE_URL": {
        **{url: url for url in REDIS},
        **dict.fromkeys(["redis://h/abc", "redis://h/0/1", "redis://h?socket_timeout=abc", "redis://h?db=x"], REFUSED),
        **dict.fromkeys(["redis://h?foo=1", "redis://h?foo=", "redis://h?decode_responses=true"], REFUSED),
        **dict.fromkeys(["rediss://h?ssl_cert_reqs=abc", "redis://h?protocol=9", "redis://h#x"], REFUSED),
        **dict.fromkeys(["redis://:pa/ss@h/0", "redis://h?retry=x", "redis://h?connection_class=x"], REFUSED),
    }
}
NO_NUMBERS = ["abc", "-1", "1.5", "99999999999999999999", "1e400", "nan", "("]
NUMBERS: dict[str, Outcome] = {
    **dict.fromkeys(NO_NUMBERS, REFUSED),
    "5000": "no setting of ours",
    " ": "no setting of ours",
}
NATIVE: dict[str, dict[str, Outcome]] = {
    **{
        name: NUMBERS
        for name in (
            "OTEL_ATTRIBUTE_COUNT_LIMIT",
            "OTEL_BLRP_MAX_QUEUE_SIZE",
            "OTEL_BSP_EXPORT_TIMEOUT",
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "OTEL_BSP_SCHEDULE_DELAY",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
            "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "OTEL_METRIC_EXPORT_TIMEOUT",
            "OTEL_SPAN_EVENT_COUNT_LIMIT",
        )
    },
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": {"512": "no setting of ours", "0": REFUSED, "4096": REFUSED},
    "OTEL_EXPORTER_OTLP_CERTIFICATE": {"/nope": REFUSED},
    "OTEL_EXPORTER_OTLP_COMPRESSION": {"gzip": "no setting of ours", "zstd": REFUSED},
    "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE": {"/nope": REFUSED},
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS": {"a=b": "no setting of ours", "abc": REFUSED},
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": {"abc": REFUSED},
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": {"grpc": REFUSED},
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": {"DELTA": "no setting of ours", "abc": REFUSED},
    "OTEL_EXPORTER_OTLP_TIMEOUT": {"5000": 5000, "100": 100, "5": REFUSED, "2.5": REFUSED, "60001": REFUSED},
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": {"http://a:1/v1": "no setting of ours", "a:4318": REFUSED},
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": {"process": "no setting of ours", "process,abc": REFUSED},
    "OTEL_METRICS_EXEMPLAR_FILTER": {"always_on": "no setting of ours", "abc": REFUSED},
    "OTEL_METRIC_EXPORT_INTERVAL": dict.fromkeys(NO_NUMBERS, REFUSED),
    "OTEL_PYTHON_EXCLUDED_URLS": {"a,b": "no setting of ours", "(": REFUSED},
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER": {"abc": REFUSED},
}


def test_a_list_is_normalised_or_refused_where_it_can_match_nothing(project: Project) -> None:
    assert wrong(project, LISTS) == []


def test_blanks_around_a_value_are_no_part_of_it_and_a_blank_environment_is_refused(project: Project) -> None:
    assert wrong(project, BLANKS) == []


def test_a_service_link_of_kubernetes_is_no_port(project: Project) -> None:
    """https://kubernetes.io/docs/concepts/containers/container-environment/: a Service `metrics` sets METRICS_PORT."""
    assert wrong(project, PORTS) == []


def test_a_cache_url_with_a_part_that_does_nothing_or_fails_later_is_refused(project: Project) -> None:
    assert wrong(project, CACHES) == []


def test_what_the_sdk_reads_by_itself_is_checked_as_ours_is(project: Project) -> None:
    assert wrong(project, NATIVE) == []


EXPORT = """
import json, os, socket, time
from my_service.platform.settings import load
from my_service.settings import Settings

with socket.create_server(("127.0.0.1", 0)) as silent:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
    common = load(Settings).options("metrics")
    os.environ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"] = "200"
    os.environ["OTEL_EXPORTER_OTLP_TRACES_HEADERS"] = "x-own=1"
    own = load(Settings).options("traces")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    began = time.monotonic()
    exporter = OTLPSpanExporter(**own)
    result = exporter.export([]).name
    print(json.dumps([common["timeout"], own["timeout"], own["headers"], result, time.monotonic() - began]))
"""


def waited(project: Project) -> list[Outcome]:
    env = project.env({"OTEL_EXPORTER_OTLP_TIMEOUT": "60000"})
    found: list[Outcome] = json.loads(
        commands.must(project.venv / "bin/python", "-c", EXPORT, cwd=project.root, env=env)
    )
    return found


def test_an_export_waits_for_milliseconds_and_a_signal_has_variables_of_its_own(project: Project) -> None:
    """https://opentelemetry.io/docs/specs/otel/protocol/exporter/; the SDK: opentelemetry-python 4044."""
    common, own, headers, result, seconds = waited(project)
    assert (common, own, headers, result) == (60.0, 0.2, {"x-own": "1"}, "FAILURE")
    assert isinstance(seconds, float)
    assert seconds < 30  # in seconds it would be 200


@pytest.mark.sabotage
def test_a_timeout_in_seconds_is_noticed(project: Project, tmp_path: Path) -> None:
    seconds = Body("telemetry.settings:Settings.options", 'return {**original(signal), "timeout": 2.0}')
    assert waited(project.variant(tmp_path / "sick", seconds))[1] != 0.2


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "table", "seen"),
    [
        (
            Body("values:split_list", 'return tuple(value.split(",")) if isinstance(value, str) else value'),
            LISTS,
            "FORWARDED_ALLOW_IPS",
        ),
        (Body("values:check_host", "return text"), LISTS, "TRUSTED_HOSTS"),
        (Body("values:check_network", "return text"), LISTS, "FORWARDED_ALLOW_IPS"),
        (Body("values:check_port", "return value"), PORTS, "METRICS_PORT"),
        (Body("settings:RoomSettings.strip", "return values"), BLANKS, "LOG_LEVEL"),
        (Value("telemetry.settings:FROM_ENVIRONMENT", "{}"), NATIVE, "OTEL_BSP_SCHEDULE_DELAY"),
        (Value("cache.redis:OPTIONS", '{"foo", "db", "decode_responses"}'), CACHES, "CACHE_URL"),
    ],
    ids=["lists", "hosts", "networks", "ports", "blanks", "the SDK", "options"],
)
def test_a_value_that_is_read_wrongly_is_noticed(
    project: Project, tmp_path: Path, sabotage: Sabotage, table: dict[str, dict[str, Outcome]], seen: str
) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    assert seen in {name for name, _, _ in wrong(sick, table)}
