"""A repository with an emitted service, and the servers that its workflows find as GitHub's service containers."""

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ci import actions
from tests.projects import Change, Project
from tests.servers import act
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis

WHO = ("-c", "user.name=x", "-c", "user.email=x@acme.test")
WORKFLOWS = Path(".github/workflows")
# The addresses under which steps reach services.
POSTGRES = re.compile(r"postgresql://postgres:postgres@localhost:5432/postgres")
REDIS = re.compile(r"redis://localhost:6379/0")


@dataclass
class Repository:
    """A service in git: one commit with what was emitted, a second one with changes unless they are None.

    Args:
        project: The service, with its lock file.
        folder: Where to put the copy.
        postgres: Where jobs get a new database each.
        redis: What jobs share.
        changes: Of the second commit.
        env: Of each step.
    """

    project: Project
    folder: Path
    postgres: Postgres
    redis: Redis
    changes: Sequence[Change] | None = ()
    env: Mapping[str, str] = field(default_factory=dict)
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        made = self.project.variant(self.folder / "repository")
        self.root = made.root
        shutil.rmtree(self.root / ".git", ignore_errors=True)
        made.run("git", "init", "--quiet")
        for changes in ((), self.changes):
            for change in changes or ():
                change.apply(self.root)
            made.run("git", "add", "--all")
            if changes is not None:
                made.run("git", *WHO, "commit", "--quiet", "--allow-empty", "--message=x")

    def run(
        self,
        *jobs: str,
        workflow: str = "ci.yml",
        event: str = "pull_request",
        env: Mapping[str, str] | None = None,
        **more: Any,
    ) -> act.Run:
        """Run jobs of a workflow, with what they need; all of them by default. The rest is as for `act.run`."""
        document = act.load(self.root / WORKFLOWS / workflow)
        if jobs:
            document["jobs"] = only(document["jobs"], jobs)
        document["jobs"] = {name: self._provided(job) for name, job in document["jobs"].items()}
        file = self.folder / workflow
        file.write_text(json.dumps(document))  # which is YAML
        stand_ins = actions.stand_ins(self.root / ".github", self.folder / "actions")
        given = {"SOURCE": str(self.root), "STAND_IN_PYTHON": sys.executable, **self.env, **(env or {})}
        return act.run(self.root, file, event, self.folder / "run", actions=stand_ins, env=given, **more)

    def _provided(self, job: dict[str, Any]) -> dict[str, Any]:
        """A job whose services are those of the kit: what act needs Docker for."""
        services = job.pop("services", {})
        assert services.keys() <= {"postgres", "redis"}, services
        text = json.dumps(job)
        for name, pattern in (("postgres", POSTGRES), ("redis", REDIS)):
            assert bool(pattern.search(text)) == (name in services), f"{name} is used and not provided, or not used"
        if "postgres" in services:
            url = self.postgres.create_database()
            text = POSTGRES.sub(lambda _: url, text)
        found: dict[str, Any] = json.loads(REDIS.sub(lambda _: self.redis.url(), text))
        return found


def only(jobs: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """The wanted jobs, which need nothing but each other."""
    kept = {name: dict(job) for name, job in jobs.items() if name in wanted}
    assert kept.keys() == set(wanted), f"there is no job {set(wanted) - kept.keys()}"
    for job in kept.values():
        needs = [each for each in _list(job.pop("needs", [])) if each in wanted]
        if needs:
            job["needs"] = needs
    return kept


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
