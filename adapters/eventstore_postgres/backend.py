"""The PostgreSQL backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, ClassVar, Final, Self

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from eventstore.backend import Backend, Capability, PageRequest
from eventstore.commit import Batch, EventKey, Outcome
from eventstore.errors import ConfigurationError, DurabilityWarning, TransactionConflictError
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore.url import Settings, as_flag
from eventstore_postgres import namespaces, wire
from eventstore_postgres.appending import Appender, find
from eventstore_postgres.listening import Listener
from eventstore_postgres.queries import page_query, reads_entity, where, within
from eventstore_postgres.sessions import Session, Sessions, translated

_PLACE: Final = """
    SELECT pg_catalog.current_database()::text, pg_catalog.pg_postmaster_start_time(),
        pg_catalog.to_regclass('"eventstore".events')::oid::bigint
"""

_RISKS: Final = """
    SELECT pg_catalog.current_setting('fsync'), relpersistence::text
    FROM pg_catalog.pg_class WHERE oid = '"eventstore".events'::regclass
"""

_INFO: Final = """
    SELECT current_setting('server_version'), current_setting('synchronous_commit'),
        current_setting('fsync'), pg_total_relation_size('"eventstore".events')
"""

_ENTITIES: Final = """
    SELECT entity_type, entity_id, tenant_id FROM "eventstore".events
    WHERE version = 1 AND $where ORDER BY sequence DESC LIMIT %b OFFSET %b
"""

_TRANSACTION: Final = """
    SELECT pg_catalog.current_setting('transaction_isolation'),
        pg_catalog.current_setting('synchronous_commit'),
        pg_catalog.current_setting('synchronous_standby_names') <> ''
"""


class PostgresBackend(Backend):
    """A log in a schema of its own. Reads go through a pool, appends by a connection apart."""

    options: ClassVar[frozenset[str]] = frozenset({"notify", "pool_size"})

    def __init__(self, settings: Settings) -> None:
        self._namespace = settings.namespace
        self._sessions = Sessions(settings)
        notify = as_flag("notify", settings.own_options.get("notify", True))
        self._notify = notify and self._sessions.held
        self._writer: Session | None = self._sessions.connect()
        try:
            with self._sessions.bounded(self._writer, settings.timeout):
                self._log_id = namespaces.open_log(
                    self._writer, settings.namespace, create=settings.create
                )
                self._place = self._place_of(self._writer.cursor())
        except BaseException:
            self._writer.close()
            raise
        self._listener = self._new_listener()

    # --- Opening and closing

    @classmethod
    def open(cls, settings: Settings) -> Self:
        return cls(settings)

    @classmethod
    def drop(cls, settings: Settings) -> None:
        with Sessions(settings).connect() as session:
            namespaces.drop_log(session, settings.namespace)

    @classmethod
    def schema_ddl(cls, settings: Settings) -> str:
        """Return the SQL for teams that forbid DDL at run time: tables, functions, grants."""
        return namespaces.ddl(settings.namespace)

    def close(self) -> None:
        self._listener.close()
        if self._writer is not None:
            self._writer.close()
        self._sessions.close()

    def after_fork(self) -> None:
        self._sessions.after_fork(self._writer, self._listener)
        self._writer = None
        self._listener = self._new_listener()

    @property
    def log_id(self) -> str:
        return self._log_id

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability)

    def durability_risks(self) -> Sequence[str]:
        (fsync, persistence) = self._row(_RISKS)
        risks = []
        if fsync != "on":
            risks.append(
                "PostgreSQL runs with fsync=off: a crash of its host loses acknowledged events or"
                " the whole database; set fsync=on"
            )
        if persistence != "p":
            risks.append(
                f"the table {self._namespace}.events is unlogged: a crash empties it;"
                f' ALTER TABLE "{self._namespace}".events SET LOGGED'
            )
        return risks

    def info(self) -> Mapping[str, str | int]:
        version, commit, fsync, size = self._row(_INFO)
        return {
            "backend": "postgresql",
            "server": f"PostgreSQL {version}",
            "durability": f"synchronous_commit={commit}, fsync={fsync}",
            "size_bytes": size,
        }

    # --- Writing

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        deadline = monotonic() + timeout
        if self._writer is None or self._writer.closed:
            self._writer = None
            self._writer = self._sessions.connect(timeout)
        session = self._writer
        with self._sessions.bounded(session, timeout):
            outcomes = self._commit_at_once(session, group, deadline - monotonic())
            if outcomes is None:
                outcomes = self._commit_planned(session, group, deadline - monotonic())
        return outcomes

    def _commit_at_once(
        self, session: Session, group: Sequence[Batch], timeout: float
    ) -> Sequence[Outcome] | None:
        if not self._sessions.held:
            return None  # settings must travel with the transaction
        with translated("the append failed", may_have_written=True):
            return self._appender(session.cursor(), timeout).try_at_once(group)

    def _commit_planned(
        self, session: Session, group: Sequence[Batch], timeout: float
    ) -> Sequence[Outcome]:
        with translated("the append failed"):
            session.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
            if not self._sessions.held:
                self._sessions.settle(session, local=True)
            outcomes = self._appender(session.cursor(), timeout).append_planned(group)
        with translated("the append failed at its commit", may_have_written=True):
            session.execute("COMMIT")
        return outcomes

    def _appender(self, cursor: psycopg.Cursor[Any], timeout: float) -> Appender:
        return Appender(cursor, self._namespace, timeout, notify=self._notify)

    # --- Joining

    def join(self, connection: Any, batch: Batch, timeout: float) -> Outcome:
        _check_connection(connection)
        cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        wire.adapt(cursor.adapters)
        with translated("the append in the transaction of connection= failed"):
            self._check_transaction(cursor)
            appender = self._appender(cursor, timeout)
            outcomes = appender.try_at_once([batch]) or appender.append_planned([batch])
        return outcomes[0]

    def in_transaction(self, connection: Any) -> bool:
        status = connection.info.transaction_status
        if status != TransactionStatus.INTRANS:
            return status in (TransactionStatus.ACTIVE, TransactionStatus.INERROR)
        # Maybe another one than was joined: ask whether this one holds the log.
        cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        wire.adapt(cursor.adapters)
        return self._appender(cursor, 0).holds_lock()

    def _check_transaction(self, cursor: psycopg.Cursor[Any]) -> None:
        place = self._place_of(cursor)
        if place != self._place:
            with self._sessions.connect() as session:  # the server may have been restarted
                self._place = self._place_of(session.cursor())
            if place != self._place:
                raise ConfigurationError(
                    "connection: is to another database or server than this store"
                )
        cursor.execute(_TRANSACTION, (), binary=True)
        ((isolation, synchronous, has_standbys),) = cursor.fetchall()
        if isolation not in ("read committed", "read uncommitted"):
            raise TransactionConflictError(
                f"connection: its transaction is {isolation.upper()}, whose snapshot may be older"
                " than the log's lock; run it in READ COMMITTED"
            )
        if synchronous == "off" or (has_standbys and synchronous in ("local", "remote_write")):
            warnings.warn(
                f"connection: its synchronous_commit is {synchronous}: what it commits may be lost"
                " in a crash; set it to on",
                DurabilityWarning,
                stacklevel=6,
            )

    def _place_of(self, cursor: psycopg.Cursor[Any]) -> tuple[object, ...]:
        """Return what tells this log's table from all others, on all servers."""
        cursor.execute(within(self._namespace, _PLACE), (), binary=True)
        (place,) = cursor.fetchall()
        return tuple(place)

    # --- Reading

    def read(self, page: PageRequest) -> list[Event]:
        text, parameters = page_query(page)
        # Only a few shapes are worth preparing, and only with these is the plan sure to fit all
        # values.
        prepare = None if reads_entity(page) else False
        return [wire.event_of(row) for row in self._rows(text, parameters, prepare=prepare)]

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        with self._sessions.reading() as session:
            return find(session.cursor(), self._namespace, keys)

    def count(self, query: EventQuery) -> int:
        found = where(query)
        return self._number(
            found.put_in('SELECT count(*) FROM "eventstore".events WHERE $where'), *found.parameters
        )

    def head(self) -> int:
        return self._number('SELECT coalesce(max(sequence), 0) FROM "eventstore".events')

    def version(self, entity: Entity) -> int:
        return self._number(
            'SELECT coalesce(max(version), 0) FROM "eventstore".events'
            " WHERE entity_type = %b AND entity_id = %b AND tenant_id = %b",
            *(name.encode() for name in entity),
        )

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        found = where(EventQuery(entity_type=entity_type, tenant_id=tenant_id))
        window = wire.int8(limit), wire.int8(offset)
        rows = self._rows(found.put_in(_ENTITIES), (*found.parameters, *window))
        return [Entity(*row) for row in rows]

    def _number(self, text: str, *parameters: bytes) -> int:
        return int(self._row(text, *parameters)[0])

    def _row(self, text: str, *parameters: bytes) -> tuple[Any, ...]:
        (row,) = self._rows(text, parameters)
        return row

    def _rows(
        self, text: str, parameters: Sequence[bytes], *, prepare: bool | None = None
    ) -> list[tuple[Any, ...]]:
        text = within(self._namespace, text)
        with self._sessions.reading() as session:
            return session.execute(text, parameters, prepare=prepare, binary=True).fetchall()

    # --- Waiting

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        if self._notify:
            self._listener.wait(timeout)
        else:
            super().wait(after, timeout, nap)

    def _new_listener(self) -> Listener:
        return Listener(self._sessions.connect, f"eventstore_{self._place[2]}")


def _check_connection(connection: object) -> None:
    """Raise ConfigurationError unless it is a connection with, or about to begin, a
    transaction."""
    if not isinstance(connection, psycopg.Connection):
        raise ConfigurationError(
            f"connection: must be a psycopg.Connection, not {type(connection).__name__}"
        )
    if connection.closed:
        raise ConfigurationError("connection: is closed")
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise ConfigurationError("connection: is in pipeline mode; leave it first")
    if connection.info.encoding != "utf-8":
        raise ConfigurationError(
            f"connection: its client_encoding must be UTF8, not {connection.info.encoding}"
        )
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise ConfigurationError("connection: its transaction has failed; roll it back first")
    if status == TransactionStatus.ACTIVE:
        raise ConfigurationError("connection: is in the middle of a command")
    if status == TransactionStatus.IDLE and connection.autocommit:
        raise ConfigurationError(
            "connection: is in autocommit mode outside a transaction; use"
            " `with connection.transaction():`"
        )
