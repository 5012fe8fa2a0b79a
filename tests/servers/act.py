"""GitHub's workflows run for real on this machine: by act, on the host, without Docker, network or account.

What act does as GitHub does: the order of jobs, `needs`, `if`, expressions, matrix, outputs, environment files, the
shell of a step, local and composite actions. What it leaves out is in docs/how-to/ci.md.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.servers import wheels
from tests.servers.process import Process, ServerError

SECONDS = 900.0  # for a whole run
RUNNER = "ubuntu-24.04"
# What a step gets of this machine: where programs, their caches and the certificates are.
PASSED = ("HOME", "LANG", "PATH")
PREFIXES = ("AWS_CA", "PIP_", "REQUESTS_CA", "SSL_", "UV_")
EMPTY = ("env", "input", "secret", "var")  # files that act would read in the checkout


@dataclass(frozen=True)
class Run:
    """What became of each job: `success`, `failure` or `skipped`, and what it wrote."""

    results: dict[str, str]
    logs: dict[str, str]

    def of(self, result: str) -> set[str]:
        """The jobs with a result."""
        return {job for job, became in self.results.items() if became == result}

    @property
    def said(self) -> str:
        """All logs, for the message of a failed test."""
        return "\n".join(f"--- {job}: {self.results[job]}\n{log[-6000:]}" for job, log in self.logs.items())


def load(file: Path) -> dict[str, Any]:
    """Read a workflow; YAML 1.1 takes its key `on` for true."""
    text = yaml.safe_load(file.read_text())
    return {("on" if key is True else key): value for key, value in text.items()}


def run(
    checkout: Path,
    workflow: Path,
    event: str,
    folder: Path,
    *,
    actions: Mapping[str, Path],
    jobs: Sequence[str] = (),
    payload: Mapping[str, object] | None = None,
    secrets: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Run a workflow.

    Args:
        checkout: The repository, whose last commit is what the event is about.
        workflow: Its file; without services, which act would need Docker for.
        event: Such as `pull_request`.
        folder: For what the run writes.
        actions: By `owner/name@sha` the folder of each action that is not in the repository.
        jobs: Only these and what they need; all by default.
        payload: Of the event.
        secrets: Of the repository; none by default.
        variables: Of the repository; none by default.
        env: More variables of each step.

    Raises:
        ServerError: act could not run the workflow at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cache = folder / "act"
    nothing, told = folder / "nothing", folder / "event.json"
    nothing.write_text("")
    told.write_text(json.dumps(payload or {}))
    kept = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith(PREFIXES)}
    given = {**kept, "PAGER": "cat", **(env or {})}  # act gives steps a terminal, GitHub does not
    command: list[str | Path] = [wheels.ensure("act"), event, "--json", f"--directory={checkout}"]
    command += [f"--workflows={workflow}", f"--eventpath={told}", f"--platform={RUNNER}=-self-hosted"]
    command += ["--action-offline-mode", "--no-cache-server", "--no-skip-checkout", f"--action-cache-path={cache}"]
    command += [f"--{name}-file={nothing}" for name in EMPTY]
    command += [f"--local-repository={pin}={place}" for pin, place in actions.items()]
    for flag, pairs in (("env", given), ("secret", secrets or {}), ("var", variables or {})):
        command += [f"--{flag}={name}={value}" for name, value in pairs.items()]
    every = list(load(workflow)["jobs"])
    for job in jobs:
        command += [f"--job={job}"]
    output = folder / "act.jsonl"
    process = Process(command, log=output, cwd=checkout)
    try:
        process.wait(SECONDS)
    finally:
        process.kill()  # with what steps have left
    shutil.rmtree(cache, ignore_errors=True)
    return _read(output.read_text(), every)


def _read(output: str, jobs: Sequence[str]) -> Run:
    """What the lines of act say of each job."""
    results, logs = dict.fromkeys(jobs, "skipped"), defaultdict[str, str](str)
    for line in output.splitlines():
        said = json.loads(line) if line.startswith("{") else {}
        if job := said.get("jobID"):
            logs[job] += said["msg"] if said.get("raw_output") else f"{said['msg']}\n"
            results[job] = said.get("jobResult", results[job])
    if not logs:
        raise ServerError(f"act ran nothing\n{output}")
    return Run(results, dict(logs))
