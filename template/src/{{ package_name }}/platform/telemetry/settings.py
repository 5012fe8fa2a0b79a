"""OpenTelemetry's standard variables: where traces, metrics and logs are sent, and how many."""

from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from ..settings import OrOff, RealInProduction, RoomSettings


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


Lower = BeforeValidator(lambda value: str(value).strip().lower())
Pairs = Annotated[SecretStr, AfterValidator(_pairs)]
Switch = Annotated[Literal["otlp", "none"], Lower]


class Settings(RoomSettings):
    """Destinations, intervals and sampling of telemetry.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/; the SDK itself reads
    those that are not here.
    """

    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    otel_bsp_max_export_batch_size: Annotated[int, Field(ge=1, le=2_048)] = 128  # larger batches delay requests
    otel_exporter_otlp_endpoint: Annotated[
        Annotated[str, AfterValidator(_address)] | None,
        OrOff,
        RealInProduction("http://collector.internal:4318", optional=True),
    ] = None
    otel_exporter_otlp_headers: Pairs = SecretStr("")
    otel_exporter_otlp_protocol: Annotated[Literal["http/protobuf"], Lower] = "http/protobuf"
    otel_exporter_otlp_timeout: Annotated[float, Field(gt=0, le=60)] = 5
    otel_logs_exporter: Switch = "none"
    otel_metric_export_interval: Annotated[int, Field(ge=100)] = 15_000
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

    def sends(self, signal: Literal["logs", "metrics", "traces"]) -> bool:
        """Whether a signal is sent to the collector."""
        wanted = getattr(self, f"otel_{signal}_exporter") == "otlp"
        return wanted and self.otel_exporter_otlp_endpoint is not None and not self.otel_sdk_disabled

    def pairs(self, name: Literal["otel_exporter_otlp_headers", "otel_resource_attributes"]) -> dict[str, str]:
        """Read `a=1,b=2`, whose values may be percent-encoded."""
        given = (pair.partition("=") for pair in getattr(self, name).get_secret_value().split(",") if pair.strip())
        return {key.strip(): unquote(value.strip()) for key, _, value in given}
