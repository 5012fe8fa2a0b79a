"""CI/CD: what the pipeline runs is pinned, and the forge says that it tested and searched the commit that is served."""

import json
import re
from pathlib import Path

from ..engine import Gap, NotApplicable, Probe, check
from ..far import fetch, required

FOLDER = Path(".github")
LOCK = Path("uv.lock")
USES = re.compile(r"^\s*(?:-\s+)?uses:\s*[\"']?([^\s\"'#]+)", re.M)
PINNED = re.compile(r"[.$]/.+|[^@]+@(?:sha256:)?[0-9a-f]{40,64}")
COMMIT = re.compile("[0-9a-f]{40}")


@check("delivery")
async def pinned(probe: Probe) -> str:
    """The pipeline runs what was reviewed: actions of a fixed commit, dependencies of uv.lock."""
    used = _used()
    if not used:
        raise NotApplicable("because this project has no workflows of GitHub")
    for file, name in used:
        if not PINNED.fullmatch(name):
            step = "pin it to the 40 digits of a commit, with its version in a comment: Renovate moves both"
            raise Gap(f"{file} uses {name}, which can change", step)
    if not _locked():
        raise Gap(f"there is no {LOCK}", f"type `make setup`, and commit {LOCK}")
    return f"{len(used)} uses of actions in {FOLDER} are pinned to a commit, and dependencies by {LOCK}"


@check("delivery", seconds=20)
async def tested(probe: Probe) -> str:
    """The commit that is served passed the tests of the pipeline."""
    return await _passed(probe, "required")


@check("security", seconds=20)
async def scanned(probe: Probe) -> str:
    """The commit that is served was searched for weaknesses."""
    return await _passed(probe, "secure")


def _used() -> list[tuple[Path, str]]:
    """The actions that workflows and actions of this project use, and where."""
    files = sorted([*FOLDER.glob("workflows/*.y*ml"), *FOLDER.glob("actions/*/action.y*ml")])
    return [(file, name) for file in files for name in USES.findall(file.read_text(encoding="utf-8"))]


def _locked() -> bool:
    return LOCK.is_file()


async def _passed(probe: Probe, job: str) -> str:
    """Look up the runs of a job for the commit that is served.

    https://docs.github.com/en/rest/checks/runs#list-check-runs-for-a-git-reference
    """
    end = required(probe, "forge", "forge", 'url = "https://api.github.com/repos/OWNER/NAME"')
    commit = probe.about["commit"]
    if not COMMIT.fullmatch(commit):
        raise Gap(f"/version names no commit: {commit}", "build the image from a commit: make image")
    found = json.loads(await fetch(end, f"/commits/{commit}/check-runs?check_name={job}"))
    results = {each["conclusion"] or each["status"] for each in found.get("check_runs", [])}
    if not results:
        raise Gap(f"{job} never ran for {commit}", "push this commit, or fix the url of the forge in ready.toml")
    if results != {"success"}:
        others = ", ".join(sorted(results - {"success"}))
        raise Gap(f"{job} of {commit} ended with {others}", "see its log, fix the cause, and deploy what is green")
    return f"{job} of {commit} ended with success"
