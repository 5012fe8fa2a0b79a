"""The command line: `serve`, `migrate` and `backup`. Each command imports its modules only when it runs."""

import argparse
import gc
import importlib
import sys


def serve(reload: bool = False) -> None:
    """Serve until a signal arrives; drain before exiting."""
    gc.disable()  # until the server has started: imports leave no garbage, and collections take a tenth of the start
    from . import main
    from .platform.server import serve as run

    run(main.app(), reload=f"{main.__name__}:app" if reload else None)


def migrate(new: str | None = None, new_empty: str | None = None, down: bool = False) -> None:
    """Migrate the database to the schema of this code."""
    try:
        ops = importlib.import_module(".ops.migrate", __package__)
    except ModuleNotFoundError as error:
        if error.name not in {f"{__package__}.{missing}" for missing in ("ops", "ops.migrate", "platform.db")}:
            raise
        print("not applicable: this service has no database")
    else:
        ops.run(new if new_empty is None else new_empty, empty=new_empty is not None, down=down)


def backup(arguments: list[str]) -> None:
    """Make and restore backups of the database."""
    try:
        command = importlib.import_module(".ops.backup.command", __package__)
    except ModuleNotFoundError as error:
        if error.name in {f"{__package__}.{missing}" for missing in ("ops", "ops.backup", "platform.db")}:
            print("not applicable: this service has no database")
            return
        if (error.name or "").startswith(str(__package__)):
            raise
        print(f"backup needs {error.name}: install the extra `ops`, as in `uv sync --extra ops`", file=sys.stderr)
        raise SystemExit(1) from None
    command.app(arguments, prog_name=f"{sys.argv[0].rpartition('/')[2]} backup")


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
