"""Git in the tests of the hooks: without the settings of whoever runs them."""

import pytest

from tests.hooks.repository import GIT


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIT.items():
        monkeypatch.setenv(name, value)
