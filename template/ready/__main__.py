"""The command line: `python -m ready`, which `make ready` calls."""

import sys
from pathlib import Path
from typing import Annotated, Literal

try:
    import typer

    from . import command
except ModuleNotFoundError as error:
    if error.name not in ("httpx2", "rich", "typer"):
        raise
    print(f"ready: install the extra `ops`: it needs {error.name}", file=sys.stderr)
    raise SystemExit(2) from None


def ready(
    areas: Annotated[
        list[str] | None, typer.Argument(metavar="[AREA]...", help="Check only these areas; default: all.")
    ] = None,
    url: Annotated[str, typer.Option(help="URL of the service; default: HOST and PORT.")] = "",
    profile: Annotated[
        Literal["local", "production"] | None,
        typer.Option(help="Which rules apply; default: what .env, the service and the URL say."),
    ] = None,
    area: Annotated[list[str] | None, typer.Option(help="The same; repeatable.")] = None,
    drill: Annotated[bool, typer.Option("--drill", help="Also run checks that start or break something.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Allow writes and drills in production.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Also write the report as JUnit XML.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the report as an HTML page.")] = None,
) -> None:
    """Check the running service, area by area, and show the evidence."""
    code = command.run(
        url, profile, [*(areas or []), *(area or [])], drill=drill, yes=yes, as_json=as_json, junit=junit, html=html
    )
    raise typer.Exit(code)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(ready)

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # typed as TextIO, which it need not be
    app(prog_name="python -m ready")
