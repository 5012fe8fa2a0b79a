"""Generates the alerts for the SLOs in observability/slo.yaml, below the mark in observability/alerts.yaml.

The Prometheus operator gets all alerts as deploy/k8s/components/monitoring/alerts.json.

An alert fires if the burn rate is too high in both a long and a short window: the long one ignores short peaks, the
short one resolves the alert soon after its cause is fixed. Windows and shares of the budget are those of Google's SRE
workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".

`--check` writes nothing, and exits with 1 if the file is not what slo.yaml generates.
"""

import json
import sys
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FOLDER = Path(__file__).parent.parent / "observability"
RULE = FOLDER.parent / "deploy/k8s/components/monitoring/alerts.json"
MARK = "\n  # --- below: written by `make alerts` from slo.yaml\n"
# Of http_server_request_duration_seconds: a latency limit between two buckets cannot be measured.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
STEP = 60  # seconds between two evaluations of the recorded series
TABLE = {"service": str, "runbook": str, "window_days": int, "quiet_below": int, "slos": list}
SLO = {"name": str, "objective": float | int, "seconds": float | int, "routes": str}
OPTIONAL = {"routes", "seconds"}


class Tier(NamedTuple):
    """The severity of an alert when `share` percent of the budget is spent within the long window of `hours`."""

    suffix: str
    severity: str
    share: int
    long: str
    hours: int
    short: str
    summary: str


TIERS = (
    Tier("BurnsFast", "page", 2, "1h", 1, "5m", "is gone in days, not weeks"),
    Tier("BurnsSlow", "page", 5, "6h", 6, "30m", "is gone in a week, not a month"),
    Tier("Burns", "ticket", 10, "3d", 72, "6h", "will not last its window"),
)


class TableError(ValueError):
    """An invalid slo.yaml, explained in one line."""


def plain(number: Decimal) -> str:
    """A number without exponent and trailing zeros."""
    return f"{number.normalize():f}"


def burn_rate(tier: Tier, days: int) -> Decimal:
    """The burn rate, 1 if the budget lasts the window exactly: 14.4, 6 and 1 for 30 days."""
    return Decimal(tier.share * days * 24) / (100 * tier.hours)


def budget(slo: dict[str, Any]) -> Decimal:
    """The share of requests that may be bad."""
    return 1 - Decimal(str(slo["objective"])) / 100


def kinds(where: str, found: Any, wanted: dict[str, Any]) -> None:
    """Raise TableError for a key that is missing, unknown or of the wrong type, or a text that would break the YAML."""
    if not isinstance(found, dict):
        raise TableError(f"{where}must be a table")
    for key in wanted.keys() | found.keys():
        if key not in wanted:
            raise TableError(f"{where}{key} is unknown")
        if key not in found and key in OPTIONAL:
            continue
        value = found.get(key)
        if not isinstance(value, wanted[key]) or (isinstance(value, str) and set(value) & set("\"'\\\n")):
            raise TableError(f"{where}{key} is missing, of another kind, or has a quote or a backslash")


def identity() -> dict[str, str]:
    """The service's name and its runbook, from pyproject.toml: an update changes them there and not in slo.yaml."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    command = next(name for name, target in project["scripts"].items() if target.endswith(".cli:main"))
    return {"service": command, "runbook": f"{project['urls']['Repository']}/blob/main/docs/runbook.md"}


def check(table: Any) -> None:
    """Raise TableError if an SLO cannot be measured or could never alert."""
    kinds("", table, TABLE)
    if not 1 <= table["window_days"] <= 365:
        raise TableError("window_days must be 1 to 365")
    fastest = max(burn_rate(tier, table["window_days"]) for tier in TIERS)
    for slo in table["slos"]:
        kinds("slos: ", slo, SLO)
        if slo.get("seconds", 1) not in BUCKETS:
            raise TableError(f"{slo['name']}: seconds must be a bucket: {', '.join(map(str, BUCKETS))}")
        if not 0 < budget(slo) * fastest < 1:
            least = plain(round(100 - 100 / fastest, 2))
            raise TableError(f"{slo['name']}: objective must be above {least} and below 100, or an alert cannot fire")
    if len({slo["name"] for slo in table["slos"]}) < len(table["slos"]):
        raise TableError("two slos have the same name")


def recordings(service: str, slo: dict[str, Any]) -> Iterator[str]:
    """Requests and bad requests per second, and the objective: the alerts use only these three."""
    chosen = [f'job=~"(.+/)?{service}"', *([f'http_route=~"{slo["routes"]}"'] if "routes" in slo else [])]

    def requests(series: str, *more: str) -> str:
        return f"sum(rate(http_server_request_duration_seconds_{series}{{{', '.join([*chosen, *more])}}}[5m]))"

    if "seconds" in slo:
        bound = f"{slo['seconds']:g}"
        whole = "" if "." in bound else "([.]0)?"  # exporters write 1 or 1.0
        good = 'http_response_status_code!~"5.."'
        every = requests("count", good)
        bad = f"{every} - " + requests("bucket", good, f'le=~"{bound}{whole}"')
    else:
        every = requests("count")
        # Without 5xx there is no series: the second half gives 0 instead of no data.
        bad = requests("count", 'http_response_status_code=~"5.."') + f" or 0 * {every}"
    objective = f"vector({plain(1 - budget(slo))})"
    for name, expression in (("slo:requests:rate5m", every), ("slo:bad:rate5m", bad), ("slo:objective", objective)):
        yield f"      - record: {name}\n        labels: {{service: {service}, slo: {slo['name']}}}\n"
        yield f"        expr: '{expression}'\n"


def alert(table: dict[str, Any], slo: dict[str, Any], tier: Tier) -> str:
    """One alert, named for its SLO and burn rate: the runbook has a heading for each name."""
    labels = f'{{service="{table["service"]}", slo="{slo["name"]}"}}'
    name = f"{'Latency' if 'seconds' in slo else 'Availability'}{tier.suffix}"
    limit = f"{plain(burn_rate(tier, table['window_days']))} * {plain(budget(slo))}"

    def total(series: str, window: str) -> str:
        recorded = f"slo:{series}:rate5m{labels}"
        return recorded if window == "5m" else f"sum_over_time({recorded}[{window}])"  # one sample covers 5m

    return f"""\
      - alert: {name}
        expr: >-
          {total("bad", tier.long)} / {total("requests", tier.long)} > {limit}
          and {total("bad", tier.short)} / {total("requests", tier.short)} > {limit}
          and {total("bad", tier.long)} * {STEP} >= {table["quiet_below"]}
        labels: {{severity: {tier.severity}}}
        annotations:
          summary: The error budget of {table["service"]} for {slo["name"]} {tier.summary}.
          runbook_url: {table["runbook"]}#{name.lower()}
"""


def groups(table: dict[str, Any]) -> Iterator[str]:
    """The groups as text, formatted for the engineer on call."""
    yield f"  - name: slo-recordings\n    interval: {STEP}s\n    rules:\n"
    for slo in table["slos"]:
        yield from recordings(table["service"], slo)
    yield "  - name: slo-alerts\n    rules:\n"
    for slo in table["slos"]:
        yield from (alert(table, slo, tier) for tier in TIERS)


def manifest(alerts: str, service: str) -> str:
    """The alerts as a PrometheusRule."""
    rule = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": service}}
    return json.dumps(rule | {"spec": yaml.safe_load(alerts)}, indent=1, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Write, or with `--check` compare."""
    if arguments not in ([], ["--check"]):
        print("type: python scripts/alerts.py [--check]", file=sys.stderr)
        return 2
    target = FOLDER / "alerts.yaml"
    try:
        table = yaml.safe_load((FOLDER / "slo.yaml").read_text())
        table = identity() | table if isinstance(table, dict) else table
        check(table)
        before = target.read_text()
    except (OSError, yaml.YAMLError, TableError) as error:
        print(f"observability/slo.yaml: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    after = before.partition(MARK)[0] + MARK + "".join(groups(table))
    if after != before and arguments:
        print("observability/alerts.yaml does not follow slo.yaml: type make alerts", file=sys.stderr)
        return 1
    target.write_text(after)
    if RULE.exists():
        rule = manifest(after, identity()["service"])
        if rule != RULE.read_text() and arguments:
            print(f"{RULE.name} does not follow observability/alerts.yaml: type make alerts", file=sys.stderr)
            return 1
        RULE.write_text(rule)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
