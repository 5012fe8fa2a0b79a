"""compose.yaml by itself, for each pair of answers: valid, pinned, closed, and started in the right order."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.compose import native
from tests.projects import Change, Edit, export, render
from tests.sabotage import Gone, Line
from tests.test_render import ROWS

FACTORS = ("cache", "database", "error_monitoring", "load_balancer", "secrets_manager")
COMBINATIONS = sorted({tuple((name, row[name]) for name in FACTORS if name in row) for row in ROWS})
# Parts of the template that the file mounts, or is.
PARTS = ("compose.yaml", "deploy", "observability")
DONE, HEALTHY = "service_completed_successfully", "service_healthy"
OURS = {"backup", "migrate", "service-1", "service-2"}


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template without what does not concern the file."""
    folder = export(tmp_path_factory.mktemp("part"))
    for path in (folder / "template").iterdir():
        if path.name.partition(".jinja")[0] not in PARTS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def complaints(root: Path) -> list[str]:
    """What the schema that check-jsonschema brings (compose-spec) says against it."""
    schema = "vendor.compose-spec"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(root / native.FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines() if done.returncode else []


def open_ports(whole: Any, root: Path) -> list[str]:
    """Ports that other machines reach."""
    ports = [port for service in whole["services"].values() for port in service.get("ports", [])]
    assert ports
    return [port for port in ports if not port.startswith("127.0.0.1:")]


def unpinned(whole: Any, root: Path) -> list[str]:
    """Images of others without a version."""
    images = [service["image"] for service in whole["services"].values() if "build" not in service]
    return [image for image in images if not re.search(r":\d[\w.-]*(@sha256:\w+)?$", image)]


def missing(whole: Any, root: Path) -> list[str]:
    """What is mounted and is not there: an engine would make an empty folder of it."""
    volumes = {volume.split(":")[0] for service in whole["services"].values() for volume in service.get("volumes", [])}
    named, files = set(whole.get("volumes", {})), {each for each in volumes if each.startswith("./")}
    sources = {each["source"] for service in whole["services"].values() for each in service.get("configs", [])}
    return sorted(
        {each for each in files if not (root / each).exists()}
        | (volumes - files) ^ named
        | sources ^ set(whole.get("configs", {}))
    )


def loose(whole: Any, root: Path) -> list[str]:
    """Containers of ours that have a right they do not need, or that no engine could start as they are."""
    found = []
    for name, service in whole["services"].items():
        confined = (
            service.get("read_only") is True
            and service.get("cap_drop") == ["ALL"]
            and service.get("security_opt") == ["no-new-privileges:true"]
            and {"cpus", "memory", "pids"} == set(service["deploy"]["resources"]["limits"])
        )
        if name in OURS and not confined:
            found.append(f"{name}: not confined")
        if service.get("read_only") and service.get("configs"):  # https://github.com/docker/compose/issues/12031
            found.append(f"{name}: an engine cannot write its configs")
        if name.startswith("service-") and int(service["stop_grace_period"].removesuffix("s")) < 60:
            found.append(f"{name}: is killed before its deadline")
    return found


def disorder(whole: Any, root: Path) -> list[str]:
    """Edges of the graph that compose refuses or that wait in vain, and those that have to be there and are not."""
    services: Mapping[str, Any] = whole["services"]
    waits = native.graph(services)
    native.order(waits)  # there is no circle
    profiles = {name: set(service.get("profiles", [])) for name, service in services.items()}
    found = []
    for name, other, how in [(name, other, how) for name, others in waits.items() for other, how in others.items()]:
        if profiles[other] and not profiles[name] <= profiles[other]:
            found.append(f"{name} waits for {other}, whose profile is off")
        if how == HEALTHY and "test" not in services[other].get("healthcheck", {}):
            found.append(f"{name} waits for {other}, which has no health check")
        if how == DONE and services[other].get("restart"):
            found.append(f"{name} waits for {other}, which starts again and again")
    wanted = {"balancer": {"certificate": DONE, "service-1": HEALTHY, "service-2": HEALTHY}}
    first = "migrate" if "migrate" in services else "vault-setup"
    if first in services:
        wanted |= {"service-1": {first: DONE}, "service-2": {first: DONE}}
    if "database" in services:
        wanted["migrate"] = {"database": HEALTHY} | ({"vault-setup": DONE} if "vault" in services else {})
    if "vault" in services:
        wanted["vault-setup"] = {"vault": HEALTHY}
    if "errors" in services:
        wanted["errors-setup"] = {"errors": HEALTHY}
    lost = [
        (name, other)
        for name, others in wanted.items()
        for other, how in others.items()
        if waits[name].get(other) != how
    ]
    return found + [f"{name} does not wait for {other}" for name, other in lost]


def too_much(whole: Any, root: Path) -> list[str]:
    """What `docker compose up -d` starts for developers beside the servers that they use."""
    started = {name for name, service in whole["services"].items() if not service.get("profiles")}
    return sorted(started - {"cache", "database", "telemetry"})


RULES: tuple[Callable[[Any, Path], list[str]], ...] = (open_ports, unpinned, missing, loose, disorder, too_much)


@pytest.mark.parametrize("answers", COMBINATIONS, ids=lambda row: "-".join(str(value) for _, value in row))
def test_the_file_keeps_each_rule(part: Path, tmp_path: Path, answers: tuple[tuple[str, Any], ...]) -> None:
    root = render(part, tmp_path / "made", **dict(answers))
    assert complaints(root) == []
    whole = native.load(root)
    assert {rule.__name__: rule(whole, root) for rule in RULES} == {rule.__name__: [] for rule in RULES}


SABOTAGES: Mapping[str, tuple[Change, str]] = {
    "open_ports": (Line(native.FILE, '- "127.0.0.1:8443:443"', '- "8443:443"'), "8443:443"),
    "unpinned": (Line(native.FILE, "image: valkey/valkey:9.1.2", "image: valkey/valkey"), "valkey/valkey"),
    "missing": (Gone("deploy/vault/policy.hcl"), "./deploy/vault/policy.hcl"),
    "loose": (Line(native.FILE, "read_only: true"), "service-1: not confined"),
    "disorder": (
        Line(native.FILE, "database: { condition: service_healthy }", "database: { condition: service_started }"),
        "migrate does not wait for database",
    ),
    "too_much": (
        Edit(native.FILE, "    profiles: [production]\n    volumes:\n      - s3", "    volumes:\n      - s3"),
        "s3",
    ),
}


@pytest.fixture(scope="module")
def made(part: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with default answers."""
    return render(part, tmp_path_factory.mktemp("default") / "made")


@pytest.mark.sabotage
@pytest.mark.parametrize("name", SABOTAGES)
def test_exactly_the_broken_rule_notices(made: Path, tmp_path: Path, name: str) -> None:
    sick = shutil.copytree(made, tmp_path / "sick")
    change, said = SABOTAGES[name]
    change.apply(sick)
    whole = native.load(sick)
    found = {rule.__name__: rule(whole, sick) for rule in RULES}
    assert [rule for rule, lines in found.items() if lines] == [name]
    assert said in found[name]


@pytest.mark.sabotage
def test_the_schema_refuses_an_unknown_key(made: Path, tmp_path: Path) -> None:
    sick = shutil.copytree(made, tmp_path / "sick")
    Edit(native.FILE, "    ports:", "    prots:").apply(sick)
    assert "'prots' was unexpected" in "\n".join(complaints(sick))


@pytest.mark.sabotage
def test_a_circle_is_noticed(made: Path, tmp_path: Path) -> None:
    sick = shutil.copytree(made, tmp_path / "sick")
    begun = "    image: postgres:17\n"
    Edit(native.FILE, begun, f"{begun}    depends_on: {{ service-1: {{ condition: service_started }} }}\n").apply(sick)
    with pytest.raises(RecursionError):
        disorder(native.load(sick), sick)
