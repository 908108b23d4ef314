"""A namespace in the database: a schema that holds one log. Found, made, removed, printed.

All of it in a transaction whose search path is settled.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from eventstore.backend import Settings, as_flag, shown
from eventstore.errors import ConfigurationError
from eventstore_postgres.connections import Session
from eventstore_postgres.selecting import load, within

FORMAT: Final = 1
"""Of the tables and functions that this program reads and writes."""

STRICT_OWNER: Final = "eventstore_owner"
"""See strict.sql."""

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


def open_log(session: Session, settings: Settings) -> UUID:
    """Return the id of the log in a namespace, made where it is not there and may be.

    ConfigurationError where a part of it belongs to a role that is not to be trusted: who owns
    a function decides what those do who call it.
    """
    namespace = settings.namespace
    _check_owners(session, settings)
    if not _is_there(session, namespace):
        if not settings.create:
            raise ConfigurationError(
                f"{settings.safe_url}: has no log {namespace!r}; make it with `eventstore init`, or"
                " open it without create=false"
            )
        _create(session, settings)
        _check_owners(session, settings)
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


def ddl(settings: Settings) -> str:
    """Return the SQL that makes a log, and that grants a role what it needs."""
    grants = load("strict_grants.sql" if _is_strict(settings) else "grants.sql")
    commented = within(settings.namespace, grants).replace("\n", "\n-- ").removesuffix("-- ")
    return (
        # Whoever runs it: no name in it means what somebody put at the front of the path.
        "BEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\n\n"
        f"{_creation(settings)}\nCOMMIT;\n\n-- {commented}"
    )


def _creation(settings: Settings) -> str:
    files = ["schema.sql", "append.sql", *(["strict.sql"] if _is_strict(settings) else [])]
    return within(settings.namespace, "\n".join(load(name) for name in files))


def _is_strict(settings: Settings) -> bool:
    return as_flag("strict", settings.own_options.get("strict", False))


def _owner_named(settings: Settings) -> str | None:
    """Return which role may own the log beside those that are trusted anyhow."""
    owner = settings.own_options.get("owner", STRICT_OWNER if _is_strict(settings) else None)
    if owner is not None and (type(owner) is not str or not owner):
        raise ConfigurationError(f"owner: must be the name of a role, not {shown(owner)}")
    return owner


def _create(session: Session, settings: Settings) -> None:
    _lock(session, settings.namespace)
    if not _is_there(session, settings.namespace):  # another process may have been faster
        session.execute(_creation(settings))


def _lock(session: Session, namespace: str) -> None:
    session.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_CREATE_LOCK, namespace))


def _check_owners(session: Session, settings: Settings) -> None:
    found = session.execute(
        within(settings.namespace, load("owners.sql")),
        {"functions": list(_FUNCTIONS), "owner": _owner_named(settings)},
    ).fetchall()
    if found:
        names = ", ".join(f"{what} of {role!r}" for what, role in found)
        raise ConfigurationError(
            f"namespace: {settings.namespace!r} holds what belongs to a role that this one is not a"
            f" member of, nor the database's owner: {names}; choose another namespace, or say with"
            " owner= which role is to be trusted"
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
