"""The PostgreSQL backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, ClassVar, Final, Self

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from eventstore.backend import (
    Backend,
    Batch,
    Capability,
    EventKey,
    Outcome,
    PageRequest,
    Settings,
    as_flag,
    report_risk,
    time_left,
)
from eventstore.errors import ConfigurationError, TransactionConflictError
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_postgres import opening, records
from eventstore_postgres.appending import Appender, find
from eventstore_postgres.connections import GuestCursor, Session, Sessions
from eventstore_postgres.selecting import page_query, reads_entity, where, within
from eventstore_postgres.translation import replaced, translated
from eventstore_postgres.waiting import Listener

_PLACE: Final = """
    SELECT pg_catalog.current_database()::pg_catalog.text,
        pg_catalog.pg_postmaster_start_time(),
        pg_catalog.to_regclass('"eventstore".events')::pg_catalog.oid::pg_catalog.int8
"""

_RISKS: Final = """
    SELECT pg_catalog.current_setting('fsync'), relpersistence::pg_catalog.text
    FROM pg_catalog.pg_class
    WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('"eventstore".events')
"""

_INFO: Final = """
    SELECT pg_catalog.current_setting('server_version'),
        pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('fsync'),
        pg_catalog.pg_total_relation_size(pg_catalog.to_regclass('"eventstore".events'))
"""

_COUNT: Final = 'SELECT pg_catalog.count(*) FROM "eventstore".events WHERE $where'

_HEAD: Final = """
    SELECT coalesce((SELECT pg_catalog.max(sequence) FROM "eventstore".events), 0)
    FROM "eventstore".log WHERE log_id OPERATOR(pg_catalog.=) %b
"""

_VERSION: Final = (
    'SELECT coalesce(pg_catalog.max(version), 0) FROM "eventstore".events WHERE $where'
)

_ENTITIES: Final = """
    SELECT entity_type, entity_id, tenant_id FROM "eventstore".events
    WHERE version OPERATOR(pg_catalog.=) 1 AND $where ORDER BY sequence DESC LIMIT %b OFFSET %b
"""

_TRANSACTION: Final = """
    SELECT pg_catalog.current_setting('transaction_isolation'),
        pg_catalog.current_setting('synchronous_commit'),
        pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) ''
"""


class PostgresBackend(Backend):
    """A log in a schema of its own. Reads go through a pool, appends by a connection apart."""

    options: ClassVar[frozenset[str]] = frozenset({"notify", "owner", "pool_size", "strict"})

    def __init__(self, settings: Settings) -> None:
        self._namespace = settings.namespace
        self._durability = settings.durability
        self._sessions = Sessions(settings)
        notify = as_flag("notify", settings.own_options.get("notify", True))
        self._notify = notify and self._sessions.held
        session = self._sessions.connect()
        self._writer: Session | None = session
        try:
            with (
                self._sessions.bounded(session, time_left(settings.timeout)),
                translated("the log cannot be opened"),
            ):
                self._sessions.begin(session)
                self._log_id = opening.open_log(session, settings)
                session.execute("COMMIT")
                self._place = self._place_of(session.cursor())
        except BaseException:
            session.close()
            raise
        self._listener = self._new_listener()

    # --- Opening and closing

    @classmethod
    def open(cls, settings: Settings) -> Self:
        return cls(settings)

    @classmethod
    def drop(cls, settings: Settings) -> bool:
        sessions = Sessions(settings)
        session = sessions.connect()
        try:
            with (
                sessions.bounded(session, time_left(settings.timeout)),
                translated("the log cannot be removed"),
            ):
                sessions.begin(session)
                found = opening.drop_log(session, settings.namespace)
                session.execute("COMMIT")
        finally:
            session.close()
        return found

    @classmethod
    def schema_ddl(cls, settings: Settings) -> str:
        """Return the SQL for teams that forbid DDL at run time: tables, functions, grants.

        With the option ``strict`` appends go through functions alone, which run with the rights of
        a role that cannot log in.
        """
        return opening.ddl(settings)

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
        return str(self._log_id)

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability)

    def durability_risks(self) -> Sequence[str]:
        ((fsync, persistence),) = self._rows(_RISKS)
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
        ((version, commit, fsync, size),) = self._rows(_INFO)
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
        with self._sessions.bounded(session, deadline - monotonic()):
            outcomes = self._commit_at_once(session, group, deadline - monotonic())
            if outcomes is None:
                outcomes = self._commit_planned(session, group, deadline - monotonic())
        return outcomes

    def _commit_at_once(
        self, session: Session, group: Sequence[Batch], timeout: float
    ) -> Sequence[Outcome] | None:
        if not self._sessions.held:
            return None  # settings must travel with the transaction
        with translated("the append failed", may_have_written=True, log=self._namespace):
            return self._appender(session.cursor(), timeout).try_at_once(group)

    def _commit_planned(
        self, session: Session, group: Sequence[Batch], timeout: float
    ) -> Sequence[Outcome]:
        with translated("the append failed", log=self._namespace):
            self._sessions.begin(session)
            outcomes = self._appender(session.cursor(), timeout).append_planned(group)
        with translated("the append failed at its commit", may_have_written=True):
            session.execute("COMMIT")
        return outcomes

    def _appender(self, cursor: psycopg.Cursor[Any], timeout: float) -> Appender:
        return Appender(cursor, self._namespace, self._log_id, timeout, notify=self._notify)

    # --- Joining

    def join(self, connection: Any, batch: Batch, timeout: float) -> Outcome:
        _check_connection(connection)
        cursor = self._guest_cursor(connection, timeout)
        with translated(
            "the append in the transaction of connection= failed", log=self._namespace, joined=True
        ):
            self._check_transaction(cursor)
            appender = self._appender(cursor, timeout)
            outcomes = appender.try_at_once([batch]) or appender.append_planned([batch])
        return outcomes[0]

    def in_transaction(self, connection: Any) -> bool:
        status = connection.info.transaction_status
        if status != TransactionStatus.INTRANS:
            return status in (TransactionStatus.ACTIVE, TransactionStatus.INERROR)
        # Maybe another one than was joined: ask whether this one holds the log.
        timeout = time_left(self._sessions.timeout)
        with translated("the transaction of connection= cannot be looked at"):
            return self._appender(self._guest_cursor(connection, timeout), 0).holds_lock()

    def _guest_cursor(self, connection: Any, timeout: float) -> GuestCursor:
        """Return a cursor that depends on nothing that was set for the caller's connection."""
        cursor = GuestCursor(connection, row_factory=tuple_row)
        cursor.deadline = monotonic() + timeout + self._sessions.spare
        records.adapt(cursor.adapters)
        return cursor

    def _check_transaction(self, cursor: psycopg.Cursor[Any]) -> None:
        place = self._place_of(cursor)
        if place != self._place:
            with self._sessions.connect() as session:  # the server may have been restarted
                present = self._place_of(session.cursor())
            if present[2] != self._place[2]:
                raise replaced(self._namespace)
            self._place = present
            if place != present:
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
            report_risk(
                f"connection: its synchronous_commit is {synchronous}: what it commits may be lost"
                " in a crash; set it to on",
                self._durability,
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
        return [records.event_of(row) for row in self._rows(text, parameters, prepare=prepare)]

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        with self._sessions.reading() as session:
            return find(session.cursor(), self._namespace, keys)

    def count(self, query: EventQuery) -> int:
        found = where(query)
        ((number,),) = self._rows(found.put_in(_COUNT), found.parameters)
        return int(number)

    def head(self) -> int:
        rows = self._rows(_HEAD, (self._log_id.bytes,))
        if not rows:
            raise replaced(self._namespace)
        return int(rows[0][0])

    def version(self, entity: Entity) -> int:
        entity_type, entity_id, tenant_id = entity
        found = where(EventQuery(entity_type=entity_type, entity_id=entity_id, tenant_id=tenant_id))
        ((number,),) = self._rows(found.put_in(_VERSION), found.parameters)
        return int(number)

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        found = where(EventQuery(entity_type=entity_type, tenant_id=tenant_id))
        window = records.int8(limit), records.int8(offset)
        rows = self._rows(found.put_in(_ENTITIES), (*found.parameters, *window))
        return [Entity(*row) for row in rows]

    def _rows(
        self, text: str, parameters: Sequence[bytes] = (), *, prepare: bool | None = None
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
        return Listener(
            self._sessions.connect, f"eventstore_{self._place[2]}", self._sessions.timeout
        )


def _check_connection(connection: object) -> None:
    """Raise ConfigurationError unless it is a connection with, or about to begin, a
    transaction."""
    if not isinstance(connection, psycopg.Connection):
        given = type(connection)
        raise ConfigurationError(
            f"connection: must be a psycopg.Connection, not {given.__module__}.{given.__qualname__}"
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
