"""Bad queries and arguments of reads: refused by name before anything is sent (G11)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from eventstore import AppendCondition, Checkpoint, EventQuery, EventStore, InvalidQueryError
from eventstore.testing.conformance.bad_values import NAMES, Number, cases, show
from eventstore.testing.conformance.base import Conformance, note, notes

NO_NAMES: list[Any] = [
    *("text", b"text", 1, True, {"$ne": 1}, (), [], set(), iter(["a"])),
    *([1], [None], [""], ["a", "b\0"], [["a"]], ["\ud800"], ["x" * 256]),
]
NO_NUMBERS: list[Any] = [-1, 2**63, 1.0, "1", True, [1], {"$gt": 0}, "1 OR 1=1", Number.ONE]
NO_TIMES: list[Any] = [
    datetime(2024, 1, 1),  # noqa: DTZ001 - naive on purpose
    *(date(2024, 1, 1), "2024-01-01", 0, True, {"$gt": 0}),
]
NO_NAME = [name for name in NAMES if name is not None]


class SubQuery(EventQuery, frozen=True, kw_only=True):
    """One that could say another thing each time it is asked."""


FIELDS: dict[str, list[Any]] = {
    "entity_type": NO_NAME,
    "entity_id": NO_NAME,
    "workflow_id": NO_NAME,
    "tenant_id": [name for name in NO_NAME if name != ""],
    "event_types": NO_NAMES,
    "tags": NO_NAMES,
    "from_sequence": NO_NUMBERS,
    "to_sequence": NO_NUMBERS,
    "limit": NO_NUMBERS,
    "offset": [*NO_NUMBERS, None],
    "from_timestamp": NO_TIMES,
    "to_timestamp": NO_TIMES,
    "from_recorded_at": NO_TIMES,
    "to_recorded_at": NO_TIMES,
    "any_of": [
        *((), [], EventQuery(), [None], ["x"], [{}], {"$or": []}),
        [EventQuery(limit=1)],
        [EventQuery(offset=1)],
        [EventQuery(ascending=False)],
        [EventQuery(order_by="timestamp")],
        [EventQuery(any_of=[EventQuery()])],
        [SubQuery(entity_id="a")],
    ],
    "order_by": ["version", "", "sequence; DROP", None, 1, ["sequence"]],
    "ascending": [None, 1, 0, "yes", []],
}
"""What each field of a query may not be."""


TOO_MANY: dict[str, tuple[dict[str, Any], str]] = {
    "alternatives": ({"any_of": [EventQuery(entity_id="a")] * 1_001}, "any_of: .* 1,000"),
    "tags": ({"tags": [f"t{n}" for n in range(101)]}, "tags: .* 100"),
    "event types": ({"event_types": [f"t{n}" for n in range(1_001)]}, "event_types: .* 1,000"),
    "values": (
        {"any_of": [EventQuery(tags=[f"t{n}" for n in range(100)])] * 101},
        "any_of: .* 10,000",
    ),
}


def _any(value: object) -> Any:
    """Hide a wrong type from the type checker."""
    return value


CALLS: dict[str, tuple[str, Callable[[EventStore], Any]]] = {
    "get_events of text": ("query", lambda store: store.get_events(_any("order"))),
    "get_events of a dict": ("query", lambda store: store.get_events(_any({"entity_id": "a"}))),
    "get_events of a subclass": ("query", lambda store: store.get_events(SubQuery())),
    "count_events of a subclass": ("query", lambda store: store.count_events(SubQuery())),
    "wait query of a subclass": (
        "query",
        lambda store: store.wait_for_events(0, timeout=0, query=SubQuery()),
    ),
    "condition of a subclass": ("query", lambda _: AppendCondition(SubQuery())),
    "count_events of text": ("query", lambda store: store.count_events(_any("order"))),
    "count_events with limit": ("limit", lambda store: store.count_events(EventQuery(limit=1))),
    "count_events with offset": ("offset", lambda store: store.count_events(EventQuery(offset=1))),
    "entity type": (
        "entity_type",
        lambda store: store.get_events_for_entity(_any({"$ne": 1}), "a"),
    ),
    "entity id": ("entity_id", lambda store: store.get_events_for_entity("a", "")),
    "entity tenant": (
        "tenant_id",
        lambda store: store.get_events_for_entity("a", "b", tenant_id=_any(None)),
    ),
    "from_version negative": (
        "from_version",
        lambda store: store.get_events_for_entity("a", "b", -1),
    ),
    "from_version text": (
        "from_version",
        lambda store: store.get_events_for_entity("a", "b", _any("1")),
    ),
    "to_version negative": (
        "to_version",
        lambda store: store.get_events_for_entity("a", "b", to_version=-1),
    ),
    "to_version text": (
        "to_version",
        lambda store: store.iterate_entity("a", "b", to_version=_any("1")),
    ),
    "entity limit negative": (
        "limit",
        lambda store: store.get_events_for_entity("a", "b", limit=-1),
    ),
    "entity limit true": (
        "limit",
        lambda store: store.iterate_entity("a", "b", limit=_any(True)),
    ),
    "entity order": (
        "ascending",
        lambda store: store.get_events_for_entity("a", "b", ascending=_any("yes")),
    ),
    "iterated entity": ("entity_id", lambda store: store.iterate_entity("a", _any(None))),
    "iterated from_version": (
        "from_version",
        lambda store: store.iterate_entity("a", "b", _any(1.0)),
    ),
    "workflow": ("workflow_id", lambda store: store.get_events_for_workflow(_any(None))),
    "workflow empty": ("workflow_id", lambda store: store.get_events_for_workflow("")),
    "workflow position": (
        "from_sequence",
        lambda store: store.get_events_for_workflow("w", -1),
    ),
    "workflow tenant": (
        "tenant_id",
        lambda store: store.get_events_for_workflow("w", tenant_id=_any(["a"])),
    ),
    "since negative": ("position", lambda store: store.get_events_since(-1)),
    "since text": ("position", lambda store: store.get_events_since(_any("0"))),
    "since none": ("position", lambda store: store.get_events_since(_any(None))),
    "since true": ("position", lambda store: store.get_events_since(_any(True))),
    "since float": ("position", lambda store: store.get_events_since(_any(0.0))),
    "since limit negative": ("limit", lambda store: store.get_events_since(0, -1)),
    "since limit none": ("limit", lambda store: store.get_events_since(0, _any(None))),
    "since limit text": ("limit", lambda store: store.get_events_since(0, _any("5"))),
    "id text": ("event_id", lambda store: store.get_event_by_id(_any(str(uuid4())))),
    "id none": ("event_id", lambda store: store.event_exists(_any(None))),
    "id tenant": (
        "tenant_id",
        lambda store: store.get_event_by_id(uuid4(), tenant_id=_any(None)),
    ),
    "version entity": ("entity_id", lambda store: store.get_current_version("a", _any(1))),
    "list type": ("entity_type", lambda store: store.list_entities("")),
    "list tenant": ("tenant_id", lambda store: store.list_entities(tenant_id=_any(1))),
    "list limit negative": ("limit", lambda store: store.list_entities(limit=-1)),
    "list limit none": ("limit", lambda store: store.list_entities(limit=_any(None))),
    "list offset negative": ("offset", lambda store: store.list_entities(offset=-1)),
    "list offset text": ("offset", lambda store: store.list_entities(offset=_any("1"))),
    "wait position negative": ("after", lambda store: store.wait_for_events(-1, timeout=0)),
    "wait stopped by a flag": (
        "stop",
        lambda store: store.wait_for_events(0, timeout=0, stop=_any(True)),
    ),
    "wait stopped by a lock": (
        "stop",
        lambda store: store.wait_for_events(0, timeout=0, stop=_any(threading.Lock())),
    ),
    "wait position text": (
        "after",
        lambda store: store.wait_for_events(_any("0"), timeout=0),
    ),
    "wait query": (
        "query",
        lambda store: store.wait_for_events(0, timeout=0, query=_any("order")),
    ),
    "wait timeout text": ("timeout", lambda store: store.wait_for_events(0, timeout=_any("1"))),
    "wait timeout negative": ("timeout", lambda store: store.wait_for_events(0, timeout=-1)),
    "wait timeout nan": (
        "timeout",
        lambda store: store.wait_for_events(0, timeout=float("nan")),
    ),
    "tenant number": ("tenant_id", lambda store: store.for_tenant(_any(5))),
    "tenant none": ("tenant_id", lambda store: store.for_tenant(_any(None))),
    "tenant nul": ("tenant_id", lambda store: store.for_tenant("a\0")),
    "condition text": (
        "condition",
        lambda store: store.append(note(), condition=_any("order")),
    ),
    "condition query": (
        "condition",
        lambda store: store.append(note(), condition=_any(EventQuery())),
    ),
}
"""By a name: the field that the error must begin with or tell, and the call."""


class BadQueryTests(Conformance):
    @pytest.mark.parametrize(
        ("query", "after", "names"),
        [
            (EventQuery(limit=1), None, "limit"),
            (EventQuery(offset=1), None, "offset"),
            (EventQuery(order_by="timestamp"), None, "order_by"),
            (EventQuery(ascending=False), None, "ascending"),
            ("order", None, "query"),
            (None, None, "query"),
            ({}, None, "query"),
            (EventQuery(), -1, "after"),
            (EventQuery(), "1", "after"),
            (EventQuery(), 1.0, "after"),
            (EventQuery(), True, "after"),
            (EventQuery(), 2**63, "after"),
        ],
        ids=show,
    )
    def test_a_condition_without_a_meaning_is_refused_when_made(
        self, query: Any, after: Any, names: str
    ) -> None:
        with pytest.raises(InvalidQueryError, match=names):
            AppendCondition(query, after=after)

    # --- Queries and reads

    @pytest.mark.parametrize(("field", "value"), cases(FIELDS), ids=show)
    def test_a_query_field_of_the_wrong_kind_is_refused_when_made(
        self, field: str, value: Any
    ) -> None:
        with pytest.raises(InvalidQueryError, match=f"^{field}") as caught:
            EventQuery(**{field: value})

        assert isinstance(caught.value, ValueError)
        with pytest.raises(InvalidQueryError):
            EventQuery().replace(**{field: value})

    @pytest.mark.parametrize("what", sorted(TOO_MANY))
    def test_a_query_of_too_many_values_is_refused_with_the_bound(self, what: str) -> None:
        fields, told = TOO_MANY[what]

        with pytest.raises(InvalidQueryError, match=f"^{told}"):
            EventQuery(**fields)

    @pytest.mark.parametrize("call", sorted(CALLS))
    def test_a_bad_argument_of_a_call_is_refused_by_name(
        self, shared_store: EventStore, call: str
    ) -> None:
        names, make = CALLS[call]
        head = shared_store.get_current_sequence()

        with pytest.raises(InvalidQueryError, match=names):
            make(shared_store)

        assert shared_store.get_current_sequence() == head
        assert shared_store.append_batch(notes(2)).sequences == (head + 1, head + 2)

    @pytest.mark.parametrize(
        ("log_id", "sequence", "event_id"),
        [
            ("", 0, None),
            (None, 0, None),
            ("log", -1, None),
            ("log", "1", UUID(int=1)),
            ("log", 1.0, UUID(int=1)),
            ("log", 1, None),
            ("log", 0, UUID(int=1)),
            ("log", 1, "id"),
        ],
        ids=show,
    )
    def test_a_checkpoint_that_makes_no_sense_is_refused_when_made(
        self, log_id: Any, sequence: Any, event_id: Any
    ) -> None:
        with pytest.raises(InvalidQueryError):
            Checkpoint(log_id, sequence, event_id)
