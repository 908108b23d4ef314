"""``connection=`` on connections of every setting, and what becomes of the caller's transaction."""

from __future__ import annotations

import sqlite3
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from eventstore import (
    AppendResult,
    ConfigurationError,
    DurabilityWarning,
    EventStore,
    EventStoreError,
    StoreUnavailableError,
    TransactionConflictError,
    VersionConflictError,
)
from eventstore.testing.builders import an_event

Open = Callable[..., EventStore]
Connect = Callable[..., sqlite3.Connection]

SETTINGS = (
    "PRAGMA busy_timeout",
    "PRAGMA synchronous",
    "PRAGMA wal_autocheckpoint",
    "PRAGMA journal_mode",
    "PRAGMA foreign_keys",
)


def settings_of(connection: sqlite3.Connection) -> list[Any]:
    plain = [sqlite3.Cursor(connection).execute(setting).fetchall() for setting in SETTINGS]
    return [plain, connection.row_factory, connection.text_factory, connection.isolation_level]


class _Row(sqlite3.Row):
    """A row class of the caller's."""


@pytest.mark.parametrize("text_factory", [str, bytes, lambda raw: raw.decode("latin-1")])
@pytest.mark.parametrize("row_factory", [None, sqlite3.Row, _Row, lambda _cursor, _row: {}])
@pytest.mark.parametrize("isolation_level", ["", "DEFERRED", "IMMEDIATE", "EXCLUSIVE", None])
def test_the_connections_settings_neither_matter_nor_change(
    store: EventStore,
    connect: Connect,
    text_factory: Any,
    row_factory: Any,
    isolation_level: Any,
) -> None:
    known = an_event(entity_id="ü", data={"name": "žluť"}, tags=("é",))
    store.append(known)
    connection = connect(isolation_level=isolation_level, timeout=1.5)
    connection.row_factory = row_factory
    connection.text_factory = text_factory
    before = settings_of(connection)
    if isolation_level is None:
        connection.execute("BEGIN")

    repeated = store.append_batch([known], connection=connection)
    new = store.append(an_event(entity_id="ü"), expected_version=1, connection=connection)
    with pytest.raises(VersionConflictError):
        store.append(an_event(entity_id="ü"), expected_version=1, connection=connection)
    connection.commit()

    assert repeated.replayed
    assert (new.sequence, new.version) == (2, 2)
    assert list(store.get_events()) == [*repeated, new]
    assert settings_of(connection) == before


def test_a_cursor_class_of_the_callers_is_not_used(store: EventStore, path: Path) -> None:
    class Stubborn(sqlite3.Connection):
        def cursor(self, *_: Any) -> Any:
            raise AssertionError("not for you")

    connection = sqlite3.connect(path, factory=Stubborn)
    try:
        assert store.append(an_event(), connection=connection).sequence == 1
        connection.commit()
    finally:
        connection.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has autocommit from Python 3.12 on")
def test_the_autocommit_attribute_of_newer_pythons(store: EventStore, connect: Connect) -> None:
    always = connect(autocommit=False)
    assert store.append(an_event(), connection=always).sequence == 1
    always.commit()
    assert store.append(an_event(), connection=always).sequence == 2
    always.commit()
    never = connect(autocommit=True)
    with pytest.raises(ConfigurationError, match="BEGIN IMMEDIATE"):
        store.append(an_event(), connection=never)
    never.execute("BEGIN")
    assert store.append(an_event(), connection=never).sequence == 3
    never.execute("COMMIT")
    assert store.get_current_sequence() == 3


def test_a_temporary_table_of_the_same_name_hides_nothing(
    store: EventStore, connect: Connect
) -> None:
    connection = connect()
    connection.execute("CREATE TEMP TABLE eventstore_events (x)")
    connection.execute("CREATE TEMP TABLE eventstore_entities (x)")
    assert store.append(an_event(), connection=connection).sequence == 1
    connection.commit()
    assert store.get_current_sequence() == 1


# --- What is refused


def test_a_connection_outside_a_transaction_that_begins_none_is_refused(
    store: EventStore, connect: Connect
) -> None:
    with pytest.raises(ConfigurationError, match="BEGIN IMMEDIATE"):
        store.append(an_event(), connection=connect(isolation_level=None))


def test_what_is_not_a_connection_to_this_file_is_refused(
    store: EventStore, connect: Connect, path: Path, tmp_path: Path
) -> None:
    closed = connect()
    closed.close()
    attached = sqlite3.connect(tmp_path / "other.db")
    attached.execute("ATTACH ? AS log", (str(path),))
    others = [object(), sqlite3.connect(":memory:"), sqlite3.connect(""), attached, closed]
    for other in others:
        with pytest.raises(ConfigurationError):
            store.append(an_event(), connection=other)
        if isinstance(other, sqlite3.Connection):
            other.close()
    assert store.get_current_sequence() == 0


def test_the_same_file_by_another_path_is_taken(store: EventStore, path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    connection = sqlite3.connect(link)
    try:
        assert store.append(an_event(), connection=connection).sequence == 1
        connection.commit()
    finally:
        connection.close()


def test_a_connection_of_another_thread_is_refused(store: EventStore, path: Path) -> None:
    made: list[sqlite3.Connection] = []
    connected, done = threading.Event(), threading.Event()

    def hold() -> None:
        made.append(sqlite3.connect(path))
        connected.set()
        done.wait(10)
        made[0].close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert connected.wait(10)
    with pytest.raises(ConfigurationError, match="thread"):
        store.append(an_event(), connection=made[0])
    done.set()
    thread.join()


# --- Conflicts and failures


def test_a_snapshot_that_others_have_written_past_must_run_again(
    store: EventStore, connect: Connect
) -> None:
    connection = connect()
    connection.execute("BEGIN DEFERRED")
    connection.execute("SELECT count(*) FROM eventstore_events").fetchall()
    store.append(an_event())

    with pytest.raises(TransactionConflictError):
        store.append(an_event(), connection=connection)

    connection.rollback()
    assert store.append(an_event(), connection=connection).sequence == 2
    connection.commit()


@pytest.mark.parametrize("begin", [None, "BEGIN DEFERRED"])
def test_a_locked_file_is_told_after_the_timeout(
    open_log: Open, connect: Connect, begin: str | None
) -> None:
    store = open_log(timeout=0.3)
    holder = connect(isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    connection = connect(timeout=30)
    if begin:
        connection.execute(begin)
        connection.execute("SELECT count(*) FROM eventstore_events").fetchall()
    began = monotonic()

    with pytest.raises(StoreUnavailableError, match="locked"):
        store.append(an_event(), connection=connection)

    assert 0.25 < monotonic() - began < 3
    holder.execute("ROLLBACK")
    assert store.append(an_event(), connection=connection).sequence == 1
    connection.commit()


def test_a_conflict_leaves_the_callers_work_and_ends_a_transaction_it_began(
    store: EventStore, connect: Connect
) -> None:
    connection = connect()
    with pytest.raises(VersionConflictError):
        store.append(an_event(), expected_version=7, connection=connection)
    assert not connection.in_transaction
    assert store.append(an_event()).sequence == 1

    connection.execute("CREATE TABLE mine (x)")
    connection.execute("INSERT INTO mine VALUES (1)")
    with pytest.raises(VersionConflictError):
        store.append(an_event(), expected_version=7, connection=connection)
    assert connection.in_transaction
    connection.commit()
    assert connection.execute("SELECT x FROM mine").fetchall() == [(1,)]


def test_a_failing_statement_leaves_the_callers_transaction_usable(
    store: EventStore, connect: Connect
) -> None:
    connection = connect()
    connection.execute("CREATE TABLE mine (x)")
    connection.execute("INSERT INTO mine VALUES (1)")
    connection.set_authorizer(
        lambda action, table, *_: (
            sqlite3.SQLITE_DENY
            if action == sqlite3.SQLITE_INSERT and table == "eventstore_entities"
            else sqlite3.SQLITE_OK
        )
    )
    with pytest.raises(EventStoreError):
        store.append(an_event(), connection=connection)
    connection.set_authorizer(None)

    assert store.append(an_event(), connection=connection).sequence == 1
    connection.commit()
    assert store.get_current_sequence() == 1
    assert connection.execute("SELECT x FROM mine").fetchall() == [(1,)]


def test_an_id_that_is_recorded_is_found_in_the_callers_own_transaction(
    store: EventStore, connect: Connect
) -> None:
    connection = connect()
    batch = [an_event() for _ in range(25)]
    first = store.append_batch(batch, connection=connection)
    again: AppendResult = store.append_batch(batch, connection=connection)
    connection.commit()

    assert again.replayed
    assert again.sequences == first.sequences
    assert store.get_current_sequence() == 25


# --- Durability


@pytest.mark.parametrize("level", ["OFF", "NORMAL"])
def test_a_weaker_connection_is_warned_of_refused_or_accepted(
    open_log: Open, connect: Connect, level: str
) -> None:
    connection = connect()
    connection.execute(f"PRAGMA synchronous = {level}")

    with pytest.warns(DurabilityWarning, match="PRAGMA synchronous = FULL"):
        open_log().append(an_event(), connection=connection)
    connection.commit()
    with pytest.raises(ConfigurationError, match="strict"):
        open_log(durability="strict").append(an_event(), connection=connection)
    assert not connection.in_transaction
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_log(durability="relaxed").append(an_event(), connection=connection)
    connection.commit()


def test_a_strong_connection_is_not_warned_of(store: EventStore, connect: Connect) -> None:
    for level in ("FULL", "EXTRA"):
        connection = connect()
        connection.execute(f"PRAGMA synchronous = {level}")
        store.append(an_event(), connection=connection)
        connection.commit()
