"""Repeats: any append can be tried again, and nothing else passes for one (G7)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import pytest

from eventstore import (
    AppendCondition,
    AppendResult,
    Capability,
    DuplicateEventError,
    Event,
    EventQuery,
    EventStore,
    EventStoreError,
)
from eventstore.testing.conformance.base import (
    Conformance,
    OpenAnother,
    assert_log_is_sound,
    ids,
    note,
    notes,
    require,
    stored,
)
from eventstore.testing.conformance.crews import Crew, in_threads

_MANY_IDS = 20_000

FULL: dict[str, Any] = {
    "event_type": "OrderPlaced",
    "entity_type": "order",
    "entity_id": "o-1",
    "data": {"a": 1, "b": {"c": [1, 2], "d": None}},
    "workflow_id": "w-1",
    "tags": ("x", "y"),
    "metadata": {"actor_id": "ada"},
    "schema_version": 2,
    "timestamp": datetime(2024, 1, 1, tzinfo=UTC),
}


def append_all(store: EventStore, batch: list[Event]) -> tuple[bool, tuple[int, ...]]:
    """What each of several racers does in ``IdempotenceTests``."""
    result = store.append_batch(batch)
    return result.replayed, result.sequences


class IdempotenceTests(Conformance):
    # --- What is a repeat

    def test_appending_an_event_again_returns_the_recorded_one(self, store: EventStore) -> None:
        event = Event(**FULL)
        recorded = store.append(event)

        assert store.append(event) == recorded
        assert stored(store) == [recorded]
        assert store.get_current_version("order", "o-1") == 1

    def test_a_repeated_batch_says_that_it_was_replayed(self, store: EventStore) -> None:
        batch = [*notes(3), note("other")]
        first = store.append_batch(batch)
        store.append(note())

        again = store.append_batch(batch)

        assert (first.replayed, again.replayed) == (False, True)
        assert again.events == first.events
        assert again.sequences == (1, 2, 3, 4)
        assert (again.first_sequence, again.last_sequence) == (1, 4)
        assert store.get_current_sequence() == 5

    def test_a_repeat_uses_no_sequence_up(self, store: EventStore) -> None:
        event = note()
        for _ in range(4):
            store.append(event)

        assert store.append(note()).sequence == 2

    @pytest.mark.parametrize(
        "changes",
        [
            {"timestamp": datetime(1999, 1, 1, tzinfo=UTC)},
            {"metadata": {}},
            {"metadata": {"actor_id": "grace", "attempt": 2}},
            {"tags": ("y", "x")},
            {"tags": ("x", "y", "x")},
            {"tags": ["y", "x"]},
            {"tags": {"x", "y"}},
            {"data": {"b": {"d": None, "c": [1, 2]}, "a": 1}},
        ],
        ids=str,
    )
    def test_what_is_not_content_may_differ(
        self, store: EventStore, changes: dict[str, Any]
    ) -> None:
        event = Event(**FULL)
        recorded = store.append(event)

        again = store.append_batch([event.replace(**changes)])

        assert again.replayed is True
        assert again.events == (recorded,)
        assert (again[0].timestamp, again[0].metadata) == (FULL["timestamp"], FULL["metadata"])
        assert list(again[0].data) == ["a", "b"]

    def test_an_event_rebuilt_later_with_its_id_is_a_repeat(self, store: EventStore) -> None:
        event_id = uuid4()
        recorded = store.append(note(event_id=event_id))

        again = store.append(note(event_id=event_id))

        assert again == recorded

    def test_a_recorded_event_appended_again_is_a_repeat(self, store: EventStore) -> None:
        recorded = store.append_batch(notes(2))

        again = store.append_batch(stored(store))

        assert again.replayed is True
        assert again.events == recorded.events
        assert store.append(recorded[1]) == recorded[1]

    @pytest.mark.parametrize("expected", [0, 1, 7, -2])
    def test_a_repeat_does_not_look_at_the_expected_version(
        self, store: EventStore, expected: int
    ) -> None:
        batch = notes(2)
        first = store.append_batch(batch, expected_version=0)
        store.append(note())

        again = store.append_batch(batch, expected_version=expected)

        assert (again.replayed, again.events) == (True, first.events)

    def test_a_repeat_does_not_look_at_versions_of_other_entities(self, store: EventStore) -> None:
        first = store.append(note())

        again = store.append(note(event_id=first.event_id), expected_version={("x", "y"): 3})

        assert again == first

    def test_a_repeat_does_not_look_at_the_condition(self, store: EventStore) -> None:
        condition = AppendCondition(EventQuery(entity_id="n-1"))
        batch = notes(2)
        first = store.append_batch(batch, condition=condition)

        again = store.append_batch(batch, condition=condition)

        assert (again.replayed, again.events) == (True, first.events)

    def test_a_repeat_of_several_batches_in_their_order_is_a_repeat(
        self, store: EventStore
    ) -> None:
        first, second = notes(2, "a"), notes(2, "b")
        store.append_batch(first)
        store.append(note("between"))
        store.append_batch(second)

        again = store.append_batch(first + second)

        assert again.replayed is True
        assert again.sequences == (1, 2, 4, 5)
        assert (again.first_sequence, again.last_sequence) == (1, 5)
        assert [event.batch_sequence for event in again] == [1, 1, 4, 4]
        assert store.get_current_sequence() == 5

    def test_a_repeat_of_some_events_of_a_batch_in_order_is_a_repeat(
        self, store: EventStore
    ) -> None:
        batch = notes(4)
        store.append_batch(batch)

        again = store.append_batch([batch[0], batch[2]])

        assert (again.replayed, again.sequences) == (True, (1, 3))

    def test_a_large_batch_is_recognised_as_a_repeat(self, store: EventStore) -> None:
        batch = [note(f"n-{n % 5}", data={"n": n}) for n in range(1500)]
        store.append_batch(batch)

        again = store.append_batch(batch)

        assert again.replayed is True
        assert again.sequences == tuple(range(1, 1501))
        assert store.get_current_sequence() == 1500

    def test_a_repeat_is_recognised_by_another_store(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        event = note(data={"a": [1, {"b": 1.5}]})
        recorded = store.append(event)

        assert open_another().append(event) == recorded

    def test_a_repeat_is_recognised_after_the_log_was_reopened(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        require(store, Capability.PERSISTENT)
        batch = notes(3)
        first = store.append_batch(batch)
        store.close()

        again = open_another().append_batch(batch)

        assert (again.replayed, again.events) == (True, first.events)

    def test_a_repeat_may_be_appended_while_others_write(self, store: EventStore) -> None:
        event = note("mine")
        recorded = store.append(event)

        def append(each: Event) -> AppendResult:
            return store.append_batch([each])

        results = in_threads(append, [(event,), (note(),), (event,), (note(),), (event,)])

        assert [result.replayed for result in results] == [True, False, True, False, True]
        assert {results[0][0], results[2][0], results[4][0]} == {recorded}
        assert store.get_current_sequence() == 3

    def test_of_racing_first_attempts_one_writes_and_the_others_repeat(
        self, store: EventStore, crew: Crew
    ) -> None:
        for turn in range(5):
            batch = [note(f"n-{turn}", data={"n": n}) for n in range(3)]

            results = crew.run(append_all, [(batch,)] * crew.size)

            first = 3 * turn + 1
            assert sorted(replayed for replayed, _ in results) == [False] + [True] * (crew.size - 1)
            assert {sequences for _, sequences in results} == {(first, first + 1, first + 2)}
        assert len(assert_log_is_sound(store)) == 15

    # --- What is not

    @pytest.mark.parametrize(
        "changes",
        [
            {"event_type": "OrderShipped"},
            {"entity_type": "invoice"},
            {"entity_id": "o-2"},
            {"workflow_id": "w-2"},
            {"workflow_id": None},
            {"schema_version": 3},
            {"tags": ("x",)},
            {"tags": ("x", "y", "z")},
            {"tags": ()},
            {"data": {}},
            {"data": {"a": 2, "b": {"c": [1, 2], "d": None}}},
            {"data": {"a": 1, "b": {"c": [2, 1], "d": None}}},
            {"data": {"a": 1, "b": {"c": [1, 2]}}},
            {"data": {"a": 1, "b": {"c": [1, 2], "d": None}, "e": None}},
        ],
        ids=str,
    )
    def test_other_content_under_a_recorded_id_is_refused(
        self, store: EventStore, changes: dict[str, Any]
    ) -> None:
        event = Event(**FULL)
        recorded = store.append(event)

        with pytest.raises(DuplicateEventError) as caught:
            store.append(event.replace(**changes))

        assert caught.value.event_id == event.event_id
        assert stored(store) == [recorded]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (1, 1.0),
            (1, True),
            (1.0, True),
            (0, False),
            (0, None),
            (1, "1"),
            (None, "null"),
            ([], {}),
            ("", None),
            (100, 1e2),
            ("\u00e9", "e\u0301"),
            (2**53, 2**53 + 1),
            (0.1, 0.1 + 2**-56),
        ],
        ids=repr,
    )
    def test_content_is_compared_by_type_and_exactly(
        self, store: EventStore, one: Any, other: Any
    ) -> None:
        for n, (first, second) in enumerate([(one, other), (other, one)]):
            event = note(data={"deep": [{"v": first}]})
            recorded = store.append(event)

            with pytest.raises(DuplicateEventError) as caught:
                store.append(event.replace(data={"deep": [{"v": second}]}))

            assert caught.value.event_id == event.event_id
            assert store.append(event) == recorded
            assert store.get_current_sequence() == n + 1

    def test_a_batch_recorded_in_part_is_refused(self, store: EventStore) -> None:
        known, unknown = note(), note()
        store.append(known)

        for batch in ([known, unknown], [unknown, known], [unknown, known, note()]):
            with pytest.raises(DuplicateEventError) as caught:
                store.append_batch(batch)
            assert caught.value.event_id == known.event_id

        assert ids(stored(store)) == [known.event_id]
        assert not store.event_exists(unknown.event_id)

    def test_a_batch_recorded_in_another_order_is_refused(self, store: EventStore) -> None:
        first, second, third = notes(3)
        store.append_batch([first, second, third])

        with pytest.raises(DuplicateEventError) as caught:
            store.append_batch([first, third, second])

        assert caught.value.event_id in (second.event_id, third.event_id)
        assert store.get_current_sequence() == 3

    def test_several_batches_in_another_order_are_no_repeat(self, store: EventStore) -> None:
        first, second = notes(2, "a"), notes(2, "b")
        store.append_batch(first)
        store.append_batch(second)

        with pytest.raises(DuplicateEventError):
            store.append_batch(second + first)

        assert store.get_current_sequence() == 4

    def test_an_id_twice_in_a_batch_is_refused(self, store: EventStore) -> None:
        event = note()

        for batch in ([event, event], [event, note(), event.replace(data={"x": 1})]):
            with pytest.raises(DuplicateEventError) as caught:
                store.append_batch(batch)
            assert caught.value.event_id == event.event_id

        assert store.get_current_sequence() == 0

    def test_a_recorded_id_twice_in_a_batch_is_refused(self, store: EventStore) -> None:
        event = note()
        store.append(event)

        with pytest.raises(DuplicateEventError) as caught:
            store.append_batch([event, event])

        assert caught.value.event_id == event.event_id
        assert store.get_current_sequence() == 1

    def test_a_duplicate_is_refused_whatever_version_is_expected(self, store: EventStore) -> None:
        event = note()
        store.append(event)

        with pytest.raises(DuplicateEventError):
            store.append(event.replace(data={"x": 1}), expected_version=5)

    def test_an_event_that_carries_a_sequence_but_is_not_recorded_is_refused(
        self, store: EventStore
    ) -> None:
        recorded = store.append(note())
        elsewhere = recorded.replace(event_id=uuid4(), sequence=2)

        for batch in ([elsewhere], [note(), elsewhere], [recorded, elsewhere]):
            with pytest.raises(EventStoreError):
                store.append_batch(batch)

        assert stored(store) == [recorded]

    def test_a_copy_made_with_as_new_is_another_event(self, store: EventStore) -> None:
        recorded = store.append(note(data={"a": 1}))

        copy = store.append(recorded.as_new())

        assert (copy.sequence, copy.version, copy.data) == (2, 2, {"a": 1})
        assert copy.event_id != recorded.event_id

    # --- Ids and tenants

    def test_an_id_is_unique_within_its_tenant_only(self, store: EventStore) -> None:
        event = note()
        own = store.append(event)
        acme = store.append(event.replace(tenant_id="acme"))
        globex = store.append(event.replace(tenant_id="globex", data={"other": 1}))

        assert [own.sequence, acme.sequence, globex.sequence] == [1, 2, 3]
        assert store.get_event_by_id(event.event_id) == own
        assert store.get_event_by_id(event.event_id, tenant_id="acme") == acme
        assert store.get_event_by_id(event.event_id, tenant_id="globex") == globex
        assert store.get_event_by_id(event.event_id, tenant_id="nobody") is None

    def test_an_id_may_come_in_a_batch_once_for_each_tenant(self, store: EventStore) -> None:
        event = note()
        batch = [event, event.replace(tenant_id="acme")]

        first = store.append_batch(batch)
        again = store.append_batch(batch)

        assert first.sequences == again.sequences == (1, 2)
        assert again.replayed is True

    def test_an_id_is_recorded_for_its_tenant_only(self, store: EventStore) -> None:
        event = note(tenant_id="acme")
        store.append(event)

        assert store.event_exists(event.event_id, tenant_id="acme")
        assert not store.event_exists(event.event_id)
        assert not store.event_exists(uuid4(), tenant_id="acme")

    def test_a_repeat_returns_the_first_timestamp_to_the_microsecond(
        self, store: EventStore
    ) -> None:
        event = note(timestamp=datetime(2024, 1, 1, 1, 1, 1, 123_457, tzinfo=UTC))
        store.append(event)

        again = store.append(event.replace(timestamp=event.timestamp + timedelta(microseconds=1)))

        assert again.timestamp == event.timestamp

    def test_ids_chosen_to_hash_alike_take_no_longer_than_others(self, store: EventStore) -> None:
        # Given ids whose numbers all hash alike: each look-up in a set of them passes all others
        def seconds(chosen: list[UUID]) -> float:
            batch = [note(f"n-{index % 50}", event_id=each) for index, each in enumerate(chosen)]
            began = monotonic()
            assert not store.append_batch(batch).replayed
            assert store.append_batch(batch).replayed
            with pytest.raises(DuplicateEventError):
                store.append_batch([*batch, note()])
            return monotonic() - began

        # As many as show it, but for a fake that is slow with any
        count = _MANY_IDS // 10
        ordinary = seconds([uuid4() for _ in range(count)])
        if ordinary < 1.0:
            count = _MANY_IDS
            ordinary = seconds([uuid4() for _ in range(count)])

        hostile = seconds([UUID(int=7 + n * (2**61 - 1)) for n in range(count)])

        assert hostile < 6 * ordinary + 1.0  # by their numbers it took sixty times as long
