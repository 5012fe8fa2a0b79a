"""The plan in the hands of an operator."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import Project
from tests.recovery.plan import Steps, steps_of


@pytest.fixture
def steps(request: pytest.FixtureRequest, project: Project, tmp_path: Path) -> Iterator[Steps]:
    """The commands of the sections that the test's `runs` names."""
    with steps_of(project, tmp_path / "operator", request.param) as made:
        yield made
