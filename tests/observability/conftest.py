"""What observability/ emits, rendered once per worker, and the real Prometheus that reads its queries."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import Project, render
from tests.servers.prometheus import Prometheus


@pytest.fixture(scope="session")
def emitted(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with default answers, not installed. Do not change it: make a `variant`."""
    return Project(render(template, tmp_path_factory.mktemp("emitted") / "service"))


@pytest.fixture(scope="session")
def without_database(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same, without a database and under another name."""
    folder = tmp_path_factory.mktemp("without") / "service"
    return Project(render(template, folder, database="none", project_name="Order Desk"), "order-desk", "order_desk")


@pytest.fixture(scope="session")
def prometheus() -> Iterator[Prometheus]:
    """A server without data: its parser is what counts."""
    with Prometheus() as server:
        yield server
