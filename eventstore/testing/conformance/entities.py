"""Entities and workflows: what there is, and the life of each."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import Entity, EventStore, StoreClosedError
from eventstore.testing.conformance.base import Conformance, note, notes, sequences


class EntityTests(Conformance):
    # --- The events of one entity

    def test_events_of_an_entity_come_in_order_of_their_versions(self, store: EventStore) -> None:
        store.append_batch([note("a"), note("b"), note("a")])
        store.append_batch([note("b"), note("a")])

        events = store.get_events_for_entity("note", "a")

        assert [(event.sequence, event.version) for event in events] == [(1, 1), (3, 2), (5, 3)]
        assert {event.entity for event in events} == {Entity("note", "a")}

    @pytest.mark.parametrize(
        ("after", "expected"),
        [(0, [1, 2, 3, 4]), (1, [2, 3, 4]), (3, [4]), (4, []), (5, []), (2**63 - 1, [])],
    )
    def test_from_version_is_exclusive(
        self, store: EventStore, after: int, expected: list[int]
    ) -> None:
        store.append_batch(notes(2, "a") + notes(3, "b") + notes(2, "a"))

        events = store.get_events_for_entity("note", "a", after)

        assert [event.version for event in events] == expected
        assert store.get_events_for_entity("note", "a", from_version=after) == events

    def test_an_unknown_entity_has_no_events(self, store: EventStore) -> None:
        store.append(note("a"))

        assert store.get_events_for_entity("note", "b") == []
        assert store.get_events_for_entity("memo", "a") == []
        assert store.get_events_for_entity("note", "a", tenant_id="acme") == []

    def test_an_entity_without_a_tenant_is_not_that_of_any_tenant(self, store: EventStore) -> None:
        own = store.append(note("a"))
        acme = store.append(note("a", tenant_id="acme"))

        assert store.get_events_for_entity("note", "a") == [own]
        assert store.get_events_for_entity("note", "a", tenant_id="acme") == [acme]
        assert (own.version, acme.version) == (1, 1)

    def test_a_long_life_is_read_whole(self, store: EventStore) -> None:
        store.append_batch([note(("a", "b")[n % 2]) for n in range(2600)])

        events = store.get_events_for_entity("note", "a")

        assert [event.version for event in events] == list(range(1, 1301))
        assert len(store.get_events_for_entity("note", "a", 1299)) == 1

    # --- Backwards, up to a version, at most so many

    @pytest.mark.parametrize("ascending", [True, False])
    @pytest.mark.parametrize("from_version", [0, 1, 3, 4, 9, 2**63 - 1])
    def test_every_window_of_an_entity_is_that_part_of_its_life(
        self, store: EventStore, from_version: int, ascending: bool
    ) -> None:
        # Given: an entity of four versions among others
        for _ in range(4):
            store.append_batch([note(each) for each in ("b", "a", "c")])
        life = [1, 2, 3, 4] if ascending else [4, 3, 2, 1]

        for to_version in (None, 0, 1, 3, 4, 5, 9, 2**63 - 1):
            for limit in (None, 0, 1, 2, 3, 4, 7, 2**63 - 1):
                # When
                window: Any = {"to_version": to_version, "limit": limit, "ascending": ascending}
                read = store.get_events_for_entity("note", "a", from_version, **window)

                # Then
                within = [
                    version
                    for version in life
                    if from_version < version and (to_version is None or version <= to_version)
                ]
                assert [event.version for event in read] == within[:limit], window
                assert {event.entity for event in read} <= {Entity("note", "a")}
                assert list(store.iterate_entity("note", "a", from_version, **window)) == read

    def test_a_long_life_is_read_in_any_direction(self, store: EventStore) -> None:
        store.append_batch([note(("a", "b")[n % 2]) for n in range(5000)])

        def versions(**window: Any) -> list[int]:
            read = store.get_events_for_entity("note", "a", **window)
            assert list(store.iterate_entity("note", "a", **window)) == read
            return [event.version for event in read]

        assert versions() == list(range(1, 2501))
        assert versions(ascending=False) == list(range(2500, 0, -1))
        assert versions(ascending=False, limit=1200) == list(range(2500, 1300, -1))
        assert versions(from_version=100, to_version=2300, ascending=False) == list(
            range(2300, 100, -1)
        )
        assert versions(from_version=1200, limit=1100) == list(range(1201, 2301))

    def test_a_window_of_an_unknown_entity_is_empty(self, store: EventStore) -> None:
        store.append(note("a"))

        for ascending in (True, False):
            window: Any = {"to_version": 5, "limit": 5, "ascending": ascending}
            assert store.get_events_for_entity("note", "b", **window) == []
            assert list(store.iterate_entity("note", "b", 1, **window)) == []
            assert list(store.iterate_entity("note", "a", tenant_id="acme", **window)) == []

    @pytest.mark.parametrize("ascending", [True, False])
    def test_an_entity_is_iterated_as_it_stands_at_the_first_next(
        self, store: EventStore, ascending: bool
    ) -> None:
        # Given: more than a page of it
        store.append_batch(notes(450, "a"))
        events = store.iterate_entity("note", "a", ascending=ascending)
        store.append(note("a"))

        # When: every step adds to it
        versions = []
        for event in events:
            versions.append(event.version)
            store.append(note("a"))

        # Then
        assert sorted(versions) == list(range(1, 452))
        assert versions == sorted(versions, reverse=not ascending)

    def test_iterating_an_entity_ends_when_the_store_closes(self, store: EventStore) -> None:
        store.append_batch(notes(450, "a"))
        events = store.iterate_entity("note", "a")
        assert next(events).version == 1

        store.close()

        with pytest.raises(StoreClosedError):
            list(events)
        with pytest.raises(StoreClosedError):
            store.iterate_entity("note", "a")

    # --- The events of one workflow

    def test_events_of_a_workflow_come_in_order_of_their_sequences(self, store: EventStore) -> None:
        store.append_batch(
            [note("a", workflow_id="w"), note("b"), note("c", workflow_id="w")],
        )
        store.append(note("a", workflow_id="v"))
        store.append(note("d", workflow_id="w", tenant_id="acme"))

        assert sequences(store.get_events_for_workflow("w")) == [1, 3, 5]
        assert sequences(store.get_events_for_workflow("w", 1)) == [3, 5]
        assert sequences(store.get_events_for_workflow("w", from_sequence=5)) == []
        assert sequences(store.get_events_for_workflow("w", from_sequence=500)) == []
        assert store.get_events_for_workflow("unknown") == []

    def test_a_workflow_can_be_narrowed_to_a_tenant(self, store: EventStore) -> None:
        store.append(note(workflow_id="w"))
        store.append(note(workflow_id="w", tenant_id="acme"))

        assert sequences(store.get_events_for_workflow("w", tenant_id="acme")) == [2]
        assert sequences(store.get_events_for_workflow("w", tenant_id="")) == [1]
        assert sequences(store.get_events_for_workflow("w")) == [1, 2]

    def test_a_long_workflow_is_read_whole(self, store: EventStore) -> None:
        store.append_batch([note(f"n-{n}", workflow_id="w") for n in range(2500)])

        assert sequences(store.get_events_for_workflow("w")) == list(range(1, 2501))

    # --- What entities there are

    def test_entities_are_listed_newest_first_by_their_first_event(self, store: EventStore) -> None:
        store.append(note("a"))
        store.append_batch([note("b"), note("c"), note("b")])
        store.append(note("a"))
        store.append(note("a", entity_type="memo"))

        assert store.list_entities() == [
            Entity("memo", "a"),
            Entity("note", "c"),
            Entity("note", "b"),
            Entity("note", "a"),
        ]

    def test_a_listed_entity_is_a_named_tuple(self, store: EventStore) -> None:
        store.append(note("a", tenant_id="acme"))

        (entity,) = store.list_entities()

        assert type(entity) is Entity
        assert entity == ("note", "a", "acme")
        assert (entity.entity_type, entity.entity_id, entity.tenant_id) == entity
        assert store.get_events_for_entity(*entity[:2], tenant_id=entity.tenant_id) != []

    def test_entities_can_be_narrowed_to_a_type_and_a_tenant(self, store: EventStore) -> None:
        for entity_type in ("note", "memo"):
            for tenant_id in ("", "acme", "globex"):
                store.append(note("a", entity_type=entity_type, tenant_id=tenant_id))

        assert store.list_entities("memo") == [
            Entity("memo", "a", "globex"),
            Entity("memo", "a", "acme"),
            Entity("memo", "a"),
        ]
        assert store.list_entities(tenant_id="acme") == [
            Entity("memo", "a", "acme"),
            Entity("note", "a", "acme"),
        ]
        assert store.list_entities("note", tenant_id="") == [Entity("note", "a")]
        assert store.list_entities("other") == []
        assert store.list_entities(tenant_id="nobody") == []

    def test_entities_are_listed_in_windows(self, store: EventStore) -> None:
        store.append_batch([note(f"n-{n}") for n in range(250)])
        newest_first = [Entity("note", f"n-{n}") for n in range(249, -1, -1)]

        assert store.list_entities() == newest_first[:100]
        assert store.list_entities(limit=250) == newest_first
        assert store.list_entities(limit=1000) == newest_first
        assert store.list_entities(limit=0) == []
        assert store.list_entities("note", limit=3, offset=248) == newest_first[248:]
        assert store.list_entities(limit=10, offset=250) == []
        assert store.list_entities(limit=7, offset=100, tenant_id="") == newest_first[100:107]

    def test_an_empty_log_has_no_entities(self, store: EventStore) -> None:
        assert store.list_entities() == []
        assert store.get_events_for_entity("note", "a") == []
        assert store.get_current_version("note", "a") == 0
