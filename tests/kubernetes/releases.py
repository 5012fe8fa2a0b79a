"""Two versions of the real service under requests, and the real Prometheus that a release would ask about them."""

import itertools
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.kubernetes.manifests import Manifests
from tests.observability.test_routes import wait
from tests.plant import Feature
from tests.projects import Project, Service
from tests.servers.process import free_port
from tests.servers.prometheus import Prometheus

WINDOW = 3.0  # seconds of a phase that count
WINDOWS = {"2m": "3s", "5m": "60s"}  # instead of those of the Canary; a restart is the last phase
PODS = {"old": "my-service-primary-6b7f9c5d8-x2x4z", "new": "my-service-7d9c8b6f5-k8k2p"}
WORK = Feature(
    "work",
    '''"""Routes that answer as told."""

import asyncio

from fastapi import APIRouter

router = APIRouter(prefix="/v1/work")


@router.get("/well")
async def well() -> dict[str, bool]:
    return {"well": True}


@router.get("/ill")
async def ill() -> None:
    raise RuntimeError("planted")


@router.get("/slow")
async def slow() -> None:
    await asyncio.sleep(1.2)
''',
)


@dataclass(frozen=True)
class Phase:
    """What the versions are asked for; the health checks of the kubelet go on in each.

    Args:
        old: The paths below /v1/work, in turn.
        new: The same for the new version.
        few: Whether the new version gets about one request a second.
        restart: Whether the new version is started again first.
    """

    old: Sequence[str] = ()
    new: Sequence[str] = ()
    few: bool = False
    restart: bool = False


WELL = ("well",)
ILL = ("ill", "well", "well", "well")
PHASES = {
    "no requests": Phase(),
    "well": Phase(WELL, WELL),
    "few requests": Phase(WELL, WELL, few=True),
    "new version fails": Phase(WELL, ILL),
    "new version is slow": Phase(WELL, ("slow",)),
    "both fail and are slow": Phase(("slow", *ILL), ("slow", *ILL)),
    "all requests switched": Phase((), WELL),
    "new version restarted": Phase(WELL, WELL, restart=True),
}


class Stage:
    """The two versions; a phase is played once, when it is asked for."""

    def __init__(self, project: Project, folder: Path, stack: ExitStack) -> None:
        self.project, self.folder, self.stack = project, folder, stack
        self.ports = {version: free_port() for version in PODS}
        self.services: dict[str, Service] = {}
        self.ends: dict[str, float] = {}
        self.running = {version: stack.enter_context(ExitStack()) for version in PODS}
        for version in PODS:
            self.start(version)
        targets = [
            {"targets": [f"127.0.0.1:{self.ports[version]}"], "labels": {"namespace": "my-service", "pod": pod}}
            for version, pod in PODS.items()
        ]
        scrape: dict[str, Any] = {"job_name": "my-service", "scrape_interval": "500ms", "scrape_timeout": "500ms"}
        scrape["static_configs"] = targets
        self.prometheus = stack.enter_context(Prometheus({"scrape_configs": [scrape]}))
        assert wait(60, until=lambda: len(self.prometheus.query("up == 1")) == len(PODS))

    def start(self, version: str) -> None:
        env = {"OTEL_METRICS_EXPORTER": "prometheus", "METRICS_PORT": str(self.ports[version])}
        serving = self.project.serve(self.folder / version, env | {"ENVIRONMENT": "test"})
        self.services[version] = self.running[version].enter_context(serving)

    def end(self, name: str) -> float:
        """When the phase was over: what a query of that moment sees is this phase alone."""
        if name not in self.ends:
            phase = PHASES[name]
            if phase.restart:
                self.running["new"].close()
                self.start("new")
            over = threading.Event()
            with ThreadPoolExecutor(34) as threads:
                for version, paths, few in (("old", phase.old, False), ("new", phase.new, phase.few)):
                    url = f"http://127.0.0.1:{self.services[version].port}"
                    threads.submit(ask, over, url, ["/livez", "/readyz"], 0.1)
                    for _ in range(0 if not paths else 1 if few else 16):
                        threads.submit(ask, over, url, [f"/v1/work/{path}" for path in paths], 0.9 if few else 0.15)
                over.wait(WINDOW + 1.2)  # the first samples of a series count for nothing
                wait(60, until=lambda: self.busy(phase))
                over.set()
            self.ends[name] = time.time()
        return self.ends[name]

    def busy(self, phase: Phase) -> bool:
        """Whether what was asked for shows, also on a slow machine."""
        wanted = len(set(phase.old)) + (0 if phase.few else len(set(phase.new)))
        series = f'http_server_request_duration_seconds_count{{http_route=~"/v1/work/.*"}}[{WINDOW:g}s]'
        return len(self.prometheus.query(f"sum by (pod, http_route) (increase({series})) > 10")) >= wanted

    def value(self, query: str, interval: str, name: str) -> float | None:
        """What Flagger gets for a query at the end of a phase: None if there is no value."""
        at = f"{self.end(name):.3f}"
        answer = self.prometheus.ask("/api/v1/query", query=filled(query, interval), time=at)
        assert answer["status"] == "success", answer
        found = [float(each["value"][1]) for each in answer["data"]["result"]]
        assert len(found) < 2, f"{query}: {len(found)} values, of which Flagger takes any"
        return found[0] if found and not math.isnan(found[0]) else None


def ask(over: threading.Event, url: str, paths: Sequence[str], pause: float) -> None:
    """Send requests over one connection until the phase is over."""
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
        for path in itertools.cycle(paths):
            with suppress(httpx.TransportError):
                client.get(path)
            if over.wait(pause):
                return


def filled(query: str, interval: str) -> str:
    """A query as Flagger's template makes it; it knows no other names."""
    values = {"interval": WINDOWS[interval], "namespace": "my-service", "target": "my-service"}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], query)


@contextmanager
def staged(project: Project, folder: Path) -> Iterator[Stage]:
    """Both versions, until the end."""
    with ExitStack() as stack:
        yield Stage(project.variant(folder / "work", WORK), folder, stack)


def queries(found: Manifests) -> Mapping[str, tuple[str, str, Mapping[str, float]]]:
    """The metrics of the Canary: query, window and limits, read out of the rendered manifests."""
    templates = {each["metadata"]["name"]: each["spec"]["query"] for each in found.all("MetricTemplate")}
    metrics: list[dict[str, Any]] = found.one("Canary")["spec"]["analysis"]["metrics"]
    return {
        each["name"]: (templates[each["templateRef"]["name"]], each["interval"], each["thresholdRange"])
        for each in metrics
    }


def failed(stage: Stage, found: Manifests, phase: str) -> set[str]:
    """The checks that fail, as in Flagger's scheduler_metrics.go; `?` marks one without a value."""
    wrong = set()
    for name, (query, interval, limits) in queries(found).items():
        value = stage.value(query, interval, phase)
        if value is None:
            wrong.add(f"{name}?")
        elif not limits.get("min", -math.inf) <= value <= limits.get("max", math.inf):
            wrong.add(name)
    return wrong
