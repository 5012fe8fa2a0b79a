"""Runs the checks concurrently, each with a time limit; a check without evidence is never `proven`.

A check is an async function that tests the running service from outside and returns its evidence. It raises `Gap` if
the promise is broken, `Claimed` if only the service itself says that it is kept (as in `/readyz`: no evidence),
`NotApplicable` if the service has no such part, `CannotCheck` if something prevents the check. Any other exception also
means that the check could not run.
"""

import asyncio
import importlib
import pkgutil
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from json import JSONDecodeError
from typing import Any, Literal

import httpx2

from .areas import NOT_BUILT
from .config import Config, ConfigurationError, Waiver
from .report import Outcome, Status, plain

Effect = Literal["reads", "writes", "drill"]  # drill: it breaks or starts something
Profile = Literal["local", "production"]


class Verdict(Exception):
    """Ends a check that cannot prove its promise.

    Args:
        seen: What the check found instead.
        step: What to do next, in one line.
    """

    status: Status

    def __init__(self, seen: str, step: str = "") -> None:
        super().__init__(seen)
        self.step = step


class Gap(Verdict):
    """The promise is broken."""

    status = Status.GAP


class CannotCheck(Verdict):
    """Something prevents the check."""

    status = Status.UNKNOWN


class NotApplicable(Verdict):
    """The service has no such part; the text says why."""

    status = Status.NOT_APPLICABLE


class NotRun(Verdict):
    """It is checked on request only."""

    status = Status.NOT_RUN


class Claimed(Verdict):
    """The service says so, and nothing else was asked."""

    status = Status.CLAIMED

    def __init__(self, says: str) -> None:
        super().__init__(f"the service says: {says}")


@dataclass(frozen=True, slots=True)
class Probe:
    """What a check gets: the service and the run.

    Args:
        client: Sends requests to the service; a path is enough.
        marker: Unique to this run, to search for at the far end; valid in a header.
        profile: Which rules apply, see `profile.decide`.
        config: `ready.toml`.
        about: The response of `/version`.
    """

    client: httpx2.AsyncClient
    marker: str
    profile: Profile
    config: Config
    about: dict[str, str]

    @property
    def production(self) -> bool:
        """Whether the rules of production apply."""
        return self.profile == "production"


CheckFunction = Callable[[Probe], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Check:
    """A promise and the function that checks it."""

    area: str
    name: str
    title: str
    function: CheckFunction
    effect: Effect
    seconds: float


def check(area: str, *, effect: Effect = "reads", seconds: float = 10) -> Callable[[CheckFunction], CheckFunction]:
    """Make a function a check; the first line of its docstring is the promise.

    Args:
        area: One of `AREAS`, or a name of your own.
        effect: What it does to the service: `writes` needs `--yes` in production, `drill` always needs `--drill`.
        seconds: Its time limit.
    """

    def mark(function: CheckFunction) -> CheckFunction:
        name = f"{area}.{function.__name__}"
        title = (function.__doc__ or name).strip().splitlines()[0]
        function.check = Check(area, name, title, function, effect, seconds)  # type: ignore[attr-defined]
        return function

    return mark


def find() -> Iterator[Check]:
    """Find the checks of every module in `checks/`, yours included.

    Raises:
        ConfigurationError: A module cannot be imported.
    """
    package = importlib.import_module(".checks", __package__)
    for module in sorted(each.name for each in pkgutil.iter_modules(package.__path__)):
        try:
            members = vars(importlib.import_module(f"{package.__name__}.{module}"))
        except Exception as error:
            raise ConfigurationError(
                f"ready/checks/{module}.py cannot be imported: {type(error).__name__}: {error}"
            ) from None
        yield from (found for member in members.values() if isinstance(found := getattr(member, "check", None), Check))


async def run(
    checks: list[Check], probe: Probe, *, drill: bool, yes: bool, done: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run every check that is allowed.

    Args:
        checks: From `find`.
        probe: The service.
        drill: Whether drills may run.
        yes: Whether writes and drills are allowed in production.
        done: Called with each outcome as soon as it is known.
    """

    async def one(each: Check) -> Outcome:
        outcome = Outcome(each.area, each.name, each.title, Status.NOT_RUN, "")
        began = time.perf_counter()
        if each.effect == "drill" and not drill:
            outcome.seen, outcome.step = "drills run on request only", "add --drill"
        elif each.effect != "reads" and probe.production and not yes:
            outcome.seen, outcome.step = f"it {_does(each)}, and this is production", "add --yes to allow it"
        else:
            await _run_check(each, probe, outcome)
            outcome.seconds = round(time.perf_counter() - began, 3)
        outcome.seen = plain(outcome.seen)
        waive(outcome, probe.config.waivers)
        done(outcome)
        return outcome

    return list(await asyncio.gather(*map(one, checks)))


def _does(each: Check) -> str:
    return "writes" if each.effect == "writes" else "is a drill"


async def _run_check(each: Check, probe: Probe, outcome: Outcome) -> None:
    outcome.status = Status.UNKNOWN
    try:
        async with asyncio.timeout(each.seconds):
            outcome.seen, outcome.status = await each.function(probe), Status.PROVEN
    except Verdict as verdict:
        outcome.seen, outcome.step, outcome.status = str(verdict), verdict.step, verdict.status
    except TimeoutError:
        outcome.seen, outcome.step = f"no result within {each.seconds:g} s", "check the log of the service"
    except httpx2.TransportError as error:
        outcome.seen = f"the connection failed ({type(error).__name__})"
        outcome.step = "check the log of the service"
    except JSONDecodeError:
        outcome.seen = "a response was not JSON"
        outcome.step = "check the log of the service, and the proxy in front of it"
    except Exception as error:  # a check that fails has no evidence
        outcome.seen = f"the check failed ({type(error).__name__}: {error})"
        outcome.step = f"fix {each.function.__module__}"
    if outcome.status is Status.PROVEN and not outcome.seen:
        outcome.seen, outcome.step, outcome.status = "the check returned no evidence", "return it", Status.UNKNOWN


def not_built(checks: list[Check]) -> Iterator[Outcome]:
    """Name what no check covers; it is neither proven nor a gap."""
    for name, promise in NOT_BUILT.items():
        if name not in {part for each in checks for part in (each.name, each.area)}:
            yield Outcome(name.partition(".")[0], name, promise, Status.NOT_BUILT, "the template has no check yet")


def waive(outcome: Outcome, waivers: tuple[Waiver, ...]) -> None:
    """Accept a gap for as long as its waiver allows, or say why the waiver has no effect."""
    waiver: Any = next((each for each in waivers if each.check == outcome.check), None)
    if waiver is None:
        return
    if outcome.status is not Status.GAP:
        outcome.seen += f" (the waiver of {waiver.owner} is not needed)"
    elif waiver.expires < datetime.now(UTC).date():
        outcome.seen += f" (the waiver of {waiver.owner} ended on {waiver.expires})"
    else:
        outcome.status = Status.WAIVED
        outcome.seen += f"; waived by {waiver.owner} until {waiver.expires}: {waiver.reason}"
