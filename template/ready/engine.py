"""Runs the checks: concurrently, each within its time, and never green without having seen something.

A check is an async function that looks at the running service from outside and returns what it saw. It raises `Gap`
where the promise does not hold, `NotApplicable` where there is none, `CannotCheck` where something is in the way;
whatever else goes wrong means that it could not look, too.
"""

import asyncio
import importlib
import pkgutil
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import httpx2

from .config import Config, ConfigurationError, Waiver
from .report import AREAS, Outcome, Status

Effect = Literal["reads", "writes", "drill"]  # drill: it breaks or starts something
Profile = Literal["local", "production"]


class Verdict(Exception):
    """A check that ends without evidence.

    Args:
        seen: What was seen instead.
        step: What to do next, in one line.
    """

    status: Status

    def __init__(self, seen: str, step: str = "") -> None:
        super().__init__(seen)
        self.step = step


class Gap(Verdict):
    """The promise does not hold."""

    status = Status.GAP


class CannotCheck(Verdict):
    """Something stands between the check and what it looks for."""

    status = Status.UNKNOWN


class NotApplicable(Verdict):
    """The service has no such part; the text says why."""

    status = Status.NOT_APPLICABLE


@dataclass(frozen=True, slots=True)
class Probe:
    """One run, as a check sees it.

    Args:
        client: Talks to the service; a path is enough.
        marker: Unique to this run, to be looked for at the far end; fits into a header.
        profile: By which measure the service is judged.
        config: `ready.toml`.
        about: What `/version` says.
    """

    client: httpx2.AsyncClient
    marker: str
    profile: Profile
    config: Config
    about: dict[str, str]

    @property
    def production(self) -> bool:
        """Whether production's rules hold."""
        return "production" in (self.profile, self.about.get("environment"))


Look = Callable[[Probe], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Check:
    """A promise and the function that looks whether it holds."""

    area: str
    name: str
    title: str
    look: Look
    effect: Effect
    seconds: float


def check(area: str, *, effect: Effect = "reads", seconds: float = 10) -> Callable[[Look], Look]:
    """Make a function a check; its docstring is the promise.

    Args:
        area: One of `AREAS`, or a name of your own.
        effect: What it does to the service: `writes` needs `--yes` in production, `drill` always needs `--drill`.
        seconds: The time that it may take.
    """

    def mark(look: Look) -> Look:
        name = f"{area}.{look.__name__}"
        title = (look.__doc__ or name).strip().splitlines()[0]
        look.check = Check(area, name, title, look, effect, seconds)  # type: ignore[attr-defined]
        return look

    return mark


def find() -> Iterator[Check]:
    """The checks of every module in `checks/`, yours included.

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
    """Look at everything that may be looked at.

    Args:
        checks: From `find`.
        probe: The service.
        drill: Whether drills may run.
        yes: Whether production may be written to, and drilled.
        done: Told of each outcome as it comes.
    """

    async def one(each: Check) -> Outcome:
        outcome = Outcome(each.area, each.name, each.title, Status.NOT_RUN, "")
        began = time.perf_counter()
        if each.effect == "drill" and not drill:
            outcome.seen, outcome.step = "a drill runs when asked for", "add --drill"
        elif each.effect != "reads" and probe.production and not yes:
            outcome.seen, outcome.step = f"it {_does(each)}, and this is production", "add --yes if that is fine"
        else:
            await _look(each, probe, outcome)
            outcome.seconds = round(time.perf_counter() - began, 3)
        _waive(outcome, probe.config.waivers)
        done(outcome)
        return outcome

    return list(await asyncio.gather(*map(one, checks)))


def _does(each: Check) -> str:
    return "writes" if each.effect == "writes" else "is a drill"


async def _look(each: Check, probe: Probe, outcome: Outcome) -> None:
    outcome.status = Status.UNKNOWN
    try:
        async with asyncio.timeout(each.seconds):
            outcome.seen, outcome.status = await each.look(probe), Status.PROVEN
    except Verdict as verdict:
        outcome.seen, outcome.step, outcome.status = str(verdict), verdict.step, verdict.status
    except TimeoutError:
        outcome.seen, outcome.step = f"no answer within {each.seconds:g} s", "look at the log of the service"
    except httpx2.TransportError as error:
        outcome.seen = f"the connection failed ({type(error).__name__})"
        outcome.step = "look at the log of the service"
    except Exception as error:  # a check that breaks has seen nothing
        outcome.seen = f"the check failed ({type(error).__name__}: {error})"
        outcome.step = f"mend {each.look.__module__}"
    if outcome.status is Status.PROVEN and not outcome.seen:
        outcome.seen, outcome.step, outcome.status = "the check shows no evidence", "return it", Status.UNKNOWN


def without_checks(config: Config, checks: list[Check]) -> Iterator[Outcome]:
    """An area that nobody looks at is a gap too."""
    step = "`make update` brings checks once the template has them; until then waive the area by its name in ready.toml"
    for area in (each for each in AREAS if each not in {each.area for each in checks}):
        outcome = Outcome(area, area, AREAS[area], Status.GAP, "nothing looks at this area yet", step)
        _waive(outcome, config.waivers)
        yield outcome


def _waive(outcome: Outcome, waivers: tuple[Waiver, ...]) -> None:
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
