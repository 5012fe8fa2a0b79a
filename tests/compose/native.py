"""compose.yaml without an engine: what it says of each service, in terms of this machine.

Names and ports of services become loopback addresses, networks of containers become the loopback network, and paths
inside containers become files below a folder. Nothing else changes: programs, flags, environment, scripts and health
checks are those of the file.
"""

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests import commands
from tests.projects import Project
from tests.servers.process import free_port

FILE = "compose.yaml"
# The ports that services have in their containers, where others reach them.
PORTS: Mapping[str, tuple[int, ...]] = {
    "balancer": (443,),
    "cache": (6379, 11211),
    "database": (5432,),
    "errors": (8000,),
    "s3": (8333,),
    "service-1": (8000,),
    "service-2": (8000,),
    "telemetry": (4318,),
    "vault": (8200,),
}
CONTAINERS = "10.0.0.0/8"  # the first of the private networks that the file names


def load(root: Path, variables: Mapping[str, str] | None = None) -> Any:
    """The file as compose reads it with variables in the environment; `$$` is a dollar sign."""
    given = variables or {}
    text = re.sub(r"\$\{(\w+):-\}", lambda found: f'"{given.get(found[1], "")}"', (root / FILE).read_text())
    return yaml.safe_load(text.replace("$$", "$"))


def graph(services: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What each service waits for, and until when."""
    return {
        name: {other: each["condition"] for other, each in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }


def order(waits: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The services, each after what it waits for; a circle raises RecursionError."""
    found: list[str] = []

    def visit(name: str) -> None:
        for other in waits[name]:
            visit(other)
        if name not in found:
            found.append(name)

    for name in waits:
        visit(name)
    return found


@dataclass
class Native:
    """The services of a project; `folder` gets their volumes and configs, `variables` are those of the user's shell."""

    project: Project
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    whole: Any = None

    def __post_init__(self) -> None:
        self.whole = load(self.project.root, self.variables)
        self.ports = {name: free_port() for name in PORTS if name in self.services}

    @property
    def services(self) -> dict[str, Any]:
        """All services."""
        found: dict[str, Any] = self.whole["services"]
        return found

    def files(self, name: str) -> dict[str, Path]:
        """What a service finds at a path: mounted files and volumes, and configs, which are written here."""
        found = {}
        for volume in self.services[name].get("volumes", []):
            source, target, *_ = volume.split(":")
            found[target] = self.project.root / source if source.startswith(".") else self.folder / "volumes" / source
            if not source.startswith("."):
                found[target].mkdir(parents=True, exist_ok=True)
        for config in self.services[name].get("configs", []):
            made = found[config["target"]] = self.folder / "configs" / name / config["target"].strip("/")
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(self.here(self.whole["configs"][config["source"]]["content"], name))
        return found

    def here(self, text: str, own: str) -> str:
        """A text of the service `own`, with the addresses and paths of this machine."""
        for name in self.ports:
            for port in PORTS[name]:
                hosts = rf"\b{name}|127\.0\.0\.1|0\.0\.0\.0" if name == own else rf"\b{name}"
                text = re.sub(rf"({hosts}):{port}\b", f"127.0.0.1:{self.ports[name]}", text)
        for volume in self.services[own].get("volumes", []):
            source, target, *_ = volume.split(":")
            there = self.project.root / source if source.startswith(".") else self.folder / "volumes" / source
            text = re.sub(rf"(?<![\w/]){re.escape(target)}\b", str(there), text)
        return text.replace(CONTAINERS, "127.0.0.0/8")

    def env(self, name: str) -> dict[str, str]:
        """The environment of a service; the path is ours, for the image has its own."""
        given = self.services[name].get("environment", {})
        found = {key: self.here(str(value), name) for key, value in given.items()}
        return {"HOME": str(self.folder), "PATH": f"{self.folder}/bin:{os.environ['PATH']}", **found}

    def words(self, name: str, part: str = "command") -> list[str]:
        """The command, or the entrypoint, of a service."""
        given = self.services[name].get(part, [])
        return [self.here(each, name) for each in (shlex.split(given) if isinstance(given, str) else given)]

    def healthy(self, name: str, programs: Mapping[str, str | Path]) -> bool:
        """Run the health check of a service once; `programs` are those that it calls."""
        test = self.services[name]["healthcheck"]["test"]
        program, *arguments = shlex.split(test) if isinstance(test, str) else test[1:]
        arguments = [self.here(each, name) for each in arguments]
        env = {**os.environ, "PGPORT": str(self.ports[name])}  # pg_isready names no port
        return commands.run(programs[program], *arguments, env=env, seconds=20).returncode == 0
