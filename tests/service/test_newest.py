"""The example's whole life on PostgreSQL 18 too, where Debian has an older one."""

from collections.abc import Iterator

import pytest

from tests.projects import Project, Service
from tests.servers.postgres import NewestPostgres
from tests.service.conftest import migrated
from tests.service.test_items import test_a_key_holds_across_a_restart, test_items

__all__ = ["test_a_key_holds_across_a_restart", "test_items"]  # collected here too, with the fixtures below
pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def postgres(newest_postgres: NewestPostgres) -> NewestPostgres:
    """Here it is this one."""
    return newest_postgres


@pytest.fixture(scope="module")
def service(project: Project, postgres: NewestPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service on it."""
    env = migrated(project, postgres.create_database())
    with project.serve(tmp_path_factory.mktemp("newest"), env) as served:
        yield served
