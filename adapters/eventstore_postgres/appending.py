"""Appends: in one call of a function where nothing stands against them, else judged by the
planner; both under the log's write lock, both in the store's own sessions and in a caller's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from math import ceil
from typing import Any, Final
from uuid import UUID

import psycopg

from eventstore.backend import (
    Accepted,
    Batch,
    EventKey,
    LogState,
    Outcome,
    entities_of,
    keys_of,
    plan,
    twins_of,
)
from eventstore.errors import BatchTooLargeError, StoreUnavailableError
from eventstore.event import Entity, Event
from eventstore_postgres import records
from eventstore_postgres.selecting import compared, where, within
from eventstore_postgres.translation import replaced

MOST_BYTES: Final = 500_000_000
"""In one batch: a message to PostgreSQL, and an array in it, has at most 1 GB."""

_LOCK_CLASS: Final = 1702260588
"""The upper half of the lock's key (see append.sql); the lower is the table's oid."""

_CALL: Final = """
    SELECT (made.answer).* FROM (
        SELECT "eventstore".{function}({arguments}) AS answer
        FROM "eventstore".log WHERE log_id OPERATOR(pg_catalog.=) %b OFFSET 0
    ) made
"""
# No row where the log is another than was opened. (OFFSET 0: else the function ran once a column.)
# That the table is read also keeps it from being dropped until the transaction ends.

_LOG: Final = ("int8", "bool")  # the patience, whether to notify
_ENTITIES: Final = ("text[]",) * 3
_TYPES: Final = {
    "log_state": (*_LOG, "uuid[]", "text[]", *_ENTITIES),
    "append_one": (
        *_LOG, "int8", "int8", "uuid", "text", "text", "text", "text", "text", "text[]", "json",
        "json", "int4", "timestamptz",
    ),
    "append_many": (
        *_LOG, "int8", "timestamptz", *_ENTITIES, "int8[]", "uuid[]", "text[]", "text[]", "text[]",
        "text[]", "json[]", "json[]", "int4[]", "timestamptz[]", "int8[]", "int8[]", "int8[]",
    ),
}  # fmt: skip
"""Of the functions' parameters: so that none that fits less well is ever meant."""

_CALLS: Final = {
    function: _CALL.format(
        function=function, arguments=", ".join(f"%b::pg_catalog.{each}" for each in types)
    )
    for function, types in _TYPES.items()
}

_FIRST_MATCH: Final = """
    SELECT coalesce(pg_catalog.min(sequence), 0) FROM "eventstore".events WHERE $where
"""

_FIND: Final = """
    SELECT e.* FROM ROWS FROM (
        pg_catalog.unnest(%b::pg_catalog.uuid[]), pg_catalog.unnest(%b::pg_catalog.text[])
    ) AS k (event_id, tenant_id)
    CROSS JOIN LATERAL (
        SELECT $columns FROM "eventstore".events e
        WHERE e.event_id OPERATOR(pg_catalog.=) k.event_id
            AND (e.tenant_id OPERATOR(pg_catalog.||) '') OPERATOR(pg_catalog.=) k.tenant_id
        OFFSET 0
    ) e
"""
# tenant_id || '' and OFFSET 0: see append.sql.

_HOLDERS: Final = """
    SELECT l.pid::pg_catalog.text, coalesce(a.usename::pg_catalog.text, '?'),
        coalesce(a.application_name, ''), coalesce(a.state, '?')
    FROM pg_catalog.pg_locks l
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid
    WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted
        AND l.objsubid OPERATOR(pg_catalog.=) 1::pg_catalog.int2
        AND l.classid OPERATOR(pg_catalog.=) {lock_class}::pg_catalog.oid
        AND l.objid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('"eventstore".events')
        AND l.pid OPERATOR(pg_catalog.{compared}) pg_catalog.pg_backend_pid()
"""


class Appender:
    """Appends by one cursor, whose transaction (or autocommit) is the caller's business."""

    def __init__(
        self,
        cursor: psycopg.Cursor[Any],
        namespace: str,
        log_id: UUID,
        timeout: float,
        *,
        notify: bool,
    ) -> None:
        self._cursor = cursor
        self._namespace = namespace
        self._log_id = log_id
        self._timeout = timeout
        self._begin = (records.int8(ceil(max(timeout, 0.001) * 1000)), b"\1" if notify else b"\0")

    def try_at_once(self, group: Sequence[Batch]) -> Sequence[Outcome] | None:
        """Append in one call; None (and nothing written) where the planner has to judge."""
        if len(group) == 1:
            (batch,) = group
            if batch.weight > MOST_BYTES:
                raise BatchTooLargeError(
                    f"events: the batch weighs {batch.weight:,} bytes; PostgreSQL stores at most"
                    f" {MOST_BYTES:,} at once"
                )
            if batch.condition and batch.condition.match:
                return None
            return self._append_one(batch) if len(batch.drafts) == 1 else self._append_many(group)
        identities = [identity for batch in group for identity in batch.identities]
        if any(batch.condition for batch in group) or len(set(identities)) < len(identities):
            return None  # a batch may depend on those before it
        return self._append_many(group)

    def append_planned(self, group: Sequence[Batch]) -> Sequence[Outcome]:
        """Judge by the planner, and write what it accepts."""
        planned = plan(group, self._log_state(group))
        accepted = planned.accepted
        if accepted:
            written = self._append_many(
                [Batch(drafts=each.drafts) for each in accepted], accepted[0].recorded_at
            )
            assert written == accepted  # noqa: S101 - under the lock nothing can have changed
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
        first, version, recorded_at = self._append(
            "append_one", expected, _unmoved(batch), *records.row_of(draft)
        )
        if first is None:
            return None
        return [Accepted(batch.drafts, first, (version,), records.to_time(recorded_at))]

    def _append_many(
        self, group: Sequence[Batch], recorded_at: datetime | None = None
    ) -> Sequence[Outcome] | None:
        drafts = [draft for batch in group for draft in batch.drafts]
        entities: dict[Entity, int] = {}
        counts: list[int] = []
        expected: dict[int, int] = {}
        place: list[int] = []
        nth: list[int] = []
        first_in_batch: list[int] = []
        for batch in group:
            for entity, version in batch.expected:
                at = entities.setdefault(entity, len(entities))
                if at < len(counts):
                    return None  # it depends on the batches before
                counts.append(0)
                expected[at] = version
            first_in_batch += [len(place) + 1] * len(batch.drafts)
            for draft in batch.drafts:
                at = entities.setdefault(draft.entity, len(entities))
                if at == len(counts):
                    counts.append(0)
                counts[at] += 1
                place.append(at)
                nth.append(counts[at])
        first, bases, assigned_at = self._append(
            "append_many",
            _unmoved(group[0]),
            None if recorded_at is None else records.time(recorded_at),
            *(records.texts([entity[field] for entity in entities]) for field in range(3)),
            records.int8s_or_nulls([expected.get(at) for at in range(len(entities))]),
            *records.arrays_of(drafts),
            records.int8s([at + 1 for at in place]),
            records.int8s(nth),
            records.int8s(first_in_batch),
        )
        if first is None:
            return None
        recorded_at = records.to_time(assigned_at)
        versions = [bases[at] + added for at, added in zip(place, nth, strict=True)]
        outcomes = []
        start = 0
        for batch in group:
            end = start + len(batch.drafts)
            outcomes.append(Accepted(batch.drafts, first + start, versions[start:end], recorded_at))
            start = end
        return outcomes

    def _append(self, function: str, *parameters: records.Value) -> Any:
        row = self._call(function, *parameters)
        if row[0] == 0:
            raise self._busy()
        return row

    def _log_state(self, group: Sequence[Batch]) -> LogState:
        keys = keys_of(group)
        entities = list(entities_of(group))
        head, recorded_at, now, versions, known = self._call(
            "log_state",
            records.uuids([event_id for _, event_id in keys]),
            records.texts([tenant_id for tenant_id, _ in keys]),
            *(records.texts([entity[field] for entity in entities]) for field in range(3)),
        )
        if head is None:
            raise self._busy()
        twins = find(self._cursor, self._namespace, keys) if known else []
        return LogState(
            head=head,
            recorded_at=None if recorded_at is None else records.to_time(recorded_at),
            now=records.to_time(now),
            versions=dict(zip(entities, versions, strict=True)),
            twins=twins_of(twins),
            matches=[self._match(batch, head) for batch in group],
        )

    def _match(self, batch: Batch, head: int) -> int:
        condition = batch.condition
        if condition is None or condition.match or head <= condition.checked_to:
            return 0
        found = where(condition.query)
        found.add(compared("sequence", ">"), records.int8(condition.checked_to))
        self._cursor.execute(
            self._sql(found.put_in(_FIRST_MATCH)),
            found.parameters,
            binary=True,
        )
        ((sequence,),) = self._cursor.fetchall()
        return int(sequence)

    def _call(self, function: str, *parameters: records.Value) -> Any:
        given = (*self._begin, *parameters, self._log_id.bytes)
        self._cursor.execute(_call_within(self._namespace, function), given, binary=True)
        row = self._cursor.fetchone()
        if row is None:
            raise replaced(self._namespace)
        return row

    def _busy(self) -> StoreUnavailableError:
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
        query = _HOLDERS.format(lock_class=_LOCK_CLASS, compared=compared)
        return self._cursor.execute(self._sql(query), (), binary=True).fetchall()

    def _sql(self, text: str) -> str:
        return within(self._namespace, text)


@cache
def _call_within(namespace: str, function: str) -> str:
    return within(namespace, _CALLS[function])


def find(cursor: psycopg.Cursor[Any], namespace: str, keys: Sequence[EventKey]) -> list[Event]:
    """Return the recorded events of these identities."""
    cursor.execute(
        within(namespace, _FIND),
        (
            records.uuids([event_id for _, event_id in keys]),
            records.texts([tenant_id for tenant_id, _ in keys]),
        ),
        binary=True,
    )
    return [records.event_of(row) for row in cursor.fetchall()]


def _unmoved(batch: Batch) -> records.Value:
    """Return the head that a condition was checked up to."""
    return None if batch.condition is None else records.int8(batch.condition.checked_to)
