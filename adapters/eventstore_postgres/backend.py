"""The PostgreSQL backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from secrets import randbits
from time import monotonic
from typing import Any, ClassVar, Final, Self
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus

from eventstore.backend import (
    Backend,
    Batch,
    Capability,
    EventKey,
    Found,
    Options,
    Outcome,
    PageRequest,
    Settings,
    replaced,
    time_left,
    translating,
)
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_postgres import joining, opening, records
from eventstore_postgres.appending import Appender, OpenLog, find
from eventstore_postgres.clients import ClientSessions
from eventstore_postgres.connections import Guest, Lent, OwnSessions
from eventstore_postgres.options import OPTIONS
from eventstore_postgres.selecting import Where, page_query, reads_entity, statement, where
from eventstore_postgres.translation import classify
from eventstore_postgres.waiting import Listener


class PostgresBackend(Backend):
    """A log in a schema of its own. Reads go through a pool, appends by a connection apart."""

    options: ClassVar[Options] = OPTIONS
    log_format: ClassVar[int] = opening.FORMAT

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._namespace: Final = settings.namespace
        lent = settings.own_options["client"] is not None
        self._sessions: Final = ClientSessions(settings) if lent else OwnSessions(settings)
        self._notify: Final = settings.own_options["notify"] and self._sessions.settled_once
        self._classify: Final = partial(classify, log=self._namespace)
        self._listener: Listener | None = None

    # --- Opening and closing

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        backend = cls(settings)
        with backend._sessions.writing(time_left(settings.timeout), checked=False):
            return backend

    def engine_doubt(self) -> str | None:
        sessions, timeout = self._sessions, time_left(self._settings.timeout)
        with (
            # Its settings are not made yet: another engine may not know them.
            sessions.writing(timeout, checked=False) as session,
            translating(classify, "the server cannot be asked what it is"),
        ):
            ((version,),) = session.execute("SELECT pg_catalog.version()").fetchall()
        doubt = opening.doubt_about(version)
        if doubt is not None or not sessions.settled_once:
            return doubt  # (behind a pooler, a second session may have to wait for this one)
        lock = "SELECT pg_catalog.pg_try_advisory_xact_lock(%b)", (records.int8(randbits(63)),)
        with self._transaction("the server's locks cannot be tried") as session:
            ((locked,),) = session.execute(*lock).fetchall()
            with sessions.reading() as other:
                ((locked_twice,),) = other.execute(*lock).fetchall()
        if locked_twice or not locked:
            return "an advisory lock of one session does not exclude another"
        return None

    def look(self) -> Found | None:
        with self._transaction("the log cannot be opened") as session:
            found = opening.look(session, self._settings)
            if found is not None:
                self._place = joining.place_of(session.cursor(), self._namespace)
                log_id = UUID(found.log_id).bytes
                self._log = OpenLog(self._namespace, log_id, self._notify)
                self._listener = self._new_listener()
            return found

    def make(self) -> None:
        with self._transaction("the log cannot be made") as session:
            opening.make(session, self._settings)

    def remove(self) -> bool:
        with self._transaction("the log cannot be removed") as session:
            return opening.remove(session, self._namespace)

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Lent]:
        with (
            self._sessions.writing(time_left(self._settings.timeout)) as session,
            translating(classify, what),
        ):
            self._sessions.begin(session)
            yield session
            session.execute("COMMIT")

    @classmethod
    def schema_ddl(cls, settings: Settings) -> str:
        """Return the SQL for teams that forbid DDL at run time: tables, functions, grants.

        With the option ``strict`` appends go through functions alone, which run with the rights of
        a role that cannot log in.
        """
        return opening.ddl(settings)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._sessions.close()

    def after_fork(self) -> None:
        self._sessions.after_fork(self._listener)
        self._listener = self._new_listener()

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability)

    def durability_risks(self) -> Sequence[str]:
        ((fsync, persistence),) = self._rows("risks")
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
        ((version, commit, fsync, size),) = self._rows("info")
        return {
            "backend": "postgresql",
            "server": f"PostgreSQL {version}",
            "durability": f"synchronous_commit={commit}, fsync={fsync}",
            "size_bytes": size,
        }

    # --- Writing

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        deadline = monotonic() + timeout
        with self._sessions.writing(timeout) as session:
            if self._sessions.settled_once:
                appender = Appender(session.cursor(), self._log, deadline - monotonic())
                with translating(self._classify, "the append failed", writes=True):
                    outcomes = appender.append_at_once(group)
                if outcomes is not None:
                    return outcomes
            with translating(self._classify, "the append failed"):
                self._sessions.begin(session)
                appender = Appender(session.cursor(), self._log, deadline - monotonic())
                append = appender.append_planned if self._sessions.settled_once else appender.append
                outcomes = append(group)
            with translating(self._classify, "the append failed at its commit", writes=True):
                session.execute("COMMIT")
            return outcomes

    def join(self, connection: Any, batch: Batch, timeout: float) -> Outcome:
        joining.check_connection(connection)
        cursor = self._guest_cursor(connection, timeout)
        with translating(
            partial(self._classify, joined=True),
            "the append in the transaction of connection= failed",
        ):
            place = joining.place_of(cursor, self._namespace)
            if place != self._place:
                with (
                    self._sessions.connected_anew() as session
                ):  # the server may have been restarted
                    present = joining.place_of(session.cursor(), self._namespace)
                joining.check_place(place, self._place, present, self._namespace)
                self._place = present
            joining.check_transaction(cursor, self._namespace, self._settings.durability)
            (outcome,) = Appender(cursor, self._log, timeout).append([batch])
        return outcome

    def in_transaction(self, connection: Any) -> bool:
        status = connection.info.transaction_status
        if status != TransactionStatus.INTRANS:
            return status in (TransactionStatus.ACTIVE, TransactionStatus.INERROR)
        # Maybe another one than was joined: ask whether this one holds the log.
        cursor = self._guest_cursor(connection, time_left(self._settings.timeout))
        with translating(classify, "the transaction of connection= cannot be looked at"):
            return Appender(cursor, self._log, 0).holds_lock()

    def _guest_cursor(self, connection: Any, timeout: float) -> psycopg.Cursor[Any]:
        guest = Guest(connection)
        guest.deadline = monotonic() + timeout + self._sessions.spare
        return guest.cursor()

    # --- Reading

    def read(self, page: PageRequest) -> list[Event]:
        text, parameters = page_query(self._namespace, page)
        # Only a few shapes are worth preparing, and only with these is the plan sure to fit all
        # values.
        prepare = None if reads_entity(page) else False
        with self._sessions.reading() as session:
            found = session.execute(text, parameters, prepare=prepare, binary=True)
            return [records.event_of(row) for row in found.fetchall()]

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        with self._sessions.reading() as session:
            return find(session.cursor(), self._namespace, keys)

    def count(self, query: EventQuery) -> int:
        ((number,),) = self._rows("count", where(query))
        return int(number)

    def head(self) -> int:
        rows = self._rows("head", None, self._log.id)
        if not rows:
            raise replaced(self._namespace)
        return int(rows[0][0])

    def version(self, entity: Entity) -> int:
        entity_type, entity_id, tenant_id = entity
        found = where(EventQuery(entity_type=entity_type, entity_id=entity_id, tenant_id=tenant_id))
        ((number,),) = self._rows("version", found)
        return int(number)

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        found = where(EventQuery(entity_type=entity_type, tenant_id=tenant_id))
        rows = self._rows("entities", found, records.int8(limit), records.int8(offset))
        return [Entity(*row) for row in rows]

    def _rows(
        self, name: str, found: Where | None = None, *parameters: bytes
    ) -> list[tuple[Any, ...]]:
        """Return the answer to a statement of queries.sql."""
        text = statement(self._namespace, name)
        if found is not None:
            text, parameters = found.put_in(text), (*found.parameters, *parameters)
        with self._sessions.reading() as session:
            return session.execute(text, parameters, binary=True).fetchall()

    # --- Waiting

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        if self._listener is None:
            super().wait(after, timeout, nap)
        else:
            self._listener.wait(timeout)

    def _new_listener(self) -> Listener | None:
        if not (self._notify and isinstance(self._sessions, OwnSessions)):
            return None
        channel = f"eventstore_{self._place[2]}"
        return Listener(self._sessions.connect, channel, self._settings.timeout)
