"""The instances of the service: started and stopped by commands of the configuration, asked how they are directly."""

import http.client
import json
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass

from . import ReleaseError
from .config import Config, Instance

PROBE_SECONDS = 2.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Health:
    """What an instance says: whether it is ready, which version and commit it is, and otherwise what is wrong."""

    ready: bool
    version: str = ""
    commit: str = ""
    problem: str = ""

    def is_version(self, wanted: str) -> bool:
        """Whether it is that version, or that commit in seven characters or more."""
        return wanted == self.version or (len(wanted) >= 7 and self.commit.startswith(wanted))


def probe(instance: Instance, host: str) -> Health:
    """Ask `/readyz` and `/version`, not through the load balancer."""
    try:
        client = http.client.HTTPConnection(instance.host, instance.port, timeout=PROBE_SECONDS)
        try:
            answers = []
            for path in ("/readyz", "/version"):
                client.request("GET", path, headers={"Host": host})
                response = client.getresponse()
                answers.append((response.status, response.read()))
        finally:
            client.close()
        (ready, _), (status, body) = answers
        if status != 200:
            return Health(False, problem=f"/version responds with {status}: is `host` one of TRUSTED_HOSTS?")
        said = json.loads(body)
        problem = "" if ready == 200 else f"/readyz responds with {ready}"
        return Health(ready == 200, str(said["version"]), str(said["commit"]), problem)
    except (OSError, http.client.HTTPException) as error:
        return Health(False, problem=f"it does not respond ({error or type(error).__name__})")
    except (KeyError, TypeError, ValueError):
        return Health(False, problem="/version is not that of the service")


def wait_ready(instance: Instance, config: Config, version: str) -> None:
    """Wait until it is ready, and is that version.

    Raises:
        ReleaseError: It is not, or another one.
    """
    deadline = time.monotonic() + config.release["start_seconds"]
    while not (health := probe(instance, config.release["host"])).ready:
        if time.monotonic() > deadline:
            raise ReleaseError(
                f"{instance.name} is not ready after {config.release['start_seconds']} s: {health.problem}"
            )
        time.sleep(POLL_SECONDS)
    if not health.is_version(version):
        raise ReleaseError(
            f"{instance.name} says that it is {health.version} ({health.commit or 'no commit'}), not {version}"
        )


def command(config: Config, name: str, version: str, instance: Instance | None = None) -> None:
    """Run a command of the configuration, in a group of its own so that Ctrl-C does not stop it halfway.

    Raises:
        ReleaseError: It failed, with its last line.
    """
    words = [
        word.replace("{version}", version).replace("{instance}", instance.name if instance else "")
        for word in shlex.split(config.commands[name])
    ]
    if not words:
        return
    url = f"http://{instance.address}" if instance else ""
    environment = {**os.environ, "RELEASE_VERSION": version, "RELEASE_URL": url}
    try:
        with subprocess.Popen(  # noqa: S603 it is what the host's administrator has configured
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as running:
            try:
                said, _ = running.communicate(timeout=config.commands["seconds"])
            except BaseException:
                os.killpg(running.pid, signal.SIGKILL)
                raise
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"[commands] {name} did not end within {config.commands['seconds']} s") from None
    except OSError as error:
        raise ReleaseError(f"[commands] {name}: {words[0]}: {error.strerror}") from error
    if running.returncode:
        last = (said.strip().splitlines() or ["no output"])[-1]
        raise ReleaseError(f"[commands] {name} failed ({running.returncode}): {last[:200]}")
