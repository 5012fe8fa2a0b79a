"""Blue-green and canary releases on hosts: what `deploy/host/release` has recorded, compared with what is served."""

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from pydantic import AwareDatetime, BaseModel, ValidationError

from ..client import open_client
from ..engine import CannotCheck, Gap, NotApplicable, Probe, check

DEFAULTS, OWN = Path("deploy/host/defaults.toml"), Path("deploy/host/release.toml")
RELEASE = "deploy/host/release"
REQUESTS = 20
ROLLBACK_AGE = timedelta(days=365)


class Record(BaseModel):
    """The newest release: how far it is, and what it replaces."""

    kind: str
    version: str
    old_version: str
    phase: str
    step: int = 0


class Ended(BaseModel):
    """A release of the past."""

    ended: AwareDatetime
    version: str
    result: str
    reason: str = ""


@check("releases", seconds=20)
async def finished(probe: Probe) -> str:
    """The newest release is finished, and every request is served by the version that it left."""
    record = _record(_state(), probe)
    title = f"the {record.kind} of {record.version}"
    if record.phase not in ("done", "rolled back"):
        raise Gap(f"{title} was not finished, at {record.step} %", f"type: {RELEASE} resume, or {RELEASE} abort")
    expected = record.version if record.phase == "done" else record.old_version
    found = await served(str(probe.client.base_url))
    others = sorted(f"{version} ({commit[:12]})" for version, commit in found if not _is(expected, version, commit))
    if others:
        seen = f"{title} is {record.phase}, and requests were served by {', '.join(others)}"
        raise Gap(seen, f"type {RELEASE} status, and restart what has another version")
    if len(found) > 1:
        commits = ", ".join(sorted(commit[:12] for _, commit in found))
        raise Gap(f"{expected} is served from {len(found)} commits: {commits}", "raise the version with each release")
    return f"{title} is {record.phase}, and {REQUESTS} requests were all served by {expected}"


@check("releases")
async def rollback(probe: Probe) -> str:
    """A release was taken back within a year, so the way back is known to work."""
    state = _state()
    _record(state, probe)
    found = [each for each in _history(state.with_suffix(".history")) if each.result == "rolled back"]
    step = "release a version that you know to be bad, on a quiet day: docs/deploy-host.md"
    if not found:
        raise Gap("no release was ever rolled back: nobody knows whether it works", step)
    newest = max(found, key=lambda each: each.ended)
    seen = f"{newest.version} was rolled back on {newest.ended:%Y-%m-%d}"
    if datetime.now(UTC) - newest.ended > ROLLBACK_AGE:
        raise Gap(f"{seen}: more than {ROLLBACK_AGE.days} days ago", step)
    return f"{seen}: {newest.reason or 'no reason is recorded'}"


def _state() -> Path:
    """The file of the newest release, as the command `release` finds it."""
    if not DEFAULTS.is_file():
        raise NotApplicable(f"because this project has no {DEFAULTS.parent}: it is not released to hosts")
    try:
        tables: list[dict[str, Any]] = [
            tomllib.loads(each.read_text(encoding="utf-8")).get("release", {})
            for each in (DEFAULTS, OWN)
            if each.is_file()
        ]
        return Path([each["state"] for each in tables if "state" in each][-1])
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise CannotCheck(f"{OWN} or {DEFAULTS}: {error}", f"type {RELEASE} status, which names the line") from None


def _record(state: Path, probe: Probe) -> Record:
    try:
        return Record.model_validate_json(state.read_bytes())
    except FileNotFoundError:
        if not probe.production:
            raise NotApplicable(f"because only production needs releases, and this machine has no {state}") from None
        step = f"run `make ready` on a host of the service; after its first {RELEASE} deploy this file is there"
        raise Gap(f"there is no {state}", step) from None
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no record of a release"
        raise CannotCheck(f"{state}: {reason}", f"type {RELEASE} status") from None


def _history(file: Path) -> list[Ended]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [Ended.model_validate(json.loads(line)) for line in lines]
    except (OSError, ValueError) as error:
        raise CannotCheck(f"{file}: {str(error).splitlines()[0]}", f"repair {file}, or delete it") from None


async def served(url: str) -> set[tuple[str, str]]:
    """Version and commit of many responses, over a connection each: some balancers choose once per connection."""
    found = set()
    async with open_client(url, keepalive=0, timeout=10) as client:
        for _ in range(REQUESTS):
            try:
                said = (await client.get("/version")).raise_for_status().json()
                found.add((str(said["version"]), str(said["commit"])))
            except (httpx2.HTTPStatusError, ValueError, LookupError, TypeError) as error:
                raise CannotCheck(f"/version says no version: {error}", "let the load balancer pass /version") from None
    return found


def _is(wanted: str, version: str, commit: str) -> bool:
    """As the command `release` compares: the version, or seven characters or more of the commit."""
    return wanted == version or (len(wanted) >= 7 and commit.startswith(wanted))
