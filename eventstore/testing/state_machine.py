"""Any store against the memory store: the same random commands, the same answers.

    TestMyStore = state_machine_for(lambda: open_store("mine://…")).TestCase

Needs Hypothesis, which the ``testing`` extra installs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from eventstore.checkpoint import Checkpoint
from eventstore.errors import (
    ConditionFailedError,
    DuplicateEventError,
    EventStoreError,
    VersionConflictError,
)
from eventstore.event import Entity, Event
from eventstore.query import AppendCondition, EventQuery
from eventstore.registry import open_store
from eventstore.result import AppendResult
from eventstore.store import EventStore
from eventstore.testing import strategies
from eventstore.versions import ExpectedVersion

# The alphabets are tiny, so that commands meet.
_ENTITY_TYPES: Final = st.sampled_from(["cart", "ship"])
_ENTITY_IDS: Final = st.sampled_from(["1", "2"])
_EVENT_TYPES: Final = st.sampled_from(["Made", "Moved", "made"])
_TAGS: Final = st.sampled_from(["red", "blue", "Red"])
_WORKFLOWS: Final = st.sampled_from(["w1", "w2"])
_TENANTS: Final = st.sampled_from(["", "", "acme"])
_VIEWS: Final = st.sampled_from([None] * 8 + ["acme", "acme", "globex", ""])
_NOON: Final = datetime(2024, 1, 1, 12, tzinfo=UTC)
_EAST: Final = timezone(timedelta(hours=5, minutes=30))
_TIMES: Final = st.sampled_from(
    [
        _NOON,
        _NOON + timedelta(microseconds=1),
        _NOON.astimezone(_EAST),
        _NOON + timedelta(days=1),
        _NOON - timedelta(days=20_000),
    ]
)
_DATA: Final = (
    st.sampled_from([{}, {"n": 1}, {"n": 1.0}, {"n": True}, {"n": 1, "m": 2}, {"m": 2, "n": 1}])
    | strategies.payloads()
)
_OLD_IDS: Final = st.integers(1, 4).map(lambda number: UUID(int=number))
_IDS: Final = st.one_of(*[st.uuids()] * 9, _OLD_IDS)
_SEQUENCES: Final = st.integers(0, 15)
_BACK: Final = st.integers(-1, 12)
"""How far before the head a position is; -1 is beyond it."""
_VERSIONS: Final = st.integers(0, 6)

_EVENTS: Final = strategies.events(
    event_type=_EVENT_TYPES,
    entity_type=_ENTITY_TYPES,
    entity_id=_ENTITY_IDS,
    data=_DATA,
    event_id=_IDS,
    workflow_id=st.none() | _WORKFLOWS,
    tenant_id=_TENANTS,
    tags=st.lists(_TAGS, max_size=3).map(tuple),
    metadata=st.sampled_from([{}, {"actor_id": "u-1"}]),
    schema_version=st.sampled_from([1, 1, 2]),
    timestamp=_TIMES,
)
_FILTERS: Final = strategies.filters(
    entity_type=_ENTITY_TYPES,
    entity_id=_ENTITY_IDS,
    workflow_id=_WORKFLOWS,
    tenant_id=_TENANTS,
    event_types=st.lists(_EVENT_TYPES, min_size=1, max_size=2).map(tuple),
    tags=st.lists(_TAGS, min_size=1, max_size=2).map(tuple),
    from_sequence=_SEQUENCES,
    to_sequence=_SEQUENCES,
    from_timestamp=_TIMES,
    to_timestamp=_TIMES,
)
_EXPECTATIONS: Final = st.sampled_from(list(ExpectedVersion)) | _VERSIONS
_MAPPINGS: Final = st.dictionaries(
    st.builds(Entity, _ENTITY_TYPES, _ENTITY_IDS, _TENANTS), _EXPECTATIONS, max_size=3
)

Opener = Callable[[], AbstractContextManager[EventStore]]


class StoreMachine(RuleBasedStateMachine):
    """Runs each command on a store and on a memory store, and compares the answers."""

    def __init__(self, opener: Opener) -> None:
        super().__init__()
        self._open = ExitStack()
        self._model = self._open.enter_context(open_store("memory://"))
        self._store = self._open.enter_context(opener())
        assert self._store.get_current_sequence() == 0, "the machine needs an empty log"
        self._appended: list[list[Event]] = []

    def teardown(self) -> None:
        """Compare the whole logs, and close both."""
        with self._open:
            self._same(lambda store: list(store.get_events()))
            times = [event.recorded_at for event in self._store.get_events()]
            assert all(one and other and one <= other for one, other in pairwise(times)), times

    # --- Appending

    @initialize(batches=st.lists(strategies.batches(_EVENTS, most=4), min_size=2, max_size=6))
    def begin(self, batches: list[list[Event]]) -> None:
        """Begin with a few events, so that there is something to find."""
        for events in batches:
            self._append_batch(events)

    @rule(event=_EVENTS, expected=_EXPECTATIONS, view=_VIEWS)
    def append(self, event: Event, expected: int, view: str | None) -> None:
        """Append one event."""
        self._same(lambda store: _seen_by(store, view).append(event, expected_version=expected))
        self._appended.append([event])

    @rule(events=strategies.batches(_EVENTS, most=4), view=_VIEWS)
    def append_batch(self, events: list[Event], view: str | None) -> None:
        """Append several events."""
        self._append_batch(events, view=view)

    @rule(events=strategies.batches(_EVENTS, most=3), expected=_MAPPINGS, view=_VIEWS)
    def append_expecting(
        self, events: list[Event], expected: dict[Entity, int], view: str | None
    ) -> None:
        """Append several events, expecting versions of some entities."""
        self._append_batch(events, expected, view=view)

    @rule(data=st.data(), events=strategies.batches(_EVENTS, most=3))
    def append_expecting_what_is(self, data: st.DataObject, events: list[Event]) -> None:
        """Append several events, expecting the versions that are, or one of them not."""
        entities = sorted({event.entity for event in events})
        expected = {
            entity: self._model.get_current_version(*entity[:2], tenant_id=entity.tenant_id)
            for entity in entities
        }
        if data.draw(st.booleans(), "wrong"):
            expected[entities[-1]] += 1
        self._append_batch(events, expected)

    @rule(
        events=strategies.batches(_EVENTS, most=3),
        query=_FILTERS,
        back=st.none() | _BACK,
        view=_VIEWS,
    )
    def append_on_condition(
        self, events: list[Event], query: EventQuery, back: int | None, view: str | None
    ) -> None:
        """Append several events if nothing matches."""
        condition = AppendCondition(query, None if back is None else self._position(back))
        self._append_batch(events, {}, condition, view)

    @rule(
        data=st.data(),
        change=st.sampled_from(
            ["none", "later", "part", "more", "backwards", "twice", "data", "two", "tags"]
        ),
        expected=st.just({}) | _MAPPINGS,
        condition=st.none() | strategies.append_conditions(_FILTERS, after=_SEQUENCES),
        view=_VIEWS,
    )
    def repeat(
        self,
        data: st.DataObject,
        change: str,
        expected: dict[Entity, int],
        condition: AppendCondition | None,
        view: str | None,
    ) -> None:
        """Append events again, as they were or somehow changed."""
        old = st.integers(0, len(self._appended) - 1)
        events = list(self._appended[data.draw(old, "which")])
        match change:
            case "later":
                events = [event.replace(timestamp=_NOON, metadata={"late": 1}) for event in events]
            case "part":
                events = events[: data.draw(st.integers(1, len(events)), "how many")]
            case "more":
                events.append(data.draw(_EVENTS, "new"))
            case "backwards":
                events.reverse()
            case "twice":
                events.append(events[0])
            case "data":
                events[-1] = events[-1].replace(data=data.draw(_DATA, "data"))
            case "two":
                events += self._appended[data.draw(old, "and which")]
            case "tags":
                events[0] = events[0].replace(tags=events[0].tags[::-1])
        self._append_batch(events, expected, condition, view)

    def _append_batch(
        self,
        events: list[Event],
        expected: Mapping[Entity, int] | None = None,
        condition: AppendCondition | None = None,
        view: str | None = None,
    ) -> None:
        self._same(
            lambda store: _seen_by(store, view).append_batch(
                events, expected_version=expected or {}, condition=condition
            )
        )
        self._appended.append(events)

    def _position(self, back: int) -> int:
        return max(0, self._model.get_current_sequence() - back)

    # --- Reading

    @rule(query=strategies.queries(_FILTERS, most=12), view=_VIEWS)
    def get_events(self, query: EventQuery, view: str | None) -> None:
        """Read by a query."""
        self._same(lambda store: list(_seen_by(store, view).get_events(query)))

    @rule(query=_FILTERS, view=_VIEWS)
    def count_events(self, query: EventQuery, view: str | None) -> None:
        """Count by a query."""
        self._same(lambda store: _seen_by(store, view).count_events(query))

    @rule(query=_FILTERS, back=_BACK, view=_VIEWS)
    def wait_for_events(self, query: EventQuery, back: int, view: str | None) -> None:
        """Look whether there is something to wait for."""
        after = self._position(back)
        self._same(lambda store: _seen_by(store, view).wait_for_events(after, 0, query))

    @rule(back=_BACK, limit=st.integers(0, 8), view=_VIEWS)
    def get_events_since(self, back: int, limit: int, view: str | None) -> None:
        """Catch up from a number."""
        position = self._position(back)
        self._same(lambda store: _seen_by(store, view).get_events_since(position, limit))

    @rule(data=st.data(), limit=st.integers(1, 8), wrong=st.sampled_from([None, None, "id", "log"]))
    def get_events_since_checkpoint(
        self, data: st.DataObject, limit: int, wrong: str | None
    ) -> None:
        """Catch up from a checkpoint, of this log or not."""
        head = self._model.get_current_sequence()
        sequence = data.draw(st.integers(0, head), "sequence")

        def catch_up(store: EventStore) -> list[Event]:
            here = store.get_events_since(sequence - 1, 1) if sequence else []
            checkpoint = store.checkpoint(here[0]) if here else Checkpoint(store.log_id, 0, None)
            if wrong == "log":
                checkpoint = msgspec.structs.replace(checkpoint, log_id="another")
            if wrong == "id" and here:
                checkpoint = msgspec.structs.replace(checkpoint, event_id=UUID(int=99))
            return store.get_events_since(Checkpoint.parse(str(checkpoint)), limit)

        self._same(catch_up)

    @rule(
        entity_type=_ENTITY_TYPES,
        entity_id=_ENTITY_IDS,
        tenant=_TENANTS,
        view=_VIEWS,
        version=_VERSIONS,
    )
    def get_events_for_entity(
        self, entity_type: str, entity_id: str, tenant: str, view: str | None, version: int
    ) -> None:
        """Read an entity, and its version."""
        self._same(
            lambda store: _seen_by(store, view).get_events_for_entity(
                entity_type, entity_id, version, tenant_id=tenant
            )
        )
        self._same(
            lambda store: _seen_by(store, view).get_current_version(
                entity_type, entity_id, tenant_id=tenant
            )
        )

    @rule(workflow=_WORKFLOWS, after=_SEQUENCES, tenant=st.none() | _TENANTS, view=_VIEWS)
    def get_events_for_workflow(
        self, workflow: str, after: int, tenant: str | None, view: str | None
    ) -> None:
        """Read a workflow."""
        self._same(
            lambda store: _seen_by(store, view).get_events_for_workflow(
                workflow, after, tenant_id=tenant
            )
        )

    @rule(
        entity_type=st.none() | _ENTITY_TYPES,
        tenant=st.none() | _TENANTS,
        limit=st.integers(0, 5),
        offset=st.integers(0, 4),
        view=_VIEWS,
    )
    def list_entities(
        self,
        entity_type: str | None,
        tenant: str | None,
        limit: int,
        offset: int,
        view: str | None,
    ) -> None:
        """List entities."""
        self._same(
            lambda store: _seen_by(store, view).list_entities(
                entity_type, tenant_id=tenant, limit=limit, offset=offset
            )
        )

    @rule(data=st.data(), tenant=_TENANTS, view=_VIEWS)
    def get_event_by_id(self, data: st.DataObject, tenant: str, view: str | None) -> None:
        """Look for an id."""
        known = [event.event_id for events in self._appended for event in events]
        event_id = data.draw(st.sampled_from(known) | _IDS if known else _IDS, "id")
        self._same(lambda store: _seen_by(store, view).get_event_by_id(event_id, tenant_id=tenant))
        self._same(lambda store: _seen_by(store, view).event_exists(event_id, tenant_id=tenant))

    @rule(view=_VIEWS)
    def head(self, view: str | None) -> None:
        """Read the head, as a number and as a checkpoint."""
        self._same(lambda store: _seen_by(store, view).get_current_sequence())
        self._same(lambda store: _seen_by(store, view).checkpoint())

    # --- Comparing

    def _same(self, call: Callable[[EventStore], Any]) -> None:
        expected = _outcome(self._model, call)
        assert _outcome(self._store, call) == expected


def state_machine_for(
    opener: Opener, *, examples: int = 50, steps: int = 30
) -> type[RuleBasedStateMachine]:
    """Return a state machine that compares the stores ``opener`` opens with the memory store.

    ``opener`` returns a context manager that yields a store over an empty log, such as a store
    itself. The machine's ``TestCase`` is what pytest and unittest run.
    """

    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(opener)

    Machine.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, database=None
    )
    return Machine


def _seen_by(store: EventStore, view: str | None) -> EventStore:
    return store if view is None else store.for_tenant(view)


def _outcome(store: EventStore, call: Callable[[EventStore], Any]) -> str:
    """Return what a call answers or raises as text, which tells 1 from 1.0 and True, and one
    order of keys from another."""
    try:
        return "\n".join(_lines(call(store)))
    except EventStoreError as error:
        return f"{type(error).__name__}: {_told_by(error, store)}"


def _lines(answer: Any) -> Iterator[str]:
    match answer:
        case AppendResult():
            yield repr(answer)
            yield from _lines(answer.events)
        case list() | tuple() if not isinstance(answer, Entity):
            for item in answer:
                yield from _lines(item)
        case Event():
            yield repr(answer.replace(recorded_at=None))
        case Checkpoint():
            yield f"checkpoint at {answer.sequence}, {answer.event_id}"
        case _:
            yield repr(answer)


def _told_by(error: EventStoreError, store: EventStore) -> str:
    match error:
        case VersionConflictError():
            entity = (error.entity_type, error.entity_id, error.tenant_id)
            return f"{entity}, expected {error.expected_version}, is {error.actual_version}"
        case DuplicateEventError():
            return str(error.event_id)
        case ConditionFailedError():
            # Which one of several matches it names is left open.
            found = store.get_events_since(error.sequence - 1, 1)
            named = [event for event in found if error.condition.query.matches(event)]
            after = error.condition.after or 0
            assert named, f"the event at {error.sequence} does not match the condition"
            assert isinstance(after, int)
            assert error.sequence > after
            return repr(error.condition)
        case _:
            return ""
