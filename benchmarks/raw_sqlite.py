"""The raw limit of SQLite: ``sqlite3``, ``executemany`` and one COMMIT a batch.

A statement writes one row, or as many as it is told: which is faster depends on SQLite's version
and on the table, so both are measured. JSON is encoded inside the clock, as every user must.

The tables are made by the store itself, in a file of its own. What belongs to the raw limit is
journal, durability, rows and indexes; no version is checked and no id looked up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.contest import Raw
from eventstore import open_store
from eventstore.backend import to_microseconds
from eventstore.bench.measure import Step
from eventstore.bench.workloads import PAGE

_EVENT_COLUMNS: Final = (
    "sequence", "previous", "batch_sequence", "event_id", "tenant_id", "entity_type", "entity_id",
    "version", "event_type", "workflow_id", "schema_version", "timestamp", "recorded_at", "tags",
    "data", "metadata",
)  # fmt: skip
Row = tuple[Any, ...]


class _Insert:
    """A statement that inserts so many rows as it is made for."""

    def __init__(self, table: str, columns: tuple[str, ...], conflict: str = "") -> None:
        self._into = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "
        self._row = f"({', '.join('?' * len(columns))})"
        self._conflict = conflict

    def run(self, connection: sqlite3.Connection, rows: Sequence[Row], at_once: int) -> None:
        """Insert rows, ``at_once`` a statement; those left over one by one."""
        whole = len(rows) - len(rows) % at_once if at_once > 1 else 0
        if whole:
            chunks = (rows[start : start + at_once] for start in range(0, whole, at_once))
            flat = (tuple(chain.from_iterable(chunk)) for chunk in chunks)
            connection.executemany(self._statement(at_once), flat)
        connection.executemany(self._statement(1), rows[whole:])

    def _statement(self, rows: int) -> str:
        return self._into + ", ".join([self._row] * rows) + self._conflict


_EVENTS: Final = _Insert("eventstore_events", _EVENT_COLUMNS)
_TAGS: Final = _Insert("eventstore_tags", ("segment", "tag", "sequence"))
_SEGMENTS: Final = _Insert("eventstore_segments", ("segment",), " ON CONFLICT DO NOTHING")
_ENTITIES: Final = _Insert(
    "eventstore_entities",
    ("first_sequence", "entity_id", "entity_type", "tenant_id", "version", "last_sequence"),
    " ON CONFLICT (first_sequence)"
    " DO UPDATE SET version = excluded.version, last_sequence = excluded.last_sequence",
)
_SELECT: Final = f"SELECT {', '.join(_EVENT_COLUMNS)} FROM eventstore_events ORDER BY sequence"
_SEGMENT: Final = 14
_AUTOCHECKPOINT: Final = 4000
"""Pages, as the store does; SQLite's own 1,000 would make the raw limit slower."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class RawSqlite(Raw):
    """See the module; a statement writes ``at_once`` rows."""

    def __init__(self, path: Path, at_once: int = 1) -> None:
        super().__init__()
        self._at_once = at_once
        open_store(f"sqlite:///{path}").close()
        self._connection = sqlite3.connect(path, isolation_level=None)
        for setting in (
            "journal_mode = WAL",
            "synchronous = FULL",
            f"wal_autocheckpoint = {_AUTOCHECKPOINT}",
            "cache_size = -16000",
        ):
            self._connection.execute(f"PRAGMA {setting}")
        self._head = 0
        self._chains: dict[tuple[str, str], tuple[int, int, int]] = {}

    def single(self) -> Step:
        return self.batch(1)

    def batch(self, size: int) -> Step:
        events, tags, entities = self._rows(size)
        segments = [(segment,) for segment in {segment for segment, _, _ in tags}]
        connection, at_once = self._connection, self._at_once

        def step() -> int:
            encoded = [
                (*known, _encode(tags).decode(), _encode(data).decode(), _encode(metadata).decode())
                for *known, tags, data, metadata in events
            ]
            connection.execute("BEGIN IMMEDIATE")
            _EVENTS.run(connection, encoded, at_once)
            _TAGS.run(connection, tags, at_once)
            _SEGMENTS.run(connection, segments, at_once)
            _ENTITIES.run(connection, entities, at_once)
            connection.execute("COMMIT")
            return size

        return step

    def read_all(self) -> Step:
        def step() -> int:
            cursor = self._connection.execute(_SELECT)
            found = 0
            while page := [_decoded(row) for row in cursor.fetchmany(PAGE)]:
                found += len(page)
            return found

        return step

    def close(self) -> None:
        self._connection.close()

    def _rows(self, size: int) -> tuple[list[Row], list[Row], list[Row]]:
        """Return the rows of new events, not encoded yet, of their tags and of their entities."""
        events: list[Row] = []
        tags: list[Row] = []
        first = self._head + 1
        touched = {}
        for event in self.numbers.batch(size):
            self._head += 1
            entity = event.entity_type, event.entity_id
            start, previous, version = self._chains.get(entity, (self._head, 0, 0))
            self._chains[entity] = touched[entity] = start, self._head, version + 1
            time = to_microseconds(event.timestamp)
            events.append(
                (
                    self._head, previous, first, event.event_id.bytes, "", event.entity_type,
                    event.entity_id, version + 1, event.event_type, event.workflow_id, 1, time,
                    time, event.tags, event.data, event.metadata,
                )
            )  # fmt: skip
            tags.extend((self._head >> _SEGMENT, tag, self._head) for tag in event.tags)
        entities: list[Row] = [
            (start, entity_id, entity_type, "", version, last)
            for (entity_type, entity_id), (start, last, version) in touched.items()
        ]
        return events, tags, entities


def _decoded(row: tuple[Any, ...]) -> dict[str, Any]:
    event = dict(zip(_EVENT_COLUMNS, row, strict=True))
    for name in ("tags", "data", "metadata"):
        event[name] = _decode(event[name])
    return event
