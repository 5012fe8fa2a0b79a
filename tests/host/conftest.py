"""A host with a real systemd, set up by the commands of the emitted page, and the service on it."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.projects import Project
from tests.servers.postgres import Postgres
from tests.servers.process import free_port
from tests.servers.systemd import Host
from tests.update.versions import commit

PAGE = "docs/deploy-host.md"
SETTINGS = """
CACHE_URL=off
DATABASE_URL={database}
OTEL_EXPORTER_OTLP_ENDPOINT=off
SECRETS_BACKEND=env
SENTRY_DSN=off
SHUTDOWN_DRAIN_SECONDS=1
TRUSTED_HOSTS=localhost
"""
UNIT = "my-service@one"
# What root has on a host: no Python of a home directory, which a unit cannot read.
PREFIX = "exec 2>&1; export PATH=/opt/uv:/usr/sbin:/usr/bin:/sbin:/bin UV_LINK_MODE=copy"


def commands(project: Project, heading: str) -> list[str]:
    """The blocks of shell commands below a heading of the page."""
    section = re.split(rf"^## {heading}$", (project.root / PAGE).read_text(), flags=re.M)[1].split("\n## ")[0]
    return re.findall(r"^ *```sh\n(.*?)^ *```$", section, flags=re.M | re.S)


@dataclass
class Site:
    """A host on which the service is set up."""

    host: Host
    ports: dict[str, int] = field(default_factory=dict)

    def shell(self, script: str, check: bool = True) -> str:
        """Run commands as their reader would; what they print, errors included."""
        done = self.host.run("sh", "-ec", f"{PREFIX}\n{script}", check=check)
        return done.stdout

    def get(self, instance: str, path: str) -> httpx.Response:
        return httpx.get(
            f"http://127.0.0.1:{self.ports[instance]}{path}", headers={"Host": "localhost"}, trust_env=False
        )

    @property
    def pid(self) -> int:
        """The process of the first instance, as the host numbers it."""
        return int(self.host.properties(UNIT)["MainPID"])

    def status(self, *names: str) -> dict[str, str]:
        """What the kernel says of that process (proc(5))."""
        lines = self.host.run("cat", f"/proc/{self.pid}/status").stdout.splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name in names}


Open = Callable[[Project], AbstractContextManager[Site]]


@pytest.fixture(scope="session")
def open_site(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Set up a project on a host of its own, by the page."""

    @contextmanager
    def opened(project: Project) -> Iterator[Site]:
        if os.getuid() != 0:
            pytest.skip("a host of its own needs root")
        with Host() as host:
            site = Site(host, {name: free_port() for name in ("one", "two")})
            (copied := Path(f"/proc/{host.first}/root/opt/uv")).mkdir()
            shutil.copy(str(shutil.which("uv")), copied)
            repository = tmp_path_factory.mktemp("repository") / "repository"
            shutil.copytree(project.root, repository, ignore=shutil.ignore_patterns(".venv", ".*_cache"))
            commit(repository, "v0.1.0")
            shutil.copytree(repository, f"/proc/{host.first}/root/opt/repository")
            clone, settings, start = commands(project, "Set up a host")
            site.shell(re.sub(r"https://\S+", "/opt/repository", clone))
            site.shell(settings)
            host.write("/etc/my-service/service.env", SETTINGS.format(database=postgres.create_database()), 0o600)
            for name, port in site.ports.items():
                host.write(f"/etc/my-service/{name}.env", f"PORT={port}\n", 0o600)
            site.shell(start)
            yield site

    return opened


@pytest.fixture(scope="module")
def site(open_site: Open, project: Project) -> Iterator[Site]:
    """The default project on a host. A test that changes it puts it back."""
    with open_site(project) as opened:
        yield opened
