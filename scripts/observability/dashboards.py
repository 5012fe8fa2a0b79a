"""The two emitted Grafana dashboards, and the compact JSON of their templates.

Each panel is one line, so that a changed query is one changed line. Values that equal Grafana's defaults are omitted.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Jinja of the emitted file; everything else is raw, because Grafana also uses {{label}}.
SLUG = "{% endraw %}{{ project_slug }}{% raw %}"
UID = SLUG.replace("project_slug", "project_slug[:32]")  # Grafana takes 40 characters
DATABASE = "{%- if database == 'postgresql' %}"
JOB = f'job=~"(.+/)?{SLUG}"'
SLO = f'service="{SLUG}"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One panel; `queries` are pairs of PromQL and legend, `jinja` a condition under which it is emitted."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    about: str = ""
    exemplars: bool = False
    lines: tuple[tuple[str, float], ...] = ()  # colour and the value from which it applies
    most: float | None = None
    jinja: str = ""

    def as_json(self, number: int, x: int, y: int) -> Json:
        instant = self.kind in ("stat", "table")
        targets = [
            {
                "refId": chr(ord("A") + index),
                "expr": expression,
                "legendFormat": legend,
                **({"instant": True, "range": False} if instant else {}),
                **({"exemplar": True} if self.exemplars else {}),
            }
            for index, (expression, legend) in enumerate(self.queries)
        ]
        steps = [{"color": color, "value": value} for color, value in self.lines]
        defaults: Json = {"unit": self.unit, "min": 0 if self.most is None else None, "max": self.most}
        if steps:
            defaults["thresholds"] = {"mode": "absolute", "steps": [{**steps[0], "value": None}, *steps[1:]]}
        if steps and self.kind == "timeseries":
            defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
        found: Json = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": 8},
            "fieldConfig": {"defaults": {key: value for key, value in defaults.items() if value is not None}},
            "targets": targets,
        }
        return {key: value for key, value in found.items() if value != ""}


@dataclass(frozen=True)
class Row:
    """A heading and its panels, from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A page; `variables` are Grafana's own JSON."""

    name: str
    title: str
    rows: tuple[Row, ...]
    variables: tuple[Json, ...] = field(default_factory=tuple)

    def head(self) -> Json:
        datasource = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
        return {
            "uid": f"{self.name}-{UID}",
            "title": f"{SLUG}: {self.title}",
            "tags": [SLUG],
            "schemaVersion": 39,
            "refresh": "1m",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "browser",
            "templating": {"list": [datasource, *self.variables]},
        }

    def panels(self) -> Iterator[tuple[str, Json]]:
        """Each panel with its Jinja condition, laid out."""
        number, y = 1, 0
        for row in self.rows:
            bar: Json = {"x": 0, "y": y, "w": WIDTH, "h": 1}
            yield "", {"id": number, "type": "row", "title": row.title, "gridPos": bar, "panels": []}
            number, x, y = number + 1, 0, y + 1
            for panel in row.panels:
                if x + panel.width > WIDTH:
                    x, y = 0, y + 8
                yield panel.jinja, panel.as_json(number, x, y)
                number, x = number + 1, x + panel.width
            y += 8

    def template(self) -> str:
        """The text of the emitted file, as Jinja."""
        text = "{% raw %}{\n" + "".join(f"{dumps(key)}:{dumps(value)},\n" for key, value in self.head().items())
        text += '"panels":[\n'
        separator = ""
        for condition, panel in self.panels():
            line = f"{separator}{dumps(panel)}"
            text += (
                f"{{% endraw %}}{condition}{{% raw %}}{line}{{% endraw %}}{{%- endif %}}{{% raw %}}"
                if condition
                else line
            )
            separator = ",\n"
        return text + "\n]\n}\n{% endraw %}"


def dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def per_second(series: str, *more: str) -> str:
    return f"rate(http_server_request_duration_seconds_{series}{{{', '.join([JOB, *more])}}}[$__rate_interval])"


def share(bad: str, every: str) -> str:
    """The share of bad requests; 0 instead of no data if there are none."""
    return f"({bad} or 0 * {every}) / {every}"


def quantile(part: str, *by: str) -> str:
    return f"histogram_quantile({part}, sum by ({', '.join(['le', *by])}) ({per_second('bucket')}))"


def by_version(rate: str, *labels: str) -> str:
    """Join a rate with target_info, the only metric with the version; works for push and pull."""
    kept = ", ".join(["job", "instance", *labels])
    versions = f"group by (job, instance, service_version) (target_info{{{JOB}}})"
    total = ", ".join(["service_version", *labels])
    return f"sum by ({total}) (sum by ({kept}) ({rate}) * on (job, instance) group_left (service_version) {versions})"


BAD = 'http_response_status_code=~"5.."'
ROUTE = "http_request_method, http_route"
LEGEND = "{{http_request_method}} {{http_route}}"
VERSION = "{{service_version}}"
RED = Row(
    "Requests",
    (
        Panel("Requests by route", ((f"sum by ({ROUTE}) ({per_second('count')})", LEGEND),), "reqps"),
        Panel(
            "Share of 5xx by route",
            (
                (
                    share(
                        f"sum by ({ROUTE}) ({per_second('count', BAD)})", f"sum by ({ROUTE}) ({per_second('count')})"
                    ),
                    LEGEND,
                ),
            ),
            "percentunit",
        ),
        Panel("p95 by route", ((quantile("0.95", "http_request_method", "http_route"), LEGEND),), "s"),
        Panel(
            "Latency of all routes",
            tuple((quantile(part), name) for part, name in (("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99"))),
            "s",
            about="Dots are traces of single requests; only OTLP exports them.",
            exemplars=True,
        ),
        Panel(
            "Responses by status",
            (
                (
                    f"sum by (http_response_status_code) ({per_second('count')})",
                    "{{http_response_status_code}}",
                ),
            ),
            "reqps",
        ),
        Panel("Requests in flight", ((f"sum(http_server_active_requests{{{JOB}}})", "in flight"),)),
    ),
)
CORES = f"sum by (instance) (rate(process_cpu_time_seconds_total{{{JOB}}}[$__rate_interval]))"
RUNTIME = Row(
    "Runtime: average and worst instance",
    (
        Panel(
            "CPU cores",
            ((f"avg({CORES})", "average"), (f"max({CORES})", "maximum")),
            lines=(("green", 0), ("red", 0.8)),
            about="A process uses at most one core.",
        ),
        Panel(
            "Event-loop lag",
            ((f"max(process_event_loop_lag_seconds{{{JOB}}})", "maximum"),),
            "s",
            lines=(("green", 0), ("red", 0.1)),
        ),
        Panel(
            "Memory",
            (
                (f"avg(process_memory_usage_bytes{{{JOB}}})", "average"),
                (f"max(process_memory_usage_bytes{{{JOB}}})", "maximum"),
            ),
            "bytes",
        ),
        Panel("Open files", ((f"max(process_unix_file_descriptor_count{{{JOB}}})", "maximum"),)),
        Panel(
            "CPU cores in two weeks, at this week's growth",
            (
                (f"service:cpu_cores:rate5m{{{SLO}}}", "now"),
                (f"predict_linear(service:cpu_cores:rate5m{{{SLO}}}[7d], 14 * 86400)", "forecast"),
            ),
        ),
        Panel("Instances", ((f"count(group by (job, instance) (target_info{{{JOB}}}))", "running"),)),
    ),
)
POOL = "db_client_connection_pool_name"
DEPENDENCIES = Row(
    "Dependencies",
    (
        Panel(
            "Database connections",
            (
                (
                    f"sum by (db_client_connection_state) (db_client_connection_count{{{JOB}}})",
                    "{{db_client_connection_state}}",
                ),
                (f"sum(db_client_connection_max{{{JOB}}})", "maximum"),
            ),
            jinja=DATABASE,
        ),
        Panel(
            "Highest use of a pool",
            (
                (
                    f"max by ({POOL}) (sum by (instance, {POOL}) (db_client_connection_count{{{JOB}, "
                    f'db_client_connection_state="used"}}) / sum by (instance, {POOL}) '
                    f"(db_client_connection_max{{{JOB}}}))",
                    f"{{{{{POOL}}}}}",
                ),
            ),
            "percentunit",
            lines=(("green", 0), ("red", 0.9)),
            jinja=DATABASE,
        ),
        Panel(
            "Days until the certificate expires",
            ((f"(min by (instance) (probe_ssl_earliest_cert_expiry{{{SLO}}}) - time()) / 86400", "{{instance}}"),),
            "d",
        ),
    ),
)
CANARY = Row(
    "Canary against stable",
    (
        Panel("Requests by version", ((by_version(per_second("count")), VERSION),), "reqps"),
        Panel(
            "Share of 5xx by version",
            ((share(by_version(per_second("count", BAD)), by_version(per_second("count"))), VERSION),),
            "percentunit",
        ),
        Panel(
            "p95 by version",
            ((f"histogram_quantile(0.95, {by_version(per_second('bucket'), 'le')})", VERSION),),
            "s",
        ),
    ),
)
SPENT = (
    f"sum_over_time(slo:bad:rate5m{{{SLO}}}[$window]) / sum_over_time(slo:requests:rate5m{{{SLO}}}[$window])"
    f" / (1 - slo:objective{{{SLO}}})"
)


def burn(window: str) -> tuple[str, str]:
    bad, requests = (f"sum_over_time(slo:{each}:rate5m{{{SLO}}}[{window}])" for each in ("bad", "requests"))
    return f"{bad} / {requests} / (1 - slo:objective{{{SLO}}})", f"{{{{slo}}}} over {window}"


WINDOW: Json = {
    "name": "window",
    "label": "Window of slo.yaml",
    "type": "custom",
    "query": "30d,28d,7d",
    "current": {"text": "30d", "value": "30d"},
}
OBJECTIVES = (
    Row(
        "Objectives",
        (
            Panel(
                "Error budget left",
                ((f"1 - {SPENT}", "{{slo}}"),),
                "percentunit",
                kind="stat",
                lines=(("red", 0), ("orange", 0.25), ("green", 0.5)),
                most=1,
            ),
            Panel(
                "Achieved in the window",
                (
                    (
                        f"1 - sum_over_time(slo:bad:rate5m{{{SLO}}}[$window])"
                        f" / sum_over_time(slo:requests:rate5m{{{SLO}}}[$window])",
                        "{{slo}}",
                    ),
                    (f"slo:objective{{{SLO}}}", "{{slo}} objective"),
                ),
                "percentunit",
                kind="stat",
            ),
            Panel(
                "Firing",
                ((f'count by (alertname, severity) (ALERTS{{{SLO}, alertstate="firing"}})', "{{alertname}}"),),
                kind="stat",
            ),
        ),
    ),
    Row(
        "Burn rate (1: the budget lasts the window exactly)",
        tuple(
            Panel(f"Over {' and '.join(windows)}", tuple(map(burn, windows)), lines=(("green", 0), ("red", line)))
            for windows, line in ((("5m", "1h"), 14.4), (("30m", "6h"), 6.0), (("6h", "3d"), 1.0))
        ),
    ),
    Row(
        "Budget over time",
        (
            Panel("Error budget left", ((f"1 - {SPENT}", "{{slo}}"),), "percentunit", width=16, most=1),
            Panel("Bad requests per second", ((f"slo:bad:rate5m{{{SLO}}}", "{{slo}}"),), "reqps"),
        ),
    ),
)
DASHBOARDS = (
    Dashboard("service", "service", (RED, RUNTIME, DEPENDENCIES, CANARY)),
    Dashboard("slo", "objectives and error budget", OBJECTIVES, (WINDOW,)),
)
