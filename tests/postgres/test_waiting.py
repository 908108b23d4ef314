"""Waking up by NOTIFY: a hint, with polling behind it."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from eventstore import EventStore, open_store
from eventstore.testing.conformance.crews import Thread
from tests.kit.servers import PostgresServer
from tests.postgres.work import WAIT, note, wait_until

LISTENERS = """
    SELECT pid FROM pg_stat_activity
    WHERE query LIKE 'LISTEN%' AND application_name = 'eventstore'
"""


def listeners(admin: psycopg.Connection[Any]) -> list[int]:
    """Return the sessions that listen."""
    return [pid for (pid,) in admin.execute(LISTENERS).fetchall()]


def test_all_threads_that_wait_share_one_connection(
    store: EventStore, admin: psycopg.Connection[Any]
) -> None:
    waiting = [Thread(store.wait_for_events, 0, WAIT) for _ in range(8)]
    wait_until(lambda: listeners(admin), "a listener")
    assert len(listeners(admin)) == 1

    store.append(note())

    assert all(thread.result() for thread in waiting)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_notice_wakes_at_once(
    server: PostgresServer, store: EventStore, namespace: str, size: int
) -> None:
    with open_store(server.url, namespace=namespace) as other:
        delays = []
        for _ in range(10):
            head = store.get_current_sequence()
            waiting = Thread(lambda head=head: (store.wait_for_events(head, WAIT), time.time())[1])
            assert waiting.is_running(after=0.03)
            other.append_batch([note() for _ in range(size)])
            delays.append(time.time() - waiting.result())
        # Far below the interval of polling, most of the time.
        assert sorted(delays)[5] < 0.1


def test_a_joined_append_wakes_when_its_caller_commits(
    server: PostgresServer, store: EventStore
) -> None:
    with psycopg.connect(server.url) as connection:
        store.append(note(), connection=connection)
        waiting = Thread(store.wait_for_events, 0, WAIT)
        assert waiting.is_running(after=0.1)
        connection.commit()
        assert waiting.result()


def test_a_killed_listener_costs_at_most_a_turn_of_polling(
    server: PostgresServer, store: EventStore, admin: psycopg.Connection[Any], namespace: str
) -> None:
    waiting = Thread(store.wait_for_events, 0, WAIT)
    wait_until(lambda: listeners(admin), "a listener")
    for pid in listeners(admin):
        admin.execute("SELECT pg_terminate_backend(%s)", (pid,))
    with open_store(server.url, namespace=namespace, notify=False) as silent:
        silent.append(note())
    assert waiting.result()


@pytest.mark.parametrize("options", [{"notify": False}, {"prepare_threshold": None}])
def test_without_notices_it_polls(
    server: PostgresServer,
    admin: psycopg.Connection[Any],
    namespace: str,
    options: dict[str, Any],
) -> None:
    before = listeners(admin)
    with open_store(server.url, namespace=namespace, **options) as store:
        waiting = Thread(store.wait_for_events, 0, WAIT)
        assert waiting.is_running(after=0.1)
        assert listeners(admin) == before
        with open_store(server.url, namespace=namespace, **options) as other:
            other.append(note())
        assert waiting.result()
