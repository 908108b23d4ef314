"""Nothing is lost, torn or stored twice, whatever happens to server, client and network."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from typing import Any, Literal

import psycopg
import pytest

from eventstore import CorruptLogError, EventStore, StoreUnavailableError, open_store
from eventstore.backend import Batch, LogState, Plan, plan
from eventstore.testing.conformance.base import assert_log_is_sound
from eventstore.testing.conformance.crews import Thread
from eventstore.testing.conformance.processes import FreshProcess
from eventstore_postgres import PostgresBackend
from tests.kit.fault_work import assert_all_there, load, wait_for_growth
from tests.kit.proxy import Proxy
from tests.kit.servers import PostgresServer
from tests.postgres.work import (
    WAIT,
    holders,
    join_and_stay,
    note,
    stay_within_an_append,
    url_as,
    wait_until,
)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_what_was_acknowledged_survives_restarts_of_the_server_under_load(
    own_server: PostgresServer, mode: Literal["fast", "immediate"]
) -> None:
    # Given processes that append
    with (
        open_store(own_server.url, namespace=mode, timeout=WAIT, retries=10_000) as store,
        load(own_server.url, namespace=mode) as end,
    ):
        head = wait_for_growth(store, 30)
        # When the server goes down and comes back, again and again
        for _ in range(3):
            own_server.restart(mode)
            head = wait_for_growth(store, 30, since=head)
        # Then every acknowledged batch is there, once, whole and in order
        assert_all_there(store, end())


def test_a_restart_between_calls_goes_unnoticed(own_server: PostgresServer) -> None:
    with open_store(own_server.url, namespace="between") as store:
        threads = [Thread(store.get_current_sequence) for _ in range(8)]
        assert [thread.result() for thread in threads] == [0] * 8
        assert store.wait_for_events(0, timeout=0.01) is False
        for n in range(1, 4):
            own_server.restart("fast")
            began = time.monotonic()
            assert store.append(note()).sequence == n
            assert time.monotonic() - began < 3
            own_server.restart("immediate")
            assert [event.version for event in store.get_events()] == list(range(1, n + 1))
            assert store.wait_for_events(n - 1, timeout=WAIT)


def test_a_server_that_goes_down_while_a_connection_is_settled_is_tried_again(
    server: PostgresServer, namespace: str
) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace) as store:
            proxy.reset()
            cut = proxy.cut_before_answer(b"default_transaction_isolation")
            assert store.append(note()).sequence == 1
            assert cut.wait(0)


def test_an_outage_is_told_in_time_and_nothing_was_written(own_server: PostgresServer) -> None:
    with open_store(own_server.url, namespace="outage", timeout=1) as store:
        own_server.stop("fast")
        try:
            for call in (store.get_current_sequence, lambda: store.append(note())):
                with pytest.raises(StoreUnavailableError, match="connection"):
                    call()  # the first one may lose the connection it has
            with pytest.raises(StoreUnavailableError) as caught:
                store.append(note())
            assert not caught.value.may_have_written
        finally:
            own_server.start()
        assert store.append(note()).sequence == 1


def test_killed_backends_harm_nothing(
    server: PostgresServer, store: EventStore, admin: psycopg.Connection[Any], namespace: str
) -> None:
    with load(server.url, namespace=namespace) as end:
        head = wait_for_growth(store, 30)
        for _ in range(10):
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'eventstore' AND pid <> pg_backend_pid()"
            )
            head = wait_for_growth(store, 5, since=head)
        assert_all_there(store, end())


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_answer_lost_after_the_commit_is_found_and_nothing_is_stored_twice(
    server: PostgresServer, namespace: str, size: int
) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace) as store:
            store.append(note("first"))
            cut = proxy.cut_before_answer(b"lost answer")

            result = store.append_batch([note("lost answer") for _ in range(size)])

            assert cut.wait(0)
            assert result.sequences == tuple(range(2, 2 + size))
            assert list(store.get_events())[1:] == list(result)
            assert len(assert_log_is_sound(store)) == 1 + size


def test_an_answer_to_commit_lost_in_a_planned_append_is_found(
    server: PostgresServer, namespace: str
) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        # Behind a pooler of transactions each append is a BEGIN, statements, a COMMIT.
        with open_store(url, namespace=namespace, prepare_threshold=None) as store:
            cut = proxy.cut_before_answer(b"COMMIT\0")

            result = store.append_batch([note(), note()])

            assert cut.wait(0)
            assert result.replayed
            assert result.sequences == (1, 2)
            assert len(assert_log_is_sound(store)) == 2


def test_without_retries_a_lost_answer_says_that_it_may_be_written(
    server: PostgresServer, namespace: str
) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace, retries=0) as store:
            event = note("lost answer")
            store.append(note("first"))
            proxy.cut_before_answer(b"lost answer")
            with pytest.raises(StoreUnavailableError) as lost:
                store.append(event)
            proxy.refuse()
            proxy.reset()
            with pytest.raises(StoreUnavailableError) as unsent:
                store.append(event)

    assert lost.value.may_have_written
    assert not unsent.value.may_have_written


def test_a_silent_server_is_given_up_in_time(server: PostgresServer, namespace: str) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace, timeout=0.5) as store:
            store.get_current_sequence()
            proxy.pause()
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError) as unheard:
                store.append(note())
            with pytest.raises(StoreUnavailableError):
                store.get_current_sequence()
            assert time.monotonic() - began < 10
            assert unheard.value.may_have_written
            proxy.resume()
            store.append(note())
            assert_log_is_sound(store)


def test_a_client_stopped_within_a_commit_frees_the_log_in_time(
    server: PostgresServer, store: EventStore, namespace: str
) -> None:
    # Given a client that is stopped while it holds the log's lock, with timeout=2
    store.append(note("before"))
    go_on = get_context("spawn").Event()
    with FreshProcess(stay_within_an_append, server.url, namespace, go_on) as client:
        assert client.hear() == "holds the lock"
        assert client.process.pid is not None
        os.kill(client.process.pid, signal.SIGSTOP)
        # When another one appends
        began = time.monotonic()
        recorded = store.append(note("other"))
        # Then it waits no longer than the first one's timeout, and what that meant to write is not
        # there when it goes on
        assert time.monotonic() - began < 2
        assert recorded.sequence == 2
        os.kill(client.process.pid, signal.SIGCONT)
        go_on.set()
        assert client.hear(WAIT) == "StoreUnavailableError"
    assert [event.entity_id for event in assert_log_is_sound(store)] == ["before", "other"]


def test_who_waits_is_told_which_session_is_in_the_way(
    server: PostgresServer, admin: psycopg.Connection[Any], namespace: str
) -> None:
    commit = get_context("spawn").Event()
    with (
        open_store(server.url, namespace=namespace, timeout=0.3) as hasty,
        FreshProcess(join_and_stay, server.url, namespace, commit) as other,
    ):
        assert other.hear() == "holds the lock"
        (holder,) = holders(admin, namespace)
        event = note("waits")

        with pytest.raises(StoreUnavailableError, match=rf"process {holder} of 'postgres'") as one:
            hasty.append(event)
        with pytest.raises(StoreUnavailableError, match=rf"process {holder}"):
            hasty.append_batch([note(), note()])
        with psycopg.connect(server.url) as mine:
            mine.execute("CREATE TEMP TABLE mine (n integer)")
            with pytest.raises(StoreUnavailableError, match=rf"process {holder}"):
                hasty.append(event, connection=mine)
            mine.execute("INSERT INTO mine VALUES (1)")  # its transaction is as it was
        assert not one.value.may_have_written

        commit.set()
        wait_until(lambda: hasty.get_current_sequence() == 1, "the commit")
        assert hasty.append(event).sequence == 2


def test_a_joined_client_that_is_killed_frees_the_log(
    server: PostgresServer, store: EventStore, namespace: str
) -> None:
    never = get_context("spawn").Event()
    with FreshProcess(join_and_stay, server.url, namespace, never) as client:
        assert client.hear() == "holds the lock"
        client.kill()

        assert store.append(note()).sequence == 1


def test_a_role_whose_defaults_differ_changes_nothing(
    server: PostgresServer, store: EventStore, admin: psycopg.Connection[Any], role: str
) -> None:
    # Given a role with every default as unlike ours as can be
    for setting in (
        "default_transaction_isolation = 'repeatable read'",
        "default_transaction_read_only = on",
        "synchronous_commit = off",
        "search_path = pg_temp, public",
        "TimeZone = 'Asia/Kathmandu'",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "lock_timeout = '1ms'",
        "statement_timeout = '1s'",
        "idle_in_transaction_session_timeout = '1ms'",
        "plan_cache_mode = 'force_generic_plan'",
    ):
        admin.execute(f"ALTER ROLE {role} SET {setting}")
    namespace = f"{role}_log"
    admin.execute(f"GRANT CREATE ON DATABASE postgres TO {role}")
    url = url_as(server, role)

    # When eight threads race, each with a store of its own
    with ExitStack() as stack:
        stores = [
            stack.enter_context(open_store(url, namespace=namespace, pool_size=2)) for _ in range(8)
        ]

        def append_all(mine: EventStore) -> None:
            for n in range(30):
                mine.append_batch([note(f"n-{n % 3}") for _ in range(1 + n % 3)])

        threads = [Thread(append_all, each) for each in stores]
        for thread in threads:
            thread.result(WAIT)

        # Then all is as ever
        assert len(assert_log_is_sound(stores[0])) == 8 * 60
        assert "synchronous_commit=on" in str(stores[0].info()["durability"])


def test_synchronous_commit_is_never_lowered(
    server: PostgresServer, admin: psycopg.Connection[Any], role: str
) -> None:
    admin.execute(f"ALTER ROLE {role} SET synchronous_commit = remote_apply")
    admin.execute(f"GRANT CREATE ON DATABASE postgres TO {role}")
    with open_store(url_as(server, role), namespace=role) as store:
        assert "synchronous_commit=remote_apply" in str(store.info()["durability"])


def test_no_free_connection_is_told_after_the_timeout(
    server: PostgresServer, namespace: str
) -> None:
    with open_store(server.url, namespace=namespace, pool_size=1, timeout=0.3) as store:
        backend = store._log.backend
        assert isinstance(backend, PostgresBackend)
        with (
            backend._sessions.reading(),
            pytest.raises(StoreUnavailableError, match="pool_size") as caught,
        ):
            store.get_current_sequence()
        assert not caught.value.may_have_written
        assert store.get_current_sequence() == 0


def test_a_row_that_something_wrote_without_the_lock_is_told_and_nothing_added(
    store: EventStore,
    admin: psycopg.Connection[Any],
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given an append that the planner judges, and a row written by hand before it is written
    store.append(note())

    def beside_others(group: Sequence[Batch], state: LogState) -> Plan:
        admin.execute(
            f"INSERT INTO {namespace}.events SELECT (jsonb_populate_record(e, jsonb_build_object("
            "'sequence', 2, 'batch_sequence', 2, 'entity_id', 'by hand', 'event_id',"
            f" gen_random_uuid()))).* FROM {namespace}.events e"
        )
        return plan(group, state)

    monkeypatch.setattr("eventstore_postgres.appending.plan", beside_others)
    expected = {("note", "n-1"): 1, ("note", "n-2"): 0}
    # When it is written, then it is not put after that row as if it had been judged so
    with pytest.raises(CorruptLogError, match="does not take its lock"):
        store.append(note(), expected_version=expected)
    monkeypatch.undo()
    assert [event.entity_id for event in store.get_events()] == ["n-1", "by hand"]


@pytest.mark.parametrize("sort", ["read", "append", "planned append"])
def test_a_statement_that_takes_too_long_is_told(
    server: PostgresServer, namespace: str, sort: str
) -> None:
    options: dict[str, Any] = {"prepare_threshold": None} if sort == "planned append" else {}
    with (
        open_store(server.url, namespace=namespace, timeout=0.3, **options) as store,
        psycopg.connect(server.url) as other,
    ):
        store.append(note())
        other.execute(f'LOCK TABLE "{namespace}".events IN ACCESS EXCLUSIVE MODE')
        call = store.get_current_sequence if sort == "read" else partial(store.append, note())
        with pytest.raises(StoreUnavailableError, match="time") as caught:
            call()
        assert not caught.value.may_have_written
        other.rollback()
        assert len(assert_log_is_sound(store)) == 1
