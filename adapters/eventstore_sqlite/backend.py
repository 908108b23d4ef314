"""The SQLite backend."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self

import msgspec

from eventstore.backend import (
    Backend,
    Batch,
    Capability,
    Durability,
    EventKey,
    Outcome,
    PageRequest,
    Repeated,
    Settings,
    time_left,
)
from eventstore.errors import ConfigurationError
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_sqlite.appending import (
    AnIdIsRecordedError,
    append,
    find_chains,
    find_events,
    find_head,
    rows,
)
from eventstore_sqlite.connections import Connections, Mark
from eventstore_sqlite.joining import join
from eventstore_sqlite.reading import count_matches, find_page
from eventstore_sqlite.records import events_of
from eventstore_sqlite.selecting import Statements

_FORMAT: Final = 1
"""The format of schema.sql: what this version writes, and the newest that it reads."""
_LEAST_SQLITE: Final = (3, 34)

_SOON: Final = 0.003
"""Seconds between two looks at a log that grows …"""
_LATEST: Final = 0.045
"""… and at one that has been idle for long; a look costs less than the nap after it."""
_BACKING_OFF: Final = 0.002
"""How much longer the nap is for every second of idleness."""


class SqliteBackend(Backend):
    """A log in a few tables of an SQLite database."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._synchronous = "NORMAL" if settings.durability is Durability.RELAXED else "FULL"
        self._sql = Statements(settings.namespace)
        self._connections = Connections(
            _path(settings),
            timeout=settings.timeout,
            synchronous=self._synchronous,
            create=settings.create,
        )
        self._log_id = ""
        self._least_writer = _FORMAT
        self._hopeful = True
        self._seen: tuple[int, float, Mark | None] = 0, monotonic(), None
        """The head at a wait's last look, since when it stands, and the write-ahead log's state
        before that look. (One value: several threads may wait.)"""

    # --- Opening and closing

    @classmethod
    def open(cls, settings: Settings) -> Self:
        backend = cls(settings)
        try:
            if not (settings.create or backend._exists()) or not backend._recognise():
                backend._create()
        except BaseException:
            backend.close()
            raise
        return backend

    def _exists(self) -> bool:
        path = self._connections.path
        return path is None or path.exists()

    def _recognise(self) -> bool:
        """Learn which log this is; return False if there is none."""
        with self._connections.reading() as cursor:
            if not self._has_log(cursor):
                return False
            found = rows(cursor, (self._sql.read_log, ()))
        if len(found) != 1:
            raise ConfigurationError(
                f"{self._connections.name}: {self._sql.log} is not of an event log"
            )
        ((self._log_id, least_reader, self._least_writer),) = found
        self._check_format(least_reader, "reads")
        return True

    def _has_log(self, cursor: sqlite3.Cursor) -> bool:
        name = self._sql.log.removeprefix("main.")
        return bool(rows(cursor, ("SELECT 1 FROM main.sqlite_master WHERE name = ?", [name])))

    def _check_format(self, least: int, verb: str) -> None:
        if least > _FORMAT:
            raise ConfigurationError(
                f"{self._connections.name}: the log {self._settings.namespace!r} has format"
                f" {least}, and this version {verb} up to {_FORMAT}: upgrade eventstore-toolkit"
            )

    def _create(self) -> None:
        name, namespace = self._connections.name, self._settings.namespace
        if not self._settings.create:
            raise ConfigurationError(
                f"{name}: has no log {namespace!r}; make it with `eventstore init`, or open it"
                " without create=false"
            )
        with self._connections.writing(time_left(self._settings.timeout)) as cursor:
            if not self._has_log(cursor):  # another process may have been faster
                for statement in _statements(self.schema_ddl(self._settings)):
                    cursor.execute(statement)
        self._recognise()

    @classmethod
    def schema_ddl(cls, settings: Settings) -> str:
        schema = files(__package__).joinpath("schema.sql").read_text("utf-8")
        return schema.replace("{namespace}", settings.namespace)

    @classmethod
    def drop(cls, settings: Settings) -> bool:
        backend = cls(msgspec.structs.replace(settings, create=False))
        sql, connections = backend._sql, backend._connections
        try:
            if not (connections.path and backend._exists() and backend._recognise()):
                return False
            with connections.writing(time_left(settings.timeout)) as cursor:
                if not backend._has_log(cursor):  # another process may have been faster
                    return False
                for table in (sql.segments, sql.tags, sql.entities, sql.events, sql.log):
                    cursor.execute(f"DROP TABLE IF EXISTS {table}")
            return True
        finally:
            backend.close()

    def close(self) -> None:
        self._connections.close()

    def after_fork(self) -> None:
        """Nothing is left to do: the connections were closed before the fork."""

    @property
    def log_id(self) -> str:
        return self._log_id

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset() if self._connections.path is None else frozenset(Capability)

    def info(self) -> Mapping[str, str | int]:
        path = self._connections.path
        with self._connections.reading() as cursor:
            ((size,),) = rows(
                cursor,
                ("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", ()),
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
        self._check_format(self._least_writer, "writes")
        with self._connections.writing(timeout) as cursor:
            try:
                outcomes = append(cursor, self._sql, group, self._log_id, hopeful=self._hopeful)
            except AnIdIsRecordedError:
                cursor.execute("ROLLBACK")
                self._connections.begin(cursor)
                outcomes = append(cursor, self._sql, group, self._log_id, hopeful=False)
        # Repeats come in rows, as when an import runs again.
        self._hopeful = not any(isinstance(outcome, Repeated) for outcome in outcomes)
        return outcomes

    def join(self, connection: Any, batch: Batch, timeout: float) -> Outcome:
        self._check_format(self._least_writer, "writes")
        return join(
            connection,
            self._connections,
            self._sql,
            batch,
            log_id=self._log_id,
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
            found = find_page(cursor, self._sql, page)
        return events_of(found)

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        with self._connections.reading() as cursor:
            return list(find_events(cursor, self._sql, keys).values())

    def count(self, query: EventQuery) -> int:
        if query == EventQuery():
            return self.head()
        with self._connections.reading() as cursor:
            return count_matches(cursor, self._sql, query)

    def head(self) -> int:
        with self._connections.reading() as cursor:
            return find_head(cursor, self._sql, self._log_id)[0]

    def version(self, entity: Entity) -> int:
        with self._connections.reading() as cursor:
            return find_chains(cursor, self._sql, [entity]).get(entity, (0, 0, 0))[2]

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        statement = self._sql.list_entities(entity_type, tenant_id, limit, offset)
        with self._connections.reading() as cursor:
            return [Entity(*row) for row in rows(cursor, statement)]

    # --- Waiting

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        end = monotonic() + timeout
        while (left := end - (now := monotonic())) > 0:
            mark = self._connections.quiet_mark()  # before the look, so that nothing is missed
            seen, since, unchanged = self._seen
            if mark is None or mark != unchanged or seen > after:
                head = self.head()
                if head > after:
                    return
                since = since if head == seen else now
                self._seen = head, since, mark
            nap(min(_SOON + (now - since) * _BACKING_OFF, _LATEST, left))


def _path(settings: Settings) -> Path | None:
    """Return the absolute path of the file; None for memory. ConfigurationError if it cannot be."""
    settings.refuse_driver_options()
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise ConfigurationError(
            f"SQLite {sqlite3.sqlite_version} is too old: 3.34 is the least; use a Python that is"
            " built with a newer one"
        )
    name = settings.path[1:]
    if not settings.location.startswith("/") or not name or "\0" in name:
        raise ConfigurationError(
            f"url: {settings.safe_url!r} names no file; it looks like sqlite:///relative.db,"
            " sqlite:////absolute/path.db or sqlite:///:memory:"
        )
    if name == ":memory:":
        return None
    try:
        return _usable(Path(name))
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before 3.13
        reason = error.strerror if isinstance(error, OSError) else "a loop of links"
        raise ConfigurationError(f"{name:.300}: cannot be used: {reason}") from error


def _usable(given: Path) -> Path:
    """Return the path of the file itself: SQLite's other files are beside that, not a link's."""
    path = given.resolve()
    if given.is_symlink() and not path.exists():
        raise ConfigurationError(
            f"{given}: is a link to {path}, which is not there; open that path itself to make it"
        )
    if path.is_dir():
        raise ConfigurationError(f"{path}: is a directory, not a database file")
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path}: there is no folder {path.parent}; make it first")
    for needed in (path.parent, path):  # a write-ahead log is made beside the file
        if needed.exists() and not os.access(needed, os.R_OK | os.W_OK):
            raise ConfigurationError(f"{path}: cannot be used: {needed} is read-only for this user")
    path.with_name(f"{path.name}-journal").exists()  # raises where that name is too long
    return path


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script one by one, so that they run in one transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
