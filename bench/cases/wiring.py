"""What the whole wiring costs a request at each share of sampled traces, with each instrumentation.

Door, ids, access log, redaction, security headers, host check, body limit, metrics and traces to a collector that
answers, errors to a Sentry that nobody listens at: all as in production, against FastAPI alone in the same rounds.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import project
from bench.cases.overhead import measured, prepare
from bench.harness import Case, Limit, Measures, Result, interleave, medians, paired_ratio
from bench.server import HOST
from bench.sink import sink

FLOORS = {"contrib": 0.60, "native": 0.60}
START_CEILING = 2.5  # times the CPU that FastAPI alone takes until it answers
RESIDENT_CEILING = 95.0  # MiB after load
SHARES = ("0", "0.01", "0.1", "1")
SOLD = "0.1"  # the share at which the floors are promised: the default of production
INTERVAL = "5000"  # milliseconds between two exports of metrics: several in each round


def run(rounds: int, full: bool) -> Result:
    seconds = 6.0 if full else 3.0
    with TemporaryDirectory() as folder, sink(Path(folder)) as collector:
        template = project.export(Path(folder) / "template")
        sides: dict[str, Callable[[], Measures]] = {}
        for kind in FLOORS:
            service = Path(folder) / kind
            tools = project.make_service(template, service, prepare, "--data", f"http_instrumentation={kind}")
            for name in ("bare", "stripped"):
                sides.setdefault(name, partial(measured, name, service, tools, seconds, {}))
            for share in SHARES:
                env = {
                    "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
                    "OTEL_METRIC_EXPORT_INTERVAL": INTERVAL,
                    "OTEL_TRACES_SAMPLER_ARG": share,
                    "SENTRY_DSN": f"http://key@{HOST}:9/1",  # read where the room `errors` is there
                }
                sides[f"{kind} {share}"] = partial(measured, "service", service, tools, seconds, env)
        for side in sides.values():
            side()  # compiles what the installation did not, and shows a mistake before the rounds
        found = interleave(sides, rounds)
    ratio = {name: paired_ratio(found, "bare", name, "cpu_per_request") for name in sides if name != "bare"}
    limits = {kind: Limit("floor", floor, ratio[f"{kind} {SOLD}"]) for kind, floor in FLOORS.items()}
    for kind in FLOORS:
        name = f"{kind} {SOLD}"
        limits[f"{kind} start"] = Limit("ceiling", START_CEILING, paired_ratio(found, name, "bare", "start_cpu"))
        limits[f"{kind} resident"] = Limit("ceiling", RESIDENT_CEILING, medians(found)[name]["resident"])
    return Result(
        unit={"cpu_per_request": "us", "start_cpu": "s", "resident": "MiB"}, rounds=found, ratio=ratio, limits=limits
    )


CASE = Case(
    name="wiring",
    limit="at 10 % sampling 0.60 times the answers of FastAPI alone at equal CPU, 2.5 times its start, 95 MiB",
    run=run,
)
