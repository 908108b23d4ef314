"""An append, while the write lock is held: look up what the planner asks for, plan, write.

An entity's events are a chain (schema.sql): where it ends is read before, and written after.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

import msgspec

from eventstore.backend import (
    Accepted,
    Batch,
    EventKey,
    Outcome,
    plan_over,
    to_microseconds,
)
from eventstore.event import Entity, Event
from eventstore_sqlite.reading import Chain, View
from eventstore_sqlite.selecting import SEGMENT, Statements

_TOGETHER: Final = 10
"""Rows inserted by one statement: it opens the table and all its indexes only once."""

_encode_tags: Final = msgspec.json.Encoder().encode


def append(
    cursor: sqlite3.Cursor,
    sql: Statements,
    group: Sequence[Batch],
    log_id: str,
    *,
    expect_new_ids: bool,
    undo: Callable[[], object],
) -> Sequence[Outcome]:
    """Write the batches that stand, and return each one's outcome.

    ``expect_new_ids`` takes all ids for new, as they nearly always are, and spares the look for
    their twins. The index over ids tells where that was wrong; then ``undo`` takes back what was
    written and leaves the write lock held, and all begins again with that look.
    """
    if expect_new_ids:
        view: View = _ViewOfNewIds(cursor, sql, log_id, group)
        plan = plan_over(view, group)
        # Where one does not stand it may be a repeat, which goes before all other reasons.
        if len(accepted := plan.accepted) == len(group):
            try:
                _insert(cursor, sql, accepted, view.ends)
            except sqlite3.IntegrityError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                    raise
            else:
                return plan.outcomes
            undo()
    view = View(cursor, sql, log_id)
    plan = plan_over(view, group)
    _insert(cursor, sql, plan.accepted, view.ends)
    return plan.outcomes


class _ViewOfNewIds(View):
    """Looks for no events but those that conditions were looked into with."""

    def __init__(
        self, cursor: sqlite3.Cursor, sql: Statements, log_id: str, group: Sequence[Batch]
    ) -> None:
        super().__init__(cursor, sql, log_id)
        conditions = [batch.condition for batch in group if batch.condition is not None]
        self._witnesses = {_identity(each.witness) for each in conditions if each.witness}

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        if not self._witnesses:
            return []
        return super().find([key for key in keys if _identity(key) in self._witnesses])


def _identity(key: EventKey) -> tuple[str, bytes]:
    tenant_id, event_id = key
    return tenant_id, event_id.bytes


def _insert(
    cursor: sqlite3.Cursor,
    sql: Statements,
    batches: Sequence[Accepted],
    before: Mapping[Entity, Chain],
) -> None:
    if not batches:
        return
    chains = dict(before)
    tags: list[tuple[int, str, int]] = []
    _insert_rows(cursor, sql, "insert_events", 16, _event_rows(batches, chains, tags))
    _insert_rows(cursor, sql, "insert_tags", 3, iter(tags))
    if tags:
        segments = range(tags[0][0], tags[-1][0] + 1)
        cursor.executemany(sql["insert_segment"], [(segment,) for segment in segments])
    new, longer = [], []
    for entity, (first, last, version) in chains.items():
        if entity not in before:
            entity_type, entity_id, tenant_id = entity
            new.append((first, entity_id, entity_type, tenant_id, version, last))
        elif before[entity][1] != last:
            longer.append((version, last, first))
    _insert_rows(cursor, sql, "insert_entities", 6, iter(new))
    cursor.executemany(sql["update_entity"], longer)


def _insert_rows(
    cursor: sqlite3.Cursor, sql: Statements, name: str, width: int, new: Iterator[tuple[Any, ...]]
) -> None:
    rest: list[tuple[Any, ...]] = []

    def in_tens() -> Iterator[tuple[Any, ...]]:
        nonlocal rest
        while len(rest := list(islice(new, _TOGETHER))) == _TOGETHER:
            yield tuple(chain.from_iterable(rest))

    cursor.executemany(sql.of_rows(name, width, _TOGETHER), in_tens())
    cursor.executemany(sql.of_rows(name, width, 1), rest)


def _event_rows(
    batches: Iterable[Accepted], chains: dict[Entity, Chain], tags: list[tuple[int, str, int]]
) -> Iterator[tuple[Any, ...]]:
    """Yield rows of events, adding their tags and lengthening the chains."""
    for batch in batches:
        recorded_at = to_microseconds(batch.recorded_at)
        placed = zip(batch.drafts, batch.versions, strict=True)
        for sequence, (draft, version) in enumerate(placed, batch.first_sequence):
            first, previous, _ = chains.get(draft.entity, (sequence, 0, 0))
            chains[draft.entity] = first, sequence, version
            tags_text = "[]"
            if draft.tags:
                tags_text = _encode_tags(draft.tags).decode()
                segment = sequence >> SEGMENT
                tags += [(segment, tag, sequence) for tag in set(draft.tags)]
            yield (
                sequence,
                previous,
                batch.first_sequence,
                draft.identity[1],
                draft.tenant_id,
                draft.entity_type,
                draft.entity_id,
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
