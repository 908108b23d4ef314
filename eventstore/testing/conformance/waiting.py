"""wait_for_events: ends when there is something, when time is up, or when the store closes."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from eventstore import Capability, Event, EventQuery, EventStore, StoreClosedError
from eventstore.testing.conformance.base import (
    WAIT,
    Conformance,
    OpenAnother,
    note,
    notes,
    require,
)
from eventstore.testing.conformance.crews import Thread, work_in_process
from eventstore.testing.conformance.harness import Harness
from eventstore.testing.conformance.processes import Processes


def append_one(store: EventStore, event: Event) -> int:
    """What another process does."""
    return store.append(event).sequence


class WaitTests(Conformance):
    def test_nothing_to_come_is_false_after_the_timeout(self, store: EventStore) -> None:
        begun = time.monotonic()

        assert store.wait_for_events(0, timeout=0.3) is False
        assert time.monotonic() - begun >= 0.25

    def test_a_timeout_of_zero_only_looks(self, store: EventStore) -> None:
        assert store.wait_for_events(0, timeout=0) is False
        store.append(note())

        assert store.wait_for_events(0, timeout=0) is True
        assert store.wait_for_events(1, timeout=0) is False

    def test_what_is_there_already_is_true_at_once(self, store: EventStore) -> None:
        store.append_batch(notes(3))

        for after in (0, 1, 2):
            assert store.wait_for_events(after, timeout=WAIT) is True
        assert store.wait_for_events(2) is True

    def test_an_append_of_another_thread_ends_it(self, store: EventStore) -> None:
        waiting = Thread(store.wait_for_events, 0, WAIT)

        store.append(note())

        assert waiting.result() is True

    def test_without_a_timeout_it_waits_until_there_is_something(self, store: EventStore) -> None:
        waiting = Thread(store.wait_for_events, 0)
        assert waiting.is_running(after=0.1)

        store.append(note())

        assert waiting.result() is True

    def test_an_append_of_another_store_ends_it(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        other = open_another()
        waiting = Thread(store.wait_for_events, 0, WAIT)

        other.append(note())

        assert waiting.result() is True

    def test_an_append_of_another_process_ends_it(
        self, store: EventStore, harness: Harness, namespace: str, processes: Processes
    ) -> None:
        require(store, Capability.MULTI_PROCESS)
        waiting = Thread(store.wait_for_events, 0, WAIT)

        opening = (harness.url, harness.options_of(namespace))
        processes.start(work_in_process, [(*opening, append_one, (note(),))]).wait()

        assert waiting.result() is True

    def test_all_that_wait_are_woken(self, store: EventStore) -> None:
        waiting = [Thread(store.wait_for_events, 0, WAIT) for _ in range(8)]

        store.append(note())

        assert [each.result() for each in waiting] == [True] * 8

    def test_it_ends_above_its_position_only(self, store: EventStore) -> None:
        store.append(note())
        waiting = Thread(store.wait_for_events, 1, WAIT)
        assert waiting.is_running(after=0.1)

        store.append(note())

        assert waiting.result() is True

    def test_only_an_event_that_matches_ends_it(self, store: EventStore) -> None:
        query = EventQuery(entity_id="wanted", tags=["hit"])
        waiting = Thread(store.wait_for_events, 0, WAIT, query)

        store.append(note("other", tags=("hit",)))
        store.append_batch(notes(3, "wanted"))
        assert waiting.is_running(after=0.2)
        store.append(note("wanted", tags=("hit", "more")))

        assert waiting.result() is True

    def test_a_match_at_or_below_its_position_does_not_end_it(self, store: EventStore) -> None:
        store.append(note("wanted"))
        query = EventQuery(entity_id="wanted")

        assert store.wait_for_events(0, timeout=0, query=query) is True
        assert store.wait_for_events(1, timeout=0.1, query=query) is False

    def test_the_bounds_of_the_query_count(self, store: EventStore) -> None:
        store.append_batch(notes(3))

        assert store.wait_for_events(0, timeout=0, query=EventQuery(from_sequence=3)) is False
        assert store.wait_for_events(2, timeout=0, query=EventQuery(to_sequence=2)) is False
        assert store.wait_for_events(1, timeout=0, query=EventQuery(to_sequence=2)) is True

    def test_a_position_may_be_a_checkpoint(self, store: EventStore) -> None:
        start = store.checkpoint()
        assert store.wait_for_events(start, timeout=0) is False

        recorded = store.append(note())

        assert store.wait_for_events(start, timeout=WAIT) is True
        assert store.wait_for_events(store.checkpoint(recorded), timeout=0) is False

    @pytest.mark.parametrize("timeout", [None, WAIT])
    def test_closing_the_store_ends_it(self, store: EventStore, timeout: float | None) -> None:
        waiting = Thread(store.wait_for_events, 0, timeout)
        assert waiting.is_running(after=0.1)

        store.close()

        with pytest.raises(StoreClosedError):
            waiting.result()

    @pytest.mark.parametrize("timeout", [None, WAIT])
    def test_it_is_called_off(self, store: EventStore, timeout: float | None) -> None:
        stop = threading.Event()
        waiting = Thread(partial(store.wait_for_events, 0, timeout, stop=stop))
        assert waiting.is_running(after=0.1)

        stop.set()

        assert waiting.result() is False
        assert store.append(note()).sequence == 1

    def test_calling_one_off_takes_no_longer_than_a_look(self, store: EventStore) -> None:
        """Measured from inside: what a busy machine takes from a thread counts for nothing."""
        seconds = []
        for _ in range(5):
            stop = threading.Event()

            def called_off(stop: threading.Event = stop) -> float:
                assert store.wait_for_events(0, WAIT, stop=stop) is False
                return time.monotonic()

            waiting = Thread(called_off)
            assert waiting.is_running(after=0.2)
            begun = time.monotonic()
            stop.set()
            seconds.append(waiting.result() - begun)

        assert min(seconds) < 0.25

    def test_one_that_is_called_off_already_does_not_begin(self, store: EventStore) -> None:
        stop = threading.Event()
        stop.set()

        assert store.wait_for_events(0, stop=stop) is False

    def test_one_that_can_be_called_off_is_woken_like_any_other(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        stop = threading.Event()
        own = Thread(partial(store.wait_for_events, 0, WAIT, stop=stop))
        others = Thread(partial(open_another().wait_for_events, 0, WAIT, stop=stop))
        assert own.is_running(after=0.1)

        store.append(note())

        assert (own.result(), others.result()) == (True, True)
        assert store.wait_for_events(1, timeout=0.1, stop=stop) is False

    def test_calling_one_off_leaves_others_waiting(self, store: EventStore) -> None:
        stop = threading.Event()
        mine = Thread(partial(store.wait_for_events, 0, WAIT, stop=stop))
        other = Thread(partial(store.wait_for_events, 0, WAIT, stop=threading.Event()))

        stop.set()

        assert mine.result() is False
        assert other.is_running(after=0.1)
        store.append(note())
        assert other.result() is True

    def test_closing_another_store_does_not_end_it(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        other = open_another()
        waiting = Thread(store.wait_for_events, 0, WAIT)

        other.close()

        assert waiting.is_running(after=0.1)
        store.append(note())
        assert waiting.result() is True

    def test_one_that_waits_is_in_nobodys_way(self, store: EventStore) -> None:
        query = EventQuery(entity_id="never")
        waiting = [Thread(store.wait_for_events, 0, None, query) for _ in range(4)]

        for n in range(1, 21):
            assert store.append(note()).sequence == n
            assert store.count_events() == n

        assert all(each.is_running() for each in waiting)
        store.append(note("never"))
        assert [each.result() for each in waiting] == [True] * 4
