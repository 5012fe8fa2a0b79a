"""The command line: `serve`, `migrate`, `ready`. Each command imports what it needs when it runs."""

import importlib
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Run and maintain the service."""


@app.command()
def serve(
    reload: Annotated[bool, typer.Option(help="Start again at each change of the code.")] = False,
) -> None:
    """Serve until a signal comes; on SIGTERM drain first."""
    from . import main
    from .platform.server import serve as run

    run(main.app, reload=f"{main.__name__}:app" if reload else None)


@app.command()
def migrate(
    new: Annotated[str, typer.Option(help="Write a migration with this message instead.")] = "",
) -> None:
    """Bring the database to the schema of this code."""
    try:
        ops = importlib.import_module(".ops.migrate", __package__)
    except ModuleNotFoundError as error:
        if error.name not in {f"{__package__}.{gone}" for gone in ("ops", "ops.migrate", "platform.db")}:
            raise
        typer.echo("not applicable: this service has no database")
    else:
        ops.run(new)


@app.command()
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
        command = importlib.import_module(".ready.command", __package__)
    except ModuleNotFoundError as error:
        if error.name != "httpx2":
            raise
        typer.echo("ready: install the extra `ops`: it needs httpx2", err=True)
        raise typer.Exit(2) from None
    url = url or f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
    options = {"drill": drill, "yes": yes, "as_json": as_json, "junit": junit, "html": html}
    raise typer.Exit(command.run(url, profile, area or [], **options))
