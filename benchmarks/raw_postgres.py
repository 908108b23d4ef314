"""The raw limit of PostgreSQL: psycopg, with a bare INSERT in autocommit or a binary COPY.

The table is made by the store itself, in a schema of its own. Nothing is locked, checked or
looked up, and nothing tells readers; sequences are counted here. JSON is encoded inside the clock,
as every user must. Binary COPY is the fastest form of the driver: the same in text was a tenth to
a third slower, ``executemany`` in its pipeline half as fast.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any, Final

import msgspec
import psycopg
from psycopg.types.json import set_json_loads

from benchmarks.contest import Raw
from eventstore import drop_namespace, open_store
from eventstore.bench.events import Numbers
from eventstore.bench.measure import Step
from eventstore.bench.workloads import PAGE
from eventstore.bench.writers import turns
from eventstore.event import Entity

NAMESPACE: Final = "raw"

_TYPES: Final = {
    "sequence": "int8",
    "version": "int8",
    "batch_sequence": "int8",
    "recorded_at": "timestamptz",
    "event_id": "uuid",
    "tenant_id": "text",
    "entity_type": "text",
    "entity_id": "text",
    "event_type": "text",
    "workflow_id": "text",
    "schema_version": "int4",
    "timestamp": "timestamptz",
    "tags": "text[]",
    "data": "json",
    "metadata": "json",
}
_COLUMNS: Final = ", ".join(f'"{name}"' for name in _TYPES)
_INSERT: Final = (
    f"INSERT INTO {NAMESPACE}.events ({_COLUMNS})"
    f" VALUES ({', '.join(f'%b::{type_}' for type_ in _TYPES.values())})"
)
_COPY: Final = f"COPY {NAMESPACE}.events ({_COLUMNS}) FROM STDIN (FORMAT binary)"
_SELECT: Final = f"SELECT {_COLUMNS} FROM {{}}.events"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

Row = tuple[Any, ...]


class RawPostgres(Raw):
    """See the module. ``with closing(…)`` removes the schema."""

    def __init__(self, url: str, first: int = 1) -> None:
        super().__init__()
        self._url = url
        open_store(url, namespace=NAMESPACE).close()
        self._rows = _Rows(self.numbers, first)
        self._connection = connect(url)

    def single(self) -> Step:
        (row,) = self._rows.next(1)

        def step() -> int:
            self._connection.execute(_INSERT, _encoded(row), prepare=True)
            return 1

        return step

    def batch(self, size: int) -> Step:
        rows = self._rows.next(size)
        types = list(_TYPES.values())

        def step() -> int:
            with self._connection.cursor().copy(_COPY) as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row(_encoded(row))
            return size

        return step

    def read_all(self) -> Step:
        def step() -> int:
            query = _SELECT.format(NAMESPACE) + " ORDER BY sequence"
            return sum(len(page) for page in self._pages(query, ()))

        return step

    def read_entity(self, namespace: str, entity: Entity) -> Step:
        """Read one entity of a log of ours, by the index that is there for it."""
        query = (
            _SELECT.format(namespace)
            + " WHERE entity_id = %b AND entity_type = %b AND tenant_id = %b ORDER BY version"
        )
        values = (entity.entity_id, entity.entity_type, entity.tenant_id)
        return lambda: sum(len(page) for page in self._pages(query, values))

    def append(self) -> None:
        """Write one event over a connection that no other thread uses meanwhile."""
        self._rows.append(self._url)

    def _pages(self, query: str, values: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        with self._connection.cursor(binary=True) as cursor:
            cursor.execute(query, values, prepare=True)
            while rows := cursor.fetchmany(PAGE):
                yield [dict(zip(_TYPES, row, strict=True)) for row in rows]

    def close(self) -> None:
        self._rows.close()
        self._connection.close()
        drop_namespace(self._url, namespace=NAMESPACE)


class _Rows:
    """Rows for the table, and connections to write them by: as many as there were ever threads at
    once, kept for the next ones, so that connecting is in the warm-up alone."""

    def __init__(self, numbers: Numbers, first: int) -> None:
        self._numbers = numbers
        self._head = first - 1
        self._versions: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()
        self._idle: deque[psycopg.Connection[Any]] = deque()

    def next(self, size: int) -> list[Row]:
        with self._lock:
            return [self._row(self._head + 1 - place) for place in range(size)]

    def append(self, url: str) -> None:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = connect(url)
        (row,) = self.next(1)
        connection.execute(_INSERT, _encoded(row), prepare=True)
        self._idle.append(connection)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    def _row(self, batch_sequence: int) -> Row:
        event = self._numbers.one()
        self._head += 1
        entity = tuple(event.entity)  # plain, so that the garbage collector leaves it alone
        version = self._versions[entity] = self._versions.get(entity, 0) + 1
        return (
            self._head, version, batch_sequence, event.timestamp, event.event_id, "",
            event.entity_type, event.entity_id, event.event_type, event.workflow_id, 1,
            event.timestamp, list(event.tags), event.data, event.metadata,
        )  # fmt: skip


def _encoded(row: Row) -> Row:
    *known, data, metadata = row
    return (*known, _encode(data).decode(), _encode(metadata).decode())


def connect(url: str) -> psycopg.Connection[Any]:
    """Return a connection in autocommit that decodes JSON as the store does."""
    connection = psycopg.connect(url, autocommit=True)
    set_json_loads(_decode, connection)
    return connection


def inserting(number: int, pipe: Connection, url: str) -> None:
    """Insert single events turn by turn: the work of a process."""
    apart = (number + 1) * 100_000_000
    rows = _Rows(Numbers(apart), apart)
    with closing(rows):
        turns(pipe, lambda: rows.append(url))
