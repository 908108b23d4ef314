"""The record of a history and its final log, arranged for the checks."""

from __future__ import annotations

from bisect import bisect_right

from eventstore.checkpoint import Checkpoint
from eventstore.event import Entity
from eventstore.query import AppendCondition, EventQuery
from eventstore.testing.history.index import Known, LogIndex
from eventstore.testing.history.recording import (
    Append,
    Asked,
    ConditionFailed,
    Conflicted,
    Duplicate,
    Failure,
    History,
    Lookup,
    Read,
    Stored,
)


class Evidence:
    """What was done, how the log stood in the end, and what was known when.

    *Known* at a time is the highest sequence that any call which had ended by then was told or
    shown, and with it the rest of that batch.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.log = LogIndex(history.log)
        self.appends = [op for op in history.operations if isinstance(op, Append)]
        self.reads = [op for op in history.operations if isinstance(op, Read)]
        self.lookups = [op for op in history.operations if isinstance(op, Lookup)]
        self.failures = [op for op in history.operations if isinstance(op, Failure)]
        self.acknowledged = Known(self._heads_acknowledged())
        self.shown = Known(self._heads_shown())
        self.possible = Known(self._heads_possible())

    def _heads_acknowledged(self) -> dict[int, int]:
        facts: dict[int, int] = {}
        for append in self.appends:
            if isinstance(append.outcome, Stored) and append.ended is not None:
                last = max((receipt.sequence for receipt in append.outcome.receipts), default=0)
                _keep(facts, append.ended, self.log.whole_batch(last))
        return facts

    def _heads_possible(self) -> dict[int, int]:
        """Return the highest sequence that calls begun by a time may have brought about."""
        facts = {-1: self.history.start}
        for append in self.appends:
            at = [self.sequence_of(asked) or 0 for asked in append.events]
            _keep(facts, append.began, self.log.whole_batch(max(at, default=0)))
        return facts

    def _heads_shown(self) -> dict[int, int]:
        facts = {-1: self.history.start}
        for read in self.reads:
            _keep(facts, read.ended, self.log.whole_batch(self.highest_shown(read)))
        for lookup in self.lookups:
            if lookup.found is not None:
                _keep(facts, lookup.ended, self.log.whole_batch(lookup.found.sequence))
        for append in self.appends:
            if append.ended is not None:
                _keep(facts, append.ended, self.log.whole_batch(self._told_by_error(append)))
        return facts

    def highest_shown(self, read: Read) -> int:
        """Return the highest sequence that a read tells to be recorded, 0 if none."""
        if read.runs is not None:
            return max((first + count - 1 for first, count in read.runs), default=0)
        position = self.first_position(read.query) + read.count
        matching = self.log.matching(read.query)
        return matching[position - 1] if read.count > 0 and position <= len(matching) else 0

    def _told_by_error(self, append: Append) -> int:
        """Return the sequence that an error tells to be recorded, 0 if none."""
        match append.outcome:
            case ConditionFailed(sequence=sequence):
                return sequence
            case Conflicted(entity=entity, actual=actual):
                of_entity = self.log.by_entity.get(entity, [])
                return of_entity[actual - 1] if 0 < actual <= len(of_entity) else 0
            case Duplicate(event_id=event_id) if not names_an_id_twice(append):
                named = [asked for asked in append.events if asked.event_id == event_id]
                return max((self.sequence_of(asked) or 0 for asked in named), default=0)
        return 0

    def known_before(self, time: int) -> int:
        """Return the head that was known when ``time`` came."""
        return max(self.acknowledged.before(time), self.shown.before(time))

    def holds(self, position: Checkpoint) -> bool:
        """Return whether the event that a checkpoint names stands where it says."""
        entry = self.log.entries.get(position.sequence)
        return position.sequence == 0 or (
            entry is not None and entry.event.event_id == position.event_id
        )

    def may_find_it_replaced(self, ended: int) -> bool:
        """Return whether a call that ended then may find another log than was opened."""
        return self.history.replaced is not None and self.history.replaced <= ended

    def sequence_of(self, asked: Asked) -> int | None:
        """Return where an event stands in the log, None if it does not."""
        return self.log.sequence_of(asked.entity.tenant_id, asked.event_id)

    def first_position(self, query: EventQuery) -> int:
        """Return the index in ``log.matching(query)`` of the first that the query asks for."""
        return bisect_right(self.log.matching(query), query.from_sequence or 0) + query.offset


def names_an_id_twice(append: Append) -> bool:
    """Return whether a batch holds one id twice."""
    ids = [(asked.entity.tenant_id, asked.event_id) for asked in append.events]
    return len(set(ids)) < len(ids)


def position_after(condition: AppendCondition | None) -> int:
    """Return the sequence that a condition looks beyond."""
    after = None if condition is None else condition.after
    return after.sequence if isinstance(after, Checkpoint) else after or 0


def _keep(facts: dict[int, int], time: int, head: int) -> None:
    if head > facts.get(time, 0):
        facts[time] = head


def name_of(operation: Append | Read | Lookup | Failure) -> str:
    """Return a call in words."""
    return f"{operation.what} of worker {operation.worker} at {operation.began}"


def shown_entity(entity: Entity) -> str:
    """Return an entity in words."""
    return "/".join(part for part in (entity.tenant_id, *entity[:2]) if part)
