"""What the cases compare with their limits."""

import pytest

from bench.cases.copy import compared


@pytest.mark.parametrize(
    ("copy", "imported", "seconds"),
    [
        (0.80, 0.400, 0.80),  # a faster machine: what it took
        (1.86, 0.930, 0.93),  # half as fast, the same template
        (3.72, 0.930, 1.86),  # half as fast, a template that takes twice as long
    ],
)
def test_a_copy_is_compared_in_seconds_of_the_machine_of_its_limit(
    copy: float, imported: float, seconds: float
) -> None:
    rounds = [{"copy": {"cpu": copy}, "import": {"cpu": imported}}] * 5
    assert compared(rounds) == pytest.approx(seconds)
