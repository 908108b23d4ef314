"""get_events reads the log as it stood at the first ``next`` (G10)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from eventstore import EventQuery, EventStore, InvalidQueryError, StoreClosedError
from eventstore.testing.conformance.base import Conformance, OpenAnother, note, notes, sequences
from eventstore.testing.conformance.crews import Thread

DAY = datetime(2024, 3, 1, tzinfo=UTC)
MANY = 2500  # several pages, whatever a page holds within reason


class IterationTests(Conformance):
    def test_events_are_iterated_over_once(self, store: EventStore) -> None:
        store.append_batch(notes(3))

        events = store.get_events()

        assert isinstance(events, Iterator)
        assert sequences(events) == [1, 2, 3]
        assert list(events) == []

    def test_a_log_of_many_pages_is_read_whole_and_in_order(self, store: EventStore) -> None:
        store.append_batch(notes(MANY))

        assert sequences(store.get_events()) == list(range(1, MANY + 1))
        backwards = store.get_events(EventQuery(ascending=False))
        assert sequences(backwards) == list(range(MANY, 0, -1))

    def test_the_snapshot_is_taken_at_the_first_next(self, store: EventStore) -> None:
        store.append(note())
        events = store.get_events()
        store.append(note())

        first = next(events)
        store.append(note())

        assert [first.sequence, *sequences(events)] == [1, 2]

    @pytest.mark.parametrize("order_by", ["sequence", "timestamp"])
    @pytest.mark.parametrize("ascending", [True, False])
    def test_what_is_appended_meanwhile_is_not_seen(
        self, store: EventStore, order_by: Any, ascending: bool
    ) -> None:
        store.append_batch(
            [note(timestamp=DAY + timedelta(seconds=n * 7 % MANY)) for n in range(MANY)]
        )
        query = EventQuery(order_by=order_by, ascending=ascending)
        expected = sequences(store.get_events(query))

        seen = []
        for event in store.get_events(query):
            seen.append(event.sequence)
            if len(seen) % 250 == 1:
                # Before, amidst and after those that are still to come.
                store.append_batch(
                    [
                        note(timestamp=DAY + timedelta(seconds=seconds))
                        for seconds in (-1, 5, MANY / 2, MANY * 2)
                    ]
                )

        assert seen == expected
        assert sorted(seen) == list(range(1, MANY + 1))

    def test_an_upper_bound_beyond_the_head_does_not_widen_the_snapshot(
        self, store: EventStore
    ) -> None:
        store.append_batch(notes(MANY))
        events = store.get_events(EventQuery(to_sequence=MANY + 100))
        next(events)

        store.append_batch(notes(50))

        assert sequences(events) == list(range(2, MANY + 1))

    def test_limit_and_offset_count_within_the_snapshot(self, store: EventStore) -> None:
        store.append_batch(notes(MANY))
        events = store.get_events(EventQuery(ascending=False, offset=3, limit=MANY))
        first = next(events)

        store.append_batch(notes(10))

        assert [first.sequence, *sequences(events)] == list(range(MANY - 3, 0, -1))

    def test_an_empty_log_stays_empty_for_an_iteration_that_has_ended(
        self, store: EventStore
    ) -> None:
        events = store.get_events()
        assert next(events, None) is None

        store.append(note())

        assert next(events, None) is None

    def test_arguments_are_checked_when_it_is_called(self, store: EventStore) -> None:
        anything: Any = "order"

        with pytest.raises(InvalidQueryError):
            store.get_events(anything)

    def test_the_same_thread_may_append_while_it_iterates(self, store: EventStore) -> None:
        store.append_batch(notes(20))

        for event in store.get_events():
            store.append(note("copy", data={"of": event.sequence}))

        copies = store.get_events_for_entity("note", "copy")
        assert [event.data["of"] for event in copies] == list(range(1, 21))

    def test_others_may_append_while_an_iteration_stands_between_pages(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        store.append_batch(notes(MANY))
        other = open_another()
        events = store.get_events()

        for _ in range(3):
            list(islice(events, 700))
            appended = Thread(other.append, note("other"))
            assert appended.result().entity_id == "other"

        assert len(list(events)) == MANY - 2100
        assert other.get_current_sequence() == MANY + 3

    def test_an_iteration_closed_early_leaves_the_store_usable(self, store: EventStore) -> None:
        store.append_batch(notes(MANY))
        events: Any = store.get_events()
        next(events)

        events.close()

        assert list(events) == []
        assert store.append(note()).sequence == MANY + 1
        assert store.count_events() == MANY + 1

    def test_many_iterations_may_be_left_standing(self, store: EventStore) -> None:
        store.append_batch(notes(MANY))
        standing = [store.get_events() for _ in range(50)]
        assert {next(events).sequence for events in standing} == {1}

        assert store.append(note()).sequence == MANY + 1
        assert {next(events).sequence for events in standing} == {2}

    def test_iterations_do_not_disturb_each_other(self, store: EventStore) -> None:
        store.append_batch(notes(MANY))
        up = store.get_events()
        down = store.get_events(EventQuery(ascending=False))

        pairs = [(one.sequence, other.sequence) for one, other in zip(up, down, strict=True)]

        assert pairs == [(n, MANY + 1 - n) for n in range(1, MANY + 1)]

    def test_an_iteration_may_go_on_in_another_thread(self, store: EventStore) -> None:
        store.append_batch(notes(MANY))
        events = store.get_events()
        next(events)

        rest = Thread(sequences, events)

        assert rest.result() == list(range(2, MANY + 1))

    def test_an_iteration_begun_after_close_raises(self, store: EventStore) -> None:
        store.append(note())
        events = store.get_events()

        store.close()

        with pytest.raises(StoreClosedError):
            next(events)

    def test_a_catch_up_page_begins_after_the_position(self, store: EventStore) -> None:
        store.append_batch(notes(5))

        assert sequences(store.get_events_since(0)) == [1, 2, 3, 4, 5]
        assert sequences(store.get_events_since(3)) == [4, 5]
        assert store.get_events_since(5) == []
        assert sequences(store.get_events_since(1, limit=2)) == [2, 3]

    def test_a_catch_up_page_holds_a_thousand_unless_told_otherwise(
        self, store: EventStore
    ) -> None:
        store.append_batch(notes(MANY))

        assert sequences(store.get_events_since(10)) == list(range(11, 1011))
        assert len(store.get_events_since(0, limit=MANY + 5)) == MANY

    def test_catching_up_page_by_page_gives_everything_once(self, store: EventStore) -> None:
        store.append_batch(notes(MANY))

        position, seen = 0, []
        while page := store.get_events_since(position, limit=333):
            seen += sequences(page)
            position = page[-1].sequence

        assert seen == list(range(1, MANY + 1))
