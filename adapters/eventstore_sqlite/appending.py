"""An append, while the write lock is held: read what the planner needs, plan, write.

An entity's events are a chain (schema.sql): where it ends is read before, and written after.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, Final, TypeVar

import msgspec

from eventstore.backend import (
    Accepted,
    Batch,
    EventKey,
    Identity,
    LogState,
    Outcome,
    PageRequest,
    entities_of,
    from_microseconds,
    keys_of,
    plan,
    to_microseconds,
    twins_of,
)
from eventstore.errors import LogReplacedError
from eventstore.event import Entity, Event
from eventstore_sqlite.records import events_of
from eventstore_sqlite.selecting import SEGMENT, Statement, Statements, insertion, parts
from eventstore_sqlite.translation import is_busy, while_busy

_T = TypeVar("_T")
_Chains = dict[tuple[str, str, str], tuple[int, int, int]]
"""For an entity (or its parts) the first and the last sequence of its chain, and its version."""

_CHUNK: Final = 300
"""Rows of values in one statement: far from SQLite's limits."""

_TOGETHER: Final = 10

_ANY_CALL: Final = 60.0
"""Seconds that a read waits for a lock where no call of a store's tells how long it may."""

_encode_tags = msgspec.json.Encoder().encode


class AnIdIsRecordedError(Exception):
    """A hopeful append met an id that is recorded: undo it, and append without hope."""


def append(
    cursor: sqlite3.Cursor,
    sql: Statements,
    group: Sequence[Batch],
    log_id: str,
    *,
    hopeful: bool,
) -> Sequence[Outcome]:
    """Write the batches that stand, and return each one's outcome.

    ``hopeful`` takes all ids for new, as they nearly always are, and spares the look for their
    twins; where that was wrong, the index over ids tells, and AnIdIsRecordedError is raised.
    LogReplacedError where this is not the log ``log_id``.
    """
    head, recorded_at = find_head(cursor, sql, log_id)
    chains = find_chains(cursor, sql, list(entities_of(group)))
    state = LogState(
        head=head,
        recorded_at=None if recorded_at is None else from_microseconds(recorded_at),
        now=datetime.now(UTC),
        versions={Entity(*entity): version for entity, (_, _, version) in chains.items()},
        twins={} if hopeful else find_events(cursor, sql, keys_of(group)),
        matches=[_match(cursor, sql, batch, head) for batch in group],
    )
    planned = plan(group, state)
    if hopeful and len(planned.accepted) < len(group):
        # Whether a batch is a repeat comes before everything else that may stand against it.
        state.twins = find_events(cursor, sql, keys_of(group))
        planned = plan(group, state)
    try:
        _insert(cursor, sql, planned.accepted, chains)
    except sqlite3.IntegrityError as error:
        if hopeful and error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
            raise AnIdIsRecordedError from error
        raise
    return planned.outcomes


def find_head(cursor: sqlite3.Cursor, sql: Statements, log_id: str) -> tuple[int, int | None]:
    """Return the highest sequence and when it was recorded: 0 and None in an empty log.

    Raises LogReplacedError where this is not the log ``log_id``.
    """
    for found, sequence, recorded_at in rows(cursor, (sql.head, ())):
        if found == log_id:
            return sequence or 0, recorded_at
    raise LogReplacedError(
        f"{sql.log.removeprefix('main.')}: the log was removed or replaced while this store was"
        " open: open it anew"
    )


def find_chains(cursor: sqlite3.Cursor, sql: Statements, entities: Sequence[Entity]) -> _Chains:
    """Return the chains of those entities that have one."""
    return {
        (entity_type, entity_id, tenant_id): (first, last, version)
        for chunk in _chunks(entities)
        for entity_type, entity_id, tenant_id, first, last, version in rows(
            cursor, sql.chains(chunk)
        )
    }


def find_events(
    cursor: sqlite3.Cursor, sql: Statements, keys: Sequence[EventKey]
) -> dict[Identity, Event]:
    """Return the events of these identities that are recorded."""
    return twins_of(
        event
        for chunk in _chunks([(tenant_id, event_id.bytes) for tenant_id, event_id in keys])
        for event in events_of(rows(cursor, sql.find(chunk)))
    )


def rows(cursor: sqlite3.Cursor, statement: Statement) -> list[tuple[Any, ...]]:
    """Return all rows. (Rows left in a cursor would hold the database's present state.)"""
    try:
        return cursor.execute(*statement).fetchall()
    except sqlite3.OperationalError as error:
        if not is_busy(error) or cursor.connection.in_transaction:
            raise
        return while_busy(lambda: cursor.execute(*statement).fetchall(), _ANY_CALL)


def _match(cursor: sqlite3.Cursor, sql: Statements, batch: Batch, head: int) -> int:
    """Return the sequence of an event that the core has not seen and that fails the condition
    of ``batch``, or 0."""
    condition = batch.condition
    if condition is None or condition.match or condition.checked_to >= head:
        return 0
    for query in parts(condition.query):
        page = PageRequest(query=query, after=condition.checked_to, limit=1)
        for sequence, *_ in rows(cursor, sql.page(page)):
            return int(sequence)
    return 0


def _insert(
    cursor: sqlite3.Cursor, sql: Statements, batches: Sequence[Accepted], chains: _Chains
) -> None:
    if not batches:
        return
    before = chains.copy()
    tags: list[tuple[int, str, int]] = []
    _insert_rows(cursor, sql.events, 16, _event_rows(batches, chains, tags))
    _insert_rows(cursor, sql.tags, 3, iter(tags))
    if tags:
        segments = range(tags[0][0], tags[-1][0] + 1)
        cursor.executemany(sql.insert_segment, [(segment,) for segment in segments])
    new, longer = [], []
    for entity, (first, last, version) in chains.items():
        if entity not in before:
            entity_type, entity_id, tenant_id = entity
            new.append((first, entity_id, entity_type, tenant_id, version, last))
        elif before[entity][1] != last:
            longer.append((version, last, first))
    _insert_rows(cursor, sql.entities, 6, iter(new))
    cursor.executemany(sql.update_entity, longer)


def _insert_rows(
    cursor: sqlite3.Cursor, table: str, width: int, new: Iterator[tuple[Any, ...]]
) -> None:
    """Insert rows, ten by one statement: it opens the table and all its indexes only once."""
    rest: list[tuple[Any, ...]] = []

    def in_tens() -> Iterator[tuple[Any, ...]]:
        nonlocal rest
        while len(rest := list(islice(new, _TOGETHER))) == _TOGETHER:
            yield tuple(chain.from_iterable(rest))

    cursor.executemany(insertion(table, width, _TOGETHER), in_tens())
    cursor.executemany(insertion(table, width, 1), rest)


def _event_rows(
    batches: Iterable[Accepted], chains: _Chains, tags: list[tuple[int, str, int]]
) -> Iterator[tuple[Any, ...]]:
    """Yield rows of events, adding their tags and lengthening the chains."""
    for batch in batches:
        recorded_at = to_microseconds(batch.recorded_at)
        batch_sequence = sequence = batch.first_sequence
        for draft, version in zip(batch.drafts, batch.versions, strict=True):
            entity_type, entity_id, tenant_id = draft.entity_type, draft.entity_id, draft.tenant_id
            entity = entity_type, entity_id, tenant_id
            first, previous, _ = chains.get(entity, (sequence, 0, 0))
            chains[entity] = first, sequence, version
            tags_text = "[]"
            if draft.tags:
                tags_text = _encode_tags(draft.tags).decode()
                segment = sequence >> SEGMENT
                tags += [(segment, tag, sequence) for tag in set(draft.tags)]
            yield (
                sequence,
                previous,
                batch_sequence,
                draft.event_id.int.to_bytes(16, "big"),
                tenant_id,
                entity_type,
                entity_id,
                version,
                draft.event_type,
                draft.workflow_id,
                draft.schema_version,
                to_microseconds(draft.timestamp),
                recorded_at,
                tags_text,
                draft.data.decode(),
                draft.metadata.decode(),
            )
            sequence += 1


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
