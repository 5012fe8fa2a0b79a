"""What a database contains, for an exact comparison; and one with what is hard to bring back."""

from pathlib import Path

import psycopg
from psycopg import sql

Contents = dict[str, list[tuple[object, ...]]]
ICU = "provider = icu, locale = 'en-u-kn-true'"
BUILTIN = "provider = builtin, locale = 'PG_UNICODE_FAST'"  # from PostgreSQL 18 on
LIBC = "locale = 'C'"
HARD = (Path(__file__).parent / "hard.sql").read_text()
OURS = "nspname !~ '^pg_' AND nspname <> 'information_schema'"
RELATIONS = f"""
SELECT nspname, relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p', 'v', 'm') AND {OURS}
AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e') ORDER BY 1, 2
"""  # noqa: S608 our own text
SCHEMA = {
    "columns": f"""
        SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
            attgenerated, collname, pg_get_expr(adbin, adrelid)
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
        LEFT JOIN pg_collation l ON l.oid = attcollation LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm') AND {OURS}
    """,  # noqa: S608 our own names
    "indexes": "SELECT schemaname, indexdef FROM pg_indexes WHERE schemaname !~ '^pg_'",
    "constraints": "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE oid >= 16384",
    "policies": "SELECT schemaname, tablename, policyname, roles::text, cmd, qual FROM pg_policies",
    "row security": "SELECT oid::regclass::text, relforcerowsecurity FROM pg_class WHERE relrowsecurity",
    "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "extensions": "SELECT extname, extversion FROM pg_extension",
    "enums": "SELECT enumtypid::regtype::text, enumlabel, rank() OVER (ORDER BY enumsortorder) FROM pg_enum",
    "sequences": "SELECT schemaname, sequencename, last_value, increment_by FROM pg_sequences",
    "large objects": "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata",
}


def contents(url: str) -> Contents:
    """Everything that a restored database must have as the first one: tables by the hashes of their rows."""
    with psycopg.connect(url) as connection:
        found: Contents = {}
        for schema, name in connection.execute(RELATIONS.encode()).fetchall():
            query = sql.SQL("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {} t")
            found[f"{schema}.{name}"] = connection.execute(query.format(sql.Identifier(schema, name))).fetchall()
        for what, text in SCHEMA.items():
            found[what] = sorted(connection.execute(text.encode()).fetchall(), key=str)
        return found


def fill(url: str, collation: str) -> None:
    """Make everything that is hard to bring back."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(HARD.replace("{collation}", collation).encode())
