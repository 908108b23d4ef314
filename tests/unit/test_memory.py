"""What only the memory backend has to mind: readers without a lock, beside interrupts and forks."""

from __future__ import annotations

import os
import signal
from typing import Any
from uuid import uuid4

from eventstore import (
    Event,
    EventQuery,
    UnsupportedOperationError,
    drop_namespace,
    open_store,
)
from eventstore.memory import MemoryBackend


def an_event(entity_id: str = "a") -> Event:
    return Event(event_type="Happened", entity_type="thing", entity_id=entity_id)


def test_a_signal_handler_may_append_while_its_thread_reads() -> None:
    appended = []
    with open_store("memory://") as store:
        store.append_batch([an_event() for _ in range(20_000)])

        def handle(*_: object) -> None:
            appended.append(store.append(an_event("b")).sequence)
            signal.setitimer(signal.ITIMER_REAL, 0.001)  # not before: it would interrupt this

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        try:
            while len(appended) < 20:
                store.count_events(EventQuery(entity_id="z"))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert appended == list(range(20_001, 20_001 + len(appended)))


def test_a_signal_handler_that_appends_through_another_store_of_the_log_never_hangs() -> None:
    url = f"memory://{uuid4().hex}"
    refused, stored = [], []
    with open_store(url) as store, open_store(url) as other:

        def handle(*_: object) -> None:
            try:
                stored.append(other.append(an_event("b")))
            except UnsupportedOperationError as error:
                refused.append(str(error))

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        appended = 0
        try:
            while len(refused) < 5 and appended < 500_000:
                appended += len(store.append_batch([an_event() for _ in range(500)]))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(refused) >= 5
        assert "in the middle of an append" in refused[0]
        assert store.get_current_sequence() == appended + len(stored)
    drop_namespace(url)


def test_what_is_not_published_is_not_seen_and_not_inherited() -> None:
    url = f"memory://{uuid4().hex}"
    with open_store(url) as store:
        store.append(an_event())
        backend: Any = store._log.backend
        assert isinstance(backend, MemoryBackend)
        log = backend._log
        half_done = log.records[0]
        half_done = type(half_done)(
            draft=half_done.draft,
            sequence=2,
            version=2,
            batch_sequence=2,
            recorded_at=half_done.recorded_at,
        )
        log.records.append(half_done)
        log.by_entity[half_done.draft.entity].append(half_done)

        assert store.count_events() == store.get_current_sequence() == 1
        assert store.get_current_version("thing", "a") == 1
        assert len(store.get_events_for_entity("thing", "a")) == 1

        child = os.fork()
        if child == 0:
            right = store.append(an_event()).version == 2 and store.count_events() == 2
            os._exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0
