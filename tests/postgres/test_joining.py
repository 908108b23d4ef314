"""``connection=`` on PostgreSQL, beyond what the conformance suite asks of all."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import psycopg
import pytest

from eventstore import (
    ConfigurationError,
    DurabilityWarning,
    EventStore,
    TransactionConflictError,
    open_store,
)
from eventstore.backend import Durability
from eventstore.testing.conformance.base import assert_log_is_sound
from eventstore.testing.conformance.crews import Thread
from tests.kit.servers import PostgresServer, start_postgres
from tests.postgres.work import WAIT, note, wait_until


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("how", ["in SQL", "as the role's default", "by psycopg"])
def test_a_snapshot_that_may_be_older_than_the_lock_is_refused(
    server: PostgresServer, store: EventStore, isolation: str, how: str
) -> None:
    with psycopg.connect(server.url) as connection:
        if how == "in SQL":
            connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        elif how == "by psycopg":
            connection.isolation_level = psycopg.IsolationLevel[isolation.replace(" ", "_")]
        else:
            connection.execute(f"SET default_transaction_isolation = '{isolation}'")
            connection.commit()

        with pytest.raises(TransactionConflictError, match=isolation):
            store.append(note(), connection=connection)

        connection.execute("SELECT 1")  # nothing is spoiled
    assert store.append(note()).sequence == 1


def test_the_functions_themselves_refuse_an_old_snapshot(
    server: PostgresServer, store: EventStore, namespace: str
) -> None:
    with psycopg.connect(server.url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(psycopg.errors.SerializationFailure, match="READ COMMITTED"):
            connection.execute(f"SELECT {namespace}.lock_log(1000)")


def test_a_transaction_of_an_autocommit_connection_may_be_joined(
    server: PostgresServer, store: EventStore
) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        with connection.transaction():
            store.append(note(), connection=connection)
        with pytest.raises(ConfigurationError, match="autocommit"):
            store.append(note(), connection=connection)
        with connection.transaction(force_rollback=True):
            store.append_batch([note(), note()], connection=connection)

    assert len(assert_log_is_sound(store)) == 1


def test_a_savepoint_rolled_back_takes_its_appends_along(
    server: PostgresServer, store: EventStore
) -> None:
    with psycopg.connect(server.url) as connection:
        store.append(note("kept"), connection=connection)
        with connection.transaction(force_rollback=True):
            store.append(note("lost"), connection=connection)
        last = store.append(note("kept"), connection=connection)

    assert last.sequence == 2
    assert [event.entity_id for event in assert_log_is_sound(store)] == ["kept", "kept"]


def test_another_transaction_of_a_joined_connection_holds_nothing(
    server: PostgresServer, store: EventStore
) -> None:
    with psycopg.connect(server.url) as connection:
        store.append(note(), connection=connection)
        connection.commit()
        connection.execute("SELECT 1")  # begins another one

        assert store.append(note()).sequence == 2


def test_weaker_durability_of_the_caller_is_told(server: PostgresServer, store: EventStore) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("SET LOCAL synchronous_commit = off")
        with pytest.warns(DurabilityWarning, match="synchronous_commit") as caught:
            store.append_batch([note()], connection=connection)
        assert caught[0].filename == __file__
        connection.commit()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.append(note(), connection=connection)


def test_weaker_durability_of_the_caller_is_refused_or_accepted_as_asked(
    server: PostgresServer, namespace: str
) -> None:
    for durability, stored in ((Durability.STRICT, 0), (Durability.RELAXED, 1)):
        with (
            open_store(server.url, namespace=namespace, durability=durability) as store,
            psycopg.connect(server.url) as connection,
        ):
            connection.execute("SET LOCAL synchronous_commit = off")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                if durability is Durability.STRICT:
                    with pytest.raises(ConfigurationError, match="synchronous_commit"):
                        store.append(note(), connection=connection)
                else:
                    store.append(note(), connection=connection)
            connection.commit()
            assert store.get_current_sequence() == stored


def test_a_log_of_the_same_name_on_another_server_is_refused(
    store: EventStore, namespace: str
) -> None:
    with start_postgres() as other, open_store(other.url, namespace=namespace) as theirs:
        with (
            psycopg.connect(other.url) as connection,
            pytest.raises(ConfigurationError, match="another database or server"),
        ):
            store.append(note(), connection=connection)

        # But the server that a store was opened at may have been restarted since.
        other.restart()
        with psycopg.connect(other.url) as connection:
            theirs.append(note(), connection=connection)
        assert theirs.get_current_sequence() == 1


def test_settings_of_the_connection_stay_as_they_were(
    server: PostgresServer, store: EventStore
) -> None:
    names = (
        "search_path", "lock_timeout", "statement_timeout", "synchronous_commit", "TimeZone",
        "idle_in_transaction_session_timeout", "transaction_isolation",
    )  # fmt: skip

    def settings(connection: psycopg.Connection[Any]) -> list[Any]:
        return [connection.execute(f"SHOW {name}").fetchone() for name in names]

    with psycopg.connect(server.url) as holder, psycopg.connect(server.url) as connection:
        connection.execute("SET lock_timeout = '12345ms'")
        connection.commit()
        before = settings(connection)
        store.append(note(), connection=holder)
        waits = Thread(lambda: store.append(note(), connection=connection))
        wait_until(
            lambda: holder.execute(
                "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            ).fetchall(),
            "an append that waits",
        )
        holder.commit()
        assert waits.result(WAIT).sequence == 2

        assert settings(connection) == before


def test_a_reader_of_the_tail_misses_nothing_beside_joins_of_all_lengths(
    server: PostgresServer, store: EventStore
) -> None:
    # Given writers: plain, joined and committed, joined and rolled back, quick and slow
    stop = threading.Event()

    def join(*, hold: float, every: int) -> None:
        with psycopg.connect(server.url) as connection:
            n = 0
            while not stop.wait(hold / 2):
                n += 1
                store.append_batch([note("joined"), note("joined")], connection=connection)
                stop.wait(hold)
                if n % every == 0:
                    connection.rollback()
                else:
                    connection.commit()

    def append_plainly() -> None:
        while not stop.is_set():
            store.append(note("plain"))

    writers = [
        Thread(lambda: join(hold=0.02, every=3)),
        Thread(lambda: join(hold=0.001, every=2)),
        Thread(append_plainly),
        Thread(append_plainly),
    ]
    # When a reader remembers one number alone
    seen: list[int] = []
    while len(seen) < 1500:
        assert store.wait_for_events(len(seen), timeout=WAIT)
        seen += [event.sequence for event in store.get_events_since(len(seen), limit=100)]
        assert seen == list(range(1, len(seen) + 1))
    stop.set()
    for writer in writers:
        writer.result(WAIT)
    # Then it has seen all there is
    events = assert_log_is_sound(store)
    assert {event.entity_id for event in events} == {"joined", "plain"}
