"""The command line: `serve`, `migrate` and `backup`. Each command imports its modules only when it runs."""

import argparse
import gc
import importlib
import sys
from typing import Any


def serve(reload: bool = False) -> None:
    """Serve until a signal arrives; drain before exiting."""
    gc.disable()  # until the server has started: imports leave no garbage, and collections take a tenth of the start
    from . import main
    from .platform.server import serve as run

    run(main.app(), reload=f"{main.__name__}:app" if reload else None)


def migrate(new: str | None = None, new_empty: str | None = None, down: bool = False) -> None:
    """Migrate the database to the schema of this code."""
    if command := _ops("migrate", "migrate"):
        command.run(new if new_empty is None else new_empty, empty=new_empty is not None, down=down)


def backup(arguments: list[str]) -> None:
    """Make and restore backups of the database."""
    if command := _ops("backup", "backup.command"):
        command.app(arguments, prog_name=f"{sys.argv[0].rpartition('/')[2]} backup")


def _ops(command: str, module: str) -> Any:
    """Import a module of `ops`; None if this service has no database."""
    try:
        return importlib.import_module(f".ops.{module}", __package__)
    except ModuleNotFoundError as error:
        if error.name in {f"{__package__}.{missing}" for missing in ("ops", f"ops.{command}", "platform.db")}:
            print("not applicable: this service has no database")
            return None
        if (error.name or "").startswith(str(__package__)):
            raise
        advice = "install the extra `ops`, as in `uv sync --extra ops`; the image `ops` has it"
        print(f"{command} needs {error.name}: {advice}", file=sys.stderr)
        raise SystemExit(1) from None


def main() -> None:
    """Run the command that was typed; exits with 2 and the usage if there is no such command."""
    parser = argparse.ArgumentParser(description="Run and maintain the service.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("serve", help=serve.__doc__, allow_abbrev=False)
    command.add_argument("--reload", action="store_true", help="restart after each code change")
    command.set_defaults(run=serve)
    command = commands.add_parser("migrate", help=migrate.__doc__, allow_abbrev=False)
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--new", metavar="MESSAGE", help="create a migration from the changes of the models instead")
    instead.add_argument("--new-empty", metavar="MESSAGE", help="create a migration for your own statements instead")
    instead.add_argument("--down", action="store_true", help="revert your latest migration instead; its data is lost")
    command.set_defaults(run=migrate)
    command = commands.add_parser("backup", help=backup.__doc__, add_help=False, prefix_chars="\0")
    command.add_argument("arguments", nargs="*")
    command.set_defaults(run=backup)
    given = vars(parser.parse_args(sys.argv[1:] or ["--help"]))
    given.pop("run")(**given)
