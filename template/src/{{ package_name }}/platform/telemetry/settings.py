"""OpenTelemetry's standard variables: where traces, metrics and logs are sent, and how many."""

import os
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, SecretStr, TypeAdapter, ValidationError

from ..settings import OrOff, RealInProduction, RoomSettings, explain
from ..values import Port

Signal = Literal["logs", "metrics", "traces"]


def _address(url: str) -> str:
    try:
        parsed = urlsplit(url)
        fits = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("type the URL of a collector, as in http://collector:4318")
    return url.rstrip("/")


def _pairs(text: SecretStr) -> SecretStr:
    if not all("=" in pair for pair in text.get_secret_value().split(",") if pair.strip()):
        raise ValueError("type name=value, with a comma between two of them")
    return text


def _milliseconds(timeout: int) -> int:
    """As the specification says; the SDK for Python would read seconds."""
    if not 100 <= timeout <= 60_000:
        raise ValueError("type milliseconds, from 100 to 60000")
    return timeout


def _plug_ins(group: str) -> AfterValidator:
    def check(text: str) -> str:
        known = {each.name for each in entry_points(group=group)}
        if not known.issuperset(name.strip() for name in text.split(",")):
            raise ValueError(f"use what is installed: {', '.join(sorted(known)) or 'nothing'}")
        return text

    return AfterValidator(check)


Lower = BeforeValidator(lambda value: str(value).strip().lower())
Pairs = Annotated[SecretStr, AfterValidator(_pairs)]
Switch = Annotated[Literal["otlp", "none"], Lower]
Address = Annotated[str, AfterValidator(_address)]
Milliseconds = Annotated[int, AfterValidator(_milliseconds)]
Protocol = Annotated[Literal["http/protobuf"], Lower]
# Patterns of variables that are read from the environment when the SDK is built. With a wrong value it would end with a
# traceback, or continue with its default.
FROM_ENVIRONMENT: dict[str, Any] = {
    r"OTEL_(B(SP|LRP)|METRIC)_(SCHEDULE_DELAY|EXPORT_TIMEOUT)": Annotated[int, Field(ge=1, le=3_600_000)],
    r"OTEL_B(SP|LRP)_MAX_QUEUE_SIZE": Annotated[int, Field(ge=2_048, le=1_000_000)],  # never smaller than a batch
    r"OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": Annotated[int, Field(ge=1, le=2_048)],
    r"OTEL_(\w+_)?(COUNT|LENGTH)_LIMIT": Annotated[int, Field(ge=0, le=1_000_000)],
    r"OTEL_EXPORTER_OTLP_(\w+_)?(CERTIFICATE|CLIENT_KEY)": FilePath,
    r"OTEL_EXPORTER_OTLP_(\w+_)?COMPRESSION": Annotated[Literal["deflate", "gzip", "none"], Lower],
    r"OTEL_EXPORTER_OTLP_(LOGS|METRICS|TRACES)_ENDPOINT": Address,
    r"OTEL_EXPORTER_OTLP_(LOGS|METRICS|TRACES)_HEADERS": Pairs,
    r"OTEL_EXPORTER_OTLP_(LOGS|METRICS|TRACES)_PROTOCOL": Protocol,
    r"OTEL_EXPORTER_OTLP_(LOGS|METRICS|TRACES)_TIMEOUT": Milliseconds,
    r"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": Annotated[str, _plug_ins("opentelemetry_resource_detector")],
    r"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": Annotated[
        Literal["base2_exponential_bucket_histogram", "explicit_bucket_histogram"], Lower
    ],
    r"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": Annotated[Literal["cumulative", "delta", "lowmemory"], Lower],
    r"OTEL_METRICS_EXEMPLAR_FILTER": Literal["always_off", "always_on", "trace_based"],
    r"OTEL_PYTHON_EXPORTER_OTLP_HTTP_(\w+_)?CREDENTIAL_PROVIDER": Annotated[
        str, _plug_ins("opentelemetry_otlp_credential_provider")
    ],
    r"OTEL_PYTHON_(\w+_)?EXCLUDED_URLS": re.Pattern,
}


class Settings(RoomSettings):
    """Destinations, intervals and sampling of telemetry.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/; the SDK itself reads
    those that are not here, from the environment only.
    """

    metrics_port: Port = 9464
    otel_bsp_max_export_batch_size: Annotated[int, Field(ge=1, le=2_048)] = 128  # larger batches delay requests
    otel_exporter_otlp_endpoint: Annotated[
        Address | None,
        OrOff,
        RealInProduction("http://collector.internal:4318", optional=True),
    ] = None
    otel_exporter_otlp_headers: Pairs = SecretStr("")
    otel_exporter_otlp_protocol: Protocol = "http/protobuf"
    otel_exporter_otlp_timeout: Milliseconds = 5_000
    otel_logs_exporter: Switch = "none"
    otel_metric_export_interval: Annotated[int, Field(ge=100, le=3_600_000)] = 15_000
    otel_metrics_exporter: Annotated[Literal["otlp", "prometheus", "none"], Lower] = "otlp"
    otel_resource_attributes: Pairs = SecretStr("")
    otel_sdk_disabled: bool = False
    otel_service_name: str = ""
    otel_traces_exporter: Switch = "otlp"
    otel_traces_sampler: Annotated[
        Literal[
            "always_off",
            "always_on",
            "parentbased_always_off",
            "parentbased_always_on",
            "parentbased_traceidratio",
            "traceidratio",
        ],
        Lower,
    ] = "parentbased_traceidratio"
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def ratio(self) -> float:
        """The share of traces that begin here; by default 0.1 in production, otherwise 1."""
        if self.otel_traces_sampler_arg is None:
            return 0.1 if self.environment == "production" else 1.0
        return self.otel_traces_sampler_arg

    def sends(self, signal: Signal) -> bool:
        """Whether a signal is sent to the collector."""
        wanted = getattr(self, f"otel_{signal}_exporter") == "otlp" and not self.otel_sdk_disabled
        return wanted and bool(self.otel_exporter_otlp_endpoint or own(signal, "ENDPOINT"))

    def options(self, signal: Signal) -> dict[str, Any]:
        """The arguments of an exporter; a signal's own variable overrides the common one."""
        headers = own(signal, "HEADERS") or self.otel_exporter_otlp_headers.get_secret_value()
        return {
            "endpoint": own(signal, "ENDPOINT") or f"{self.otel_exporter_otlp_endpoint}/v1/{signal}",
            "headers": pairs(headers) or None,
            "timeout": int(own(signal, "TIMEOUT") or self.otel_exporter_otlp_timeout) / 1_000,
        }

    def refusals(self) -> Iterator[str]:
        """Check the variables that are read from the environment later."""
        yield from super().refusals()
        for name in sorted(os.environ):
            value = os.environ[name].strip()
            kind = next((kind for pattern, kind in FROM_ENVIRONMENT.items() if re.fullmatch(pattern, name)), None)
            if kind and value:
                try:
                    TypeAdapter(kind).validate_python(value)
                except ValidationError as error:
                    yield from explain(error, name)


def share_of(kind: str, ratio: float) -> float:
    """The share of traces of a sampler: `ratio`, unless its name says all or none."""
    return {"always_off": 0.0, "always_on": 1.0}.get(kind.removeprefix("parentbased_"), ratio)


def own(signal: Signal, name: str) -> str:
    """The value of a signal's own variable, such as OTEL_EXPORTER_OTLP_TRACES_TIMEOUT; empty if it is not set."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()


def pairs(text: str) -> dict[str, str]:
    """Read `a=1,b=2`, whose values may be percent-encoded."""
    given = (pair.partition("=") for pair in text.split(",") if pair.strip())
    return {key.strip(): unquote(value.strip()) for key, _, value in given}
