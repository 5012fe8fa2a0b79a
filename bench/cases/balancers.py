"""What each emitted load balancer adds to a request: latency at a fixed rate, throughput, and CPU.

One process of the service answers all three subjects, so that they differ in the way only. The balancers speak TLS, as
emitted; `direct` is plain text. Nothing is cached, and each connection comes from an address of its own, since a client
may ask 50 times per second: the limits of the emitted configuration stay on.
"""

import os
import socket
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench import measure, project
from bench.cases.overhead import PATH, PRODUCTION_LIKE, commands, prepare
from bench.harness import BenchError, Case, Limit, Measures, Result, interleave, paired_ratio
from bench.load import arrive, load
from bench.server import HOST, Server, serving
from tests.balancer.balancer import HOST as NAME
from tests.balancer.balancer import Balancer
from tests.balancer.client import Client, context
from tests.balancer.haproxy import HAProxyBalancer
from tests.balancer.nginx import NginxBalancer
from tests.servers.postgres import Postgres
from tests.servers.process import free_port

KINDS = (NginxBalancer, HAProxyBalancer)
CEILING_MS = 1.0
CONNECTIONS = 64
LOAD_SECONDS = 2.0  # not longer: HAProxy lets an address ask 200 times in 4 s
RATE = 200.0  # requests per second, of all connections


def through(server: Server, balancer: Balancer | None, seconds: float) -> Measures:
    """One subject: as many requests as possible, then some at their rate; CPU is of the service and the balancer."""
    port = balancer.port if balancer else server.port
    tls = context() if balancer else False
    pids = [server.pid, *([balancer.process.pid] if balancer else [])]

    def dial(number: int) -> socket.socket:
        client = Client(port, tls=tls, source=f"127.0.1.{1 + number}")
        if (answer := client.get(PATH)).status != 200:  # reads the session tickets of TLS, too
            raise BenchError(f"{PATH} was answered with {answer.status}")
        return client.socket

    def cpu() -> float:
        return sum(map(measure.cpu_seconds, pids))

    def checked(errors: int) -> None:
        if errors:
            raise BenchError(f"{balancer.kind if balancer else 'direct'}: {errors} requests were not answered with 200")

    headers = {"Host": NAME}
    before = cpu()
    seen = load(HOST, port, PATH, connections=CONNECTIONS, headers=headers, seconds=LOAD_SECONDS, dial=dial)
    spent = cpu() - before
    checked(seen.errors)
    found = arrive(HOST, port, PATH, rate=RATE, connections=CONNECTIONS, headers=headers, seconds=seconds, dial=dial)
    checked(found.errors)
    return {
        "p50": found.percentile(0.5) * 1e3,
        "p99": found.percentile(0.99) * 1e3,
        "throughput": seen.requests / seen.seconds,
        "cpu_per_request": spent / (seen.requests + CONNECTIONS) * 1e6,
    }


def measured(rounds: int, seconds: float, folder: Path) -> Result:
    busy = os.getloadavg()[0]
    template = project.export(folder / "template")
    service = folder / "service"
    tools = project.make_service(template, service, prepare)
    sync = ["uv", "sync", "--no-dev", "--extra", "ops", "--quiet"]
    measure.run(sync, cwd=service, env=project.environment() | {"UV_COMPILE_BYTECODE": "1"})
    for kind in KINDS:
        project.copy(template, folder / kind.kind, "--data", f"load_balancer={kind.kind}")
    port = free_port()
    command = commands(service, tools, port)["service"]
    nginx, haproxy = (kind(folder / kind.kind, port) for kind in KINDS)
    env = {"PATH": os.defpath, "HOST": HOST, "PORT": str(port), "TRUSTED_HOSTS": NAME, **PRODUCTION_LIKE}
    with Postgres() as database:
        env["DATABASE_URL"] = database.url()
        measure.run([command[0], "migrate"], cwd=service, env=env)
        with (
            serving(command, port, "/readyz", cwd=service, env=env, log=folder / "service.log") as server,
            nginx,
            haproxy,
        ):
            ways = {"direct": None, nginx.kind: nginx, haproxy.kind: haproxy}
            for way in ways.values():
                through(server, way, 1.0)  # shows a mistake before the rounds
            sides = {name: partial(through, server, way, seconds) for name, way in ways.items()}
            found = interleave(sides, rounds)
    ratio: dict[str, float] = {}
    for kind in KINDS:
        for name in ("p50", "p99", "throughput", "cpu_per_request"):
            ratio[f"{kind.kind} {name}"] = paired_ratio(found, kind.kind, "direct", name)
    added = {kind.kind: median(each[kind.kind]["p50"] - each["direct"]["p50"] for each in found) for kind in KINDS}
    return Result(
        unit={"p50": "ms", "p99": "ms", "throughput": "1/s", "cpu_per_request": "us"},
        rounds=found,
        ratio=ratio,
        limits={name: Limit("ceiling", CEILING_MS, value) for name, value in added.items()},
        notes={
            "load_average_before": busy,
            "requests_per_second": RATE,
            "transport": "HTTP/1.1; balancers with TLS 1.3, direct in plain text",
        },
    )


def run(rounds: int, full: bool) -> Result:
    with TemporaryDirectory() as folder:
        return measured(rounds, 10.0 if full else 4.0, Path(folder))


CASE = Case(
    name="balancers",
    limit=f"at {RATE:g} requests per second, p50 through a balancer is at most {CEILING_MS:g} ms more than direct",
    run=run,
)
