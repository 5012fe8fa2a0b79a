"""What our steps around `pg_dump` and `pg_restore` cost: the command with a script of the same steps, at 1 GB."""

import os
import re
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import psycopg
from psycopg import sql

from bench import measure, project
from bench.harness import BenchError, Case, Limit, Measures, Result, interleave, paired_ratio
from tests.servers import packages
from tests.servers.postgres import Postgres, clients
from tests.servers.process import reachable

CEILING = 1.15
MEGABYTES = 1000  # of the database
TABLES = 4
FILL = """
CREATE TABLE events_{number} AS
SELECT n AS id, gen_random_uuid() AS key, now() - n * interval '1 s' AS at, md5(n::text) || md5((n + 1)::text) AS text,
    jsonb_build_object('number', n, 'name', 'item ' || n, 'tags', ARRAY['a', 'b', md5(n::text)]) AS data
FROM generate_series(1, {rows}) n;
ALTER TABLE events_{number} ADD PRIMARY KEY (id);
"""
ROWS = 960_000  # of each table
CREATE = """
set -euo pipefail
pg_dump --format=directory --jobs="$JOBS" --compress=1 --no-sync --file="$SCRATCH/dump" "$URL"
pg_restore --file=/dev/null "$SCRATCH/dump"
tar --create --directory="$SCRATCH" dump | age --recipient "$RECIPIENT" > "$SCRIPTED/dump.tar.age"
sync "$SCRIPTED/dump.tar.age"
cd "$SCRIPTED"
sha256sum dump.tar.age > sum
"""
RESTORE = """
set -euo pipefail
cd "$SCRIPTED"
sha256sum --quiet --check sum
createdb --maintenance-db="$ADMIN" --template=template0 scripted_restored
age --decrypt --identity "$KEY" dump.tar.age | tar --extract --directory="$SCRATCH"
pg_restore --exit-on-error --no-owner --no-acl --jobs="$JOBS" --dbname="${URL%/*}/scripted_restored" "$SCRATCH/dump"
psql --quiet --no-psqlrc --command=ANALYZE "${URL%/*}/scripted_restored"
"""


def fill(server: Postgres) -> str:
    """Make a database that compresses as most do: its URL."""
    url = server.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(TABLES):
            connection.execute(FILL.format(number=number, rows=ROWS).encode())
        connection.execute("VACUUM ANALYZE")
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    if not row or row[0] < MEGABYTES * 1e6:
        raise BenchError(f"the database has {row} bytes: too few")
    return url


def measured(command: list[str | Path], service: Path, env: dict[str, str], server: Postgres) -> Measures:
    """Run a command, and remove what it leaves behind, but not the backup."""
    used = measure.run(command, cwd=service, env=env)
    rmtree(Path(env["SCRATCH"]) / "dump", ignore_errors=True)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for (name,) in connection.execute("SELECT datname FROM pg_database WHERE datname ~ '_restored'").fetchall():
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    return {"wall": used.wall, "cpu": used.cpu}


def environment(folder: Path, url: str, server: Postgres) -> dict[str, str]:
    """The variables of both sides."""
    key, age = folder / "key.txt", packages.ensure("age", "age")
    measure.run([age.with_name("age-keygen"), "-o", key])
    found = re.search(r"public key: (age1\w+)", key.read_text())
    if not found:
        raise BenchError("age-keygen printed no key")
    paths = {name: folder / name for name in ("scratch", "scripted", "store")}
    for path in paths.values():
        path.mkdir()
    jobs = str(max(1, min(4, os.cpu_count() or 1)))
    return {
        "PATH": os.pathsep.join([str(server.programs()), str(age.parent), os.defpath]),
        "ADMIN": server.url(),
        "JOBS": jobs,
        "KEY": str(key),
        "RECIPIENT": found[1],
        "SCRATCH": str(paths["scratch"]),
        "SCRIPTED": str(paths["scripted"]),
        "URL": url,
        "BACKUP_AGE_IDENTITY_FILE": str(key),
        "BACKUP_AGE_RECIPIENT": found[1],
        "BACKUP_JOBS": jobs,
        "BACKUP_PG_BIN": str(server.programs()),
        "BACKUP_SCRATCH_DIR": str(paths["scratch"]),
        "BACKUP_URL": f"file://{paths['store']}",
        "DATABASE_URL": url,
    }


def run(rounds: int, full: bool) -> Result:
    """`full` changes nothing: a small database would measure the start of Python."""
    clients()
    with TemporaryDirectory(dir=reachable()) as name, Postgres() as server:
        folder = Path(name)
        template = project.export(folder / "template")
        service = folder / "service"
        tools = project.make_service(template, service, lambda _: None)
        sync = ["uv", "sync", "--no-dev", "--extra", "ops", "--quiet"]
        measure.run(sync, cwd=service, env=project.environment() | {"UV_COMPILE_BYTECODE": "1"})
        env = environment(folder, fill(server), server)
        ours: list[str | Path] = [tools / "my-service", "backup"]
        sides: dict[str, list[str | Path]] = {
            "create": [*ours, "create"],
            "create, script": ["bash", "-c", CREATE],
            "restore": [*ours, "restore"],
            "restore, script": ["bash", "-c", RESTORE],
        }
        found = interleave(
            {side: partial(measured, command, service, env, server) for side, command in sides.items()}, rounds
        )
    ratio = {each: paired_ratio(found, each, f"{each}, script", "wall") for each in ("create", "restore")}
    return Result(
        unit={"wall": "s", "cpu": "s"},
        rounds=found,
        ratio=ratio,
        limits={name: Limit("ceiling", CEILING, value) for name, value in ratio.items()},
    )


CASE = Case(
    name="backup",
    limit="create and restore of 1 GB take at most 1.15 times a script of the same steps",
    run=run,
)
