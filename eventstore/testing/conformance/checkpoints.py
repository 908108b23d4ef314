"""Checkpoints: a consumer notices when the log is not the one it knew (G12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from eventstore import (
    AppendCondition,
    Capability,
    Checkpoint,
    CheckpointError,
    ConditionFailedError,
    EventQuery,
    EventStore,
    EventStoreError,
    InvalidQueryError,
    LogReplacedError,
)
from eventstore.testing.conformance.base import (
    Conformance,
    OpenAnother,
    note,
    notes,
    require,
    sequences,
    stored,
)
from eventstore.testing.conformance.harness import Harness


def _beginning_after(position: Any) -> EventQuery:
    return EventQuery(from_sequence=position)


BEGIN: dict[str, Callable[[EventStore, Any], Any]] = {
    "get_events": lambda store, position: list(store.get_events(_beginning_after(position))),
    "count_events": lambda store, position: store.count_events(_beginning_after(position)),
    "any_of": lambda store, position: list(
        store.get_events(EventQuery(any_of=[_beginning_after(position)]))
    ),
    "wait_for_events": lambda store, position: store.wait_for_events(
        0, timeout=0, query=_beginning_after(position)
    ),
    "condition.query": lambda store, position: store.append(
        note(), condition=AppendCondition(_beginning_after(position).replace(entity_id="nobody"))
    ),
}
"""Where a query begins after a position."""

RESUME: dict[str, Callable[[EventStore, Any], Any]] = {
    "get_events_since": lambda store, position: store.get_events_since(position),
    "wait_for_events": lambda store, position: store.wait_for_events(position, timeout=0),
    "condition.after": lambda store, position: store.append(
        note(), condition=AppendCondition(EventQuery(entity_id="nobody"), after=position)
    ),
}
"""Where a position is passed."""


class CheckpointTests(Conformance):
    # --- What it says

    def test_a_checkpoint_of_an_event_stands_at_it(self, store: EventStore) -> None:
        first, second = store.append_batch(notes(2))

        assert store.checkpoint(first) == Checkpoint(store.log_id, 1, first.event_id)
        assert store.checkpoint(second) == Checkpoint(store.log_id, 2, second.event_id)

    def test_without_an_event_it_stands_at_the_head(self, store: EventStore) -> None:
        assert store.checkpoint() == Checkpoint(store.log_id, 0, None)

        *_, last = store.append_batch(notes(3))

        assert store.checkpoint() == Checkpoint(store.log_id, 3, last.event_id)

    def test_a_checkpoint_of_an_event_that_was_never_recorded_is_refused(
        self, store: EventStore
    ) -> None:
        with pytest.raises(EventStoreError):
            store.checkpoint(note())

    def test_it_has_a_text_form(self, store: EventStore) -> None:
        store.append(note())

        for checkpoint in (store.checkpoint(), Checkpoint(store.log_id, 0, None)):
            text = str(checkpoint)
            assert Checkpoint.parse(text) == checkpoint
            assert text.isprintable()
            assert " " not in text

    @pytest.mark.parametrize(
        "text", ["", "1", "1@log", "x:-@log", "-1:-@log", "1:-@log", "1:zz@log", "a:b:c@d@e", None]
    )
    def test_what_is_no_text_form_is_refused(self, text: Any) -> None:
        with pytest.raises(InvalidQueryError):
            Checkpoint.parse(text)

    def test_it_is_a_value(self, store: EventStore) -> None:
        store.append(note())
        checkpoint: Any = store.checkpoint()

        assert checkpoint == store.checkpoint()
        assert hash(checkpoint) == hash(store.checkpoint())
        with pytest.raises(AttributeError):
            checkpoint.sequence = 5

    def test_the_log_id_is_the_same_for_every_store_of_the_log(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        assert open_another().log_id == store.log_id
        assert isinstance(store.log_id, str)
        assert store.log_id

    # --- Where it fits

    def test_a_consumer_goes_on_where_it_stood(self, store: EventStore) -> None:
        store.append_batch(notes(5))
        seen: list[int] = []
        kept = str(Checkpoint(store.log_id, 0, None))

        while page := store.get_events_since(Checkpoint.parse(kept), limit=2):
            seen += sequences(page)
            kept = str(store.checkpoint(page[-1]))

        assert seen == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("how", sorted(RESUME))
    def test_a_checkpoint_at_any_event_fits(self, store: EventStore, how: str) -> None:
        events = store.append_batch(notes(3))

        for position in (Checkpoint(store.log_id, 0, None), *map(store.checkpoint, events)):
            RESUME[how](store, position)

        assert store.get_current_sequence() == (7 if how == "condition.after" else 3)

    def test_it_fits_after_the_log_was_reopened(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        require(store, Capability.PERSISTENT)
        first, second = store.append_batch(notes(2))
        checkpoint = store.checkpoint(first)
        store.close()

        assert open_another().get_events_since(checkpoint) == [second]

    # --- Where it does not

    @pytest.mark.parametrize("how", sorted(RESUME))
    def test_one_from_another_log_raises(self, store: EventStore, how: str) -> None:
        first = store.append(note())

        for foreign in (
            Checkpoint("another", 1, first.event_id),
            Checkpoint("another", 0, None),
        ):
            with pytest.raises(CheckpointError):
                RESUME[how](store, foreign)

        assert store.get_current_sequence() == 1

    @pytest.mark.parametrize("how", sorted(RESUME))
    def test_one_at_which_another_event_stands_raises(self, store: EventStore, how: str) -> None:
        store.append_batch(notes(2))

        with pytest.raises(CheckpointError):
            RESUME[how](store, Checkpoint(store.log_id, 1, uuid4()))

        assert store.get_current_sequence() == 2

    @pytest.mark.parametrize("how", sorted(RESUME))
    def test_one_beyond_the_head_raises(self, store: EventStore, how: str) -> None:
        first = store.append(note())

        with pytest.raises(CheckpointError):
            RESUME[how](store, Checkpoint(store.log_id, 2, first.event_id))

        assert store.get_current_sequence() == 1

    @pytest.mark.parametrize("how", sorted(RESUME))
    @pytest.mark.parametrize("beyond", [3, 1000, 2**63 - 1])
    def test_a_bare_number_beyond_the_head_raises(
        self, store: EventStore, how: str, beyond: int
    ) -> None:
        store.append_batch(notes(2))

        with pytest.raises(CheckpointError, match=str(beyond)):
            RESUME[how](store, beyond)

        assert store.get_current_sequence() == 2

    @pytest.mark.parametrize("how", sorted(RESUME))
    def test_a_bare_number_beyond_an_empty_log_raises(self, store: EventStore, how: str) -> None:
        with pytest.raises(CheckpointError):
            RESUME[how](store, 1)

        RESUME[how](store, 0)

    def test_a_log_that_was_dropped_and_made_anew_is_another_log(
        self, store: EventStore, harness: Harness, namespace: str, open_another: OpenAnother
    ) -> None:
        event = note()
        store.append(event)
        checkpoint = store.checkpoint()
        store.close()
        harness.drop(namespace)

        anew = open_another()
        assert stored(anew) == []
        anew.append(event)  # the same event at the same sequence, in another log

        assert anew.log_id != checkpoint.log_id
        with pytest.raises(CheckpointError):
            anew.get_events_since(checkpoint)

    def test_a_log_made_anew_under_an_open_store_is_refused(
        self, store: EventStore, harness: Harness, namespace: str, open_another: OpenAnother
    ) -> None:
        # Given a store of a log that somebody dropped, and made anew
        store.append_batch(notes(2))
        old = store.checkpoint()
        harness.drop(namespace)
        anew = open_another()
        anew.append_batch(notes(3))

        # When the store goes on, then it is told, and nothing of it is in the new log
        with pytest.raises(LogReplacedError):
            store.append(note())
        with pytest.raises(LogReplacedError):
            store.append_batch(notes(2), condition=AppendCondition(EventQuery(entity_type="x")))
        with pytest.raises(LogReplacedError):
            store.get_current_sequence()
        with pytest.raises(LogReplacedError):
            list(store.get_events())
        for position in (old, Checkpoint(old.log_id, 0, None)):
            with pytest.raises(LogReplacedError):
                store.get_events_since(position)
            with pytest.raises(LogReplacedError):
                store.wait_for_events(position, timeout=0)
        with pytest.raises(LogReplacedError):
            store.checkpoint()
        assert len(stored(anew)) == 3

    def test_a_query_may_begin_after_a_checkpoint(self, store: EventStore) -> None:
        recorded = store.append_batch(notes(4))
        query = EventQuery(from_sequence=store.checkpoint(recorded[1]))

        assert sequences(stored(store, query)) == [3, 4]
        assert sequences(stored(store, query.replace(ascending=False, limit=1))) == [4]
        assert store.count_events(query) == 2
        assert store.wait_for_events(0, timeout=0, query=query)
        assert not query.matches(recorded[1])
        assert query.matches(recorded[2])
        with pytest.raises(ConditionFailedError):
            store.append(note(), condition=AppendCondition(query))
        start = EventQuery(from_sequence=Checkpoint(store.log_id, 0, None))
        assert sequences(stored(store, start)) == [1, 2, 3, 4]

    @pytest.mark.parametrize("how", sorted(BEGIN))
    def test_a_query_verifies_the_checkpoint_that_it_begins_after(
        self, store: EventStore, how: str
    ) -> None:
        store.append_batch(notes(3))
        at = store.checkpoint()
        BEGIN[how](store, at)
        misfits = [
            Checkpoint(at.log_id, at.sequence, uuid4()),
            Checkpoint(at.log_id, at.sequence + 5, at.event_id),
            Checkpoint("another-log", at.sequence, at.event_id),
            Checkpoint("another-log", 0, None),
        ]

        for misfit in misfits:
            with pytest.raises(CheckpointError):
                BEGIN[how](store, misfit)

    def test_the_bounds_of_a_query_are_filters_and_do_not_raise(self, store: EventStore) -> None:
        store.append(note())

        assert stored(store, EventQuery(from_sequence=50)) == []
        assert store.count_events(EventQuery(from_sequence=50, to_sequence=60)) == 0
