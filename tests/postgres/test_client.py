"""``client=``: a pool of the caller's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from eventstore import (
    AppendCondition,
    ConditionFailedError,
    ConfigurationError,
    EventQuery,
    EventStore,
    LogReplacedError,
    StoreClosedError,
    StoreUnavailableError,
    VersionConflictError,
    drop_namespace,
    open_store,
)
from eventstore.testing.conformance.base import assert_log_is_sound
from eventstore.testing.conformance.crews import Thread
from tests.kit.servers import PostgresServer
from tests.postgres.greeting import server_that_says
from tests.postgres.work import WAIT, note

Pool = ConnectionPool[psycopg.Connection[Any]]


def unlike_ours(connection: psycopg.Connection[Any]) -> None:
    """Set a connection up as unlike the store's own as can be."""
    connection.row_factory = psycopg.rows.dict_row
    connection.adapters.register_loader("int8", psycopg.types.string.TextLoader)
    connection.execute("SET search_path = pg_temp, public")
    connection.execute("SET default_transaction_isolation = 'repeatable read'")
    connection.execute("SET default_transaction_read_only = on")
    connection.execute("SET synchronous_commit = off")
    connection.commit()


@pytest.fixture
def pool(server: PostgresServer) -> Iterator[Pool]:
    named = {"application_name": "theirs"}
    with ConnectionPool(
        server.url, kwargs=named, min_size=1, max_size=3, configure=unlike_ours, open=True
    ) as pool:
        yield pool


@pytest.fixture
def store(pool: Pool, namespace: str) -> Iterator[EventStore]:
    with open_store("postgresql://", namespace=namespace, client=pool) as store:
        yield store


def test_a_store_works_by_a_pool_of_the_callers(store: EventStore, pool: Pool) -> None:
    first = store.append(note())
    batch = store.append_batch([note(f"n-{n}", tags=("a",)) for n in range(1000)])
    assert store.append(first) == first
    with pytest.raises(VersionConflictError):
        store.append(note(), expected_version=7)
    with pytest.raises(ConditionFailedError):
        store.append(note(), condition=AppendCondition(EventQuery(tags=["a"])))
    with pool.connection() as mine:
        mine.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        mine.execute("SET LOCAL synchronous_commit = on")
        joined = store.append(note("joined"), connection=mine)

    assert assert_log_is_sound(store) == [first, *batch, joined]
    assert store.count_events(EventQuery(tags=["a"])) == 1000
    waiting = Thread(store.wait_for_events, joined.sequence, WAIT)
    assert waiting.is_running(after=0.05)
    store.append(note())
    assert waiting.result()


def test_what_was_set_for_a_connection_is_found_again(store: EventStore, pool: Pool) -> None:
    store.append(note())
    store.get_current_sequence()
    with pool.connection() as mine:
        assert not mine.autocommit
        for name, value in (
            ("synchronous_commit", "off"),
            ("search_path", "pg_temp, public"),
            ("transaction_isolation", "repeatable read"),
        ):
            assert mine.execute(f"SHOW {name}").fetchone() == {name: value}


def test_many_threads_share_a_small_pool(store: EventStore) -> None:
    threads = [
        Thread(lambda: [store.append(note(f"n-{n}")).sequence for n in range(25)]) for _ in range(8)
    ]
    sequences = [sequence for thread in threads for sequence in thread.result(WAIT)]
    assert sorted(sequences) == list(range(1, 201))
    assert len(assert_log_is_sound(store)) == 200


def test_the_pool_is_never_closed_nor_emptied(pool: Pool, namespace: str) -> None:
    store = open_store("postgresql://", namespace=namespace, client=pool)
    store.append(note())
    store.close()
    with pytest.raises(StoreClosedError):
        store.append(note())

    assert not pool.closed
    assert pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"]
    with pool.connection() as mine:
        mine.execute("SELECT 1")


def test_a_pool_that_was_closed_is_told(server: PostgresServer, namespace: str) -> None:
    pool: Pool = ConnectionPool(server.url, min_size=1, open=True)
    with open_store("postgresql://", namespace=namespace, client=pool) as store:
        pool.close()
        for call in (lambda: store.append(note()), store.get_current_sequence):
            with pytest.raises(ConfigurationError, match="pool is closed"):
                call()


def test_killed_connections_are_replaced(store: EventStore, admin: psycopg.Connection[Any]) -> None:
    store.append(note())
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'theirs'"
    )
    assert store.append(note()).sequence == 2
    assert len(assert_log_is_sound(store)) == 2


def test_a_log_made_anew_is_refused(
    store: EventStore, server: PostgresServer, namespace: str
) -> None:
    store.append(note())
    drop_namespace(server.url, namespace=namespace)
    open_store(server.url, namespace=namespace).close()
    with pytest.raises(LogReplacedError):
        store.append(note())


def test_a_log_is_dropped_by_a_pool(pool: Pool, namespace: str) -> None:
    open_store("postgresql://", namespace=namespace, client=pool).close()
    assert drop_namespace("postgresql://", namespace=namespace, client=pool) is True
    assert drop_namespace("postgresql://", namespace=namespace, client=pool) is False


def test_after_a_fork_the_child_is_refused_and_the_parent_goes_on(store: EventStore) -> None:
    store.append(note())
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        told = "nothing"
        try:
            store.append(note())
        except ConfigurationError as error:
            told = str(error)
        finally:
            os.write(write, told.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert "the parent process" in answer.read()
    assert store.append(note()).sequence == 2


# --- What is refused


@pytest.mark.parametrize("given", ["pool", object(), 7])
def test_what_is_no_pool_is_refused(given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^client: must be a psycopg_pool"):
        open_store("postgresql://", client=given)


def test_an_asynchronous_pool_is_refused(server: PostgresServer) -> None:
    async def opened() -> None:
        pool = AsyncConnectionPool(server.url, min_size=1, open=False)
        with pytest.raises(ConfigurationError, match=r"^client: must be a psycopg_pool"):
            open_store("postgresql://", client=pool)

    asyncio.run(opened())


@pytest.mark.parametrize(("place", "options"), [("db.example/shop", {}), ("", {"sslmode": "off"})])
def test_a_place_beside_a_pool_is_refused(pool: Pool, place: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="client: connects as it was made to"):
        open_store(f"postgresql://{place}", client=pool, **options)


def test_connections_in_another_encoding_are_refused(
    server: PostgresServer, namespace: str
) -> None:
    kwargs = {"client_encoding": "LATIN1"}
    with (
        ConnectionPool(server.url, min_size=1, kwargs=kwargs, open=True) as pool,
        pytest.raises(ConfigurationError, match="client_encoding"),
    ):
        open_store("postgresql://", namespace=namespace, client=pool)


def test_a_pool_that_leads_to_a_standby_is_refused(admin: psycopg.Connection[Any]) -> None:
    row = admin.execute("SELECT version()").fetchone()
    assert row is not None
    with (
        server_that_says(row[0], "18.4", in_hot_standby="on") as (url, _),
        ConnectionPool(url, kwargs={"prepare_threshold": None}, min_size=1, open=True) as pool,
        pytest.raises(StoreUnavailableError, match="standby, whose reads lag"),
    ):
        open_store("postgresql://", client=pool, timeout=1)
