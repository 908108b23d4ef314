"""Appends: in one call of a function where nothing stands against them, else judged by the
planner; both under the log's write lock, both in the store's own sessions and in a caller's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from math import ceil
from typing import Any, Final, NamedTuple

import psycopg

from eventstore.backend import (
    Accepted,
    Batch,
    Condition,
    Draft,
    EventKey,
    Outcome,
    entities_of,
    keys_of,
    plan,
    replaced,
    state_of,
    twins_of,
)
from eventstore.errors import BatchTooLargeError, CorruptLogError, StoreUnavailableError
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_postgres import records
from eventstore_postgres.selecting import compared, statement, where

MOST_BYTES: Final = 500_000_000
"""In one batch: a message to PostgreSQL, and an array in it, has at most 1 GB."""


class OpenLog(NamedTuple):
    """The log that was opened."""

    namespace: str
    id: bytes
    notify: bool
    """Whether to tell those who wait of what is appended."""


class Appender:
    """Appends by one cursor, whose transaction (or autocommit) is the caller's business."""

    def __init__(self, cursor: psycopg.Cursor[Any], log: OpenLog, timeout: float) -> None:
        self.cursor = cursor
        self.log = log
        self._timeout = timeout
        patience = records.int8(ceil(max(timeout, 0.001) * 1000))
        self._begin = (patience, b"\1" if log.notify else b"\0")

    def append(self, group: Sequence[Batch]) -> Sequence[Outcome]:
        """Append inside a transaction."""
        return self.append_at_once(group) or self.append_planned(group)

    def append_at_once(self, group: Sequence[Batch]) -> Sequence[Outcome] | None:
        """Append in one call; None (and nothing written) where the planner has to judge."""
        condition = None
        if len(group) == 1:
            (batch,) = group
            condition = batch.condition
            if batch.weight > MOST_BYTES:
                raise BatchTooLargeError(
                    f"events: the batch weighs {batch.weight:,} bytes; PostgreSQL stores at most"
                    f" {MOST_BYTES:,} at once"
                )
            if condition and condition.match:
                return None
            if len(batch.drafts) == 1:
                return self._append_one(batch)
        else:
            identities = [identity for batch in group for identity in batch.identities]
            if any(batch.condition for batch in group) or len(set(identities)) < len(identities):
                return None  # a batch may depend on those before it
        expected = _expectations(group)
        if expected is None:
            return None
        batches = [batch.drafts for batch in group]
        return self._append_many(batches, expected, condition, unmoved=_looked_to(condition))

    def append_planned(self, group: Sequence[Batch]) -> Sequence[Outcome]:
        """Append what the planner accepts, under the log's lock, which the transaction then holds
        to its end."""
        state = state_of(_Locked(self, group), group)
        planned = plan(group, state)
        if planned.accepted:
            batches = [accepted.drafts for accepted in planned.accepted]
            entities = {draft.entity for batch in batches for draft in batch}
            # It assigns what was planned, or nothing.
            written = self._append_many(
                batches,
                {entity: state.versions[entity] for entity in entities},
                unmoved=state.head,
                recorded_at=planned.accepted[0].recorded_at,
            )
            if not written:
                raise CorruptLogError(
                    f"the log {self.log.namespace!r} is written to by something that does not take"
                    " its lock"
                )
        return planned.outcomes

    def holds_lock(self) -> bool:
        """Return whether the cursor's transaction holds the log's lock."""
        return bool(self._holders("="))

    def _append_one(self, batch: Batch) -> Sequence[Outcome] | None:
        (draft,) = batch.drafts
        expected = None
        if batch.expected:
            if len(batch.expected) > 1 or batch.expected[0][0] != draft.entity:
                return None
            expected = records.int8(batch.expected[0][1])
        unmoved = records.int8_or_null(_looked_to(batch.condition))
        row = self._append(
            "append_one", (expected, unmoved, *records.row_of(draft)), batch.condition
        )
        if row is None:
            return None
        first, version, recorded_at = row
        return [Accepted(batch.drafts, first, (version,), records.to_time(recorded_at))]

    def _append_many(
        self,
        batches: Sequence[tuple[Draft, ...]],
        expected: Mapping[Entity, int],
        condition: Condition | None = None,
        *,
        unmoved: int | None,
        recorded_at: datetime | None = None,
    ) -> Sequence[Outcome] | None:
        """Append batches, all or none. None where an entity's version is not as ``expected``, the
        head is not ``unmoved`` (None: wherever it is), or an id is recorded.

        ``recorded_at``: None for now.
        """
        drafts = [draft for batch in batches for draft in batch]
        entities = {entity: at for at, entity in enumerate(expected)}
        counts = [0] * len(entities)
        place: list[int] = []
        nth: list[int] = []
        first_in_batch: list[int] = []
        for batch in batches:
            first_in_batch += [len(place) + 1] * len(batch)
            for draft in batch:
                at = entities.setdefault(draft.entity, len(entities))
                if at == len(counts):
                    counts.append(0)
                counts[at] += 1
                place.append(at)
                nth.append(counts[at])
        parameters = (
            records.int8_or_null(unmoved),
            None if recorded_at is None else records.time(recorded_at),
            *records.arrays_of_entities(entities),
            records.int8s_or_nulls([expected.get(entity) for entity in entities]),
            *records.arrays_of(drafts),
            records.int8s([at + 1 for at in place]),
            records.int8s(nth),
            records.int8s(first_in_batch),
        )
        row = self._append("append_many", parameters, condition)
        if row is None:
            return None
        first, bases, assigned_at = row
        recorded_at = records.to_time(assigned_at)
        versions = [bases[at] + added for at, added in zip(place, nth, strict=True)]
        outcomes = []
        start = 0
        for batch in batches:
            end = start + len(batch)
            outcomes.append(Accepted(batch, first + start, versions[start:end], recorded_at))
            start = end
        return outcomes

    def _append(
        self, function: str, parameters: Sequence[records.Value], condition: Condition | None
    ) -> Any:
        """Return what a function of append.sql has assigned; None where it wrote nothing."""
        row = self.call(function, parameters, condition)
        if row is None or row[0] is None:
            return None
        if row[0] == 0:
            raise self.busy()
        return row

    def call(
        self,
        function: str,
        parameters: Sequence[records.Value],
        condition: Condition | None = None,
    ) -> Any:
        """Return the answer of a function of append.sql; None, and it was not called, where the
        witness of ``condition`` may be gone (the planner tells that from another log)."""
        stood: tuple[records.Value, ...] = ()
        if condition is not None and condition.witness is not None:
            tenant_id, event_id = condition.witness
            stood = records.int8(condition.checked_to), event_id.bytes, tenant_id.encode()
        text = _call_of(self.log.namespace, function, witnessed=bool(stood))
        given = (*self._begin, *parameters, self.log.id, *stood)
        row = self.cursor.execute(text, given, binary=True).fetchone()
        if row is None and not stood:
            raise replaced(self.log.namespace)
        return row

    def busy(self) -> StoreUnavailableError:
        """Return the error that names the sessions which hold the log's lock."""
        holders = [
            f"process {pid} of {user!r} (application_name {application!r}, {state})"
            for pid, user, application, state in self._holders("<>")
        ]
        return StoreUnavailableError(
            f"another append held the log for more than {self._timeout:.3g} s: "
            + (", ".join(holders) or "it has just ended")
            + "; a transaction that an append has joined holds it until it ends"
        )

    def _holders(self, compared: str) -> list[Any]:
        text = statement(self.log.namespace, "holders").replace("$compared", compared)
        return self.cursor.execute(text, (), binary=True).fetchall()


class _Locked:
    """The log under its write lock (``LogView``). One call takes that, and tells nearly all that
    the planner asks for."""

    def __init__(self, appender: Appender, group: Sequence[Batch]) -> None:
        self._cursor = appender.cursor
        self._namespace = appender.log.namespace
        entities = list(entities_of(group))
        conditions = [batch.condition for batch in group if batch.condition]
        keys = [*keys_of(group), *(each.witness for each in conditions if each.witness)]
        head, recorded_at, now, versions, known = appender.call(
            "log_state", (*records.arrays_of_keys(keys), *records.arrays_of_entities(entities))
        )
        if head is None:
            raise appender.busy()
        self._head = head, None if recorded_at is None else records.to_time(recorded_at)
        self._now = records.to_time(now)
        self._versions = dict(zip(entities, versions, strict=True))
        self._recorded = twins_of(find(self._cursor, self._namespace, keys) if known else ())

    def head(self) -> tuple[int, datetime | None]:
        return self._head

    def now(self) -> datetime:
        return self._now

    def versions(self, entities: Collection[Entity]) -> Mapping[Entity, int]:
        return self._versions

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        found = (self._recorded.get((tenant_id, event_id.bytes)) for tenant_id, event_id in keys)
        return [event for event in found if event is not None]

    def first_match(self, query: EventQuery, after: int, up_to: int) -> int:
        found = where(query)
        found.add(compared("sequence", ">"), records.int8(after))
        found.add(compared("sequence", "<="), records.int8(up_to))
        text = found.put_in(statement(self._namespace, "first_match"))
        ((sequence,),) = self._cursor.execute(text, found.parameters, binary=True).fetchall()
        return int(sequence)


def find(cursor: psycopg.Cursor[Any], namespace: str, keys: Sequence[EventKey]) -> list[Event]:
    """Return the recorded events of these identities."""
    cursor.execute(statement(namespace, "find"), records.arrays_of_keys(keys), binary=True)
    return [records.event_of(row) for row in cursor.fetchall()]


@cache
def _call_of(namespace: str, function: str, *, witnessed: bool) -> str:
    witness = statement(namespace, "witness") if witnessed else ""
    return statement(namespace, function).replace("$witness", witness)


def _expectations(group: Sequence[Batch]) -> dict[Entity, int] | None:
    """Return the versions that a group expects; None where some depend on the batches before."""
    expected: dict[Entity, int] = {}
    named: set[Entity] = set()
    for batch in group:
        for entity, version in batch.expected:
            if entity in named:
                return None
            expected[entity] = version
        if len(group) > 1:
            named.update(expected, (draft.entity for draft in batch.drafts))
    return expected


def _looked_to(condition: Condition | None) -> int | None:
    """Return the head that a condition was looked into up to."""
    return None if condition is None else condition.checked_to
