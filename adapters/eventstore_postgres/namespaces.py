"""A namespace in the database: a schema that holds one log. Found, made, removed, printed."""

from __future__ import annotations

from typing import Final

from eventstore.errors import ConfigurationError
from eventstore_postgres.queries import load, within
from eventstore_postgres.sessions import Session, translated

FORMAT: Final = 1
"""Of the tables and functions that this program reads and writes."""

_CREATE_LOCK: Final = 1702260589

_FOUND = """
    SELECT c.relname::text, pg_catalog.array_agg(a.attname::text)
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE n.nspname = %s AND c.relname IN ('log', 'events')
    GROUP BY c.oid, c.relname
"""

_LOG: Final = 'SELECT log_id::text, least_reader, least_writer FROM "eventstore".log'

_OURS: Final = {
    "log": {"log_id", "least_reader", "least_writer"},
    "events": {"sequence", "batch_sequence", "event_id", "entity_id", "recorded_at"},
}


def open_log(session: Session, namespace: str, *, create: bool) -> str:
    """Return the id of the log in a namespace, made where it is not there and may be."""
    with translated("the log cannot be opened"):
        return _open_log(session, namespace, create)


def _open_log(session: Session, namespace: str, create: bool) -> str:
    if not _is_there(session, namespace):
        if not create:
            raise ConfigurationError(
                f"namespace: there is no log {namespace!r} in this database, and create=false:"
                " have it made by what `eventstore schema URL` prints"
            )
        _create(session, namespace)
    row = session.execute(within(namespace, _LOG)).fetchone()
    if row is None:
        raise ConfigurationError(f"namespace: the table {namespace}.log has lost its row")
    log_id, least_reader, least_writer = row
    if max(least_reader, least_writer) > FORMAT:
        raise ConfigurationError(
            f"namespace: the log {namespace!r} has format {least_reader}/{least_writer}, this"
            f" program understands {FORMAT}: upgrade eventstore-toolkit"
        )
    return str(log_id)


def drop_log(session: Session, namespace: str) -> None:
    """Remove the log in a namespace, if it is there."""
    with translated("the log cannot be removed"), session.transaction():
        _lock(session, namespace)
        if _is_there(session, namespace):
            session.execute(within(namespace, load("drop.sql")))


def ddl(namespace: str) -> str:
    """Return the SQL that makes a log, and that grants a role what it needs."""
    grants = within(namespace, load("grants.sql")).replace("\n", "\n-- ").removesuffix("-- ")
    return f"{creation(namespace)}\n-- {grants}"


def creation(namespace: str) -> str:
    """Return the SQL that makes a log."""
    return within(namespace, load("schema.sql") + "\n" + load("append.sql"))


def _create(session: Session, namespace: str) -> None:
    with session.transaction():
        _lock(session, namespace)
        if not _is_there(session, namespace):  # another process may have been faster
            session.execute(creation(namespace))


def _lock(session: Session, namespace: str) -> None:
    session.execute(
        "SELECT pg_catalog.pg_advisory_xact_lock(%s, pg_catalog.hashtext(%s))",
        (_CREATE_LOCK, namespace),
    )


def _is_there(session: Session, namespace: str) -> bool:
    """Return whether there is a log; ConfigurationError for tables that are not ours."""
    found = dict(session.execute(_FOUND, (namespace,)).fetchall())
    if not found:
        return False
    for table, columns in _OURS.items():
        if not columns <= set(found.get(table, ())):
            raise ConfigurationError(
                f"namespace: the schema {namespace!r} holds a table"
                f" {' and a table '.join(sorted(found))} but not those of a log; choose another"
                " namespace"
            )
    return True
