"""Every query field has its index, and a page costs what it returns."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import pytest

from eventstore import (
    AppendCondition,
    ConditionFailedError,
    EventQuery,
    EventStore,
    open_store,
)
from eventstore.backend import PageRequest
from eventstore.testing.builders import an_event, events_of, generate_events
from eventstore_sqlite import selecting
from eventstore_sqlite.selecting import Statement, Statements

NOW = datetime.now(UTC)
BY_EVENT_TYPE = "USING INDEX eventstore_by_event_type (event_type=? AND rowid>? AND rowid<?)"
BY_TIMESTAMP = "USING INDEX eventstore_by_timestamp"
FIELDS: dict[str, tuple[Any, str, str]] = {
    # field: (value, how it is found in sequence order, and in timestamp order)
    "entity_id": ("x", "USING INDEX eventstore_by_entity (entity_id=?)", "by_entity (entity_id=?)"),
    "entity_type": ("x", "by_entity_type (entity_type=? AND rowid>? AND rowid<?)", BY_TIMESTAMP),
    "workflow_id": ("x", "by_workflow (workflow_id=? AND rowid>? AND rowid<?)", "by_workflow"),
    "tenant_id": ("x", "by_tenant (tenant_id=? AND rowid>? AND rowid<?)", BY_TIMESTAMP),
    "event_types": (["x"], BY_EVENT_TYPE, BY_TIMESTAMP),
    "tags": (["x"], "t USING PRIMARY KEY (segment=? AND tag=? AND sequence>?", "tag=?"),
    "from_sequence": (5, "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", BY_TIMESTAMP),
    "to_sequence": (5, "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", BY_TIMESTAMP),
    "from_timestamp": (NOW, "USING INTEGER PRIMARY KEY", f"{BY_TIMESTAMP} (timestamp>?)"),
    "to_timestamp": (NOW, "USING INTEGER PRIMARY KEY", f"{BY_TIMESTAMP} (timestamp<?)"),
    "any_of": (
        [EventQuery(workflow_id="x"), EventQuery(event_types=["x"])],
        "by_workflow (workflow_id=? AND rowid>? AND rowid<?)",
        "by_workflow",
    ),
}
IF_FEW = {
    # What drives instead where the probe finds that it lets few events through.
    "from_timestamp": ("sequence", "COVERING INDEX eventstore_by_timestamp (timestamp>?)"),
    "to_timestamp": ("sequence", "COVERING INDEX eventstore_by_timestamp (timestamp<?)"),
    "entity_type": ("timestamp", "by_entity_type (entity_type=?)"),
    "event_types": ("timestamp", "by_event_type (event_type=?)"),
    "tenant_id": ("timestamp", "by_tenant (tenant_id=?)"),
}

Connect = Callable[..., sqlite3.Connection]


def statement_of(page: PageRequest, *, by_sorting: bool = False) -> Statement:
    statements = Statements("eventstore")
    return statements.page(page, statements.selects(page, by_sorting=by_sorting))


def plan_of(connect: Connect, page: PageRequest, *, by_sorting: bool = False) -> str:
    sql, values = statement_of(page, by_sorting=by_sorting)
    rows = connect().execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    return "\n".join(row[3] for row in rows)


@pytest.mark.usefixtures("store")
class TestPlans:
    @pytest.mark.parametrize("ascending", [True, False], ids=["ascending", "descending"])
    @pytest.mark.parametrize("order_by", ["sequence", "timestamp"])
    @pytest.mark.parametrize("field", FIELDS)
    def test_each_field_alone_is_served_by_an_index(
        self, connect: Connect, field: str, order_by: Any, ascending: bool
    ) -> None:
        value, by_sequence, by_timestamp = FIELDS[field]
        query = EventQuery(**{field: value})
        page = PageRequest(
            query=query, limit=10, after=3, up_to=9, order_by=order_by, ascending=ascending
        )

        plan = plan_of(connect, page)

        assert (by_sequence if order_by == "sequence" else by_timestamp) in plan

    @pytest.mark.parametrize("field", IF_FEW)
    def test_a_field_that_lets_few_through_drives(self, connect: Connect, field: str) -> None:
        order_by, index = IF_FEW[field]
        query = EventQuery(**{field: FIELDS[field][0]})
        page = PageRequest(query=query, limit=10, order_by=order_by)  # type: ignore[arg-type]  # one of two

        assert index in plan_of(connect, page, by_sorting=True)

    @pytest.mark.parametrize(
        "field", ["entity_type", "workflow_id", "tenant_id", "event_types", "tags", "to_sequence"]
    )
    @pytest.mark.parametrize("ascending", [True, False], ids=["ascending", "descending"])
    def test_a_page_in_the_order_of_the_log_sorts_nothing(
        self, connect: Connect, field: str, ascending: bool
    ) -> None:
        query = EventQuery(**{field: FIELDS[field][0]})

        plan = plan_of(connect, PageRequest(query=query, limit=10, ascending=ascending))

        assert "TEMP B-TREE" not in plan

    @pytest.mark.parametrize("first", ["entity_id", "workflow_id", "tags"])
    @pytest.mark.parametrize("second", ["tenant_id", "entity_type", "event_types"])
    def test_the_more_selective_field_drives(
        self, connect: Connect, first: str, second: str
    ) -> None:
        query = EventQuery(**{name: FIELDS[name][0] for name in (first, second)})

        plan = plan_of(connect, PageRequest(query=query, limit=10))

        assert FIELDS[first][1].split("(")[0] in plan
        assert "eventstore_by_t" not in plan
        assert "eventstore_by_event_type" not in plan
        assert "eventstore_by_entity_type" not in plan

    @pytest.mark.parametrize(
        ("entity_type", "tenant_id", "index"),
        [
            ("x", None, "by_type_of_entity (entity_type=?)"),
            (None, "x", "by_tenant_of_entity (tenant_id=?)"),
            ("x", "x", "by_type_of_entity (entity_type=?)"),
            (None, None, "SCAN e"),
        ],
    )
    def test_entities_are_listed_from_an_index_without_sorting(
        self, connect: Connect, entity_type: str | None, tenant_id: str | None, index: str
    ) -> None:
        sql, values = Statements("eventstore").list_entities(entity_type, tenant_id, 10, 0)

        rows = connect().execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()

        assert len(rows) == 1
        assert index in rows[0][3]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same events in memory and in SQLite."""
    path = tmp_path_factory.mktemp("both") / "log.db"
    with open_store("memory://") as memory, open_store(f"sqlite:///{path}") as store:
        events = list(generate_events(7, 1500, tenants=("", "acme")))
        for start in range(0, len(events), 50):
            for each in (memory, store):
                for tenant in ("", "acme"):
                    batch = [e for e in events[start : start + 50] if e.tenant_id == tenant]
                    each.append_batch(batch)
        yield memory, store, list(memory.get_events())


@pytest.mark.parametrize("few", [20_000, 0], ids=["few", "many"])
def test_every_pair_of_fields_finds_what_the_reference_finds(
    both: Any, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(selecting, "_MOST_SORTED", few)
    memory, store, events = both
    event, later = events[700], events[900]
    filters: list[dict[str, Any]] = [
        {"entity_type": event.entity_type, "entity_id": event.entity_id},
        {"entity_id": event.entity_id},
        {"entity_type": "payment"},
        {"workflow_id": event.workflow_id},
        {"tenant_id": ""},
        {"tenant_id": "acme"},
        {"event_types": ["OrderPlaced"]},
        {"event_types": ["OrderPlaced", "OrderPaid", "OrderPlaced"]},
        {"event_types": [f"Other{n}" for n in range(20)] + ["OrderPaid"]},
        {"tags": event.tags[1:]},
        {"tags": event.tags},
        {"from_timestamp": event.timestamp, "to_timestamp": later.timestamp},
        {"any_of": [EventQuery(entity_id=event.entity_id), EventQuery(tags=later.tags)]},
        {"any_of": [EventQuery(event_types=["OrderPaid"]), EventQuery(from_sequence=1400)]},
    ]
    shapes: list[dict[str, Any]] = [
        {"order_by": order_by, "ascending": ascending, "limit": limit, "offset": offset}
        for order_by in ("sequence", "timestamp")
        for ascending in (True, False)
        for limit, offset in ((None, 0), (7, 3))
    ]
    for first, second in [*combinations(filters, 2), *((each, {}) for each in filters)]:
        query = EventQuery(**{**first, **second})
        assert store.count_events(query) == memory.count_events(query), query
        for shape in shapes:
            shaped = query.replace(**shape)
            found = [e.sequence for e in store.get_events(shaped)]
            assert found == [e.sequence for e in memory.get_events(shaped)], shaped


@pytest.mark.parametrize("ascending", [True, False], ids=["ascending", "descending"])
@pytest.mark.parametrize("extra", [{}, {"tenant_id": ""}, {"event_types": ["Even"]}], ids=str)
def test_a_long_entity_is_read_in_pages_whole_and_in_order(
    store: EventStore, ascending: bool, extra: dict[str, Any]
) -> None:
    # Given two entities whose events interleave, longer than several pages and milestones
    for n in range(26):
        kind = {"event_type": "Even" if n % 2 == 0 else "Odd"}
        store.append_batch(events_of("long", 100, **kind) + events_of("other", 30, **kind))

    query = EventQuery(entity_type="order", entity_id="long", ascending=ascending, **extra)
    found = [event.version for event in store.get_events(query)]

    wanted = [v for v in range(1, 2601) if not extra.get("event_types") or (v - 1) // 100 % 2 == 0]
    assert found == (wanted if ascending else wanted[::-1])
    assert store.count_events(query.replace(ascending=True)) == len(wanted)
    assert [e.version for e in store.get_events_for_entity("order", "long", 1300)] == list(
        range(1301, 2601)
    )
    for offset, limit in ((0, 1), (700, 300), (2599, 5)):
        part = query.replace(offset=offset, limit=limit)
        assert [e.version for e in store.get_events(part)] == found[offset : offset + limit]


def test_the_end_of_a_long_entity_is_read_without_walking_it_all(
    store: EventStore, connect: Connect
) -> None:
    store.append_batch(events_of("long", 5000))
    whole = EventQuery(entity_type="order", entity_id="long", tenant_id="")

    def steps(page: PageRequest) -> int:
        """Return how many thousand instructions SQLite's virtual machine takes."""
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        connection = connect()
        sql, values = statement_of(page)
        connection.execute(sql, values).fetchall()  # compiled
        connection.set_progress_handler(tick, 1000)
        connection.execute(sql, values).fetchall()
        return count

    assert steps(PageRequest(query=whole, limit=1, ascending=False)) < 30
    assert steps(PageRequest(query=whole, limit=1, above_version=4000)) < 30
    assert steps(PageRequest(query=whole, limit=1, after=2500)) < 30
    assert steps(PageRequest(query=whole, limit=1, ascending=False, up_to=2500)) < 30


def test_tags_are_found_across_segments(store: EventStore) -> None:
    tagged = []
    for _ in range(5):
        store.append_batch([an_event(data={}) for _ in range(4500)])
        tagged.append(store.append(an_event(tags=("a", "b", "a"))).sequence)

    for query in (EventQuery(tags=["a"]), EventQuery(tags=["b", "a"])):
        assert [e.sequence for e in store.get_events(query)] == tagged
        backwards = query.replace(ascending=False, limit=2)
        assert [e.sequence for e in store.get_events(backwards)] == tagged[:-3:-1]
        assert store.count_events(query.replace(from_sequence=tagged[2])) == 2


@pytest.mark.parametrize("order_by", ["sequence", "timestamp"])
@pytest.mark.parametrize("ascending", [True, False], ids=["ascending", "descending"])
def test_the_largest_query_there_is_is_taken(
    both: Any, store: EventStore, order_by: Any, ascending: bool
) -> None:
    # Given about as many alternatives and values as there may be, many with every field
    memory, large, events = both
    wanted = [e for e in events if len(e.tags) > 1][:20]
    none = [f"none-{n}" for n in range(98)]
    full: dict[str, Any] = {
        "entity_type": "order",
        "workflow_id": "w",
        "tenant_id": "acme",
        "event_types": [f"T{n}" for n in range(8)],
        "from_timestamp": NOW,
        "to_timestamp": NOW,
        "to_sequence": 9,
    }
    many = [EventQuery(entity_id=f"e-{n}", tags=[*none, str(n)], **full) for n in range(60)]
    plain_ones = [
        EventQuery(entity_id=f"e-{n}", workflow_id="w", tenant_id="acme") for n in range(880)
    ]
    types = [EventQuery(event_types=[f"T{n}-{i}" for i in range(8)]) for n in range(20)]
    few = [EventQuery(tags=e.tags) for e in wanted]
    query = EventQuery(
        any_of=[*many, *plain_ones, *types, *few], order_by=order_by, ascending=ascending
    )

    # Then it finds what the reference finds
    shapes: tuple[dict[str, Any], ...] = ({}, {"limit": 7, "offset": 3})
    for shape in shapes:
        found = list(large.get_events(query.replace(**shape)))
        assert found
        assert [e.sequence for e in found] == [
            e.sequence for e in memory.get_events(query.replace(**shape))
        ]
    plain = EventQuery(any_of=query.any_of)
    assert large.count_events(plain) == memory.count_events(plain)
    condition = AppendCondition(plain)
    with pytest.raises(ConditionFailedError):
        large.append(an_event(), condition=condition)
    tags = [f"t{n}" for n in range(100)]
    store.append(an_event(tags=tags))
    store.append(an_event(tags=tags[1:]))
    assert store.count_events(EventQuery(tags=tags)) == 1
    assert store.append(an_event(), condition=condition).sequence == 3


def test_a_thousand_alternatives_and_types_are_taken(store: EventStore) -> None:
    store.append_batch([an_event(entity_id=f"e-{n}", event_type=f"T{n}") for n in range(1000)])

    wanted = list(range(1, 1001))
    alternatives = EventQuery(any_of=[EventQuery(entity_id=f"e-{n}") for n in range(1000)])
    assert [event.sequence for event in store.get_events(alternatives)] == wanted
    assert store.count_events(alternatives) == 1000
    types = EventQuery(event_types=[f"T{n}" for n in range(1000)])
    assert [event.sequence for event in store.get_events(types)] == wanted
