"""The command line: `serve` and `migrate`. Each command imports its modules only when it runs."""

import argparse
import importlib
import sys


def serve(reload: bool = False) -> None:
    """Serve until a signal arrives; drain before exiting."""
    from . import main
    from .platform.server import serve as run

    run(main.app(), reload=f"{main.__name__}:app" if reload else None)


def migrate(new: str = "") -> None:
    """Migrate the database to the schema of this code."""
    try:
        ops = importlib.import_module(".ops.migrate", __package__)
    except ModuleNotFoundError as error:
        if error.name not in {f"{__package__}.{missing}" for missing in ("ops", "ops.migrate", "platform.db")}:
            raise
        print("not applicable: this service has no database")
    else:
        ops.run(new)


def main() -> None:
    """Run the command that was typed; exits with 2 and the usage if there is no such command."""
    parser = argparse.ArgumentParser(description="Run and maintain the service.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("serve", help=serve.__doc__, allow_abbrev=False)
    command.add_argument("--reload", action="store_true", help="restart after each code change")
    command.set_defaults(run=serve)
    command = commands.add_parser("migrate", help=migrate.__doc__, allow_abbrev=False)
    command.add_argument("--new", default="", metavar="MESSAGE", help="create a migration with this message instead")
    command.set_defaults(run=migrate)
    given = vars(parser.parse_args(sys.argv[1:] or ["--help"]))
    given.pop("run")(**given)
