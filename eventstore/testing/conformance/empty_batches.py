"""A batch without events: what is expected and conditions are checked, and nothing is written."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from eventstore import (
    AppendCondition,
    AppendResult,
    Capability,
    Checkpoint,
    CheckpointError,
    ConditionFailedError,
    Entity,
    EventQuery,
    EventStore,
    ExpectedVersion,
    InvalidEventError,
    VersionConflictError,
)
from eventstore.testing.conformance.base import (
    Conformance,
    assert_log_is_sound,
    note,
    notes,
    require,
)
from eventstore.testing.conformance.crews import in_threads
from eventstore.testing.conformance.harness import Harness

A = Entity("note", "a")

HOLDS: list[dict[Any, int]] = [
    {A: 2},
    {("note", "a"): 2},
    {A: ExpectedVersion.STREAM_EXISTS},
    {A: ExpectedVersion.ANY},
    {("note", "b"): 0, A: 2},
    {("note", "b"): ExpectedVersion.NO_STREAM},
    {Entity("note", "a", "acme"): 1},
    {},
]
FAILS: list[tuple[dict[Any, int], int]] = [
    ({A: 1}, 2),
    ({A: 3}, 2),
    ({A: ExpectedVersion.NO_STREAM}, 2),
    ({("note", "b"): ExpectedVersion.STREAM_EXISTS}, 0),
    ({("note", "b"): 1}, 0),
    ({("note", "b"): 0, A: 1}, 2),
    ({Entity("note", "a", "acme"): 2}, 1),
]


class EmptyBatchTests(Conformance):
    @pytest.fixture
    def filled(self, store: EventStore) -> EventStore:
        """Three events: versions 1 and 2 of an entity, and one of a tenant's."""
        store.append_batch(notes(2, "a", tags=("seen",)))
        store.append(note("a", tenant_id="acme"))
        return store

    @pytest.mark.parametrize("expected", HOLDS, ids=repr)
    def test_what_is_expected_and_holds_passes(
        self, filled: EventStore, expected: dict[Any, int]
    ) -> None:
        result = filled.append_batch([], expected_version=expected)

        assert result == AppendResult()
        assert (result.sequences, result.replayed) == ((), False)
        assert filled.get_current_sequence() == 3

    @pytest.mark.parametrize(("expected", "actual"), FAILS, ids=repr)
    def test_what_is_expected_and_does_not_hold_raises_as_in_any_append(
        self, filled: EventStore, expected: dict[Any, int], actual: int
    ) -> None:
        with pytest.raises(VersionConflictError) as empty:
            filled.append_batch([], expected_version=expected)
        with pytest.raises(VersionConflictError) as full:
            filled.append_batch([note("other")], expected_version=expected)

        assert str(empty.value) == str(full.value)
        assert empty.value.actual_version == actual
        assert filled.get_current_sequence() == 3

    @pytest.mark.parametrize("expected", [0, 2, ExpectedVersion.STREAM_EXISTS])
    def test_a_number_names_no_entity_and_is_refused(
        self, filled: EventStore, expected: int
    ) -> None:
        with pytest.raises(InvalidEventError, match=r"expected_version: .*mapping"):
            filled.append_batch([], expected_version=expected)

        assert filled.append_batch([], expected_version=ExpectedVersion.ANY) == AppendResult()

    def test_a_condition_is_checked(self, filled: EventStore) -> None:
        seen = EventQuery(tags=["seen"])

        for holds in (
            AppendCondition(EventQuery(tags=["unseen"])),
            AppendCondition(seen, after=2),
            AppendCondition(seen, after=filled.checkpoint()),
            AppendCondition(EventQuery(), after=3),
        ):
            assert filled.append_batch([], condition=holds) == AppendResult()
        condition = AppendCondition(seen, after=1)
        with pytest.raises(ConditionFailedError) as caught:
            filled.append_batch([], condition=condition)

        assert (caught.value.condition, caught.value.sequence) == (condition, 2)
        assert filled.get_current_sequence() == 3

    def test_what_is_expected_and_a_condition_must_both_hold(self, filled: EventStore) -> None:
        holds, fails = AppendCondition(EventQuery(tags=["no"])), AppendCondition(EventQuery())

        assert filled.append_batch([], expected_version={A: 2}, condition=holds) == AppendResult()
        with pytest.raises(VersionConflictError):
            filled.append_batch([], expected_version={A: 1}, condition=holds)
        with pytest.raises(ConditionFailedError):
            filled.append_batch([], expected_version={A: 2}, condition=fails)

    def test_a_position_that_does_not_fit_the_log_raises(self, filled: EventStore) -> None:
        event_id = note().event_id
        for after in (
            4,
            Checkpoint("another", 1, event_id),
            Checkpoint(filled.log_id, 1, event_id),
        ):
            with pytest.raises(CheckpointError):
                filled.append_batch([], condition=AppendCondition(EventQuery(), after=after))

    def test_a_view_checks_its_own_tenant(self, filled: EventStore) -> None:
        view = filled.for_tenant("acme")

        assert view.append_batch([], expected_version={A: 1}) == AppendResult()
        assert (
            view.append_batch([], condition=AppendCondition(EventQuery(tags=["seen"])))
            == AppendResult()
        )
        with pytest.raises(VersionConflictError):
            view.append_batch([], expected_version={A: 2})

    def test_an_empty_log_can_be_checked(self, store: EventStore) -> None:
        condition = AppendCondition(EventQuery(), after=0)

        assert (
            store.append_batch([], expected_version={A: 0}, condition=condition) == AppendResult()
        )
        with pytest.raises(VersionConflictError):
            store.append_batch([], expected_version={A: 1}, condition=condition)
        assert store.append(note()).sequence == 1

    def test_checks_beside_appends_use_nothing_up_and_see_whole_batches(
        self, store: EventStore
    ) -> None:
        """Two entities are always written together, so they are never seen at two versions."""
        pair = ("note", "a"), ("note", "b")
        told: list[VersionConflictError] = []

        written = threading.Event()

        def write() -> None:
            try:
                for version in range(20):
                    expected = dict.fromkeys(pair, version)
                    store.append_batch([note("a"), note("b")], expected_version=expected)
            finally:
                written.set()

        def check() -> None:
            version, is_last = 0, False
            while not is_last:
                is_last = written.is_set()
                try:
                    store.append_batch([], expected_version=dict.fromkeys(pair, version))
                except VersionConflictError as conflict:
                    told.append(conflict)
                    version = conflict.actual_version

        in_threads(lambda role: role(), [(write,), (check,), (check,)])

        assert len(assert_log_is_sound(store)) == 40
        assert {conflict.entity_id for conflict in told} == {"a"}, "the first tells of both"
        assert all(conflict.actual_version > conflict.expected_version for conflict in told)

    def test_one_that_joins_a_transaction_sees_what_that_holds(
        self, harness: Harness, store: EventStore, namespace: str
    ) -> None:
        require(store, Capability.JOIN_TRANSACTION)
        joins = harness.joins
        assert joins is not None
        with joins.connect(namespace) as connection:
            # Given: an event that only the transaction sees
            joins.begin(connection)
            first = store.append(note("a"), connection=connection)

            # When, then
            own = AppendCondition(EventQuery(entity_id="a"), after=first.sequence)
            result = store.append_batch(
                [], expected_version={A: 1}, condition=own, connection=connection
            )
            assert result == AppendResult()
            assert store.append(note("a"), connection=connection).version == 2
            joins.commit(connection)
            assert_log_is_sound(store)

            joins.begin(connection)
            with pytest.raises(VersionConflictError):
                store.append_batch([], expected_version={A: 1}, connection=connection)
            joins.rollback(connection)
        assert store.append(note("a")).sequence == 3
