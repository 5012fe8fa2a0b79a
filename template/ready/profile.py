"""Decides once per run which rules apply: those of production, or those of a developer's machine."""

from typing import get_args

from .areas import PROFILE, RUN
from .client import is_this_machine
from .engine import Profile
from .report import Outcome, Status

SERVICE = "/version of the service"
TITLE = "The sources of the profile agree."
STEP = "set ENVIRONMENT where it is wrong and restart the service"


def decide(
    given: Profile | None, declared: tuple[str, str], environment: str, url: str
) -> tuple[Profile, str, Outcome | None]:
    """Choose the profile: production if one source says so, because its rules write nothing unasked.

    Args:
        given: By `--profile`; then neither `declared` nor the URL counts.
        declared: Where this project says its ENVIRONMENT, and which; `test` and `staging` say nothing about the rules.
        environment: What the service says.
        url: Of the service; another machine means production.

    Returns:
        The profile, where it comes from, and the finding if the sources contradict each other.
    """
    here = is_this_machine(url)
    says = dict([("--profile", str(given))] if given else [declared])
    says[SERVICE] = environment
    if not given and not here:
        says["the URL, which is not on this machine"] = "production"
    says = {source: name for source, name in says.items() if name in get_args(Profile)}
    if "production" not in says.values():
        return "local", next(iter(says), "the URL, which is on this machine"), None
    source, *_ = (source for source, name in says.items() if name == "production")
    others = [source for source, name in says.items() if name == "local"]
    if not others or (given == "production" and here):  # on purpose: to see what production would need
        return "production", source, None
    seen = f"{others[0]} says local, {source} says production: the rules of production apply"
    step = "leave out --profile local" if given == "local" else f"{STEP}, or add --profile local"
    return "production", source, Outcome(RUN, PROFILE, TITLE, Status.GAP, seen, step)
