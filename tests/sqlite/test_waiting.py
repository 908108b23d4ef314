"""Waiting: soon where the log grows, cheap where it has been idle for long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic, thread_time

import pytest

from eventstore import EventStore
from eventstore.testing.builders import an_event
from eventstore_sqlite import SqliteBackend


def naps_of(backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch, idle: float) -> list[float]:
    """Return the naps of a wait of a second at a log that has been idle for so long."""
    naps: list[float] = []
    clock = monotonic()

    def nap(seconds: float) -> None:
        nonlocal clock
        naps.append(seconds)
        clock += seconds

    monkeypatch.setattr("eventstore_sqlite.waiting.monotonic", lambda: clock)
    backend._watch.seen = 0, clock - idle, None
    backend.wait(0, 1.0, nap)
    return naps


def test_a_log_that_grows_is_looked_at_every_few_milliseconds(
    sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert max(naps_of(sqlite, monkeypatch, idle=0.1)) < 0.006


def test_one_idle_for_a_minute_is_looked_at_often_enough_for_a_wake_up_in_50_ms(
    sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps = naps_of(sqlite, monkeypatch, idle=60)

    assert len(naps) <= 27
    assert max(naps) < 0.046


def test_news_end_the_backing_off(sqlite: SqliteBackend, store: EventStore) -> None:
    sqlite._watch.seen = 0, monotonic() - 3600, None
    store.append(an_event())
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        store.append(an_event())

    sqlite.wait(1, 5, nap)

    assert len(naps) == 1
    assert naps[0] < 0.006


def test_a_wait_misses_nothing_that_another_store_appends(
    store: EventStore, open_log: Callable[..., EventStore]
) -> None:
    other = open_log()

    def append() -> None:
        for _ in range(200):
            other.append(an_event())

    writer = threading.Thread(target=append)
    writer.start()
    seen = 0
    while seen < 200:
        assert store.wait_for_events(seen, timeout=30)
        seen += len(store.get_events_since(seen))
    writer.join(30)

    assert seen == 200


def test_an_idle_wait_costs_next_to_nothing(store: EventStore) -> None:
    backend = store._log.backend
    assert isinstance(backend, SqliteBackend)
    backend._watch.seen = 0, monotonic() - 60, None
    began = thread_time()

    assert not store.wait_for_events(0, timeout=2)

    assert thread_time() - began < 0.1  # 5 %, on a machine under load; docs/sqlite.md has figures
