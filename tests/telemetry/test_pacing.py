"""What exporters get: spans in pieces with pauses, so that requests do not wait, and histograms as asked for."""

import json
from pathlib import Path

import pytest

from tests.projects import Project
from tests.sabotage import Value
from tests.servers.otlp import Collector
from tests.telemetry.conftest import watch

LONGEST = 0.004  # seconds that a thread may compute in one piece: many times what it is meant to
COUNT = 400
# Makes and encodes a batch as an exporter does, and prints the CPU seconds between pauses. Its clock counts CPU seconds
# and pauses: neighbours do not count, and nothing waits.
ENCODE = """
import json, sys, time
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from my_service.platform.telemetry import pacing, traces

spans = [TracerProvider().get_tracer("x").start_span("GET /x", attributes={f"a{n}": "x" for n in range(12)})
         for _ in range(400)]
pieces, slept = [], 0.0
time.perf_counter = lambda: time.thread_time() + slept
pace = pacing.Pace()
slept = float(sys.argv[1])  # while the batch is collected
began = time.thread_time()


def paused(seconds):
    global began, slept
    pieces.append(time.thread_time() - began)
    slept += seconds
    began = time.thread_time()


time.sleep = paused
encoded = encode_spans(pace.spread(spans, traces._clean))
print(json.dumps([pieces, len(encoded.resource_spans[0].scope_spans[0].spans)]))
"""


def pieces(project: Project, collected: float) -> list[float]:
    done = project.run(str(project.venv / "bin/python"), "-c", ENCODE, str(collected), check=True).stdout
    found, count = json.loads(done.splitlines()[-1])
    assert count == COUNT  # nothing is lost on the way
    return list(found)


def are_short(project: Project) -> None:
    found = sorted(pieces(project, 1.6))
    assert len(found) > COUNT / 20
    assert found[len(found) // 2] < LONGEST


def test_a_batch_is_encoded_in_short_pieces(project: Project) -> None:
    are_short(project)


def test_a_batch_that_came_at_once_is_encoded_at_once(project: Project) -> None:
    assert len(pieces(project, 0)) < COUNT / 20  # else the next batches would not fit into the queue


@pytest.mark.sabotage
def test_a_batch_that_is_encoded_in_one_piece_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Value("telemetry:SHARE", "0"))
    with pytest.raises(AssertionError):
        are_short(sick)


DURATIONS = """
import json
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics
from opentelemetry.sdk.resources import Resource
from my_service.platform.telemetry.durations import Durations, SeriesKey

durations, kind = Durations(), SeriesKey("/x", "GET", "http", 200, "")
empty = MetricsData([ResourceMetrics(Resource({"service.name": "x"}), [], "")])


def export(delta):
    found = durations.add_to(empty, delta).resource_metrics[0]
    assert found.resource.attributes["service.name"] == "x"
    return [[point.count, round(point.sum, 3), list(point.bucket_counts), point.min, point.max, len(point.exemplars),
             point.start_time_unix_nano, point.time_unix_nano, int(scope.metrics[0].data.aggregation_temporality)]
            for scope in found.scope_metrics for point in scope.metrics[0].data.data_points]


shown = []
for delta in (False, True):
    durations = Durations()
    shown.append(export(delta))
    durations.of(kind).record(0.005, "", "")
    durations.of(kind).record(0.2, "aa", "bb")
    shown.append(export(delta))
    durations.of(kind).record(20.0, "", "")
    shown += [export(delta), export(delta)]
print(json.dumps(shown))
"""


def test_totals_and_differences_are_exported_as_the_sdk_would(project: Project) -> None:
    lines = project.run(str(project.venv / "bin/python"), "-c", DURATIONS, check=True).stdout.splitlines()
    none, first, second, third, none_again, changed, more, nothing = json.loads(lines[-1])
    assert none == none_again == nothing == []
    assert (first[0][0], first[0][1], second[0][0], second[0][1], third[0][0]) == (2, 0.205, 3, 20.205, 3)
    assert (first[0][5], second[0][5]) == (1, 0)  # an exemplar is of the interval in which it was seen
    assert first[0][2] == [1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]  # a bound belongs to its bucket
    assert first[0][6] == second[0][6]
    assert (changed[0][:2], more[0][:2], more[0][3:5]) == ([2, 0.205], [1, 20.0], [20.0, 20.0])
    assert more[0][6] == changed[0][7]  # one interval begins where the other ends
    assert (first[0][8], changed[0][8]) == (2, 1)


@pytest.mark.servers
def test_a_collector_that_wants_differences_gets_them(
    kinds: dict[str, Project], tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> None:
    preference = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
    with watch(kinds["contrib"], tmp_path_factory.mktemp("delta"), collector, **preference) as watched:
        for _ in range(2):
            watched.ask("/watch/plain/a")
            collector.wait_until(
                lambda: any(point.value == 1 for point in collector.named("http.server.request.duration"))
            )
        points = collector.named("http.server.request.duration")
    assert {point.value for point in points} == {1}
