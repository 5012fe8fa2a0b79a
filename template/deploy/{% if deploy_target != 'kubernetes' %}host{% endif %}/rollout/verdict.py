"""Whether a new version is worse than the old one, by what the load balancer has counted for both."""

from math import sqrt

from .balancer import Totals
from .config import Table

CERTAIN = 3.0  # standard deviations: 99.9 %
FEW = 3  # errors; fewer never end a release early
BY_CHANCE = 1  # error in a whole step that may happen to the best


def too_bad(new: Totals, old: Totals, limits: Table, samples: int) -> str:
    """The reason to roll back at once; empty if there is none yet.

    Errors count as soon as they cannot be chance, however few responses there are; times, after enough responses.
    """
    allowed = _allowed(old, limits)
    if new.errors >= FEW and _at_least(new.errors, new.requests) > allowed:
        return _errors(new, old)
    slowest = old.mean_ms * limits["slow_times"] + limits["slow_ms"]
    if min(new.requests, old.requests) >= samples and new.mean_ms > slowest:
        return f"it is slow: {new.mean_ms:.0f} ms on average, the stable instances {old.mean_ms:.0f} ms"
    return ""


def not_good_enough(new: Totals, old: Totals, limits: Table, samples: int) -> str:
    """The reason not to promote after a whole step; empty if it passed."""
    if new.errors > BY_CHANCE and new.error_percent > _allowed(old, limits):
        return _errors(new, old)
    return too_bad(new, old, limits, samples)


def _errors(new: Totals, old: Totals) -> str:
    return f"{new.errors} of its {new.requests} requests failed, of the stable instances {old.error_percent:.1f} %"


def _allowed(old: Totals, limits: Table) -> float:
    return float(max(limits["error_percent"], old.error_percent * limits["error_times"]))


def _at_least(errors: int, requests: int) -> float:
    """Percent that fail with certainty: the lower end of Wilson's interval (doi.org/10.1080/01621459.1927.10502953)."""
    share, z = errors / requests, CERTAIN**2 / requests
    spread = sqrt(share * (1 - share) * z + z * z / 4)
    return 100 * (share + z / 2 - spread) / (1 + z)
