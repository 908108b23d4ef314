"""Expected versions: checked atomically with the write (G5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from eventstore import Entity, EventStore, ExpectedVersion, VersionConflictError
from eventstore.testing.conformance.base import (
    Conformance,
    assert_log_is_sound,
    note,
    notes,
    stored,
)


class VersionTests(Conformance):
    # --- Of one entity

    @pytest.mark.parametrize("already", [0, 1, 3])
    def test_any_expects_nothing(self, store: EventStore, already: int) -> None:
        store.append_batch(notes(already))

        recorded = store.append(note(), expected_version=ExpectedVersion.ANY)

        assert recorded.version == already + 1

    def test_no_stream_lets_a_first_event_in(self, store: EventStore) -> None:
        recorded = store.append(note(), expected_version=ExpectedVersion.NO_STREAM)

        assert recorded.version == 1

    def test_no_stream_does_not_mind_other_entities(self, store: EventStore) -> None:
        store.append(note("other"))
        store.append(note(entity_type="memo"))

        assert store.append(note(), expected_version=ExpectedVersion.NO_STREAM).version == 1

    def test_stream_exists_lets_a_second_event_in(self, store: EventStore) -> None:
        store.append(note())

        recorded = store.append(note(), expected_version=ExpectedVersion.STREAM_EXISTS)

        assert recorded.version == 2

    @pytest.mark.parametrize("already", [0, 1, 4])
    def test_the_exact_version_is_accepted(self, store: EventStore, already: int) -> None:
        store.append_batch(notes(already))

        assert store.append(note(), expected_version=already).version == already + 1

    @pytest.mark.parametrize(
        ("already", "expected"),
        [
            (0, ExpectedVersion.STREAM_EXISTS),
            (0, 1),
            (1, ExpectedVersion.NO_STREAM),
            (1, 0),
            (2, 1),
            (2, 3),
            (2, 2**63 - 1),
        ],
    )
    def test_another_version_is_a_conflict_that_tells_all(
        self, store: EventStore, already: int, expected: int
    ) -> None:
        store.append_batch(notes(already))

        with pytest.raises(VersionConflictError) as caught:
            store.append(note(), expected_version=expected)

        error = caught.value
        assert (error.entity_type, error.entity_id, error.tenant_id) == ("note", "n-1", "")
        assert (error.expected_version, error.actual_version) == (expected, already)
        assert "n-1" in str(error)

    def test_the_numbers_of_the_named_expectations_are_accepted(self, store: EventStore) -> None:
        store.append(note(), expected_version=-1)
        store.append(note(), expected_version=-2)

        with pytest.raises(VersionConflictError):
            store.append(note(), expected_version=0)
        assert store.get_current_version("note", "n-1") == 2

    def test_a_conflict_stores_nothing_and_uses_no_sequence_up(self, store: EventStore) -> None:
        first = store.append(note())

        for _ in range(3):
            with pytest.raises(VersionConflictError):
                store.append_batch(notes(4), expected_version=7)

        assert stored(store) == [first]
        assert store.get_current_version("note", "n-1") == 1
        assert store.append(note()).sequence == 2

    def test_an_event_refused_for_its_version_can_be_appended_later(
        self, store: EventStore
    ) -> None:
        event = note()
        with pytest.raises(VersionConflictError):
            store.append(event, expected_version=1)
        store.append(note())

        recorded = store.append(event, expected_version=1)

        assert (recorded.event_id, recorded.version) == (event.event_id, 2)

    def test_a_batch_is_checked_at_the_version_before_it(self, store: EventStore) -> None:
        store.append_batch(notes(3), expected_version=0)

        result = store.append_batch(notes(2), expected_version=3)

        assert [event.version for event in result] == [4, 5]
        with pytest.raises(VersionConflictError):
            store.append_batch(notes(2), expected_version=4)

    def test_a_number_is_about_the_entity_in_its_tenant(self, store: EventStore) -> None:
        store.append_batch(notes(2, tenant_id="acme"))

        assert store.append(note(tenant_id="acme"), expected_version=2).version == 3
        assert store.append(note(), expected_version=0).version == 1
        with pytest.raises(VersionConflictError) as caught:
            store.append(note(tenant_id="globex"), expected_version=3)
        assert (caught.value.tenant_id, caught.value.actual_version) == ("globex", 0)

    # --- Of several entities

    def test_a_mapping_expects_of_each_entity_its_own(self, store: EventStore) -> None:
        store.append_batch([note("a"), note("a"), note("b")])

        result = store.append_batch(
            [note("a"), note("b"), note("c")],
            expected_version={
                Entity("note", "a"): 2,
                Entity("note", "b"): ExpectedVersion.STREAM_EXISTS,
                Entity("note", "c"): ExpectedVersion.NO_STREAM,
            },
        )

        assert [event.version for event in result] == [3, 2, 1]

    def test_a_pair_of_names_stands_for_an_entity(self, store: EventStore) -> None:
        store.append(note("a"))

        store.append_batch([note("a")], expected_version={("note", "a"): 1})

        with pytest.raises(VersionConflictError) as caught:
            store.append_batch([note("a")], expected_version={("note", "a"): 1})
        assert (caught.value.entity_id, caught.value.actual_version) == ("a", 2)

    def test_a_pair_of_names_means_the_entity_without_a_tenant(self, store: EventStore) -> None:
        store.append(note("a", tenant_id="acme"))

        store.append_batch([note("a", tenant_id="acme")], expected_version={("note", "a"): 0})

        assert store.get_current_version("note", "a", tenant_id="acme") == 2

    def test_a_mapping_may_name_the_tenant(self, store: EventStore) -> None:
        store.append(note("a", tenant_id="acme"))

        with pytest.raises(VersionConflictError) as caught:
            store.append_batch([note("b")], expected_version={Entity("note", "a", "acme"): 0})

        assert caught.value.tenant_id == "acme"

    def test_a_mapping_may_leave_entities_of_the_batch_out(self, store: EventStore) -> None:
        store.append_batch(notes(5, "b"))

        result = store.append_batch([note("a"), note("b")], expected_version={("note", "a"): 0})

        assert [event.version for event in result] == [1, 6]

    @pytest.mark.parametrize("expected", [0, 1, ExpectedVersion.STREAM_EXISTS])
    def test_a_mapping_may_name_entities_that_the_batch_does_not_write(
        self, store: EventStore, expected: int
    ) -> None:
        entity = Entity("note", "other")
        if expected:
            store.append(note("other"))

        result = store.append_batch([note("a")], expected_version={entity: expected})

        assert len(result) == 1
        assert store.get_current_version("note", "other") == (1 if expected else 0)

    def test_a_conflict_about_an_entity_that_is_not_written_stores_nothing(
        self, store: EventStore
    ) -> None:
        store.append(note("guard"))

        with pytest.raises(VersionConflictError) as caught:
            store.append_batch(notes(2, "a"), expected_version={("note", "guard"): 0})

        assert caught.value.entity_id == "guard"
        assert store.get_current_sequence() == 1

    def test_one_unmet_expectation_of_many_stores_nothing(self, store: EventStore) -> None:
        store.append_batch([note("a"), note("b")])

        with pytest.raises(VersionConflictError) as caught:
            store.append_batch(
                [note("a"), note("b"), note("c")],
                expected_version={("note", "a"): 1, ("note", "b"): 5, ("note", "c"): 0},
            )

        assert (caught.value.entity_id, caught.value.expected_version) == ("b", 5)
        assert store.get_current_sequence() == 2
        assert store.get_current_version("note", "c") == 0

    @pytest.mark.parametrize("mapping", [{}, {Entity("note", "a"): ExpectedVersion.ANY}])
    def test_a_mapping_without_expectations_lets_all_in(
        self, store: EventStore, mapping: Mapping[Any, int]
    ) -> None:
        store.append(note("a"))

        assert store.append(note("a"), expected_version=mapping).version == 2

    def test_append_takes_a_mapping_too(self, store: EventStore) -> None:
        store.append(note("other"))

        recorded = store.append(
            note("a"), expected_version={("note", "other"): 1, ("note", "a"): 0}
        )

        assert recorded.version == 1

    # --- The current version

    def test_the_current_version_counts_the_events_of_the_entity(self, store: EventStore) -> None:
        store.append_batch([note("a"), note("b"), note("a"), note("a", entity_type="memo")])

        assert store.get_current_version("note", "a") == 2
        assert store.get_current_version("note", "b") == 1
        assert store.get_current_version("memo", "a") == 1
        assert store.get_current_version("note", "nobody") == 0

    def test_versions_stay_dense_through_conflicts(self, store: EventStore) -> None:
        for version in range(10):
            with pytest.raises(VersionConflictError):
                store.append(note(), expected_version=version + 1)
            store.append(note(), expected_version=version)

        assert [event.version for event in assert_log_is_sound(store)] == list(range(1, 11))
