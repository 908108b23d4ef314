"""What is looked up in a log: for readers as it is, for an append under the write lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final, TypeVar

from eventstore.backend import MAX_INT64, EventKey, PageRequest, from_microseconds, replaced
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_sqlite.records import events_of
from eventstore_sqlite.selecting import TOGETHER, Statements
from eventstore_sqlite.translation import is_busy, while_busy

_T = TypeVar("_T")

_ROWS: Final = 300
"""Rows of values in one statement: far from SQLite's limits."""

_ANY_CALL: Final = 60.0
"""Seconds that a read waits for a lock where no call of a store's tells how long it may."""


Chain = tuple[int, int, int]
"""An entity's events (schema.sql): the sequences of the first and of the last, and the last's
version."""


class View:
    """The log as a connection sees it (``LogView``)."""

    ends: Mapping[Entity, Chain]
    """The chains of the entities whose versions were asked for last."""

    def __init__(self, cursor: sqlite3.Cursor, sql: Statements, log_id: str) -> None:
        self._cursor = cursor
        self._sql = sql
        self._log_id = log_id

    def head(self) -> tuple[int, datetime | None]:
        """Return the highest sequence and when it was recorded: 0 and None in an empty log.

        Raises LogReplacedError where this is not the log that was opened.
        """
        for log_id, sequence, recorded_at in rows(self._cursor, self._sql["head"]):
            if log_id == self._log_id:
                return (sequence, from_microseconds(recorded_at)) if sequence else (0, None)
        raise replaced(self._sql.namespace)

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC)

    def versions(self, entities: Collection[Entity]) -> Mapping[Entity, int]:
        """Return the versions of those entities that have events, and remember their chains."""
        self.ends = self.chains(entities)
        return {entity: version for entity, (_, _, version) in self.ends.items()}

    def chains(self, entities: Collection[Entity]) -> dict[Entity, Chain]:
        """Return the chains of those entities that have events."""
        return {
            Entity(entity_type, entity_id, tenant_id): (first, last, version)
            for entity_type, entity_id, tenant_id, first, last, version in self._rows_for(
                "chains", list(entities)
            )
        }

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        """Return the events of these identities that are recorded."""
        identities = [(tenant_id, event_id.bytes) for tenant_id, event_id in keys]
        return events_of(self._rows_for("find", identities))

    def _rows_for(self, name: str, wanted: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return what a statement that takes rows of values finds for these."""
        found: list[tuple[Any, ...]] = []
        for some in _chunks(wanted, _ROWS):
            text = self._sql.of_rows(name, len(some[0]), len(some))
            found += rows(self._cursor, text, list(chain.from_iterable(some)))
        return found

    def first_match(self, query: EventQuery, after: int, up_to: int) -> int:
        """Return the sequence of an event in ``(after, up_to]`` that matches, 0 if none does."""
        page = PageRequest(query=query, after=after, up_to=up_to, limit=1)
        for selects in _chunks(self._sql.selects(page), TOGETHER):
            for sequence, *_ in rows(self._cursor, *self._sql.page(page, selects)):
                return int(sequence)
        return 0

    def page(self, page: PageRequest) -> list[tuple[Any, ...]]:
        """Return the rows of a page."""
        cursor, sql = self._cursor, self._sql
        probe = sql.probe(page)
        by_sorting = probe is not None and bool(rows(cursor, *probe)[0][0])
        selects = sql.selects(page, by_sorting=by_sorting)
        if len(selects) <= TOGETHER:
            return rows(cursor, *sql.page(page, selects))
        with self._one_state():
            among = {
                sequence
                for some in _chunks(selects, TOGETHER)
                for (sequence,) in rows(cursor, *sql.firsts(page, some))
            }
            return rows(cursor, *sql.among(page, among))

    def count(self, query: EventQuery) -> int:
        """Return how many events match."""
        cursor, sql = self._cursor, self._sql
        has_window = query.from_timestamp is not None or query.to_timestamp is not None
        selects = sql.selects(PageRequest(query=query, limit=MAX_INT64), by_sorting=has_window)
        if len(selects) <= TOGETHER:
            return int(rows(cursor, *sql.count(selects))[0][0])
        with self._one_state():
            every = [rows(cursor, *sql.matches(some)) for some in _chunks(selects, TOGETHER)]
            return len(set(chain.from_iterable(every)))

    @contextmanager
    def _one_state(self) -> Iterator[None]:
        """Have all statements of the block see the log as it stands at the first."""
        self._cursor.execute("BEGIN")
        yield
        self._cursor.execute("COMMIT")  # an exception leaves that to who lent the connection


def rows(cursor: sqlite3.Cursor, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return all rows. (Rows left in a cursor would hold the database's present state.)"""
    try:
        return cursor.execute(text, values).fetchall()
    except sqlite3.OperationalError as error:
        if not is_busy(error) or cursor.connection.in_transaction:
            raise
        return while_busy(lambda: cursor.execute(text, values).fetchall(), _ANY_CALL)


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
