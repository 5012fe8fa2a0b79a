"""What the roles and the migrator promise holds on PostgreSQL 18 too, where Debian has an older one."""

import pytest

from tests.database.conftest import Database, make_model
from tests.database.test_migrate import (
    test_a_table_that_is_held_makes_it_wait_and_not_the_requests,
    test_of_two_migrators_one_waits,
    test_the_recipes_of_the_guide_work_while_the_table_is_read_and_written,
)
from tests.database.test_roles import (
    test_applied_twice_it_changes_nothing,
    test_each_role_may_do_its_work_and_nothing_else,
    test_who_owns_the_database_need_be_no_superuser,
)
from tests.projects import Project
from tests.servers.postgres import NewestPostgres

__all__ = [  # collected here too, with the fixtures below
    "test_a_table_that_is_held_makes_it_wait_and_not_the_requests",
    "test_applied_twice_it_changes_nothing",
    "test_each_role_may_do_its_work_and_nothing_else",
    "test_of_two_migrators_one_waits",
    "test_the_recipes_of_the_guide_work_while_the_table_is_read_and_written",
    "test_who_owns_the_database_need_be_no_superuser",
]
pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def server(newest_postgres: NewestPostgres) -> NewestPostgres:
    """Here it is this one."""
    return newest_postgres


@pytest.fixture(scope="module")
def model(project: Project, server: NewestPostgres) -> Database:
    """Made on this one."""
    return make_model(project, server)


def test_it_is_another_major_version(server: NewestPostgres) -> None:
    assert server.version.startswith("18.")
