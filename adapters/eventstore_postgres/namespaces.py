"""A namespace in the database: a schema that holds one log. Found, made, removed, printed.

All of it in a transaction whose search path is settled.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from eventstore.errors import ConfigurationError
from eventstore_postgres.queries import load, within
from eventstore_postgres.sessions import Session

FORMAT: Final = 1
"""Of the tables and functions that this program reads and writes."""

_CREATE_LOCK: Final = 1702260589

_FUNCTIONS: Final = ("append_many", "append_one", "lock_log", "log_state", "refuse_change")

_FOUND = """
    SELECT c.relname::text, array_agg(a.attname::text)
    FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace = to_regnamespace('"eventstore"') AND c.relname IN ('log', 'events')
    GROUP BY c.oid, c.relname
"""

_PRESENT = """
    SELECT p.proname::text FROM pg_proc p WHERE p.pronamespace = to_regnamespace('"eventstore"')
"""

_LOG: Final = 'SELECT log_id, least_reader, least_writer FROM "eventstore".log'

_OURS: Final = {
    "log": {"log_id", "least_reader", "least_writer"},
    "events": {"sequence", "batch_sequence", "event_id", "entity_id", "recorded_at"},
}


def open_log(
    session: Session, namespace: str, where: str, *, create: bool, owner: str | None
) -> UUID:
    """Return the id of the log in a namespace, made where it is not there and may be.

    ConfigurationError where a part of it belongs to a role that is not to be trusted: who owns
    a function decides what those do who call it. ``owner`` is such a role to be trusted.
    """
    _check_owners(session, namespace, owner)
    if not _is_there(session, namespace):
        if not create:
            raise ConfigurationError(
                f"{where}: has no log {namespace!r}; make it with `eventstore init`, or open it"
                " without create=false"
            )
        _create(session, namespace)
        _check_owners(session, namespace, owner)
    present = {name for (name,) in session.execute(within(namespace, _PRESENT)).fetchall()}
    if missing := sorted(set(_FUNCTIONS) - present):
        raise ConfigurationError(
            f"namespace: the log {namespace!r} lacks the functions {', '.join(missing)} of what"
            " `eventstore schema URL` prints"
        )
    row = session.execute(within(namespace, _LOG)).fetchone()
    if row is None:
        raise ConfigurationError(f"namespace: the table {namespace}.log has lost its row")
    log_id, least_reader, least_writer = row
    if max(least_reader, least_writer) > FORMAT:
        raise ConfigurationError(
            f"namespace: the log {namespace!r} has format {least_reader}/{least_writer}, this"
            f" program understands {FORMAT}: upgrade eventstore-toolkit"
        )
    return UUID(str(log_id))


def drop_log(session: Session, namespace: str) -> bool:
    """Remove the log in a namespace; return whether it was there."""
    _lock(session, namespace)
    found = _is_there(session, namespace)
    if found:
        session.execute(within(namespace, load("drop.sql")))
    return found


def ddl(namespace: str, *, strict: bool) -> str:
    """Return the SQL that makes a log, and that grants a role what it needs."""
    grants = within(namespace, load("strict_grants.sql" if strict else "grants.sql"))
    made = creation(namespace) + ("\n" + within(namespace, load("strict.sql")) if strict else "")
    return (
        # Whoever runs it: no name in it means what somebody put at the front of the path.
        f"BEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\n\n{made}\nCOMMIT;\n\n-- "
        + grants.replace("\n", "\n-- ").removesuffix("-- ")
    )


def creation(namespace: str) -> str:
    """Return the SQL that makes a log."""
    return within(namespace, load("schema.sql") + "\n" + load("append.sql"))


def _create(session: Session, namespace: str) -> None:
    _lock(session, namespace)
    if not _is_there(session, namespace):  # another process may have been faster
        session.execute(creation(namespace))


def _lock(session: Session, namespace: str) -> None:
    session.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_CREATE_LOCK, namespace))


def _check_owners(session: Session, namespace: str, owner: str | None) -> None:
    found = session.execute(
        within(namespace, load("owners.sql")), {"functions": list(_FUNCTIONS), "owner": owner}
    ).fetchall()
    if found:
        names = ", ".join(f"{what} of {role!r}" for what, role in found)
        raise ConfigurationError(
            f"namespace: {namespace!r} holds what belongs to a role that this one is not a member"
            f" of, nor the database's owner: {names}; choose another namespace, or say with owner="
            " which role is to be trusted"
        )


def _is_there(session: Session, namespace: str) -> bool:
    """Return whether there is a log; ConfigurationError for tables that are not ours."""
    found = dict(session.execute(within(namespace, _FOUND)).fetchall())
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
