"""The commit planner: which batches of a group stand, and what each event is assigned.

Pure: no I/O, no clock, no locks. A backend that plans on the client reads what a ``LogState``
asks for while it holds the log's write lock, calls ``plan``, and writes what the plan accepts
in the same transaction. A backend that decides on the server (a function, a script) follows
the same rules in the same order:

1. **Repeat** (G7): all ids recorded, in this order, with this content → the recorded events.
   Some but not all, another order or other content → DuplicateEventError.
2. **Versions** (G5): every expectation holds, else VersionConflictError.
3. **Condition** (G6): ``after`` is not beyond the head, else CheckpointError; no event above
   it matches, else ConditionFailedError.
4. The batch is accepted: its events follow the head, contiguously and in order (G2).

Each batch is judged against the log and the accepted batches before it, never against itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import msgspec

from eventstore._core.payloads import canonical, decode_object
from eventstore.backend.draft import Draft
from eventstore.checkpoint import Checkpoint
from eventstore.errors import (
    CheckpointError,
    ConditionFailedError,
    DuplicateEventError,
    EventStoreError,
    VersionConflictError,
)
from eventstore.event import Entity, Event
from eventstore.query import AppendCondition, EventQuery
from eventstore.result import AppendResult
from eventstore.versions import expectation_holds

EventKey = tuple[str, UUID]
"""``(tenant_id, event_id)``: what is unique in a log. Not to be hashed: see ``Identity``."""

Identity = tuple[str, bytes]
"""An ``EventKey`` for sets and dicts, the id by its bytes. A UUID hashes as its number does, so
who chooses ids could make any count of them hash alike; the hash of bytes is keyed."""

PER_EVENT_BYTES: Final = 512
"""What an event weighs beside its payload, roughly: names, ids, index entries."""


class Condition(msgspec.Struct, frozen=True):
    """An append condition, as far as it was looked into before the commit began."""

    asked: AppendCondition
    query: EventQuery
    """What may not match; restricted to the tenant, where a view appends."""
    after: int
    """The lower bound, exclusive; 0 where the whole log counts."""
    checked_to: int
    """How far the core has looked before the commit began: the events above ``after`` and up to
    this sequence are known, and none of them matches but ``match``. What is left to be looked at
    under the log's lock is what came since: the events above it."""
    match: int = 0
    """The sequence of a match found before the commit; 0 if none was."""
    witness: EventKey | None = None
    """The event that stood at ``checked_to``, where there was one. Where it stands there no more,
    the log was put back to an older copy meanwhile, and what was looked at is another past."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Events to be stored together, and what must hold for that. Valid and encoded."""

    drafts: tuple[Draft, ...]
    """No id twice. None in a batch that is only to be checked: then nothing is written."""
    expected: tuple[tuple[Entity, int], ...] = ()
    """Expected versions (``ExpectedVersion.ANY`` is left out)."""
    condition: Condition | None = None

    @property
    def keys(self) -> list[EventKey]:
        """The identities of its events."""
        return [(draft.tenant_id, draft.event_id) for draft in self.drafts]

    @property
    def identities(self) -> list[Identity]:
        """The identities of its events, for sets and dicts."""
        return [draft.identity for draft in self.drafts]

    @property
    def weight(self) -> int:
        """Roughly how many bytes it will take in the log."""
        return sum(PER_EVENT_BYTES + len(draft.data) + len(draft.metadata) for draft in self.drafts)


class Accepted(msgspec.Struct, frozen=True):
    """A batch that is (to be) written. A backend that decides on the server makes these too."""

    drafts: tuple[Draft, ...]
    first_sequence: int
    versions: Sequence[int]
    """The version of each event within its entity."""
    recorded_at: datetime

    def event(self, index: int) -> Event:
        """Return one of its events as recorded."""
        return self.drafts[index].recorded(
            sequence=self.first_sequence + index,
            version=self.versions[index],
            batch_sequence=self.first_sequence,
            recorded_at=self.recorded_at,
        )

    def events(self) -> list[Event]:
        """Return its events as recorded."""
        return [self.event(index) for index in range(len(self.drafts))]

    def result(self) -> AppendResult:
        """Return what the append returns."""
        first = self.first_sequence
        return AppendResult(range(first, first + len(self.drafts)), self.events)


class Repeated(msgspec.Struct, frozen=True):
    """A batch whose events are all recorded already. Nothing is written."""

    twins: tuple[Event, ...]

    def result(self) -> AppendResult:
        """Return what the append returns."""
        twins = self.twins
        return AppendResult(tuple(event.sequence for event in twins), lambda: twins, replayed=True)


class AnotherPastError(EventStoreError):
    """The log was put back to an older copy between the look into a condition and the commit.

    Nothing was written. It never reaches a user: the core looks again and appends again.
    """

    def __init__(self) -> None:
        super().__init__("the log was put back to an older copy meanwhile")


ANOTHER_PAST: Final = -1
"""In ``LogState.matches`` for a condition whose witness is gone."""

Outcome = Accepted | Repeated | EventStoreError
"""What became of a batch; an error is to be raised in its caller alone."""


class LogState(msgspec.Struct, kw_only=True):
    """What the planner must know, all read under the log's write lock (or as one snapshot
    that the write will confirm)."""

    head: int
    recorded_at: datetime | None
    """Of the event at the head."""
    now: datetime
    """By the server's clock where there is one."""
    versions: Mapping[Entity, int]
    """The current version of every entity that ``entities_of`` the group names; a missing one
    is at 0."""
    twins: Mapping[Identity, Event]
    """``twins_of`` the recorded events whose identity is in ``keys_of`` the group."""
    matches: Sequence[int]
    """For each batch the sequence of a recorded event that fails its condition: above
    ``condition.checked_to`` (the core has looked up to there); 0 if none does; ANOTHER_PAST where
    the condition's witness is gone."""


class LogView(Protocol):
    """The log as one consistent read shows it, under its write lock (or as a snapshot that the
    write will confirm): what a backend that plans on the client can look up."""

    def head(self) -> tuple[int, datetime | None]:
        """Return the highest sequence, 0 when empty, and when that event was recorded. Asked
        first; whatever is asked later must not be older."""

    def now(self) -> datetime:
        """Return the time, by the server's clock where there is one."""

    def versions(self, entities: Collection[Entity]) -> Mapping[Entity, int]:
        """Return the current versions of entities; one that is missing is at 0."""

    def find(self, keys: Sequence[EventKey]) -> Iterable[Event]:
        """Return the recorded events of these identities."""

    def first_match(self, query: EventQuery, after: int, up_to: int) -> int:
        """Return the sequence of an event in ``(after, up_to]`` that matches, 0 if none does."""


class Plan(msgspec.Struct, frozen=True):
    """What to write and what to answer."""

    outcomes: list[Outcome]
    """One for each batch, in order."""

    @property
    def accepted(self) -> list[Accepted]:
        """What to write, in order: not what has nothing to write."""
        return [each for each in self.outcomes if isinstance(each, Accepted) and each.drafts]


def entities_of(group: Iterable[Batch]) -> set[Entity]:
    """Return the entities whose versions the planner needs."""
    return {draft.entity for batch in group for draft in batch.drafts} | {
        entity for batch in group for entity, _ in batch.expected
    }


def keys_of(group: Iterable[Batch]) -> list[EventKey]:
    """Return the identities whose recorded twins the planner needs."""
    return [key for batch in group for key in batch.keys]


def twins_of(recorded: Iterable[Event]) -> dict[Identity, Event]:
    """Return recorded events by their identity."""
    return {(event.tenant_id, event.event_id.int.to_bytes(16, "big")): event for event in recorded}


def state_of(view: LogView, group: Sequence[Batch]) -> LogState:
    """Return all that the planner must know, looked up in ``view``."""
    head, recorded_at = view.head()
    return LogState(
        head=head,
        recorded_at=recorded_at,
        now=view.now(),
        versions=view.versions(entities_of(group)),
        twins=twins_of(view.find(keys_of(group))),
        matches=[_first_match(view, batch.condition, head) for batch in group],
    )


def plan_over(view: LogView, group: Sequence[Batch]) -> Plan:
    """Judge each batch in order against the log that ``view`` shows."""
    return plan(group, state_of(view, group))


def stands(find: Callable[[Sequence[EventKey]], Iterable[Event]], condition: Condition) -> bool:
    """Return whether the log still has the past that ``condition`` was looked into."""
    return condition.witness is None or any(
        event.sequence == condition.checked_to for event in find([condition.witness])
    )


def _first_match(view: LogView, condition: Condition | None, head: int) -> int:
    """Return the sequence of an event that fails a condition, of those that the core has not
    looked at; 0 if there is none."""
    if condition is None:
        return 0
    if not stands(view.find, condition):
        return ANOTHER_PAST
    if condition.match or condition.checked_to >= head:
        return 0
    return view.first_match(condition.query, condition.checked_to, head)


def plan(group: Sequence[Batch], state: LogState) -> Plan:
    """Judge each batch in order against the log and the accepted ones before it."""
    head = state.head
    versions = dict(state.versions)
    twins = state.twins
    recorded_at = state.now
    if state.recorded_at is not None and state.recorded_at > recorded_at:
        recorded_at = state.recorded_at  # a clock that was set back: the log's time stands still
    outcomes: list[Outcome] = []
    fresh = _Fresh(needed=len(group) > 1)
    for batch, match in zip(group, state.matches, strict=True):
        outcome: Outcome | None = judge_repeat(batch, fresh.with_twins_of(batch, twins))
        if outcome is None:
            outcome = _unmet_expectation(batch, versions)
        if outcome is None and batch.condition is not None:
            outcome = _unmet_condition(batch.condition, head, match, fresh)
        if outcome is None:
            outcome = _accept(batch.drafts, head, versions, recorded_at)
            head += len(batch.drafts)
            fresh.add(outcome)
        outcomes.append(outcome)
    return Plan(outcomes)


def judge_repeat(
    batch: Batch, twins: Mapping[Identity, Event]
) -> Repeated | DuplicateEventError | None:
    """Return whether ``batch`` repeats what is recorded; None if none of its ids is.

    ``twins`` are recorded events by identity, those of other batches among them or not.
    """
    if not twins:
        return None
    found = [twins.get(identity) for identity in batch.identities]
    first = next((event for event in found if event is not None), None)
    if first is None:
        return None
    last_sequence = 0
    for draft, twin in zip(batch.drafts, found, strict=True):
        if twin is None:
            return DuplicateEventError(
                f"event_id: {first.event_id} is recorded already (at sequence {first.sequence})"
                " but other events of this batch are not: a repeat must be of whole batches,"
                " and new events need new ids (as_new())",
                event_id=first.event_id,
            )
        if (difference := _difference(draft, twin)) is not None:
            return DuplicateEventError(
                f"event_id: {twin.event_id} is recorded already (at sequence {twin.sequence})"
                f" with another {difference}: a new event needs a new id (as_new())",
                event_id=twin.event_id,
            )
        if twin.sequence <= last_sequence:
            return DuplicateEventError(
                f"event_id: {twin.event_id} is recorded already (at sequence {twin.sequence})"
                " in another order than in this batch",
                event_id=twin.event_id,
            )
        last_sequence = twin.sequence
    return Repeated(tuple(event for event in found if event is not None))


def position_beyond(what: str, position: int) -> CheckpointError:
    """Return the error for a position that this log never reached."""
    # The head itself is not told: to a tenant's view it would tell of the others.
    return CheckpointError(
        f"{what}: {position} is beyond the head of the log: the log was replaced, restored from"
        " an older copy, or lost events after that position was seen"
    )


class _Fresh:
    """The events accepted earlier in this group: what later batches are judged against."""

    def __init__(self, *, needed: bool) -> None:
        self._accepted: list[Accepted] = []
        self._by_identity: dict[Identity, tuple[Accepted, int]] = {}
        self._needed = needed

    def add(self, accepted: Accepted) -> None:
        if not self._needed:
            return
        self._accepted.append(accepted)
        for index, draft in enumerate(accepted.drafts):
            self._by_identity[draft.identity] = accepted, index

    def with_twins_of(
        self, batch: Batch, recorded: Mapping[Identity, Event]
    ) -> Mapping[Identity, Event]:
        """Return the recorded twins and those that this group is about to record."""
        if not self._by_identity:
            return recorded
        twins = dict(recorded)
        for identity in batch.identities:
            if identity in self._by_identity:
                accepted, index = self._by_identity[identity]
                twins[identity] = accepted.event(index)
        return twins

    def first_match(self, condition: Condition) -> int:
        """Return the sequence of an accepted event that fails ``condition``, or 0."""
        for accepted in self._accepted:
            for sequence, draft in enumerate(accepted.drafts, accepted.first_sequence):
                if sequence > condition.after and condition.query.takes(draft, sequence):
                    return sequence
        return 0


def _unmet_expectation(batch: Batch, versions: Mapping[Entity, int]) -> VersionConflictError | None:
    for entity, expected in batch.expected:
        actual = versions.get(entity, 0)
        if not expectation_holds(expected, actual):
            return VersionConflictError(
                entity_type=entity.entity_type,
                entity_id=entity.entity_id,
                tenant_id=entity.tenant_id,
                expected_version=expected,
                actual_version=actual,
            )
    return None


def _unmet_condition(
    condition: Condition, head: int, match: int, fresh: _Fresh
) -> AnotherPastError | CheckpointError | ConditionFailedError | None:
    if match == ANOTHER_PAST:
        return AnotherPastError()
    if condition.after > head:
        return position_beyond("condition.after", condition.after)
    sequence = condition.match or match or fresh.first_match(condition)
    if sequence:
        return ConditionFailedError(condition=condition.asked, sequence=sequence)
    return None


def _accept(
    drafts: tuple[Draft, ...], head: int, versions: dict[Entity, int], recorded_at: datetime
) -> Accepted:
    assigned = []
    for draft in drafts:
        entity = draft.entity
        version = versions.get(entity, 0) + 1
        versions[entity] = version
        assigned.append(version)
    return Accepted(drafts, head + 1, assigned, recorded_at)


def _difference(draft: Draft, twin: Event) -> str | None:
    """Return the name of the first field of content in which they differ."""
    for field in ("event_type", "entity_type", "entity_id", "workflow_id", "schema_version"):
        if getattr(draft, field) != getattr(twin, field):
            return field
    if set(draft.tags) != set(twin.tags):
        return "tags"
    if canonical(decode_object(draft.data)) != canonical(twin.data):
        return "data"
    return None


def position_of(after: int | Checkpoint | None) -> int:
    """Return the sequence that a position stands for."""
    return after.sequence if isinstance(after, Checkpoint) else after or 0
