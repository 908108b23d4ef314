"""Names, tags, numbers and times are kept and found exactly as they are (G9)."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from eventstore import Entity, Event, EventQuery, EventStore
from eventstore.testing.conformance.base import Conformance, note, read_back, stored

NAMES = [
    "x",
    " ",
    " padded ",
    "Å",
    "日本語",
    "🦆🦆",
    "e\u0301",
    "\u00e9",
    "UPPER",
    "upper",
    "o'reilly",
    'say "hi"',
    "back\\slash",
    "100%",
    "a_b",
    "a.b",
    "$ne",
    "{tag}",
    "a:b",
    "a|b",
    "a,b",
    "a/b",
    "*",
    "?",
    "[a]",
    "1",
    "0",
    "-",
    "null",
    "\t",
    "\n",
    "\x01",
    "\x7f",
    "\uffff",
    "'; DROP TABLE events; --",
    "x" * 255,
    "é" * 127 + "x",
    "🦆" * 63,
]


class NameAndTimeTests(Conformance):
    # --- Names

    @pytest.mark.parametrize("name", NAMES, ids=ascii)
    def test_a_name_is_kept_and_found_byte_by_byte(self, store: EventStore, name: str) -> None:
        event = Event(
            event_type=name,
            entity_type=name,
            entity_id=name,
            workflow_id=name,
            tenant_id=name,
            tags=(name,),
        )
        recorded = store.append(event)
        # Neighbours that a sloppy comparison would take for it.
        for near in {name.swapcase(), name + " ", name.strip(), unicodedata.normalize("NFC", name)}:
            if near != name and near and len(near.encode()) <= 255:
                store.append(
                    event.replace(
                        event_id=note().event_id,
                        event_type=near,
                        entity_type=near,
                        entity_id=near,
                        workflow_id=near,
                        tenant_id=near,
                        tags=(near,),
                    )
                )

        for query in (
            EventQuery(event_types=[name]),
            EventQuery(entity_type=name),
            EventQuery(entity_id=name),
            EventQuery(workflow_id=name),
            EventQuery(tenant_id=name),
            EventQuery(tags=[name]),
        ):
            assert stored(store, query) == [recorded], query
            assert store.count_events(query) == 1
        assert store.get_events_for_entity(name, name, tenant_id=name) == [recorded]
        assert store.get_events_for_workflow(name) == [recorded]
        assert store.get_current_version(name, name, tenant_id=name) == 1
        assert store.list_entities(name, tenant_id=name) == [Entity(name, name, name)]
        assert store.for_tenant(name).get_event_by_id(event.event_id) == recorded

    def test_names_that_differ_in_bytes_are_different_entities(self, store: EventStore) -> None:
        for name in NAMES:
            assert store.append(note(name)).version == 1

        assert len(store.list_entities("note", limit=1000)) == len(NAMES)

    def test_parts_of_a_name_do_not_run_into_each_other(self, store: EventStore) -> None:
        entities = [
            Entity("a", "b:c"),
            Entity("a:b", "c"),
            Entity("a", "b", "c"),
            Entity("c", "a", "b"),
            Entity("a|b", "c"),
            Entity("a", "b|c"),
            Entity("a\x1fb", "c"),
            Entity("a", "b\x1fc"),
            Entity("1:a", "b"),
            Entity("1", "a:b"),
        ]
        for entity_type, entity_id, tenant_id in entities:
            event = note(entity_id, entity_type=entity_type, tenant_id=tenant_id)
            assert store.append(event, expected_version=0).version == 1

        assert store.list_entities() == entities[::-1]

    def test_tags_keep_their_order_and_repetitions(self, store: EventStore) -> None:
        read = read_back(store, note(tags=("b", "a", "b")))

        assert read.tags == ("b", "a", "b")
        assert stored(store, EventQuery(tags=["b"])) == [read]
        assert store.count_events(EventQuery(tags=["b", "a", "b"])) == 1

    def test_tags_may_be_any_collection_and_are_read_as_a_tuple(self, store: EventStore) -> None:
        as_list: Any = ["b", "a"]
        as_set: Any = {"only"}

        assert read_back(store, note(tags=as_list)).tags == ("b", "a")
        assert read_back(store, note(tags=as_set)).tags == ("only",)

    def test_an_event_may_have_hundreds_of_tags(self, store: EventStore) -> None:
        tags = tuple(f"tag-{n}" for n in range(300))

        read = read_back(store, note(tags=tags))

        assert read.tags == tags
        assert stored(store, EventQuery(tags=[tags[0], tags[299], tags[150]])) == [read]

    # --- Numbers and times

    @pytest.mark.parametrize("schema_version", [1, 2, 1000, 2**31 - 1])
    def test_the_schema_version_is_kept(
        self, shared_store: EventStore, schema_version: int
    ) -> None:
        read = read_back(shared_store, note(schema_version=schema_version))

        assert read.schema_version == schema_version

    @pytest.mark.parametrize(
        "timestamp",
        [
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(1900, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
            datetime(2024, 2, 29, 12, 30, 45, 123_456, tzinfo=UTC),
            datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
            datetime(2262, 4, 12, tzinfo=UTC),
            datetime(9000, 6, 1, 0, 0, 0, 1, tzinfo=UTC),
        ],
        ids=str,
    )
    def test_a_timestamp_is_kept_to_the_microsecond(
        self, store: EventStore, timestamp: datetime
    ) -> None:
        read = read_back(store, note(timestamp=timestamp))

        assert read.timestamp == timestamp
        assert read.timestamp.tzinfo is UTC
        at_that_time = EventQuery(from_timestamp=timestamp, to_timestamp=timestamp)
        assert stored(store, at_that_time) == [read]

    @pytest.mark.parametrize("hours", [-12, -3.5, 5.75, 14])
    def test_a_time_of_another_zone_is_returned_in_utc(
        self, store: EventStore, hours: float
    ) -> None:
        zone = timezone(timedelta(hours=hours))
        timestamp = datetime(2024, 7, 1, 3, 4, 5, 678_901, tzinfo=zone)

        read = read_back(store, note(timestamp=timestamp))

        assert read.timestamp == timestamp
        assert read.timestamp.tzinfo is UTC
        assert read.timestamp.isoformat() == timestamp.astimezone(UTC).isoformat()

    def test_times_a_microsecond_apart_are_kept_apart(self, store: EventStore) -> None:
        for base in (
            datetime(2024, 1, 1, tzinfo=UTC),
            datetime(9999, 1, 1, tzinfo=UTC),
            datetime(1, 1, 1, tzinfo=UTC),
        ):
            times = [base + timedelta(microseconds=n) for n in range(3)]
            for time in times:
                store.append(note(timestamp=time))

            found = stored(store, EventQuery(from_timestamp=times[1], to_timestamp=times[1]))
            assert [event.timestamp for event in found] == [times[1]]
