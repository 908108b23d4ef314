"""Queries: every field, alone and with others, in both orders and directions.

What is expected is computed by a model written here in plain Python, from the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import AppendCondition, ConditionFailedError, Event, EventQuery, EventStore
from eventstore.testing.conformance.base import Conformance, note, notes, sequences, stored

DAY = datetime(2024, 3, 1, tzinfo=UTC)

# --- The log that is queried: 72 events that mix everything with everything


def _event(n: int) -> Event:
    return Event(
        event_type=("Placed", "Paid", "Sent")[n % 3],
        entity_type=("order", "cart")[n // 2 % 2],
        entity_id=f"e-{n * 5 % 4}",
        workflow_id=(None, "w-1", "w-2")[n // 3 % 3],
        tenant_id=("", "acme", "globex", "")[n // 5 % 4],
        tags=((), ("red",), ("red", "big"), ("big", "green", "red"), ("green",))[n % 5],
        # Not in the order of the sequences, and with ties.
        timestamp=DAY + timedelta(hours=n * 7 % 24),
        data={"n": n},
    )


LOG = [_event(n) for n in range(72)]
BATCHES = [1, 7, 1, 20, 3, 40]


def filled(store: EventStore) -> list[Event]:
    """Append the log in batches of several sizes, and return it as recorded."""
    recorded: list[Event] = []
    for size in BATCHES:
        recorded += store.append_batch(LOG[len(recorded) : len(recorded) + size])
    assert len(recorded) == len(LOG)
    return recorded


# --- The model

TAKES: dict[str, Callable[[Event, Any], bool]] = {
    "entity_type": lambda event, wanted: event.entity_type == wanted,
    "entity_id": lambda event, wanted: event.entity_id == wanted,
    "workflow_id": lambda event, wanted: event.workflow_id == wanted,
    "tenant_id": lambda event, wanted: event.tenant_id == wanted,
    "event_types": lambda event, wanted: event.event_type in wanted,
    "tags": lambda event, wanted: set(wanted) <= set(event.tags),
    "from_sequence": lambda event, wanted: event.sequence > wanted,
    "to_sequence": lambda event, wanted: event.sequence <= wanted,
    "from_timestamp": lambda event, wanted: event.timestamp >= wanted,
    "to_timestamp": lambda event, wanted: event.timestamp <= wanted,
    "any_of": lambda event, wanted: any(takes(event, fields) for fields in wanted),
}


def takes(event: Event, fields: dict[str, Any]) -> bool:
    """Return whether ``event`` meets all filter ``fields``."""
    return all(TAKES[name](event, wanted) for name, wanted in fields.items())


def selected(log: list[Event], fields: dict[str, Any], **shape: Any) -> list[Event]:
    """Return what a query must give."""
    found = [event for event in log if takes(event, fields)]
    if shape.get("order_by") == "timestamp":
        found.sort(key=lambda event: (event.timestamp, event.sequence))
    if not shape.get("ascending", True):
        found.reverse()
    start = shape.get("offset", 0)
    limit = shape.get("limit")
    return found[start:] if limit is None else found[start : start + limit]


def query_of(fields: dict[str, Any], **shape: Any) -> EventQuery:
    """Return the query with these filter fields; ``any_of`` is given as a list of fields."""
    made = dict(fields)
    if "any_of" in made:
        made["any_of"] = [EventQuery(**each) for each in made["any_of"]]
    return EventQuery(**made, **shape)


VALUES: dict[str, list[Any]] = {
    "entity_type": ["order", "nothing"],
    "entity_id": ["e-1", "e-3", "nobody"],
    "workflow_id": ["w-1", "w-9"],
    "tenant_id": ["acme", "", "nobody"],
    "event_types": [["Paid"], ["Sent", "Placed", "Unknown"], ["Unknown"]],
    "tags": [["red"], ["green", "red"], ["red", "blue"]],
    "from_sequence": [0, 30, 72, 1000],
    "to_sequence": [0, 1, 41, 1000],
    "from_timestamp": [DAY, DAY + timedelta(hours=11), DAY + timedelta(days=9)],
    "to_timestamp": [DAY, DAY + timedelta(hours=11), DAY + timedelta(days=9)],
    "any_of": [
        [{"entity_id": "e-1"}],
        [{"entity_id": "e-1", "event_types": ["Paid"]}, {"tags": ["big"]}],
        [{"from_sequence": 60}, {"to_sequence": 9, "tenant_id": ""}],
        [{"workflow_id": "w-9"}, {"entity_type": "nothing"}],
    ],
}

ORDERS = [
    {"order_by": order_by, "ascending": ascending}
    for order_by in ("sequence", "timestamp")
    for ascending in (True, False)
]


class QueryTests(Conformance):
    # --- Filters

    def test_no_query_and_an_empty_query_give_everything_in_order(self, store: EventStore) -> None:
        log = filled(store)

        assert stored(store) == stored(store, EventQuery()) == log
        assert store.count_events() == store.count_events(EventQuery()) == 72

    @pytest.mark.parametrize("field", sorted(VALUES))
    def test_every_field_alone_selects_what_it_says(self, store: EventStore, field: str) -> None:
        log = filled(store)

        for value in VALUES[field]:
            fields = {field: value}
            assert stored(store, query_of(fields)) == selected(log, fields), fields
            assert store.count_events(query_of(fields)) == len(selected(log, fields)), fields

    @pytest.mark.parametrize("field", sorted(VALUES))
    def test_every_field_selects_in_both_orders_and_directions(
        self, store: EventStore, field: str
    ) -> None:
        log = filled(store)

        for value in VALUES[field]:
            for order in ORDERS:
                fields = {field: value}
                found = stored(store, query_of(fields, **order))
                assert found == selected(log, fields, **order), (fields, order)

    @pytest.mark.parametrize("field", sorted(VALUES))
    def test_a_field_with_every_other_selects_what_both_say(
        self, store: EventStore, field: str
    ) -> None:
        log = filled(store)

        for other in sorted(VALUES):
            if other <= field:  # each pair once
                continue
            for value in VALUES[field]:
                for other_value in VALUES[other]:
                    fields = {field: value, other: other_value}
                    expected = selected(log, fields)
                    assert sequences(store.get_events(query_of(fields))) == sequences(expected), (
                        fields
                    )
                    assert store.count_events(query_of(fields)) == len(expected), fields

    def test_any_query_selects_what_the_model_says(self, store: EventStore) -> None:
        log = filled(store)
        simple = [name for name in VALUES if name != "any_of"]
        fields_of = st.lists(st.sampled_from(simple), unique=True, max_size=4).flatmap(
            lambda names: st.fixed_dictionaries(
                {name: st.sampled_from(VALUES[name]) for name in names}
            )
        )
        shapes = st.fixed_dictionaries(
            {
                "order_by": st.sampled_from(["sequence", "timestamp"]),
                "ascending": st.booleans(),
                "limit": st.none() | st.integers(0, 80),
                "offset": st.integers(0, 80),
            }
        )

        @settings(max_examples=200, deadline=None)
        @given(
            fields_of, st.none() | st.lists(fields_of.filter(bool), min_size=1, max_size=3), shapes
        )
        def check(
            fields: dict[str, Any], any_of: list[dict[str, Any]] | None, shape: dict[str, Any]
        ) -> None:
            if any_of is not None:
                fields = {**fields, "any_of": any_of}
            found = stored(store, query_of(fields, **shape))
            assert sequences(found) == sequences(selected(log, fields, **shape))
            assert store.count_events(query_of(fields)) == len(selected(log, fields))

        check()

    def test_any_of_gives_each_event_once(self, store: EventStore) -> None:
        log = filled(store)
        twice = EventQuery(
            any_of=[EventQuery(entity_type="order"), EventQuery(from_sequence=0), EventQuery()]
        )

        assert stored(store, twice) == log
        assert store.count_events(twice) == 72

    def test_many_alternatives_are_taken(self, store: EventStore) -> None:
        store.append_batch([note(f"n-{n}") for n in range(100)])
        query = EventQuery(any_of=[EventQuery(entity_id=f"n-{n}") for n in range(0, 100, 2)])

        assert sequences(stored(store, query)) == list(range(1, 101, 2))

    def test_many_event_types_and_tags_are_taken(self, store: EventStore) -> None:
        tags = tuple(f"t-{n}" for n in range(50))
        store.append(note(event_type="Kind7", tags=tags))
        store.append(note(event_type="Kind8", tags=tags[1:]))

        types = EventQuery(event_types=[f"Kind{n}" for n in range(50)])
        assert sequences(stored(store, types)) == [1, 2]
        assert sequences(stored(store, EventQuery(tags=tags))) == [1]

    def test_the_empty_tenant_asks_for_events_without_one(self, store: EventStore) -> None:
        store.append(note(tenant_id="acme"))
        store.append(note())

        assert sequences(stored(store, EventQuery(tenant_id=""))) == [2]
        assert store.count_events(EventQuery(tenant_id="")) == 1

    def test_an_event_without_a_workflow_is_in_none(self, store: EventStore) -> None:
        store.append(note())
        store.append(note(workflow_id="None"))

        assert sequences(stored(store, EventQuery(workflow_id="None"))) == [2]
        assert store.get_events_for_workflow("w") == []

    def test_collections_of_any_kind_are_taken(self, store: EventStore) -> None:
        log = filled(store)

        given: list[Any] = [
            ["Paid", "Sent"],
            ("Paid", "Sent"),
            {"Paid", "Sent"},
            frozenset({"Paid", "Sent"}),
            {"Paid": 1, "Sent": 2}.keys(),
        ]
        for names in given:
            query = EventQuery(event_types=names)
            assert stored(store, query) == selected(log, {"event_types": ["Paid", "Sent"]})
            assert isinstance(query.event_types, tuple)

    # --- Order

    @pytest.mark.parametrize("order", ORDERS, ids=str)
    def test_events_come_in_the_order_asked_for(
        self, store: EventStore, order: dict[str, Any]
    ) -> None:
        log = filled(store)

        assert stored(store, EventQuery(**order)) == selected(log, {}, **order)

    def test_ties_of_the_timestamp_come_in_order_of_the_sequence(self, store: EventStore) -> None:
        same = [note(timestamp=DAY, data={"n": n}) for n in range(9)]
        store.append_batch(same[:4])
        store.append(note(timestamp=DAY - timedelta(microseconds=1)))
        store.append_batch(same[4:])

        ascending = sequences(stored(store, EventQuery(order_by="timestamp")))
        descending = sequences(stored(store, EventQuery(order_by="timestamp", ascending=False)))

        assert ascending == [5, 1, 2, 3, 4, 6, 7, 8, 9, 10]
        assert descending == ascending[::-1]

    def test_a_long_log_of_one_timestamp_is_read_whole(self, store: EventStore) -> None:
        """Pages by key must go on within a tie."""
        store.append_batch(notes(2500, timestamp=DAY))

        for ascending in (True, False):
            found = sequences(
                store.get_events(EventQuery(order_by="timestamp", ascending=ascending))
            )
            assert found == list(range(1, 2501))[:: 1 if ascending else -1]

    def test_times_before_the_epoch_come_first(self, store: EventStore) -> None:
        years = [1969, 2024, 1, 1970, 9999, 1815]
        for year in years:
            store.append(note(timestamp=datetime(year, 1, 1, tzinfo=UTC)))

        found = stored(store, EventQuery(order_by="timestamp"))

        assert [event.timestamp.year for event in found] == sorted(years)
        before = EventQuery(to_timestamp=datetime(1969, 12, 31, tzinfo=UTC))
        assert sequences(stored(store, before)) == [1, 3, 6]

    # --- Limit and offset

    @pytest.mark.parametrize("order", ORDERS, ids=str)
    @pytest.mark.parametrize("limit", [None, 0, 1, 71, 72, 73, 10**9, 2**63 - 1])
    def test_limit_and_offset_cut_a_window(
        self, store: EventStore, order: dict[str, Any], limit: int | None
    ) -> None:
        log = filled(store)

        for offset in (0, 1, 71, 72, 10**9, 2**63 - 1):
            shape = {**order, "limit": limit, "offset": offset}
            found = sequences(store.get_events(EventQuery(**shape)))
            assert found == sequences(selected(log, {}, **shape)), shape

    def test_limit_and_offset_count_matches_only(self, store: EventStore) -> None:
        log = filled(store)
        fields = {"tags": ["red"], "tenant_id": ""}

        for shape in (
            {"limit": 3},
            {"limit": 3, "offset": 2},
            {"limit": 2, "offset": 4, "ascending": False},
            {"offset": 5, "order_by": "timestamp"},
        ):
            assert stored(store, query_of(fields, **shape)) == selected(log, fields, **shape)

    def test_windows_side_by_side_give_everything_once(self, store: EventStore) -> None:
        log = filled(store)

        pages = [
            stored(store, EventQuery(limit=10, offset=offset, order_by="timestamp"))
            for offset in range(0, 80, 10)
        ]

        assert list(chain.from_iterable(pages)) == selected(log, {}, order_by="timestamp")

    def test_a_window_far_into_a_long_log_is_right(self, store: EventStore) -> None:
        store.append_batch([note(f"n-{n % 2}", data={"n": n}) for n in range(3000)])

        query = EventQuery(entity_id="n-1", offset=1100, limit=300)

        assert sequences(store.get_events(query)) == list(range(2202, 2802, 2))
        back = query.replace(ascending=False)
        assert sequences(store.get_events(back)) == list(range(800, 200, -2))

    # --- Edges

    @pytest.mark.parametrize("order", ORDERS, ids=str)
    def test_an_empty_log_gives_nothing(self, store: EventStore, order: dict[str, Any]) -> None:
        assert stored(store, EventQuery(**order)) == []
        assert store.count_events() == 0
        for field, values in VALUES.items():
            for value in values:
                assert stored(store, query_of({field: value}, **order)) == []
                assert store.count_events(query_of({field: value})) == 0

    def test_bounds_that_cross_match_nothing(self, store: EventStore) -> None:
        filled(store)

        for query in (
            EventQuery(from_sequence=10, to_sequence=10),
            EventQuery(from_sequence=11, to_sequence=10),
            EventQuery(from_timestamp=DAY + timedelta(hours=2), to_timestamp=DAY),
        ):
            assert stored(store, query) == []
            assert store.count_events(query) == 0

    def test_bounds_beyond_the_head_match_nothing_and_do_not_raise(self, store: EventStore) -> None:
        filled(store)

        assert stored(store, EventQuery(from_sequence=1000)) == []
        assert store.count_events(EventQuery(from_sequence=2**63 - 1)) == 0
        assert len(stored(store, EventQuery(to_sequence=2**63 - 1))) == 72

    def test_from_sequence_is_exclusive_and_to_sequence_inclusive(self, store: EventStore) -> None:
        filled(store)

        assert sequences(stored(store, EventQuery(from_sequence=3, to_sequence=5))) == [4, 5]

    def test_both_timestamp_bounds_are_inclusive(self, store: EventStore) -> None:
        times = [DAY + timedelta(microseconds=n) for n in range(5)]
        for time in times:
            store.append(note(timestamp=time))

        query = EventQuery(from_timestamp=times[1], to_timestamp=times[3])

        assert sequences(stored(store, query)) == [2, 3, 4]

    def test_timestamp_bounds_of_any_zone_mean_the_same_time(self, store: EventStore) -> None:
        log = filled(store)
        zone = timezone(timedelta(hours=5, minutes=30))
        bound = DAY + timedelta(hours=11)

        query = EventQuery(from_timestamp=bound.astimezone(zone))

        assert stored(store, query) == selected(log, {"from_timestamp": bound})

    def test_a_query_is_a_value_and_replace_gives_a_changed_copy(self) -> None:
        query = EventQuery(entity_type="order", tags=["a"])

        changed = query.replace(limit=5, tags={"b"})

        assert (changed.entity_type, changed.limit, changed.tags) == ("order", 5, ("b",))
        assert query == EventQuery(entity_type="order", tags=("a",))
        assert hash(query) == hash(EventQuery(entity_type="order", tags=["a"]))

    def test_a_query_can_be_used_again(self, store: EventStore) -> None:
        query = EventQuery(entity_id="n-1", ascending=False)
        store.append(note())
        assert sequences(stored(store, query)) == [1]

        store.append(note())

        assert sequences(stored(store, query)) == [2, 1]
        assert sequences(stored(store, query)) == [2, 1]

    def test_the_largest_queries_are_answered(self, store: EventStore) -> None:
        # Given the most alternatives, values and names that a query may have
        wanted = store.append(note("wanted", tags=[f"t{n}" for n in range(100)]))
        store.append(note())
        no_match = [EventQuery(tags=[f"x{n}-{m}" for m in range(9)]) for n in range(999)]
        largest = [
            EventQuery(any_of=[*no_match, EventQuery(entity_id="wanted")]),
            EventQuery(
                any_of=[EventQuery(entity_id=f"e{n}") for n in range(999)]
                + [EventQuery(entity_id="wanted", from_sequence=0)]
            ),
            EventQuery(tags=wanted.tags),
            EventQuery(event_types=[f"T{n}" for n in range(999)] + ["Noted"], tags=["t7"]),
        ]

        # When they are asked, or stand against an append, then they find what they look for
        for query in largest:
            assert stored(store, query) == [wanted]
            assert store.count_events(query) == 1
            with pytest.raises(ConditionFailedError):
                store.append(note(), condition=AppendCondition(query))
            store.append(note(), condition=AppendCondition(query, after=wanted.sequence))
