"""``connection=``: what a transaction of the caller's must be like for an append to join it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from eventstore.backend import Durability, replaced, report_risk
from eventstore.errors import ConfigurationError, TransactionConflictError
from eventstore_postgres.selecting import statement

Place = tuple[object, ...]
"""What tells a log's table from all others, on all servers: the database, when its server was
started, and the table's oid."""


def place_of(cursor: psycopg.Cursor[Any], namespace: str) -> Place:
    """Return where the log of a namespace is."""
    (place,) = cursor.execute(statement(namespace, "place"), (), binary=True).fetchall()
    return tuple(place)


def check_connection(connection: object) -> None:
    """Raise ConfigurationError unless it is a connection with, or about to begin, a
    transaction."""
    if not isinstance(connection, psycopg.Connection):
        given = type(connection)
        raise ConfigurationError(
            f"connection: must be a psycopg.Connection, not {given.__module__}.{given.__qualname__}"
        )
    if connection.closed:
        raise ConfigurationError("connection: is closed")
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise ConfigurationError("connection: is in pipeline mode; leave it first")
    if connection.info.encoding != "utf-8":
        raise ConfigurationError(
            f"connection: its client_encoding must be UTF8, not {connection.info.encoding}"
        )
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise ConfigurationError("connection: its transaction has failed; roll it back first")
    if status == TransactionStatus.ACTIVE:
        raise ConfigurationError("connection: is in the middle of a command")
    if status == TransactionStatus.IDLE and connection.autocommit:
        raise ConfigurationError(
            "connection: is in autocommit mode outside a transaction; use"
            " `with connection.transaction():`"
        )


def check_place(joined: Place, opened: Place, present: Place, namespace: str) -> None:
    """Raise where a transaction is not at the log: which was opened at one place, and is now
    ``present`` there."""
    if present[2] != opened[2]:
        raise replaced(namespace)
    if joined != present:
        raise ConfigurationError("connection: is to another database or server than this store")


def check_transaction(cursor: psycopg.Cursor[Any], namespace: str, durability: Durability) -> None:
    """Raise where a transaction's snapshot may be older than the log's lock; report it where it
    may be lost after its commit."""
    cursor.execute(statement(namespace, "transaction"), (), binary=True)
    ((isolation, synchronous, has_standbys),) = cursor.fetchall()
    if isolation not in ("read committed", "read uncommitted"):
        raise TransactionConflictError(
            f"connection: its transaction is {isolation.upper()}, whose snapshot may be older"
            " than the log's lock; run it in READ COMMITTED"
        )
    if synchronous == "off" or (has_standbys and synchronous in ("local", "remote_write")):
        report_risk(
            f"connection: its synchronous_commit is {synchronous}: what it commits may be lost"
            " in a crash; set it to on",
            durability,
        )
