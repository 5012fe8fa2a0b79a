"""What is told of the cache: a span for each call, a count for each value, and no secret in either."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.caching.conftest import Lab, lab
from tests.servers.memcached import Memcached
from tests.servers.otlp import Collector, Span
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers


@pytest.fixture(params=["redis", "memcached"])
def watched(request: pytest.FixtureRequest, tmp_path: Path, collector: Collector) -> Iterator[Lab]:
    """A lab with telemetry, all of it sampled unless the caller says otherwise."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    server: Redis | Memcached = request.getfixturevalue(request.param)
    with lab(request.getfixturevalue(f"on_{request.param}"), tmp_path, server, env=env) as made:
        yield made


def ask(made: Lab, path: str, sampled: bool = True) -> str:
    """The trace of one request."""
    trace = secrets.token_hex(16)
    header = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-{sampled:02x}"}
    assert made.service.client.get(path, headers=header).status_code == 200
    return trace


def spans(collector: Collector, trace: str) -> list[Span]:
    """The spans of the cache in a trace: they end, and are sent, before that of the request."""
    collector.wait_until(lambda: any(span.trace_id == trace for span in collector.server_spans()))
    return [span for span in collector.client_spans() if span.trace_id == trace]


def counts(collector: Collector, policy: str) -> dict[str, int]:
    """How often values of a policy were asked for, by result."""
    found = {}
    for point in collector.named("cache.requests"):
        assert point.attributes.keys() == {"cache.policy", "cache.result"}
        if point.attributes["cache.policy"] == policy:
            found[str(point.attributes["cache.result"])] = int(point.value)
    return found


def is_open(collector: Collector) -> list[float]:
    return [point.value for point in collector.named("cache.breaker.open")]


def test_each_call_is_one_client_span_and_each_value_counts_once(watched: Lab, collector: Collector) -> None:
    assert watched.server
    path = "/lab/get/mine/s3cr3t?principal=s3cr3t"
    miss = spans(collector, ask(watched, path))
    assert [span.name for span in miss] == ["cache get mine", "cache set mine"]
    unsampled = ask(watched, path, sampled=False)
    (hit,) = spans(collector, ask(watched, path))
    assert not any(span.trace_id == unsampled for span in collector.spans)
    assert hit.attributes["cache.result"] == "hit"
    assert hit.attributes["db.system.name"] == watched.server.scheme
    assert hit.parent_id in {span.span_id for span in collector.server_spans()}
    assert not any("s3cr3t" in str(span.attributes.values()) for span in (*miss, hit))
    collector.wait_until(lambda: counts(collector, "mine") == {"hit": 2, "miss": 1})
    collector.wait_until(lambda: is_open(collector) == [0])
    watched.server.pause()
    (failed,) = spans(collector, ask(watched, "/lab/get/plain/other"))
    assert failed.error
    watched.rush([f"/lab/get/plain/away-{number}" for number in range(20)])
    collector.wait_until(lambda: is_open(collector) == [1])
    watched.server.resume()
    collector.wait_until(lambda: is_open(collector) == [0])
