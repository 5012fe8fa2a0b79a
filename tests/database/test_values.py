"""What a client sends stays out of the log, the reports and the spans, also where PostgreSQL refuses it."""

import json
from pathlib import Path

import pytest

from tests.database.conftest import Database
from tests.plant import Feature
from tests.projects import Project
from tests.sabotage import Body
from tests.servers.bugsink import Sink
from tests.servers.otlp import Collector

pytestmark = pytest.mark.servers
VALUE = "zebra"
# What PostgreSQL says where, by https://www.postgresql.org/docs/current/errcodes-appendix.html.
REFUSED = {
    "NotNullViolation": (
        "INSERT INTO items (id, name, quantity, created_at, updated_at)"
        " VALUES (gen_random_uuid(), :v, NULL, now(), now())"  # DETAIL: Failing row contains (…)
    ),
    "InvalidTextRepresentation": "SELECT CAST(:v AS text)::integer",  # in the message
    "InvalidDatetimeFormat": "SELECT CAST(:v AS text)::date",
    "InvalidParameterValue": "SELECT now() AT TIME ZONE CAST(:v AS text)",
    "UntranslatableCharacter": "SELECT CAST(:v || '\\u0000' AS text)::jsonb",  # DETAIL and CONTEXT
    "ForeignKeyViolation": "INSERT INTO child VALUES (:v)",  # DETAIL: Key (name)=(…) is not present
    "ExclusionViolation": "INSERT INTO apart VALUES (:v), (:v)",
    "CheckViolation": "INSERT INTO short VALUES (:v)",
    "UndefinedTable": "SELECT * FROM nowhere WHERE name = :v",  # [parameters: …]
}
CONFLICTS = {"ExclusionViolation", "ForeignKeyViolation"}  # answered with 409, and logged only if a feature does
TABLES = (
    "CREATE TABLE parent (name text PRIMARY KEY)",
    "CREATE TABLE child (name text REFERENCES parent)",
    "CREATE TABLE apart (name text, EXCLUDE USING btree (name WITH =))",
    "CREATE TABLE short (name text CHECK (length(name) < 2))",
    "GRANT ALL ON parent, child, apart, short TO my_service_app",
)
FEATURE = f'''"""Passes on what the database refuses."""

import structlog
from fastapi import APIRouter, Request
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from ...platform.state import state_of

router = APIRouter(prefix="/refused")
REFUSED = {REFUSED!r}


@router.post("/{{kind}}")
async def refused(request: Request, kind: str, body: dict[str, str], caught: bool = False) -> None:
    try:
        async with state_of(request.app).database.begin() as session:
            if kind == "positional":
                connection = await session.connection()
                await connection.exec_driver_sql("SELECT 1 / (length(%s) * 0)", (body["v"],))
            await session.execute(text(REFUSED[kind]), body)
    except SQLAlchemyError:
        if not caught:
            raise
        structlog.get_logger("refused").exception("caught")
'''


def tells_no_values(project: Project, database: Database, sink: Sink, collector: Collector, folder: Path) -> None:
    database.run(*TABLES)
    feature = project.variant(folder / "feature", Feature("refused", FEATURE))
    kinds = [*REFUSED, "positional"]
    watched = {"SENTRY_DSN": sink.dsn, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with feature.serve(folder / "run", {**database.env, **watched, "SHUTDOWN_DRAIN_SECONDS": "0"}) as service:
        for kind in kinds:
            status = 409 if kind in CONFLICTS else 500
            assert service.client.post(f"/refused/{kind}", json={"v": VALUE}).status_code == status, service.log
            assert service.client.post(f"/refused/{kind}?caught=yes", json={"v": VALUE}).status_code == 200
    collector.wait_until(lambda: len(collector.client_spans()) >= 2 * len(kinds))
    events = json.dumps(sink.wait(2 * len(kinds) - len(CONFLICTS)))
    spans = repr(collector.spans)
    for error in [*REFUSED, "DivisionByZero"]:
        assert service.log.count(error) >= (1 if error in CONFLICTS else 2), error
        assert error in events
    assert VALUE not in service.log
    assert VALUE not in events
    assert VALUE not in spans


def test_a_value_that_is_refused_is_told_to_nobody(
    project: Project, database: Database, sink: Sink, collector: Collector, tmp_path: Path
) -> None:
    tells_no_values(project, database, sink, collector, tmp_path)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("db:_without_values", "return ''"),
        Body("db:_without_values", "return error.diag.message_primary or ''"),
    ],
    ids=["details", "class 22"],
)
def test_a_value_that_is_told_is_noticed(
    project: Project, database: Database, sink: Sink, collector: Collector, tmp_path: Path, sabotage: Body
) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    with pytest.raises(AssertionError, match=f"assert '{VALUE}' not in"):
        tells_no_values(sick, database, sink, collector, tmp_path)
