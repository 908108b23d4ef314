"""What the conformance suite must know about each row of the table of backends.

A new backend: a row in ``tests/kit/backends.py``, and what its row here needs beyond
the URL: ``joins`` where it can join transactions, and the options it must refuse.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from eventstore import memory
from eventstore.testing.conformance import Harness, Joins
from tests.kit.backends import BackendUnderTest


def harness_of(backend: BackendUnderTest, url: str, *, history_seconds: float) -> Harness:
    """Return the harness of a row whose base URL is ``url``."""
    specifics: dict[str, Callable[[str], dict[str, Any]]] = {
        "memory": _memory,
        "sqlite": _sqlite,
        "redis": _redis,
        "postgres": _postgres,
        "mongodb": _mongodb,
    }
    own = specifics.get(backend.name, _nothing)(url)
    return Harness(url=url, history_seconds=history_seconds, **own)


def _nothing(_: str) -> dict[str, Any]:
    return {}


# --- Memory


def _memory(url: str) -> dict[str, Any]:
    def set_formats(namespace: str, least_reader: int, least_writer: int) -> None:
        log = memory._named_logs[unquote(urlsplit(url).netloc), namespace]
        log.least_reader, log.least_writer = least_reader, least_writer

    return {"set_formats": set_formats}


# --- Redis


def _redis(_: str) -> dict[str, Any]:
    return {
        "voiding_options": [
            ("decode_responses", "true"),
            ("encoding", "latin-1"),
            ("protocol", "3"),
            ("read_from_replicas", "true"),
            ("retry_on_timeout", "true"),
        ],
        "own_options": [("replicas", -1), ("replicas", "all"), ("replicas", 1.5)],
    }


# --- PostgreSQL


def _postgres(url: str) -> dict[str, Any]:
    # Its driver need not be installed for the others.
    from tests.postgres.joins import PostgresJoins, set_formats

    return {
        "joins": PostgresJoins(url),
        "set_formats": partial(set_formats, url),
        "voiding_options": (
            ("options", "-csynchronous_commit=off"),
            ("replication", "database"),
            ("client_encoding", "LATIN1"),
            ("target_session_attrs", "standby"),
            ("target_session_attrs", "any"),
        ),
        "own_options": (
            ("notify", "perhaps"),
            ("pool_size", 0),
            ("pool_size", "many"),
            ("prepare_threshold", "often"),
        ),
    }


# --- MongoDB


def _mongodb(url: str) -> dict[str, Any]:
    from tests.mongodb.joins import MongoJoins  # its driver need not be installed for the others

    return {
        "joins": MongoJoins(url),
        "voiding_options": (
            ("w", "1"),
            ("w", "0"),
            ("journal", "false"),
            ("wtimeoutMS", "100"),
            ("readPreference", "secondary"),
            ("readPreference", "primaryPreferred"),
            ("maxStalenessSeconds", "90"),
            ("readConcernLevel", "local"),
            ("timeoutMS", "1"),
            ("tz_aware", "true"),
            ("uuidRepresentation", "pythonLegacy"),
            ("unicode_decode_error_handler", "ignore"),
            ("document_class", "dict"),
        ),
    }


# --- SQLite


def _sqlite(url: str) -> dict[str, Any]:
    return {"joins": SqliteJoins(unquote(urlsplit(url).path)[1:])}


class SqliteJoins(Joins):
    """Transactions of sqlite3 connections that begin them by themselves."""

    def __init__(self, path: str) -> None:
        self._path = path

    @contextmanager
    def connect(self, namespace: str) -> Iterator[sqlite3.Connection]:
        with self._open(self._path) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS notes (namespace TEXT, note TEXT)")
            connection.execute("CREATE TEMP TABLE mine AS SELECT ? AS namespace", (namespace,))
            connection.commit()
            yield connection

    @contextmanager
    def _open(self, path: str, **options: Any) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(path, **options)
        try:
            yield connection
        finally:
            connection.close()

    def begin(self, connection: sqlite3.Connection) -> None:
        pass  # the append begins it, or a write of the caller's before

    def begin_with_snapshot(self, connection: sqlite3.Connection) -> bool:
        connection.execute("BEGIN DEFERRED")
        connection.execute("SELECT count(*) FROM notes").fetchone()
        return True

    def commit(self, connection: sqlite3.Connection) -> None:
        connection.commit()

    def rollback(self, connection: sqlite3.Connection) -> None:
        connection.rollback()

    def write_note(self, connection: sqlite3.Connection, note: str) -> None:
        connection.execute("INSERT INTO notes SELECT namespace, ? FROM mine", (note,))

    def notes(self, connection: sqlite3.Connection) -> list[str]:
        return [
            note
            for (note,) in connection.execute("SELECT note FROM notes JOIN mine USING (namespace)")
        ]

    def unsuitable(self, namespace: str) -> Mapping[str, Callable[[], AbstractContextManager[Any]]]:
        return {
            "autocommit outside a transaction": lambda: self._open(
                self._path, isolation_level=None
            ),
            "another database": lambda: self._open(":memory:"),
        }
