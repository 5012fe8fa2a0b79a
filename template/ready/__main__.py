"""The command line: `python -m ready`, which `make ready` calls."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer


def ready(
    url: Annotated[str, typer.Option(help="Where the service answers.")] = "",
    profile: Annotated[
        Literal["local", "production"] | None, typer.Option(help="By which measure; by default the address decides.")
    ] = None,
    area: Annotated[list[str] | None, typer.Option(help="Only this area; may be repeated.")] = None,
    drill: Annotated[bool, typer.Option("--drill", help="Also run what starts or breaks something.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write to production, and drill it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write the report as JUnit's XML, too.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page, too.")] = None,
) -> None:
    """Look at the running service, area by area, and show the evidence."""
    try:
        from . import command
    except ModuleNotFoundError as error:
        if error.name != "httpx2":
            raise
        typer.echo("ready: install the extra `ops`: it needs httpx2", err=True)
        raise typer.Exit(2) from None
    url = url or f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
    code = command.run(url, profile, area or [], drill=drill, yes=yes, as_json=as_json, junit=junit, html=html)
    raise typer.Exit(code)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(ready)

if __name__ == "__main__":
    app(prog_name="python -m ready")
