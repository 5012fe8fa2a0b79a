"""The recovery plan's figures: `deploy/recovery.toml`, where a key of the table `recovery` in `ready.toml` wins."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from .errors import BackupError

PLAN, OWN = Path("deploy/recovery.toml"), Path("ready.toml")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
SCHEDULES = {"weekly": timedelta(weeks=1), "daily": timedelta(days=1)}


def _duration(text: Any) -> timedelta:
    if not (found := re.fullmatch(r"(\d{1,6})([smhd])", str(text))):
        raise ValueError("use a number and s, m, h or d, such as 4h")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class Targets(BaseModel):
    """What the service promises: until it serves again, and how much of the latest data may be lost."""

    rto: Duration
    rpo: Duration


class Backups(BaseModel):
    """How old the newest backup, and the newest drill, may be."""

    rpo: Duration
    drill: Duration


class Plan(BaseModel):
    """The recovery plan."""

    targets: Targets
    backups: Backups

    @property
    def schedule(self) -> str:
        """How often to back up, so that the newest backup is never older than allowed: hourly, daily or weekly."""
        return next((name for name, interval in SCHEDULES.items() if interval < self.backups.rpo), "hourly")


def read() -> Plan:
    """Read the plan.

    Raises:
        BackupError: A file is missing, or has a wrong value.
    """
    try:
        found = tomllib.loads(PLAN.read_text())
        own = tomllib.loads(OWN.read_text()).get("recovery", {}) if OWN.exists() else {}
        merged = {name: {**found.get(name, {}), **own.get(name, {})} for name in ("targets", "backups")}
        return Plan.model_validate(merged)
    except OSError:
        raise BackupError(f"no file {PLAN}: run this in the project's folder") from None
    except ValidationError as error:
        each = error.errors(include_input=False)[0]
        place, reason = ".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")
        raise BackupError(f"{PLAN} or {OWN}: {place}: {reason}") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise BackupError(f"{PLAN} or {OWN}: {error}") from None
