"""A schema of somebody else's at the front of the search path, ahead of pg_catalog.

It holds an operator, function, aggregate, type and view for each of PostgreSQL's own that a program
might use, with the very same signature. Each that is called says so, once by a sequence, which no
rollback takes back, and once by an error.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

PATH: Final = "evil, pg_catalog, public, pg_temp"

_BASE: Final = """
    CREATE SCHEMA evil;
    CREATE SEQUENCE evil.calls;
    CREATE FUNCTION evil.called(what text) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_catalog.nextval('evil.calls'::pg_catalog.regclass);
        RAISE EXCEPTION USING MESSAGE = what;
    END $$;
"""

_ROUTINES: Final = """
    SELECT p.oid::text, format('%I(%s)', p.proname, pg_get_function_identity_arguments(p.oid)),
        pg_get_function_result(p.oid), p.proname
    FROM pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
        AND NOT EXISTS (
            SELECT FROM unnest(p.proargtypes::oid[] || p.prorettype) t
            WHERE t::regtype::text ~ 'internal|cstring|"any"|trigger|handler'
        )
"""

_OPERATORS: Final = """
    SELECT o.oprname, o.oprcode::oid::text, format_type(o.oprleft, NULL),
        format_type(o.oprright, NULL), o.oprleft = 0
    FROM pg_operator o WHERE o.oprnamespace = 'pg_catalog'::regnamespace
"""

_TYPES: Final = (
    "text", "uuid", "json", "jsonb", "timestamptz", "oid", "name", "regclass", "int2", "int4",
    "int8", "bool",
)  # fmt: skip

_VIEWS: Final = (
    "pg_attribute", "pg_auth_members", "pg_class", "pg_database", "pg_locks", "pg_namespace",
    "pg_proc", "pg_roles", "pg_settings", "pg_stat_activity", "pg_trigger",
)  # fmt: skip

_AGGREGATES: Final = (
    ("count", "*", "int8"),
    ("max", "int8", "int8"),
    ("min", "int8", "int8"),
    ("array_agg", "text", "text[]"),
)


def plant(admin: psycopg.Connection[Any]) -> int:
    """Make the schema; return how many traps are in it."""
    admin.execute(_BASE)
    functions: dict[str, str] = {}
    traps = 0
    for oid, signature, result, name in admin.execute(_ROUTINES).fetchall():
        body = f"BEGIN PERFORM evil.called('{name}'::text); END"
        functions[oid] = f"evil.{name}"
        traps += _made(
            admin,
            f"CREATE FUNCTION evil.{signature} RETURNS {result} LANGUAGE plpgsql AS $${body}$$",
        )
    for name, function, left, right, prefix in admin.execute(_OPERATORS).fetchall():
        if function in functions:
            arguments = "" if prefix else f"LEFTARG = {left}, "
            traps += _made(
                admin,
                f"CREATE OPERATOR evil.{name}"
                f" ({arguments}RIGHTARG = {right}, FUNCTION = {functions[function]})",
            )
    for name, argument, state in _AGGREGATES:
        given = "" if argument == "*" else f", {argument}"
        admin.execute(
            f"CREATE FUNCTION evil.step_of_{name}({state}{given}) RETURNS {state}"
            f" LANGUAGE plpgsql AS $$BEGIN PERFORM evil.called('{name}'::text); END$$"
        )
        traps += _made(
            admin,
            f"CREATE AGGREGATE evil.{name}({argument})"
            f" (SFUNC = evil.step_of_{name}, STYPE = {state})",
        )
    for name in _VIEWS:
        traps += _made(
            admin,
            f"CREATE VIEW evil.{name} AS SELECT * FROM pg_catalog.{name}"
            f" WHERE evil.called('the view {name}'::text)",
        )
    for name in _TYPES:
        traps += _made(
            admin,
            f"CREATE DOMAIN evil.{name} AS pg_catalog.{name}"
            f" CHECK (evil.called('the type {name}'::pg_catalog.text))",
        )
    admin.execute(
        "GRANT USAGE ON SCHEMA evil TO PUBLIC; GRANT ALL ON SEQUENCE evil.calls TO PUBLIC"
    )
    return traps


def _made(admin: psycopg.Connection[Any], statement: str) -> bool:
    """Run a statement; return whether PostgreSQL allows it (some signatures are its own alone)."""
    try:
        admin.execute(statement)
    except psycopg.Error:
        return False
    return True


def calls(admin: psycopg.Connection[Any]) -> int:
    """Return how often a trap was called."""
    row = admin.execute("SELECT last_value, is_called FROM evil.calls").fetchone()
    assert row is not None
    return int(row[0]) if row[1] else 0
