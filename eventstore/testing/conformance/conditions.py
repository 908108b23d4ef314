"""Append conditions: no event that matches may stand there (G6)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from eventstore import (
    AppendCondition,
    Checkpoint,
    CheckpointError,
    ConditionFailedError,
    Event,
    EventQuery,
    EventStore,
    VersionConflictError,
)
from eventstore.testing.conformance.base import Conformance, note, notes, stored

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

SEATED: Any = {
    "event_type": "SeatTaken",
    "entity_type": "booking",
    "entity_id": "b-1",
    "workflow_id": "checkout",
    "tenant_id": "acme",
    "tags": ("seat:4A", "flight:9"),
    "timestamp": NOON,
}

MATCHING = [
    EventQuery(),
    EventQuery(entity_type="booking"),
    EventQuery(entity_id="b-1"),
    EventQuery(entity_type="booking", entity_id="b-1", tenant_id="acme"),
    EventQuery(workflow_id="checkout"),
    EventQuery(tenant_id="acme"),
    EventQuery(event_types=["SeatFreed", "SeatTaken"]),
    EventQuery(tags=["seat:4A"]),
    EventQuery(tags=["flight:9", "seat:4A"]),
    EventQuery(from_timestamp=NOON),
    EventQuery(to_timestamp=NOON),
    EventQuery(from_sequence=1, to_sequence=2),
    EventQuery(any_of=[EventQuery(tags=["seat:5B"]), EventQuery(tags=["seat:4A"])]),
    EventQuery(tenant_id="acme", any_of=[EventQuery(entity_id="b-1")]),
]

NOT_MATCHING = [
    EventQuery(entity_type="Booking"),
    EventQuery(entity_id="b-2"),
    EventQuery(workflow_id="checkout-2"),
    EventQuery(tenant_id="globex"),
    EventQuery(event_types=["SeatFreed"]),
    EventQuery(tags=["seat:4A", "flight:8"]),
    EventQuery(from_timestamp=NOON.replace(microsecond=1)),
    EventQuery(to_timestamp=NOON.replace(hour=11, minute=59, second=59, microsecond=999_999)),
    EventQuery(entity_type="booking", from_sequence=2),
    EventQuery(entity_type="booking", to_sequence=1),
    EventQuery(any_of=[EventQuery(tags=["seat:5B"]), EventQuery(entity_id="b-2")]),
    EventQuery(tenant_id="globex", any_of=[EventQuery(entity_id="b-1")]),
]


class ConditionTests(Conformance):
    def test_a_condition_on_an_empty_log_holds(self, store: EventStore) -> None:
        recorded = store.append(note(), condition=AppendCondition(EventQuery()))

        assert recorded.sequence == 1

    @pytest.mark.parametrize("query", MATCHING, ids=repr)
    def test_an_event_that_matches_fails_the_append(
        self, store: EventStore, query: EventQuery
    ) -> None:
        store.append(note(timestamp=NOON))
        store.append(Event(**SEATED))
        condition = AppendCondition(query)

        with pytest.raises(ConditionFailedError) as caught:
            store.append(note(), condition=condition)

        assert caught.value.condition == condition
        assert caught.value.sequence in (1, 2)
        assert query.matches(stored(store)[caught.value.sequence - 1])
        assert store.get_current_sequence() == 2

    @pytest.mark.parametrize("query", NOT_MATCHING, ids=repr)
    def test_events_that_do_not_match_let_the_append_through(
        self, store: EventStore, query: EventQuery
    ) -> None:
        store.append(note(timestamp=NOON))
        store.append(Event(**SEATED))

        assert store.append(note(), condition=AppendCondition(query)).sequence == 3

    @pytest.mark.parametrize("after", [None, 0, 1])
    def test_events_above_after_count(self, store: EventStore, after: int | None) -> None:
        store.append(note("other"))
        store.append(note("n-1"))

        with pytest.raises(ConditionFailedError) as caught:
            store.append(
                note(), condition=AppendCondition(EventQuery(entity_id="n-1"), after=after)
            )

        assert caught.value.sequence == 2

    @pytest.mark.parametrize("after", [2, 3])
    def test_events_up_to_after_do_not_count(self, store: EventStore, after: int) -> None:
        store.append_batch([note("other"), note("n-1"), note("other")])
        condition = AppendCondition(EventQuery(entity_id="n-1"), after=after)

        assert store.append(note("n-1"), condition=condition).sequence == 4
        with pytest.raises(ConditionFailedError) as caught:
            store.append(note("n-1"), condition=condition)
        assert caught.value.sequence == 4

    def test_after_may_be_a_checkpoint(self, store: EventStore) -> None:
        first = store.append(note())
        condition = AppendCondition(EventQuery(entity_id="n-1"), after=store.checkpoint(first))

        store.append(note(), condition=condition)

        with pytest.raises(ConditionFailedError) as caught:
            store.append(note(), condition=condition)
        assert caught.value.sequence == 2
        assert caught.value.condition == condition

    def test_after_may_be_the_start_of_the_log(self, store: EventStore) -> None:
        condition = AppendCondition(EventQuery(), after=Checkpoint(store.log_id, 0, None))
        store.append(note(), condition=condition)

        with pytest.raises(ConditionFailedError):
            store.append(note(), condition=condition)

    def test_after_beyond_the_head_raises_and_stores_nothing(self, store: EventStore) -> None:
        store.append(note())

        with pytest.raises(CheckpointError):
            store.append(note(), condition=AppendCondition(EventQuery(), after=2))

        assert store.get_current_sequence() == 1

    def test_after_from_another_log_raises_and_stores_nothing(self, store: EventStore) -> None:
        first = store.append(note())
        foreign = Checkpoint("another-log", 1, first.event_id)

        with pytest.raises(CheckpointError):
            store.append(note(), condition=AppendCondition(EventQuery(), after=foreign))

        assert store.get_current_sequence() == 1

    def test_a_batch_never_conflicts_with_itself(self, store: EventStore) -> None:
        result = store.append_batch(notes(5), condition=AppendCondition(EventQuery(), after=0))

        assert result.sequences == (1, 2, 3, 4, 5)

    def test_a_failed_condition_stores_nothing_and_uses_no_sequence_up(
        self, store: EventStore
    ) -> None:
        first = store.append(note())

        for _ in range(3):
            with pytest.raises(ConditionFailedError):
                store.append_batch(notes(3), condition=AppendCondition(EventQuery()))

        assert stored(store) == [first]
        assert store.append(note()).sequence == 2

    def test_an_event_refused_by_a_condition_can_be_appended_later(self, store: EventStore) -> None:
        store.append(note())
        event = note()
        with pytest.raises(ConditionFailedError):
            store.append(event, condition=AppendCondition(EventQuery()))

        assert store.append(event).event_id == event.event_id

    def test_the_error_names_an_event_that_matches_among_many(self, store: EventStore) -> None:
        store.append_batch(notes(50, "other"))
        store.append(note("n-1", tags=("hit",)))
        store.append_batch(notes(50, "other"))

        with pytest.raises(ConditionFailedError) as caught:
            store.append(note(), condition=AppendCondition(EventQuery(tags=["hit"]), after=10))

        assert caught.value.sequence == 51
        assert "51" in str(caught.value)

    def test_a_condition_and_an_expected_version_must_both_hold(self, store: EventStore) -> None:
        store.append(note("a"))
        holds = AppendCondition(EventQuery(entity_id="b"))
        fails = AppendCondition(EventQuery(entity_id="a"))

        with pytest.raises(VersionConflictError):
            store.append(note("a"), expected_version=0, condition=holds)
        with pytest.raises(ConditionFailedError):
            store.append(note("a"), expected_version=1, condition=fails)
        assert store.append(note("a"), expected_version=1, condition=holds).version == 2

    @pytest.mark.parametrize(
        ("query", "after", "holds"),
        [
            (EventQuery(from_sequence=5), 0, True),
            (EventQuery(from_sequence=4), 0, False),
            (EventQuery(from_sequence=0), 5, True),
            (EventQuery(from_sequence=0), 4, False),
            (EventQuery(to_sequence=3), 3, True),
            (EventQuery(to_sequence=3), 2, False),
            (EventQuery(from_sequence=2, to_sequence=4), 4, True),
            (EventQuery(from_sequence=2, to_sequence=4), 3, False),
            (EventQuery(from_sequence=99), 0, True),
        ],
        ids=repr,
    )
    def test_the_bounds_of_the_query_and_after_both_apply(
        self, store: EventStore, query: EventQuery, after: int, holds: bool
    ) -> None:
        store.append_batch(notes(5))
        condition = AppendCondition(query, after=after)

        if holds:
            assert store.append(note(), condition=condition).sequence == 6
        else:
            with pytest.raises(ConditionFailedError) as caught:
                store.append(note(), condition=condition)
            assert caught.value.sequence == max(after, query.after) + 1

    def test_a_constraint_across_entities_is_kept(self, store: EventStore) -> None:
        """The use of it all: a name that only one of many users may take."""

        def take(name: str, user: str) -> Event:
            claim = AppendCondition(EventQuery(event_types=["NameTaken"], tags=[f"name:{name}"]))
            return store.append(
                note(user, event_type="NameTaken", tags=(f"name:{name}",)), condition=claim
            )

        take("ada", "u-1")
        take("grace", "u-2")
        with pytest.raises(ConditionFailedError) as caught:
            take("ada", "u-3")

        assert caught.value.sequence == 1
        assert [event.entity_id for event in stored(store)] == ["u-1", "u-2"]
