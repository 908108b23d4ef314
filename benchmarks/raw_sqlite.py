"""The raw limit of SQLite: ``sqlite3``, ``executemany`` and one COMMIT a batch.

The tables are made by the store itself, in a file of its own. What belongs to the raw limit is
journal, durability, rows and indexes; no version is checked and no id looked up.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.contest import Raw
from eventstore import open_store
from eventstore.bench.events import Numbers
from eventstore.bench.measure import Step
from eventstore.bench.workloads import PAGE
from eventstore.encoding import to_microseconds

_EVENT_COLUMNS: Final = (
    "sequence", "previous", "batch_sequence", "event_id", "tenant_id", "entity_type", "entity_id",
    "version", "event_type", "workflow_id", "schema_version", "timestamp", "recorded_at", "tags",
    "data", "metadata",
)  # fmt: skip
_INSERT_EVENT: Final = (
    f"INSERT INTO eventstore_events ({', '.join(_EVENT_COLUMNS)})"
    f" VALUES ({', '.join('?' * len(_EVENT_COLUMNS))})"
)
_INSERT_TAG: Final = "INSERT INTO eventstore_tags (segment, tag, sequence) VALUES (?, ?, ?)"
_INSERT_SEGMENT: Final = "INSERT OR IGNORE INTO eventstore_segments VALUES (?)"
_PUT_ENTITY: Final = (
    "INSERT INTO eventstore_entities"
    " (first_sequence, entity_id, entity_type, tenant_id, version, last_sequence)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (first_sequence)"
    " DO UPDATE SET version = excluded.version, last_sequence = excluded.last_sequence"
)
_SELECT: Final = f"SELECT {', '.join(_EVENT_COLUMNS)} FROM eventstore_events ORDER BY sequence"
_SEGMENT: Final = 14
_AUTOCHECKPOINT: Final = 4000
"""Pages, as the store does; SQLite's own 1,000 would make the raw limit slower."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

Rows = tuple[list[Any], list[Any], list[Any]]
"""Of events, of tags and of entities."""


class RawSqlite(Raw):
    """See the module."""

    def __init__(self, path: Path) -> None:
        super().__init__()
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
        events, tags, entities = self._rows(self.numbers, size)
        segments = {(segment,) for segment, _, _ in tags}
        execute, many = self._connection.execute, self._connection.executemany

        def step() -> int:
            execute("BEGIN IMMEDIATE")
            many(_INSERT_EVENT, events)
            many(_INSERT_TAG, tags)
            many(_INSERT_SEGMENT, segments)
            many(_PUT_ENTITY, entities)
            execute("COMMIT")
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

    def _rows(self, numbers: Numbers, size: int) -> Rows:
        rows: Rows = [], [], []
        first = self._head + 1
        touched = {}
        for event in numbers.batch(size):
            self._head += 1
            entity = event.entity_type, event.entity_id
            start, previous, version = self._chains.get(entity, (self._head, 0, 0))
            self._chains[entity] = touched[entity] = start, self._head, version + 1
            rows[0].append(
                (
                    self._head, previous, first, event.event_id.bytes, "", event.entity_type,
                    event.entity_id, version + 1, event.event_type, event.workflow_id, 1,
                    to_microseconds(event.timestamp), to_microseconds(event.timestamp),
                    _encode(event.tags).decode(), _encode(event.data).decode(),
                    _encode(event.metadata).decode(),
                )
            )  # fmt: skip
            rows[1].extend((self._head >> _SEGMENT, tag, self._head) for tag in event.tags)
        rows[2].extend(
            (start, entity_id, entity_type, "", version, last)
            for (entity_type, entity_id), (start, last, version) in touched.items()
        )
        return rows


def _decoded(row: tuple[Any, ...]) -> dict[str, Any]:
    event = dict(zip(_EVENT_COLUMNS, row, strict=True))
    for name in ("tags", "data", "metadata"):
        event[name] = _decode(event[name])
    return event
