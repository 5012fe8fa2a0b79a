"""The collector's file: it holds together as emitted and with everything switched on, and holds no secret."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.projects import Change, Edit, Project
from tests.sabotage import Line

FILE = "observability/collector.yaml"
SECTIONS = ("receivers", "processors", "exporters", "connectors", "extensions")
# What a commented line switches on: a name in a list.
SWITCH = re.compile(r"^( +)# (- [\w/]+)$", re.M)
VENDORS = {"datadog", "otlp_grpc/jaeger", "otlp_http/splunk", "prometheus_remote_write", "splunk_hec"}
COLLECTOR = shutil.which("otelcol-contrib")


def load(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def faults(config: dict[str, Any]) -> list[str]:
    """What a collector would refuse to start with."""
    declared = {section: set(config.get(section, {})) for section in SECTIONS}
    # A connector is the end of one pipeline and the beginning of another.
    declared["receivers"] |= declared["connectors"]
    declared["exporters"] |= declared["connectors"]
    service = config["service"]
    found = [f"extension {name}" for name in service["extensions"] if name not in declared["extensions"]]
    for signal, pipeline in service["pipelines"].items():
        for section in ("receivers", "processors", "exporters"):
            names = pipeline.get(section) or []
            found += [f"{signal}: {section} {name}" for name in names if name not in declared[section]]
            found += [f"{signal}: no {section}"] * (not names)
        steps = pipeline["processors"]
        if (steps[0], steps[-1]) != ("memory_limiter", "batch"):
            found.append(f"{signal}: order")
    for name in config.get("connectors", {}):
        used = [any(name in p[side] for p in service["pipelines"].values()) for side in ("exporters", "receivers")]
        found += [f"connector {name}"] * (used[0] != used[1])
    return found


def switched_on(text: str) -> str:
    """The file with every exporter in use, as its head says how."""
    return SWITCH.sub(r"\1\2", text)


def exporters(config: dict[str, Any]) -> set[str]:
    return {name for pipeline in config["service"]["pipelines"].values() for name in pipeline["exporters"]}


def test_pipelines_refer_to_what_is_declared(emitted: Project) -> None:
    config = load((emitted.root / FILE).read_text())
    assert set(config["service"]["pipelines"]) == {"traces", "metrics", "logs"}
    assert config["exporters"].keys() >= VENDORS
    assert faults(config) == []
    assert {"prometheus_remote_write", "otlp_grpc/jaeger"} <= exporters(config)


def test_every_vendor_can_be_switched_on_by_a_hash(emitted: Project) -> None:
    text = (emitted.root / FILE).read_text()
    config = load(switched_on(text))
    assert exporters(config) - exporters(load(text)) == {
        "datadog",
        "datadog/connector",
        "otlp_http/splunk",
        "splunk_hec",
    }
    assert faults(config) == []


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (Line(FILE, "otlp_grpc/jaeger:", "otlp_grpc/tracing:"), "traces: exporters otlp_grpc/jaeger"),
        (Edit(FILE, "[memory_limiter, batch]", "[batch, memory_limiter]"), "traces: order"),
        (Edit(FILE, "        # - datadog/connector\n", ""), "connector datadog/connector"),
        (Line(FILE, "# - splunk_hec", "# - splunk_hce"), "logs: exporters splunk_hce"),
        (Line(FILE, "health_check: {}", "health: {}"), "extension health_check"),
    ],
    ids=["exporter", "order", "connector", "switch", "extension"],
)
def test_a_planted_fault_is_found(emitted: Project, tmp_path: Path, planted: Change, fault: str) -> None:
    sick = emitted.variant(tmp_path / "sick", planted)
    assert faults(load(switched_on((sick.root / FILE).read_text()))) == [fault]


def secrets(value: object, key: str = "") -> list[str]:
    """Keys and tokens that do not come from the environment, and addresses that cannot be changed from there."""
    if isinstance(value, dict):
        return [line for name, item in value.items() for line in secrets(item, str(name))]
    secret = re.search(r"(?i)key|token|password|endpoint|realm", key)
    return [key] if secret and "${env:" not in str(value) else []


def secrets_of(project: Project) -> list[str]:
    return secrets(load((project.root / FILE).read_text())["exporters"])


def test_keys_and_addresses_come_from_the_environment(emitted: Project) -> None:
    assert secrets_of(emitted) == []


@pytest.mark.sabotage
def test_a_key_in_the_file_is_found(emitted: Project, tmp_path: Path) -> None:
    planted = Edit(FILE, "${env:DD_API_KEY:-unset}", "0123456789abcdef")
    assert secrets_of(emitted.variant(tmp_path / "sick", planted)) == ["key"]


def test_it_listens_on_loopback_until_told_otherwise(emitted: Project) -> None:
    protocols = load((emitted.root / FILE).read_text())["receivers"]["otlp"]["protocols"]
    assert all(each["endpoint"].startswith("${env:OTLP_LISTEN:-127.0.0.1}:") for each in protocols.values())


@pytest.mark.skipif(COLLECTOR is None, reason="no otelcol-contrib on PATH, and no package has it")
@pytest.mark.parametrize("everything", [False, True])
def test_the_collector_itself_takes_it(emitted: Project, tmp_path: Path, everything: bool) -> None:
    text = (emitted.root / FILE).read_text()
    file = tmp_path / "collector.yaml"
    for content, code in ((text, 0), (text.replace("otlp_grpc/jaeger:", "no_such_exporter:"), 1)):
        file.write_text(switched_on(content) if everything else content)
        done = subprocess.run([str(COLLECTOR), "validate", f"--config={file}"], capture_output=True, check=False)
        assert done.returncode == code, done.stderr
