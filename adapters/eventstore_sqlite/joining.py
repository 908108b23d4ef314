"""An append inside the caller's own transaction, on a connection of any settings."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final

from eventstore.backend import Batch, Durability, Outcome, report_risk, translating
from eventstore.errors import ConfigurationError, EventStoreError
from eventstore_sqlite.appending import append
from eventstore_sqlite.connections import Connections
from eventstore_sqlite.selecting import Statements
from eventstore_sqlite.translation import classify, while_busy

_LEGACY: Final = -1
"""``autocommit`` of a connection whose ``isolation_level`` counts: all, before Python 3.12."""


def join(
    connection: Any,
    connections: Connections,
    sql: Statements,
    batch: Batch,
    *,
    log_id: str,
    timeout: float,
    durability: Durability,
) -> Outcome:
    """Store a batch in the open transaction, or one begun here; see ``Backend.join``."""
    if not isinstance(connection, sqlite3.Connection):
        raise ConfigurationError(
            f"connection: must be an sqlite3.Connection, not {type(connection).__name__}"
        )
    with (
        translating(partial(classify, connections.name), "connection"),
        _at_our_settings(connection) as cursor,
    ):
        _check_database(cursor, connections)
        begun = _take_write_lock(cursor, sql, timeout)
        outcome: Outcome | None = None
        try:
            _check_durability(cursor, durability)
            outcome = _append(cursor, sql, batch, log_id)
            return outcome
        finally:
            # A transaction that would hold nothing but the write lock ends here.
            stored = outcome is not None and not isinstance(outcome, EventStoreError)
            if begun and not stored and connection.in_transaction:
                cursor.execute("ROLLBACK")


@contextmanager
def _at_our_settings(connection: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
    """Give a cursor that returns tuples of text and does not wait; restore the settings."""
    # connection.cursor() may be another class, and what it reads rows of another.
    with closing(sqlite3.Cursor(connection)) as cursor:
        ((busy_timeout,),) = cursor.execute("PRAGMA busy_timeout").fetchall()
        text_factory = connection.text_factory
        try:
            connection.text_factory = str
            cursor.execute("PRAGMA busy_timeout = 0")
            yield cursor
        finally:
            connection.text_factory = text_factory
            cursor.execute(f"PRAGMA busy_timeout = {busy_timeout}")


def _check_database(cursor: sqlite3.Cursor, connections: Connections) -> None:
    databases = cursor.execute("PRAGMA database_list").fetchall()
    connections.check_joinable(next(path for _, schema, path in databases if schema == "main"))


def _take_write_lock(cursor: sqlite3.Cursor, sql: Statements, timeout: float) -> bool:
    """Take the lock, and return whether that began the transaction."""
    connection = cursor.connection
    begun = not connection.in_transaction
    if begun and (
        getattr(connection, "autocommit", _LEGACY) != _LEGACY or connection.isolation_level is None
    ):
        raise ConfigurationError(
            "connection: begins no transaction by itself and is in none;"
            " execute BEGIN IMMEDIATE first"
        )
    statement = "BEGIN IMMEDIATE" if begun else sql["lock"]
    while_busy(lambda: cursor.execute(statement), timeout)
    return begun


def _check_durability(cursor: sqlite3.Cursor, durability: Durability) -> None:
    ((synchronous,),) = cursor.execute("PRAGMA main.synchronous").fetchall()
    if synchronous < 2:  # FULL
        report_risk(
            "connection: may lose what it committed when the power fails;"
            " execute PRAGMA synchronous = FULL on it",
            durability,
        )


def _append(cursor: sqlite3.Cursor, sql: Statements, batch: Batch, log_id: str) -> Outcome:
    """Append, and leave the transaction as it was if that fails."""
    cursor.execute("SAVEPOINT eventstore_append")
    done = False
    try:
        (outcome,) = append(
            cursor,
            sql,
            (batch,),
            log_id,
            expect_new_ids=True,
            undo=lambda: cursor.execute("ROLLBACK TO eventstore_append"),
        )
        done = True
        return outcome
    finally:
        if cursor.connection.in_transaction:  # a full disk, for one, ends it
            if not done:
                cursor.execute("ROLLBACK TO eventstore_append")
            cursor.execute("RELEASE eventstore_append")
