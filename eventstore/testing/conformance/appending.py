"""Append and append_batch: what comes back, and where it stands in the log (G1, G2, G4)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import pytest

from eventstore import AppendResult, BatchTooLargeError, Entity, Event, EventQuery, EventStore
from eventstore.testing.conformance.base import (
    Conformance,
    OpenAnother,
    assert_log_is_sound,
    ids,
    note,
    notes,
    sequences,
    stored,
)


class _Kind(Enum):
    ORDER = "order"
    PLACED = "OrderPlaced"
    FIRST = "o-1"
    RUN = "run-1"
    URGENT = "urgent"
    ACME = "acme"


class AppendTests(Conformance):
    # --- One event

    def test_first_event_is_at_sequence_one_and_version_one(self, store: EventStore) -> None:
        recorded = store.append(note())

        assert (recorded.sequence, recorded.version, recorded.batch_sequence) == (1, 1, 1)
        assert recorded.recorded_at is not None
        assert recorded.recorded_at.tzinfo is UTC

    def test_append_returns_what_was_given_and_what_the_store_assigned(
        self, store: EventStore
    ) -> None:
        given = Event(
            event_type="OrderPlaced",
            entity_type="order",
            entity_id="o-1",
            data={"total": 42},
            workflow_id="checkout-7",
            tenant_id="acme",
            tags=("urgent", "paper"),
            metadata={"correlation_id": "c-1"},
            schema_version=3,
            timestamp=datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
        )

        recorded = store.append(given)

        assert recorded == given.replace(
            sequence=1, version=1, batch_sequence=1, recorded_at=recorded.recorded_at
        )

    def test_an_appended_event_is_read_as_it_was_returned(self, store: EventStore) -> None:
        recorded = store.append(note(tags=("a",), data={"x": [1, 2.5, None]}))

        assert stored(store) == [recorded]
        assert store.get_event_by_id(recorded.event_id) == recorded
        assert store.event_exists(recorded.event_id)

    def test_fields_left_out_have_their_defaults(self, store: EventStore) -> None:
        before = datetime.now(UTC)
        store.append(Event(event_type="Noted", entity_type="note", entity_id="n-1"))
        after = datetime.now(UTC)

        (event,) = stored(store)
        assert (event.data, event.metadata, event.tags) == ({}, {}, ())
        assert (event.workflow_id, event.tenant_id, event.schema_version) == (None, "", 1)
        assert before <= event.timestamp <= after
        assert event.event_id.version == 7

    def test_the_given_event_is_left_as_it_was(self, store: EventStore) -> None:
        given = note(data={"n": 1})
        copy = given.replace()

        store.append(given)

        assert given == copy
        assert (given.sequence, given.version, given.recorded_at) == (0, 0, None)

    def test_sequences_run_from_one_without_gaps(self, store: EventStore) -> None:
        appended = [store.append(note(f"n-{n % 3}")) for n in range(7)]

        assert sequences(appended) == [1, 2, 3, 4, 5, 6, 7]
        assert assert_log_is_sound(store) == appended

    def test_recorded_at_is_the_time_of_the_append_and_never_goes_back(
        self, store: EventStore
    ) -> None:
        recorded = [store.append(note()).recorded_at for _ in range(20)]

        times = [time for time in recorded if time is not None]
        assert times == sorted(times)
        assert len(times) == 20
        # The clock may be a server's, so only roughly this one.
        assert abs(times[0] - datetime.now(UTC)) < timedelta(hours=12)

    def test_recorded_at_does_not_depend_on_when_the_event_happened(
        self, store: EventStore
    ) -> None:
        old = store.append(note(timestamp=datetime(1815, 6, 18, tzinfo=UTC)))
        future = store.append(note(timestamp=datetime(2815, 6, 18, tzinfo=UTC)))

        assert old.recorded_at is not None
        assert future.recorded_at is not None
        assert old.recorded_at <= future.recorded_at < datetime(2815, 1, 1, tzinfo=UTC)

    @pytest.mark.parametrize(
        "event_id",
        [
            UUID(int=0),
            UUID(int=2**128 - 1),
            UUID(int=1),
            UUID("018bcfe5-6800-7abc-8def-0123456789ab"),
            UUID("018bcfe5-6800-f4a1-c0f3-a1d2b4c6e7f8"),
            uuid4(),
        ],
        ids=["nil", "max", "one", "uuid7", "ulid", "uuid4"],
    )
    def test_any_128_bits_are_an_event_id(self, store: EventStore, event_id: UUID) -> None:
        store.append(note(event_id=event_id))

        found = store.get_event_by_id(event_id)
        assert found is not None
        assert found.event_id == event_id
        assert type(found.event_id) is UUID

    def test_enum_members_with_a_text_value_are_accepted_as_names(self, store: EventStore) -> None:
        fields: dict[str, Any] = {
            "event_type": _Kind.PLACED,
            "entity_type": _Kind.ORDER,
            "entity_id": _Kind.FIRST,
            "workflow_id": _Kind.RUN,
            "tenant_id": _Kind.ACME,
            "tags": [_Kind.URGENT],
        }

        store.append(Event(**fields))

        (event,) = stored(store)
        assert event.entity == Entity("order", "o-1", "acme")
        assert (event.event_type, event.workflow_id, event.tags) == (
            "OrderPlaced",
            "run-1",
            ("urgent",),
        )
        assert type(event.event_type) is type(event.entity_id) is str

    def test_enum_members_are_accepted_where_reads_take_names(self, store: EventStore) -> None:
        recorded = store.append(
            Event(
                event_type="OrderPlaced",
                entity_type="order",
                entity_id="o-1",
                workflow_id="run-1",
                tenant_id="acme",
                tags=("urgent",),
            )
        )
        kind: Any = _Kind

        query = EventQuery(
            entity_type=kind.ORDER,
            entity_id=kind.FIRST,
            workflow_id=kind.RUN,
            tenant_id=kind.ACME,
            event_types=[kind.PLACED],
            tags=[kind.URGENT],
        )

        assert stored(store, query) == [recorded]
        read = store.get_events_for_entity(kind.ORDER, kind.FIRST, tenant_id=kind.ACME)
        assert read == [recorded]
        assert store.get_events_for_workflow(kind.RUN) == [recorded]
        assert store.get_current_version(kind.ORDER, kind.FIRST, tenant_id=kind.ACME) == 1
        assert store.list_entities(kind.ORDER) == [Entity("order", "o-1", "acme")]
        assert store.for_tenant(kind.ACME).count_events() == 1

    # --- Batches

    def test_a_batch_is_contiguous_and_in_the_order_given(self, store: EventStore) -> None:
        store.append(note("before"))
        batch = notes(5)

        result = store.append_batch(batch)

        assert result.sequences == (2, 3, 4, 5, 6)
        assert ids(result) == ids(batch)
        assert ids(stored(store))[1:] == ids(batch)

    def test_every_event_tells_where_its_batch_began(self, store: EventStore) -> None:
        store.append_batch(notes(3))
        store.append(note())
        store.append_batch(notes(2))

        assert [event.batch_sequence for event in stored(store)] == [1, 1, 1, 4, 5, 5]

    def test_a_batch_over_several_entities_continues_the_versions_of_each(
        self, store: EventStore
    ) -> None:
        store.append_batch([note("a"), note("b"), note("a")])

        result = store.append_batch([note("b"), note("a"), note("c"), note("b")])

        assert [(event.entity_id, event.version) for event in result] == [
            ("b", 2),
            ("a", 3),
            ("c", 1),
            ("b", 3),
        ]
        assert_log_is_sound(store)

    def test_an_empty_batch_returns_an_empty_result_and_stores_nothing(
        self, store: EventStore
    ) -> None:
        store.append(note())

        result = store.append_batch([])

        assert (result.events, result.sequences) == ((), ())
        assert (result.first_sequence, result.last_sequence) == (0, 0)
        assert (len(result), list(result), bool(result)) == (0, [], False)
        assert result.replayed is False
        assert store.get_current_sequence() == 1

    def test_an_empty_batch_uses_no_sequence_up(self, store: EventStore) -> None:
        store.append_batch([])

        assert store.append(note()).sequence == 1

    def test_a_batch_of_one_is_an_append(self, store: EventStore) -> None:
        result = store.append_batch([note()])

        assert result.events == tuple(stored(store))
        assert (result.first_sequence, result.last_sequence) == (1, 1)

    def test_a_batch_may_be_any_sequence_of_events(self, store: EventStore) -> None:
        store.append_batch(tuple(notes(2)))
        store.append_batch([note()])

        assert store.get_current_sequence() == 3

    def test_a_batch_of_thousands_is_stored_whole(self, store: EventStore) -> None:
        batch = [
            note(f"n-{n % 7}", data={"n": n}, tags=(f"t-{n % 11}", "all")) for n in range(5000)
        ]

        result = store.append_batch(batch)

        assert result.sequences == tuple(range(1, 5001))
        events = assert_log_is_sound(store)
        assert [event.data["n"] for event in events] == list(range(5000))
        assert {event.batch_sequence for event in events} == {1}
        assert store.count_events(EventQuery(tags=["t-3"])) == len(range(3, 5000, 11))

    def test_many_events_of_one_entity_in_a_batch_have_dense_versions(
        self, store: EventStore
    ) -> None:
        result = store.append_batch(notes(1200))

        assert [event.version for event in result] == list(range(1, 1201))
        assert store.get_current_version("note", "n-1") == 1200

    def test_a_megabyte_of_data_is_stored(self, store: EventStore) -> None:
        text = "0123456789abcdeé" * 65_536

        store.append(note(data={"text": text}))

        (event,) = stored(store)
        assert event.data == {"text": text}

    def test_a_huge_batch_is_stored_whole_or_refused_before_anything_is_written(
        self, store: EventStore
    ) -> None:
        batch = [note(data={"text": "x" * 1_000_000}) for _ in range(20)]
        try:
            store.append_batch(batch)
        except BatchTooLargeError:
            assert store.get_current_sequence() == 0
        else:
            assert [len(event.data["text"]) for event in stored(store)] == [1_000_000] * 20
        assert store.append(note()).sequence in (1, 21)

    # --- AppendResult

    def test_the_result_is_a_sequence_of_the_recorded_events(self, store: EventStore) -> None:
        batch = notes(4)

        result = store.append_batch(batch)

        first, second, third, fourth = stored(store)
        assert isinstance(result, AppendResult)
        assert isinstance(result, Sequence)
        assert len(result) == 4
        assert result.events == (first, second, third, fourth)
        assert list(result) == [first, second, third, fourth]
        assert (result[0], result[-1]) == (first, fourth)
        assert tuple(result[1:3]) == (second, third)
        assert list(reversed(result)) == [fourth, third, second, first]
        assert second in result
        assert note() not in result
        assert (result.index(third), result.count(third)) == (2, 1)
        with pytest.raises(IndexError):
            result[4]

    def test_the_result_tells_sequences_and_bounds(self, store: EventStore) -> None:
        store.append(note())

        result = store.append_batch(notes(3))

        assert result.sequences == (2, 3, 4)
        assert (result.first_sequence, result.last_sequence) == (2, 4)
        assert result.replayed is False

    def test_the_result_cannot_be_changed(self, store: EventStore) -> None:
        result: Any = store.append_batch(notes(2))

        for attribute in ("events", "sequences", "first_sequence", "last_sequence", "replayed"):
            with pytest.raises(AttributeError):
                setattr(result, attribute, None)
        with pytest.raises(TypeError):
            result[0] = note()
        with pytest.raises(TypeError):
            del result[0]
        assert isinstance(result.events, tuple)
        assert isinstance(result.sequences, tuple)
        assert result.sequences == (1, 2)

    def test_the_result_stays_as_it_was_when_the_log_goes_on(self, store: EventStore) -> None:
        result = store.append_batch(notes(2))
        store.append_batch(notes(3))

        assert result.sequences == (1, 2)
        assert [event.version for event in result.events] == [1, 2]

    def test_an_event_cannot_be_assigned_to(self, store: EventStore) -> None:
        recorded: Any = store.append(note())

        with pytest.raises(AttributeError):
            recorded.entity_id = "other"

    def test_events_are_equal_by_value_and_hashed_by_id(self, store: EventStore) -> None:
        recorded = store.append(note(data={"a": [1]}))
        read = store.get_event_by_id(recorded.event_id)

        assert read is not None
        assert read == recorded
        assert hash(read) == hash(recorded)
        assert {recorded: "found"}[read] == "found"
        assert read != recorded.replace(data={"a": [2]})

    def test_replace_and_as_new_give_copies(self, store: EventStore) -> None:
        recorded = store.append(note(data={"a": 1}))

        changed = recorded.replace(entity_id="other")
        fresh = recorded.as_new()

        assert (changed.entity_id, changed.sequence) == ("other", 1)
        assert recorded.entity_id == "n-1"
        assert fresh.event_id != recorded.event_id
        assert (fresh.sequence, fresh.version, fresh.batch_sequence) == (0, 0, 0)
        assert (fresh.recorded_at, fresh.data) == (None, {"a": 1})
        assert store.append(fresh).sequence == 2

    # --- Seen by others

    def test_a_returned_append_is_seen_by_every_store_of_the_log(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        other = open_another()

        for n in range(1, 30):
            writer, reader = (store, other) if n % 2 else (other, store)
            recorded = writer.append(note())
            assert recorded.sequence == n
            assert reader.get_current_sequence() == n
            assert reader.get_events_since(n - 1) == [recorded]
            assert reader.get_current_version("note", "n-1") == n
            assert reader.event_exists(recorded.event_id)
            assert reader.count_events() == n
