"""The command line: `serve` and `migrate`. Each command imports its modules only when it runs."""

import importlib
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Run and maintain the service."""


@app.command()
def serve(reload: Annotated[bool, typer.Option(help="Restart after each code change.")] = False) -> None:
    """Serve until a signal arrives; drain before exiting."""
    from . import main
    from .platform.server import serve as run

    run(main.app(), reload=f"{main.__name__}:app" if reload else None)


@app.command()
def migrate(new: Annotated[str, typer.Option(help="Create a migration with this message instead.")] = "") -> None:
    """Migrate the database to the schema of this code."""
    try:
        ops = importlib.import_module(".ops.migrate", __package__)
    except ModuleNotFoundError as error:
        if error.name not in {f"{__package__}.{missing}" for missing in ("ops", "ops.migrate", "platform.db")}:
            raise
        typer.echo("not applicable: this service has no database")
    else:
        ops.run(new)
