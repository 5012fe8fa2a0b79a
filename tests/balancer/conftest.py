"""The emitted balancers before an upstream whose bytes a test controls, and before two instances of the service."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from tests.balancer.balancer import Balancer
from tests.balancer.haproxy import HAProxyBalancer
from tests.balancer.nginx import NginxBalancer
from tests.balancer.upstream import Upstream
from tests.projects import render

KINDS: Mapping[str, type[Balancer]] = {kind.kind: kind for kind in (NginxBalancer, HAProxyBalancer)}
# What a scenario whose promise is broken ends with.
RED = (AssertionError, OSError, HTTPException, WebSocketException)
Open = Callable[..., AbstractContextManager[Balancer]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[Balancer]:
    """Each balancer in turn."""
    return KINDS[request.param]


@pytest.fixture(scope="session")
def rendered(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A project with a kind of balancer, made once; it is not installed."""

    @functools.cache
    def project(kind: str) -> Path:
        return render(template, tmp_path_factory.mktemp(kind) / "service", load_balancer=kind)

    return project


@pytest.fixture
def emitted(rendered: Callable[[str], Path], kind: type[Balancer]) -> Path:
    """A project with this balancer; it is not installed. Do not change it."""
    return rendered(kind.kind)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A service of the test's own."""
    with Upstream().run() as running:
        yield running


@pytest.fixture
def open_balancer(kind: type[Balancer], emitted: Path, upstream: Upstream) -> Open:
    """Start a balancer with options of `Balancer`, by default before `upstream`."""

    def opened(*peers: int, **options: Any) -> Balancer:
        return kind(emitted, *(peers or (upstream.port,)), **options)

    return opened


@pytest.fixture
def balancer(open_balancer: Open) -> Iterator[Balancer]:
    """A balancer before `upstream`."""
    with open_balancer() as opened:
        yield opened
