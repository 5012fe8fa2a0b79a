"""What a service may go through in its metrics, and which alerts have to fire at the end of it."""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

HOUR, DAY = 60, 24 * 60
BEYOND = 365 * DAY  # later than the end of any scenario
REQUESTS = "http_server_request_duration_seconds"
Series = Mapping[str, str]


def name(metric: str, **labels: object) -> str:
    return f"{metric}{{{','.join(f'{key}={json.dumps(str(value))}' for key, value in labels.items())}}}"


def listed(values: Iterable[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def backups(last: int | None, drill: int | None, size: int = 100, steps: str = "x700") -> Series:
    """What `backup status` reports: when the newest backup and drill were, in minutes, and the size of the backup."""
    values = {
        "last_success_timestamp_seconds": None if last is None else last * 60,
        "drill_timestamp_seconds": None if drill is None else drill * 60,
        "target_rpo_seconds": 25 * 3600,
        "target_drill_seconds": 35 * 86400,
        "size_bytes": size,
        "typical_size_bytes": 100,
    }
    labels = {"job": "my-service", "service": "my-service"}
    return {name(f"backup_{key}", **labels): f"{value}{steps}" for key, value in values.items() if value is not None}


def alive(minutes: int, **more: object) -> Series:
    """What every running instance exports, without a request."""
    labels = {"job": "my-service", "instance": "a", **more}
    steps = minutes + 10
    return {
        name("process_cpu_time_seconds_total", **labels, cpu_mode="user"): f"0+6x{steps}",
        name("process_event_loop_lag_seconds", **labels): f"0.002x{steps}",
        name("target_info", **labels, service_version="1.0.0"): f"1x{steps}",
        **backups(BEYOND, BEYOND),
    }


def traffic(*spans: tuple[int, float, float, float], job: str = "my-service", rising: float = 0) -> Series:
    """Counters over spans of (minutes, good, slow, failed per minute), half of it on each of two instances."""
    kinds: dict[tuple[str, str, str], Callable[[float, float, float], float]] = {
        ("_count", "200", ""): lambda good, slow, failed: good + slow,
        ("_bucket", "200", "0.25"): lambda good, slow, failed: good,
        ("_bucket", "200", "+Inf"): lambda good, slow, failed: good + slow,
        # A failed request is also a slow one: it counts against one promise only.
        ("_count", "500", ""): lambda good, slow, failed: failed,
        ("_bucket", "500", "+Inf"): lambda good, slow, failed: failed,
    }
    found: dict[str, str] = {}
    for (suffix, status, bound), count in kinds.items():
        if status == "500" and not any(span[3] for span in spans):
            continue  # no 5xx ever: then there is no such series
        for instance in ("a", "b"):
            total, values = 0.0, [0.0]
            for minutes, *rates in spans:
                for _ in range(minutes):
                    total += count(*rates) / 2
                    values.append(total)
            labels = {"job": job, "instance": instance, "http_route": "/v1/items", "http_response_status_code": status}
            bounds = {"le": bound} if bound else {}
            found[name(REQUESTS + suffix, **labels, **bounds)] = listed(values)
    return found


@dataclass(frozen=True)
class Scenario:
    """What is seen in so many minutes, and which alerts then fire."""

    series: Series
    at: int
    fires: frozenset[str] = frozenset()
    step: int = 1  # minutes between samples and between evaluations


def quiet(*series: Series, at: int = 30, step: int = 1) -> Scenario:
    return firing(*series, at=at, step=step)


def firing(*series: Series, at: int = 30, alerts: str = "", step: int = 1) -> Scenario:
    merged = {key: values for each in (alive(at // step), *series) for key, values in each.items()}
    return Scenario(merged, at, frozenset(alerts.split()), step)


def requests(*spans: tuple[int, float, float, float], alerts: str = "", job: str = "my-service") -> Scenario:
    return firing(traffic(*spans, job=job), at=sum(span[0] for span in spans), alerts=alerts)


def certificate(days: float) -> Series:
    target = name("probe_ssl_earliest_cert_expiry", service="my-service", instance="https://orders.test")
    return {target: f"{days * 86400}x200"}


def pool(used: int) -> Series:
    """Two instances, of which one is idle."""
    found = {}
    for instance, count in (("a", used), ("b", 0)):
        labels = {"job": "my-service", "instance": instance, "db_client_connection_pool_name": "app"}
        found[name("db_client_connection_count", **labels, db_client_connection_state="used")] = f"{count}x60"
        found[name("db_client_connection_count", **labels, db_client_connection_state="idle")] = f"{10 - count}x60"
        found[name("db_client_connection_max", **labels)] = "10x60"
    return found


def memory(before: int, after: int) -> Series:
    """Bytes, each for a day, seen each five minutes."""
    series = name("process_memory_usage_bytes", job="my-service", instance="a")
    return {series: f"{before}x288 {after}x288"}


def breaker(values: str) -> Series:
    return {name("cache_breaker_open", job="my-service", instance="b"): values}


def loop(seconds: float) -> Series:
    return {name("process_event_loop_lag_seconds", job="my-service", instance="b"): f"{seconds}x60"}


def lost(values: str) -> Series:
    """Log lines that two instances could not write; one loses none."""
    labels = {"job": "my-service"}
    return {
        name("log_lines_dropped_total", **labels, instance="a"): "0x60",
        name("log_lines_dropped_total", **labels, instance="b"): values,
    }


def cores(begin: float, end: float) -> Series:
    """A CPU counter whose use rises from `begin` to `end` in 80 hours, seen each five minutes."""
    steps = 80 * 12
    used = (begin + (end - begin) * step / steps for step in range(steps + 1))
    counter = name("process_cpu_time_seconds_total", job="my-service", instance="a", cpu_mode="user")
    return {counter: listed(itertools.accumulate(each * 300 for each in used))}


def load(begin: float, end: float) -> Series:
    """The recorded use of CPU over a week, each half hour: what `cores` leads to, at a sixth of the samples."""
    return {name("service:cpu_cores:rate5m", service="my-service"): f"{begin}+{(end - begin) / 336:.6f}x340"}


def leases(remaining: str) -> Series:
    """Two instances with a token for an hour, of which one is as good as new."""
    found = {}
    for instance, left in (("a", remaining), ("b", "3000x60")):
        labels = {"job": "my-service", "instance": instance, "lease": "token"}
        found[name("secrets_lease_remaining_seconds", **labels)] = left
        found[name("secrets_lease_duration_seconds", **labels)] = "3600x60"
    return found


def canary(seen: str) -> Series:
    return {name("target_info", job="my-service", instance="c", service_version="1.1.0"): seen}


OTHER = "metrics of another service"
ALL_THREE = "AvailabilityBurnsFast AvailabilityBurnsSlow AvailabilityBurns"
SCENARIOS = {
    # --- promises
    "healthy": quiet(traffic((HOUR, 1000, 1, 0)), traffic((HOUR, 0, 0, 100), job="other"), at=HOUR),
    "within the budget": requests((2 * HOUR, 1000, 5, 0.5)),
    "fast burn": requests((4 * HOUR, 1000, 0, 0), (HOUR, 980, 0, 20), alerts="AvailabilityBurnsFast AvailabilityBurns"),
    "slow burn": requests((2 * HOUR, 992, 0, 8), alerts="AvailabilityBurnsSlow AvailabilityBurns"),
    "creeping burn": requests((2 * HOUR, 998, 0, 2), alerts="AvailabilityBurns"),
    "a burn that has just ended": requests(
        (2 * HOUR, 1000, 0, 0), (5, 0, 0, 1000), (10, 1000, 0, 0), alerts="AvailabilityBurnsSlow AvailabilityBurns"
    ),
    "a burn that is over": requests(
        (2 * HOUR, 1000, 0, 0), (5, 0, 0, 1000), (45, 1000, 0, 0), alerts="AvailabilityBurns"
    ),
    "an outage after ten minutes": requests((4 * HOUR, 1000, 0, 0), (10, 0, 0, 1000), alerts=ALL_THREE),
    "the job has a namespace": requests((HOUR, 992, 0, 20), job="shop/my-service", alerts=ALL_THREE),
    "fast latency burn": requests((4 * HOUR, 1000, 0, 0), (HOUR, 800, 200, 0), alerts="LatencyBurnsFast LatencyBurns"),
    "slow latency burn": requests((2 * HOUR, 920, 80, 0), alerts="LatencyBurnsSlow LatencyBurns"),
    "creeping latency burn": requests((2 * HOUR, 980, 20, 0), alerts="LatencyBurns"),
    "no request ever": quiet(at=HOUR),
    "no request any more": requests((10, 1000, 0, 1), (2 * HOUR, 0, 0, 0)),
    "few requests, one fails": requests((2 * HOUR, 0.05, 0, 0), (HOUR, 0.05, 0, 1 / 60)),
    "few requests, all fail": requests((HOUR, 0.2, 0, 0), (2 * HOUR, 0, 0, 0.2), alerts=ALL_THREE),
    # --- the rest
    "metrics absent": Scenario({}, 10, frozenset({"MetricsAbsent"})),
    OTHER: Scenario(alive(10, job="other"), 10, frozenset({"MetricsAbsent"})),
    "certificate of a month": quiet(certificate(30), at=90),
    "certificate of ten days": firing(certificate(10), at=90, alerts="CertificateExpiresSoon"),
    "certificate of a day": firing(certificate(1), at=90, alerts="CertificateExpiresSoon CertificateExpiresNow"),
    "a backup of yesterday": quiet(backups(0, 0), at=25 * HOUR, step=5),
    "no backup since yesterday": firing(backups(0, 0), at=26 * HOUR, step=5, alerts="BackupOverdue"),
    "no backup ever reported": Scenario(
        {key: values for key, values in alive(50).items() if not key.startswith("backup_")},
        4 * HOUR,
        frozenset({"BackupAbsent"}),
        5,
    ),
    "the report of backups stops": firing(
        backups(0, 0, steps="x6"), at=3 * DAY, step=30, alerts="BackupAbsent BackupOverdue"
    ),
    "a backup is half as large": firing(backups(BEYOND, BEYOND, size=50), alerts="BackupShrunk"),
    "a backup is a little smaller": quiet(backups(BEYOND, BEYOND, size=75)),
    "a drill of a month ago": quiet(backups(BEYOND, -30 * DAY), at=2 * HOUR),
    "a drill of long ago": firing(backups(BEYOND, -36 * DAY), at=2 * HOUR, alerts="DrillOverdue"),
    "backups without a drill": Scenario(
        {key: values for key, values in alive(50).items() if "backup_drill_timestamp" not in key},
        4 * HOUR,
        frozenset({"DrillOverdue"}),
        5,
    ),
    "cache away": firing(breaker("1x60"), alerts="CacheAway"),
    "cache back": quiet(breaker("1x7 0x60")),
    "pool half full": quiet(pool(5)),
    "pool full": firing(pool(10), alerts="DatabasePoolSaturated"),
    "loop lags a little": quiet(loop(0.05)),
    "loop lags": firing(loop(0.2), alerts="EventLoopLags"),
    "log lines are lost": firing(lost("0x15 0+40x15"), alerts="LogLinesDropped"),
    "a few log lines are lost at once": firing(lost("0x20 7x10"), alerts="LogLinesDropped"),
    "log lines were lost an hour ago": quiet(lost("0x5 900x60"), at=HOUR),
    "leases are renewed": quiet(leases("3600-60x40")),
    "a lease runs out": firing(leases("2400-60x40"), alerts="SecretsLeaseRunsOut"),
    "memory stays": quiet(memory(100, 120), at=DAY + 3 * HOUR, step=5),
    "memory doubles": firing(memory(100, 200), at=DAY + 3 * HOUR, step=5, alerts="MemoryGrows"),
    "load stays": quiet(load(0.5, 0.5), at=7 * DAY, step=30),
    "load rises": firing(load(0.2, 0.5), at=7 * DAY, step=30, alerts="CapacityRunsOut"),
    "load rises for three days": firing(cores(0.2, 0.4), at=80 * HOUR, step=5, alerts="CapacityRunsOut"),
    "load rises since yesterday": quiet(load(0.1, 2.0), at=2 * DAY, step=30),
    "a canary": firing(canary("_x20 1x20"), alerts="CanaryRuns"),
    "a canary that was forgotten": quiet(canary("1x400"), at=DAY + HOUR, step=5),
}
