"""One deadline for a whole call, whatever of it a server that falls silent holds up."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventstore import (
    EventStore,
    EventStoreError,
    StoreClosedError,
    StoreUnavailableError,
    drop_namespace,
    open_store,
)
from eventstore.testing.conformance.base import assert_log_is_sound
from eventstore.testing.conformance.crews import Thread
from tests.kit.servers import PostgresServer
from tests.postgres.work import WAIT, note, wait_until

GRACE = 1.0
"""Seconds beyond a time-out that a busy machine may need: far less than another time-out."""


@pytest.fixture(autouse=True)
def _running(own_server: PostgresServer) -> None:
    """Start the server where a test left it stopped."""
    if not own_server.running:
        own_server.start()


def processes(server: PostgresServer) -> list[int]:
    """Return the server's processes."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [server.pid, *map(int, children.split())]


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    """Stop all processes of a server: its host still takes connections, and nobody answers."""
    stopped = processes(server)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call took that had to fail."""
    began = time.monotonic()
    with pytest.raises(EventStoreError):
        call()
    return time.monotonic() - began


@pytest.mark.parametrize("timeout", [0.3, 1.5])
@pytest.mark.parametrize("options", [{}, {"prepare_threshold": None}], ids=["held", "pooled"])
def test_no_call_on_a_frozen_server_takes_longer_than_its_timeout(
    own_server: PostgresServer, timeout: float, options: dict[str, Any]
) -> None:
    url, name = own_server.url, f"frozen_{round(timeout * 10)}"
    with open_store(url, namespace=name, timeout=timeout, **options) as store:
        before = store.append(note())
        with closing(psycopg.connect(url)) as mine:
            mine.execute("SELECT 1")
            with frozen(own_server):
                # With the sessions that there are, with new ones, and for those without any
                for call in (
                    lambda: store.append(note()),
                    lambda: store.append(note()),
                    store.get_current_sequence,
                    store.get_current_sequence,
                    lambda: list(store.get_events()),
                    lambda: store.wait_for_events(1, timeout=WAIT),
                    store.info,
                    lambda: store.append(note(), connection=mine),
                    lambda: open_store(url, namespace=name, timeout=timeout),
                    lambda: drop_namespace(url, namespace=name, timeout=timeout),
                ):
                    assert seconds_of(call) < timeout + GRACE
        assert store.append(before) == before
        assert_log_is_sound(store)


def test_whoever_waits_behind_others_still_has_one_timeout(own_server: PostgresServer) -> None:
    # Given more callers than one group takes, the later ones queued behind the first
    with open_store(own_server.url, namespace="queued", timeout=1.0) as store:
        store.append(note())
        with frozen(own_server):
            threads = []
            for n in range(6):
                event = note(f"n-{n}")
                threads.append(Thread(seconds_of, lambda event=event: store.append(event)))
                time.sleep(0.15)
            taken = [thread.result(WAIT) for thread in threads]
        # Then none of them has taken another time-out to connect, or to be answered
        assert max(taken) < 1.0 + GRACE
        assert_log_is_sound(store)


def test_readers_that_wait_for_a_connection_have_one_timeout(own_server: PostgresServer) -> None:
    with open_store(own_server.url, namespace="readers", timeout=1.0, pool_size=1) as store:
        store.get_current_sequence()
        with frozen(own_server):
            threads = [Thread(seconds_of, store.get_current_sequence) for _ in range(5)]
            assert max(thread.result(WAIT) for thread in threads) < 1.0 + GRACE
        assert store.get_current_sequence() == 0


@pytest.mark.parametrize("timeout", [0.5, 2.0])
def test_a_frozen_server_holds_up_close_no_longer_than_the_timeout(
    own_server: PostgresServer, timeout: float
) -> None:
    # Given a store in use: somebody waits, reads, appends; and its sessions
    before = set(threading.enumerate())
    store = open_store(own_server.url, namespace="closing", timeout=timeout)
    store.append(note())
    waiting = Thread(store.wait_for_events, store.get_current_sequence(), WAIT)
    wait_until(lambda: store._log.backend._listener._session, "a listener")  # type: ignore[attr-defined]
    with frozen(own_server):
        busy: list[Thread[Any]] = [
            *(Thread(store.get_current_sequence) for _ in range(3)),
            Thread(store.append, note()),
            Thread(store.append, note()),
        ]
        assert busy[-1].is_running(after=0.05)
        # When it is closed
        began = time.monotonic()
        store.close()
        # Then that is done within its time-out, and so are they
        assert time.monotonic() - began < timeout + GRACE
        with pytest.raises(StoreClosedError):
            store.get_current_sequence()
        for thread in (waiting, *busy):
            with pytest.raises((StoreClosedError, StoreUnavailableError)):
                thread.result(timeout + GRACE)
        assert set(threading.enumerate()) <= before


def test_an_idle_store_is_closed_at_once_on_a_frozen_server(own_server: PostgresServer) -> None:
    before = set(threading.enumerate())
    with ExitStack() as stores:
        for _ in range(3):
            store: EventStore = stores.enter_context(open_store(own_server.url, namespace="idle"))
            store.append(note())
            store.get_current_sequence()
        with frozen(own_server):
            began = time.monotonic()
            stores.close()
            assert time.monotonic() - began < GRACE
    assert set(threading.enumerate()) <= before


def test_reading_starts_no_threads(own_server: PostgresServer) -> None:
    before = set(threading.enumerate())
    with open_store(own_server.url, namespace="threads") as store:
        store.append(note())
        assert len(list(store.get_events())) == 1
        assert set(threading.enumerate()) == before
