"""What a worker does: appends, races, repeats, mistakes and reads, at random.

Entities, tags and types are few, so that workers are in each other's way. What several
workers must agree on to race for it (a name to claim, a batch to append) follows from the
head of the log, which they all see.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any, Final
from uuid import UUID

from eventstore.checkpoint import Checkpoint
from eventstore.errors import StoreClosedError
from eventstore.event import Entity, Event
from eventstore.query import AppendCondition, EventQuery
from eventstore.testing.history.calls import AppendCall, Calls
from eventstore.versions import ExpectedVersion

ENTITIES: Final = [
    Entity("account", "a-1"),
    Entity("account", "a-2"),
    Entity("account", "a-3"),
    Entity("order", "o-1"),
    Entity("order", "o-2"),
    Entity("order", "a-1"),
    Entity("account", "a-1", "acme"),
    Entity("order", "o-1", "acme"),
]
TYPES: Final = ["Opened", "Changed", "Moved", "Closed"]
TAGS: Final = ["red", "green", "blue", "urgent", "eu", "us"]
WORKFLOWS: Final = [None, None, "w-1", "w-2", "w-3"]
NEAR: Final = 100
"""How many sequences back reads and conditions look."""
LARGE: Final = 250
"""Events in a large batch."""
WAIT: Final = 0.02
"""Seconds to wait for events at most."""


class Workload:
    """One worker's random choices."""

    def __init__(self, calls: Calls, run: str, seed: str) -> None:
        """``run`` is the same for all workers of a history, ``seed`` another for each."""
        self._calls = calls
        self._store = calls.store
        self._run = run
        self._random = Random(seed)
        self._position: int | Checkpoint = 0
        self._recent: deque[Sequence[Event]] = deque(maxlen=30)
        actions: dict[Callable[[], None], int] = {
            self._append_one: 10,
            self._append_some: 10,
            self._append_many: 1,
            self._race_for_version: 15,
            self._race_with_mapping: 6,
            self._race_under_condition: 10,
            self._race_for_name: 8,
            self._race_with_batch: 8,
            self._repeat: 10,
            self._misuse_ids: 6,
            self._make_mistake: 4,
            self._settle: 5,
            self._tail_by_number: 12,
            self._tail_by_checkpoint: 6,
            self._query: 12,
            self._read_entity: 6,
            self._read_head: 10,
            self._count: 4,
            self._find: 6,
            self._wait: 6,
        }
        self._actions = list(actions)
        self._weights = list(actions.values())

    def step(self) -> None:
        """Do one thing."""
        if self._calls.lost_position:
            self._start_over()
        self._random.choices(self._actions, self._weights)[0]()

    def _start_over(self) -> None:
        """Forget what was seen of a log that does not hold it any more."""
        self._position = 0
        self._recent.clear()
        self._calls.head = 0
        self._calls.lost_position = False

    # --- Events

    def _event(self, entity: Entity | None = None, **fields: Any) -> Event:
        return _random_event(self._random, entity, **fields)

    def _events(self, most: int) -> list[Event]:
        return [self._event() for _ in range(self._random.randint(1, most))]

    def _submit(self, call: AppendCall) -> None:
        """Append; then, at times, read what was appended right away."""
        events = self._calls.append(call)
        if events is None:
            return
        self._recent.append(events)
        if self._random.random() < 0.3:
            self._read_since(events[0].sequence - 1, len(events))

    # --- Appends and races

    def _append_one(self) -> None:
        self._submit(AppendCall("append", [self._event()], alone=True))

    def _append_some(self) -> None:
        self._submit(AppendCall("append_batch", self._events(12)))

    def _append_many(self) -> None:
        self._submit(AppendCall("append_batch of many", [self._event() for _ in range(LARGE)]))

    def _race_for_version(self) -> None:
        entity = self._random.choice(ENTITIES)
        expected = self._expectation(entity)
        events = [self._event(entity) for _ in range(self._random.randint(1, 3))]
        alone = len(events) == 1
        self._submit(AppendCall("append with version", events, {entity: expected}, alone=alone))

    def _race_with_mapping(self) -> None:
        entities = self._random.sample(ENTITIES, 3)
        expected = {entity: self._expectation(entity) for entity in entities}
        # The last one is expected, but not written.
        events = [self._event(entity) for entity in entities[:2]]
        self._submit(AppendCall("append with mapping", events, expected))

    def _race_under_condition(self) -> None:
        after = max(0, self._calls.current_head() - self._random.choice([0, 0, 0, 1, 5]))
        event = self._event()
        query = self._random.choice(
            [
                EventQuery(tags=sorted(event.tags) or ("red",)),
                EventQuery(event_types=(event.event_type, "Opened")),
                _query_of(event.entity),
                EventQuery(any_of=(EventQuery(tags=("red", "eu")), _query_of(event.entity))),
            ]
        )
        self._submit(
            AppendCall("append with condition", [event], {}, AppendCondition(query, after))
        )

    def _race_for_name(self) -> None:
        name = f"name:{self._run}:{self._calls.current_head() // 20}"
        condition = AppendCondition(EventQuery(tags=(name,)))
        events = [self._event(tags=(name,)), self._event()]
        self._submit(AppendCall("append to claim a name", events, {}, condition))

    def _race_with_batch(self) -> None:
        shared = Random(f"{self._run}:{self._calls.current_head() // 20}")
        events = [
            _random_event(shared, event_id=UUID(int=shared.getrandbits(128)))
            for _ in range(shared.randint(1, 5))
        ]
        self._submit(AppendCall("append of a shared batch", events))

    def _expectation(self, entity: Entity) -> int:
        version = self._version_of(entity)
        return self._random.choice(
            [version] * 7
            + [version + 1, max(0, version - 1)]
            + [ExpectedVersion.NO_STREAM, ExpectedVersion.STREAM_EXISTS]
        )

    # --- Repeats and mistakes

    def _repeat(self) -> None:
        if not self._recent:
            return
        events = self._recent_events()
        if self._random.random() < 0.3:
            later = self._random.choice(self._recent)
            if later is not events and later[0].event_id != events[0].event_id:
                events += later  # of two batches; refused, if their order is another
        if self._random.random() < 0.3:
            events = [event for event in events if self._random.random() < 0.7] or events
        if self._random.random() < 0.5:
            events = [event.replace(timestamp=event.timestamp + timedelta(1)) for event in events]
        condition = AppendCondition(EventQuery()) if self._random.random() < 0.5 else None
        expected = {events[0].entity: 0} if self._random.random() < 0.3 else {}
        self._submit(AppendCall("repeat", events, expected, condition))

    def _recent_events(self) -> list[Event]:
        """Return a recent append's events as they were given, or as they were returned."""
        events = list(self._random.choice(self._recent))
        if self._random.random() < 0.5:
            return events
        assigned_nothing = {"sequence": 0, "version": 0, "batch_sequence": 0, "recorded_at": None}
        return [event.replace(**assigned_nothing) for event in events]

    def _misuse_ids(self) -> None:
        if not self._recent:
            return
        events = self._recent_events()
        misuse = self._random.randrange(5)
        if misuse == 0:
            events.append(self._event())
        elif misuse == 1:
            events.insert(0, self._event())
        elif misuse == 2:
            events[-1] = events[-1].replace(data={"another": True})
        elif misuse == 3:
            events.append(events[0])
        else:
            events.reverse()  # a plain repeat, where there is but one
        self._submit(AppendCall("append of used ids", events))

    def _make_mistake(self) -> None:
        events = self._events(3)
        mistake = self._random.randrange(4)
        if mistake == 0:
            events[-1] = events[-1].replace(data={"much": float("inf")})
        elif mistake == 1:
            events[-1] = events[-1].replace(entity_id="")
        elif mistake == 2:
            events.append(events[0])
        else:
            beyond = AppendCondition(EventQuery(), self._calls.head + 1_000_000_000)
            self._submit(AppendCall("append beyond the head", events, {}, beyond))
            return
        self._submit(AppendCall("append of bad input", events, invalid=True))

    def _settle(self) -> None:
        """Repeat appends of which nobody knows whether they were stored."""
        unsettled, self._calls.unsettled = self._calls.unsettled, []
        for call in unsettled:
            self._submit(call)

    # --- Reads

    def _read_since(self, position: int | Checkpoint, limit: int) -> list[Event]:
        number = position.sequence if isinstance(position, Checkpoint) else position
        return self._calls.read(
            "get_events_since",
            EventQuery(from_sequence=number, limit=limit),
            lambda: self._store.get_events_since(position, limit),
            position,
        )

    def _tail_by_number(self) -> None:
        number = (
            self._position.sequence if isinstance(self._position, Checkpoint) else self._position
        )
        events = self._read_since(number, self._random.choice([1, 10, 100, 1000]))
        if events:
            self._position = events[-1].sequence

    def _tail_by_checkpoint(self) -> None:
        events = self._read_since(self._position, self._random.choice([1, 10, 100, 1000]))
        if events:
            with suppress(StoreClosedError):  # the next call will record it
                self._position = self._store.checkpoint(events[-1])

    def _query(self) -> None:
        event = self._event()
        query = self._random.choice(
            [
                EventQuery(),
                EventQuery(tags=sorted(self._random.sample(TAGS, 2))),
                EventQuery(event_types=sorted(self._random.sample(TYPES, 2)), tenant_id=""),
                EventQuery(workflow_id="w-1"),
                _query_of(event.entity),
                EventQuery(any_of=(EventQuery(tags=("red",)), _query_of(event.entity))),
            ]
        )
        near = max(0, self._calls.head - self._random.randint(0, NEAR))
        query = query.replace(
            from_sequence=near,
            limit=self._random.choice([None, None, 1, 7]),
            ascending=self._random.random() < 0.7,
        )
        self._calls.read("get_events", query, lambda: self._store.get_events(query))

    def _read_entity(self) -> None:
        entity = self._random.choice(ENTITIES)
        version = max(0, (self._version_of(entity)) - self._random.randint(0, 20))
        self._calls.read(
            "get_events_for_entity",
            _query_of(entity).replace(offset=version),
            lambda: self._store.get_events_for_entity(
                entity.entity_type, entity.entity_id, version, tenant_id=entity.tenant_id
            ),
        )

    def _read_head(self) -> None:
        if self._random.random() < 0.5:
            self._calls.current_head()
            return
        self._calls.count("checkpoint", EventQuery(), lambda: self._store.checkpoint().sequence)

    def _count(self) -> None:
        near = max(0, self._calls.head - self._random.randint(0, NEAR))
        query = EventQuery(tags=(self._random.choice(TAGS),), from_sequence=near)
        self._calls.count("count_events", query, lambda: self._store.count_events(query))

    def _find(self) -> None:
        unknown = self._event()
        recent = self._random.choice(self._recent) if self._recent else [unknown]
        event = self._random.choice([*recent, unknown])
        self._calls.find("get_event_by_id", event.event_id, event.tenant_id)

    def _wait(self) -> None:
        query = EventQuery(tags=("urgent",)) if self._random.random() < 0.3 else EventQuery()
        head = self._calls.head
        self._calls.count(
            "wait_for_events",
            query.replace(from_sequence=head, limit=1),
            lambda: int(self._store.wait_for_events(head, WAIT, query)),
            position=head,
        )

    def _version_of(self, entity: Entity) -> int:
        version = self._calls.count(
            "get_current_version",
            _query_of(entity),
            lambda: self._store.get_current_version(
                entity.entity_type, entity.entity_id, tenant_id=entity.tenant_id
            ),
        )
        return version or 0


def _query_of(entity: Entity) -> EventQuery:
    return EventQuery(**entity._asdict())


def _random_event(random: Random, entity: Entity | None = None, **fields: Any) -> Event:
    about = entity or random.choice(ENTITIES)
    drawn: dict[str, Any] = {
        "event_type": random.choice(TYPES),
        "data": {"n": random.randint(-(2**63), 2**63 - 1), "x": random.random(), "s": "ÅΩ\0"},
        "workflow_id": random.choice(WORKFLOWS),
        "tags": tuple(random.sample(TAGS, random.randint(0, 2))),
        "metadata": {"actor_id": f"u-{random.randint(1, 9)}"},
        "schema_version": random.choice([1, 1, 2]),
    }
    return Event(**about._asdict(), **{**drawn, **fields})
