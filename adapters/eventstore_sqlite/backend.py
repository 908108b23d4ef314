"""The SQLite backend."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from eventstore.backend import (
    Backend,
    Batch,
    Capability,
    Durability,
    EventKey,
    Found,
    Outcome,
    PageRequest,
    Repeated,
    Settings,
)
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_sqlite import opening
from eventstore_sqlite.appending import append
from eventstore_sqlite.connections import Connections
from eventstore_sqlite.joining import join
from eventstore_sqlite.reading import View, rows
from eventstore_sqlite.records import events_of
from eventstore_sqlite.selecting import Statements, text_of
from eventstore_sqlite.waiting import Watch


class SqliteBackend(Backend):
    """A log in a few tables of an SQLite database."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._synchronous = "NORMAL" if settings.durability is Durability.RELAXED else "FULL"
        self._sql = Statements(settings.namespace)
        self._connections = Connections(
            opening.path_of(settings), timeout=settings.timeout, synchronous=self._synchronous
        )
        self._watch = Watch(self._connections, self.head)
        self._expect_new_ids = True

    # --- Opening and closing

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        return cls(settings)

    def look(self) -> Found | None:
        return opening.look(self._connections, self._sql)

    def make(self) -> None:
        opening.make(self._connections, self._sql, self._settings)

    def remove(self) -> bool:
        return opening.remove(self._connections, self._sql, self._settings)

    @classmethod
    def schema_ddl(cls, settings: Settings) -> str:
        return text_of("schema.sql", settings.namespace)

    def close(self) -> None:
        self._connections.close()

    def after_fork(self) -> None:
        """Nothing is left to do: the connections were closed before the fork."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset() if self._connections.path is None else frozenset(Capability)

    def info(self) -> Mapping[str, str | int]:
        path = self._connections.path
        with self._connections.reading() as cursor:
            ((size,),) = rows(
                cursor, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            )
            with suppress(FileNotFoundError):
                size += Path(f"{path}-wal").stat().st_size
        return {
            "backend": "sqlite",
            "server": f"SQLite {sqlite3.sqlite_version}",
            "durability": f"synchronous={self._synchronous}" if path else "none: gone on close",
            "size_bytes": size,
        }

    # --- Writing

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        with self._connections.writing(timeout) as cursor:
            outcomes = append(
                cursor,
                self._sql,
                group,
                self.log_id,
                expect_new_ids=self._expect_new_ids,
                undo=lambda: self._connections.write_anew(cursor),
            )
        # Repeats come in rows, as when an import runs again.
        self._expect_new_ids = not any(isinstance(outcome, Repeated) for outcome in outcomes)
        return outcomes

    def join(self, connection: Any, batch: Batch, timeout: float) -> Outcome:
        return join(
            connection,
            self._connections,
            self._sql,
            batch,
            log_id=self.log_id,
            timeout=timeout,
            durability=self._settings.durability,
        )

    def in_transaction(self, connection: Any) -> bool:
        with suppress(sqlite3.ProgrammingError):  # closed
            return bool(connection.in_transaction)
        return False

    # --- Reading

    def read(self, page: PageRequest) -> list[Event]:
        with self._connections.reading() as cursor:
            found = self._view(cursor).page(page)
        return events_of(found)

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        with self._connections.reading() as cursor:
            return self._view(cursor).find(keys)

    def count(self, query: EventQuery) -> int:
        if query == EventQuery():
            return self.head()
        with self._connections.reading() as cursor:
            return self._view(cursor).count(query)

    def head(self) -> int:
        with self._connections.reading() as cursor:
            return self._view(cursor).head()[0]

    def version(self, entity: Entity) -> int:
        with self._connections.reading() as cursor:
            return self._view(cursor).versions([entity]).get(entity, 0)

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        statement = self._sql.list_entities(entity_type, tenant_id, limit, offset)
        with self._connections.reading() as cursor:
            return [Entity(*row) for row in rows(cursor, *statement)]

    def _view(self, cursor: sqlite3.Cursor) -> View:
        return View(cursor, self._sql, self.found.log_id)

    # --- Waiting

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        self._watch.wait(after, timeout, nap)
