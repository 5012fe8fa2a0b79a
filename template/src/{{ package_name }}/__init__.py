"""One service: `main` assembles it, `features` are yours, `platform` keeps it in production.

Whatever imports it, such as `uvicorn`, the environment is checked first: FastAPI imports OpenTelemetry, which reads it.
"""

import os
import sys

# Names of plug-ins, which are installed or not.
# For each variable the group of its plug-ins, and a value that is always known.
PLUG_INS = {
    "OTEL_PROPAGATORS": ("opentelemetry_propagator", "none"),
    "OTEL_PYTHON_CONTEXT": ("opentelemetry_context", "contextvars_context"),
    "OTEL_PYTHON_METER_PROVIDER": ("opentelemetry_meter_provider", "default_meter_provider"),
    "OTEL_PYTHON_TRACER_PROVIDER": ("opentelemetry_tracer_provider", "default_tracer_provider"),
}


def check_plug_ins() -> None:
    """Refuse a plug-in of OpenTelemetry that is not installed: its import would end with a traceback."""
    for variable, (group, always) in PLUG_INS.items():
        if value := os.environ.pop(variable, "").strip():
            os.environ[variable] = value
            from importlib.metadata import entry_points  # takes a while, and is rarely needed

            known = {always, *(each.name for each in entry_points(group=group))}
            if not known.issuperset(name.strip() for name in value.split(",")):
                print(f"configuration refused: {variable}: use {', '.join(sorted(known))}", file=sys.stderr)
                raise SystemExit(78)


check_plug_ins()
