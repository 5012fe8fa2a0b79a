"""How long the slowest requests wait while everything is on: exporters share the interpreter with the event loop.

An open loop: requests come at a fixed rate, 40 % of what FastAPI alone answers, and one that has to wait for the
export of a batch is timed from when it was due.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import measure, project
from bench.cases.overhead import PATH, prepare, warm
from bench.cases.wiring import INTERVAL, SOLD
from bench.harness import BenchError, Case, Limit, Measures, Result, interleave, medians, paired_ratio
from bench.load import arrive, load
from bench.server import HOST
from bench.sink import sink

CEILING_MS = 2.0
SHARE = 0.4  # of what FastAPI alone answers
CONNECTIONS = 32
KINDS = ("contrib", "native")


def delays(name: str, service: Path, tools: Path, seconds: float, env: dict[str, str], rate: float) -> Measures:
    """Latencies of a fresh process whose requests come at their rate."""
    with warm(name, service, tools, env) as server:
        before = measure.cpu_seconds(server.pid)
        found = arrive(HOST, server.port, PATH, rate=rate, connections=CONNECTIONS, seconds=seconds)
        if found.errors:
            raise BenchError(f"{name}: {found.errors} of {len(found.seconds)} requests were not answered with 200")
        spent = (measure.cpu_seconds(server.pid) - before) / len(found.seconds)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    latencies = {key: found.percentile(share) * 1e3 for key, share in shares.items()}
    return latencies | {"cpu_per_request": spent * 1e6}


def capacity(service: Path, tools: Path) -> float:
    """Requests per second that FastAPI alone answers, over as many connections as come later."""
    with warm("bare", service, tools, {}) as server:
        found = load(HOST, server.port, PATH, connections=CONNECTIONS, seconds=2.0)
        return found.requests / found.seconds


def run(rounds: int, full: bool) -> Result:
    seconds = 12.0 if full else 4.0  # many batches of spans
    with TemporaryDirectory() as folder, sink(Path(folder)) as collector:
        template = project.export(Path(folder) / "template")
        rate = 0.0
        sides: dict[str, Callable[[], Measures]] = {}
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            "OTEL_METRIC_EXPORT_INTERVAL": INTERVAL,
            "OTEL_TRACES_SAMPLER_ARG": SOLD,
            "SENTRY_DSN": f"http://key@{HOST}:9/1",  # read where the room `errors` is there
        }
        for kind in KINDS:
            service = Path(folder) / kind
            tools = project.make_service(template, service, prepare, "--data", f"http_instrumentation={kind}")
            if not rate:
                rate = SHARE * capacity(service, tools)
                sides["bare"] = partial(delays, "bare", service, tools, seconds, {}, rate)
            sides[kind] = partial(delays, "service", service, tools, seconds, env, rate)
        found = interleave(sides, rounds)
    middle = medians(found)
    return Result(
        unit={"p50": "ms", "p90": "ms", "p99": "ms", "p999": "ms", "cpu_per_request": "us"},
        rounds=found,
        ratio={kind: paired_ratio(found, kind, "bare", "p99") for kind in KINDS},
        limits={kind: Limit("ceiling", CEILING_MS, middle[kind]["p99"]) for kind in KINDS},
        notes={"requests_per_second": rate},
    )


CASE = Case(
    name="tail",
    limit=f"fully wired, at {SHARE:.0%} of the load that FastAPI alone can take, p99 at most {CEILING_MS:g} ms",
    run=run,
)
