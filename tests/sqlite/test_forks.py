"""A fork leaves both sides with connections, and locks, of their own."""

from __future__ import annotations

import os
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from eventstore import EventStore, UnsupportedOperationError, open_store
from eventstore.testing.builders import an_event


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked child and return its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - shown
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_a_child_appends_survives_its_parents_close(
    open_log: Callable[..., EventStore], path: Path
) -> None:
    # Given a child that holds the log open beyond the parent's close
    store = open_log()
    store.append(an_event())
    closed, child_may_go_on = os.pipe()
    told, child_is_ready = os.pipe()

    def child() -> None:
        store.append(an_event())
        os.write(child_is_ready, b"x")
        os.read(closed, 1)
        assert store.append(an_event()).sequence == 3

    def parent() -> None:
        os.read(told, 1)
        store.close()
        with open_store(f"sqlite:///{path}") as other:
            assert other.get_current_sequence() == 2
        os.write(child_may_go_on, b"x")

    thread = threading.Thread(target=parent)
    # When the parent, the only other process, closes before the child appends again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        starter = threading.Timer(0, thread.start)
        starter.start()
        code = in_child(child)
    thread.join(10)

    # Then nothing is lost
    assert code == 0
    with open_store(f"sqlite:///{path}") as again:
        assert [event.sequence for event in again.get_events()] == [1, 2, 3]


def test_parent_and_child_append_side_by_side(open_log: Callable[..., EventStore]) -> None:
    store = open_log()

    def child() -> None:
        for _ in range(5):
            store.append(an_event())

    codes = []
    for _ in range(3):
        store.append(an_event())
        codes.append(in_child(child))

    assert codes == [0, 0, 0]
    assert [event.sequence for event in store.get_events()] == list(range(1, 19))


def test_a_fork_waits_for_a_read_that_is_under_way(
    open_log: Callable[..., EventStore],
) -> None:
    store = open_log()
    store.append_batch([an_event() for _ in range(5000)])
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            assert len(list(store.get_events())) >= 5000

    def child() -> None:
        store.append(an_event())

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(5):
            assert in_child(child) == 0
    finally:
        stop.set()
        for reader in readers:
            reader.join(30)
    assert store.get_current_sequence() == 5005


def test_a_child_of_a_fork_in_the_middle_of_a_call_is_told(
    open_log: Callable[..., EventStore],
) -> None:
    """The forking thread cannot wait for its own call to end."""
    store = open_log(timeout=0.2)
    store.append(an_event())
    connections = store._log.backend._connections  # type: ignore[attr-defined]  # no public way in

    def child() -> None:
        with pytest.raises(UnsupportedOperationError, match="forked"):
            store.append(an_event())

    with connections.reading():
        assert in_child(child) == 0

    assert store.append(an_event()).sequence == 2


def test_a_log_in_memory_goes_on_on_both_sides() -> None:
    with open_store("sqlite:///:memory:") as store:
        store.append(an_event())

        def child() -> None:
            assert store.append(an_event()).sequence == 2
            assert store.count_events() == 2

        assert in_child(child) == 0
        assert store.append(an_event()).sequence == 2
