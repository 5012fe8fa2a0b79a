"""The programs of PostgreSQL: found, refused if they are unsafe, and run so that every wait ends."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from ...platform.db.engine import CONNECT
from .errors import BackupError
from .watch import watched

# The first versions without CVE-2026-18408: pg_dump let a hostile source put commands into the dump.
# https://www.postgresql.org/support/security/
OLDEST = {15: 19, 16: 15, 17: 11, 18: 6}
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Clients:
    """pg_dump and pg_restore of one version."""

    folder: Path
    version: str

    def run(self, program: str, url: URL | None, *arguments: str, progress: Callable[[], object] | None = None) -> None:
        """Run a program to its end.

        Args:
            program: `pg_dump` or `pg_restore`.
            url: The database; the password goes through the environment, where other users cannot read it.
            arguments: Options of the program.
            progress: Called several times per second.

        Raises:
            BackupError: It failed, or the database does not respond any more.
        """
        env = {**os.environ, "LC_ALL": "C"}
        target, options = [], {}
        if url is not None:
            options = {**url.get_dialect()().create_connect_args(url)[1], **CONNECT}
            env["PGPASSWORD"] = str(options.get("password", ""))
            target = [f"--dbname={make_conninfo(**{**options, 'password': None})}"]
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            command = [str(self.folder / program), *target, "--no-password", *arguments]
            process = subprocess.Popen(  # noqa: S603 our own arguments
                command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
            )
            try:
                with watched(options, process.kill) if options else nullcontext():
                    _wait(process, progress)
                    if process.returncode:
                        said.seek(0)
                        raise BackupError(_explain(program, said.read()))
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()


def _wait(process: subprocess.Popen[bytes], progress: Callable[[], object] | None) -> None:
    while True:
        try:
            process.wait(POLL_SECONDS if progress else None)
            return
        except subprocess.TimeoutExpired:
            if progress:
                progress()


def _explain(program: str, text: str) -> str:
    """The first error, and what to do."""
    lines = [line for line in text.splitlines() if "error:" in line] or text.splitlines() or ["it was killed"]
    said = lines[0].partition("error: ")[2] or lines[0]
    advice = ""
    if "row-level security" in text:
        advice = ": type ALTER ROLE … BYPASSRLS for the role of the backup (docs/backups.md)"
    elif "No space left" in text:
        advice = ": set BACKUP_SCRATCH_DIR to a folder on a larger disk"
    elif "lock timeout" in text or "could not obtain lock" in text:
        advice = ": a migration holds a lock; try again when it is done"
    elif found := re.search(r'extension "([^"]+)" is not available', text):
        advice = f": install the extension {found[1]} on the server"
    elif found := re.search(r'role "([^"]+)" does not exist', text):
        advice = f": type `make roles` for any database of this server, or CREATE ROLE {found[1]}"
    elif "permission denied" in text:
        advice = ": type `make roles`, so that the role of the backup may read everything"
    return f"{program}: {said}{advice}"


def find(version: str, folder: Path | None = None) -> Clients:
    """Find the programs of a major version: older ones cannot read the server, newer ones cannot restore into it.

    Args:
        version: The version of the server, or of the client that made a dump, such as `17.11`.
        folder: BACKUP_PG_BIN; None to search PATH and where Debian keeps them.

    Raises:
        BackupError: There are none, or they are too old.
    """
    major = _numbers(version)[0]
    on_path = shutil.which("pg_dump")
    places = (
        [folder]
        if folder
        else [*([Path(on_path).parent] if on_path else []), *Path("/usr/lib/postgresql").glob("*/bin")]
    )
    found = [Clients(place, _version(place / "pg_dump")) for place in places if (place / "pg_restore").is_file()]
    fit = [each for each in found if _numbers(each.version)[0] == major]
    if not fit:
        seen = f"only {', '.join(sorted({each.version for each in found}))}" if found else "nothing"
        wanted = f"install postgresql-client-{major}, or set BACKUP_PG_BIN to the folder of its pg_dump"
        raise BackupError(f"pg_dump and pg_restore of PostgreSQL {major} are needed, and {seen} is here: {wanted}")
    newest = max(fit, key=lambda each: _numbers(each.version))
    if not _safe(newest.version):
        fixed = ", ".join(f"{major}.{minor}" for major, minor in OLDEST.items())
        fault = f"pg_dump {newest.version} has the fault CVE-2026-18408"
        raise BackupError(f"{fault}: update postgresql-client-{major} (fixed in {fixed})")
    return newest


def _safe(version: str) -> bool:
    major, minor = _numbers(version)
    return major > max(OLDEST) or minor >= OLDEST.get(major, minor + 1)


def _version(program: Path) -> str:
    command = [str(program), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603 our own
    found = re.search(r"\d+(\.\d+)?", done.stdout.partition(")")[2])
    return found[0] if found else "0"


def _numbers(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)(?:\.(\d+))?", version)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)
