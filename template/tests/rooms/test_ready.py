"""The checks of `ready` can be loaded, yours included: each has a unique name and states its promise."""

from ready import engine


def test_every_check_has_a_name_and_a_promise() -> None:
    checks = list(engine.find())
    assert len({check.name for check in checks}) == len(checks) > 0
    assert [check.name for check in checks if check.title == check.name] == []
