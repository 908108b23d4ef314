"""``mongodb://``: the primitives of a backend, over one collection of commits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from time import monotonic
from typing import Any, ClassVar, Self

from pymongo.errors import OperationFailure

from eventstore.backend import (
    Backend,
    Batch,
    Capability,
    Durability,
    EventKey,
    Found,
    Options,
    Outcome,
    PageRequest,
    Settings,
    report_risk,
    time_left,
    translating,
)
from eventstore.errors import (
    ConfigurationError,
    EventStoreError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_mongodb.appending import TRUSTED, Appender
from eventstore_mongodb.connections import Clock, closed, connected, database_of, given_client
from eventstore_mongodb.engine import Server, described, heeds_concerns
from eventstore_mongodb.joining import checked_session, is_weak
from eventstore_mongodb.opening import LOG, LOG_FORMAT, Namespace
from eventstore_mongodb.options import OPTIONS
from eventstore_mongodb.reading import CommitReader
from eventstore_mongodb.records import OPTIONS as CODEC
from eventstore_mongodb.records import RAW
from eventstore_mongodb.sweeping import sweep
from eventstore_mongodb.translation import bounded, classify_in_transaction
from eventstore_mongodb.waiting import await_insert
from eventstore_mongodb.walking import Commits


class MongoBackend(Backend):
    """A log in a collection of commits."""

    options: ClassVar[Options] = OPTIONS
    log_format: ClassVar[int] = LOG_FORMAT
    max_group_bytes: ClassVar[int] = 1_000_000
    name: ClassVar[str] = "mongodb"
    trusted: ClassVar[float] = TRUSTED
    """Seconds for which what was seen of the log is trusted to stand."""

    def __init__(self, settings: Settings, client: Any, server: Server) -> None:
        self._settings = settings
        self._timeout = settings.timeout
        self._server = server
        self._inherited: list[Any] = []
        """Clients of parent processes: never used nor closed here."""
        self._is_forked = False
        self._rebinding = threading.Lock()
        self._streams = server.has_replication
        """Whether change streams are worth a try."""
        self._log_format = self.log_format
        """That of this log, as far as it is known here."""
        self._log_seen_at = 0.0
        """When a look that found this log began. A thread may note an earlier one than another
        has: then it is looked again the sooner."""
        self._bind(client)

    # --- Opening and closing

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        client = cls._connect(settings)
        try:
            with bounded(time_left(settings.timeout)):
                return cls(settings, client, described(database_of(client, settings)))
        except BaseException:
            cls._close(client, settings)
            raise

    @classmethod
    def _connect(cls, settings: Settings) -> Any:
        return given_client(settings) if _is_given(settings) else connected(settings)

    @classmethod
    def _close(cls, client: Any, settings: Settings) -> None:
        if not _is_given(settings):
            closed(client, time_left(settings.timeout))

    def engine_doubt(self) -> str | None:
        if not self._server.is_known:
            return self._server.name
        with self._within(self._timeout):
            if heeds_concerns(self._namespace.database, self._namespace.meta.name):
                return None
        return f"{self._server.name}, which heeds no read concerns"

    def look(self) -> Found | None:
        with self._within(self._timeout):
            self._namespace.refuse_what_cannot_hold_a_log()
            if self._server.is_router:
                self._namespace.refuse_other_shard_key()
            now = monotonic()
            found = self._namespace.look()
            if found is not None:
                self._log_seen_at = now
                self._log_format = min(found.least_writer, self.log_format)
                self._begin()
                if 1 < found.least_writer <= self.log_format:
                    with suppress(OperationFailure):  # it is no more than tidy
                        sweep(self._namespace)
            return found

    def make(self) -> None:
        with self._within(self._timeout):
            self._namespace.make()

    def remove(self) -> bool:
        with self._within(self._timeout):
            return self._namespace.remove(self.trusted)

    def close(self) -> None:
        if not self._is_forked:
            self._close(self._client, self._settings)

    def after_fork(self) -> None:
        self._inherited.append(self._client)
        self._is_forked = True  # to connect here, in the midst of the fork, could find locks held
        self._rebinding = threading.Lock()

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Bound what the driver does, translate its errors, and connect anew after a fork."""
        if self._is_forked:
            self._connect_anew()
        with bounded(time_left(seconds)):
            yield

    def _connect_anew(self) -> None:
        if _is_given(self._settings):
            raise ConfigurationError(
                "client: it was made in another process, before a fork; open a store with a client"
                " of this process"
            )
        with self._rebinding:
            if self._is_forked:
                self._bind(self._connect(self._settings))
                self._is_forked = False

    def _bind(self, client: Any) -> None:
        """Take another client."""
        self._client = client
        self._namespace = Namespace(database_of(client, self._settings), self._settings.namespace)
        self._commits: Commits = self._namespace.commits
        self._clock = Clock(lambda: client.admin.command("hello")["localTime"])
        self._begin()

    def _begin(self) -> None:
        """Make what knows of the log's past."""
        self._reader = self._reader_of(self._commits)
        self._appender = self._appender_of(self._commits, self._reader)

    def _reader_of(self, commits: Commits, **session: Any) -> CommitReader:
        return CommitReader(
            commits.with_options(codec_options=RAW),
            self._log_format,
            linearizable=self._server.has_replication and not session,
            **session,
        )

    def _appender_of(self, commits: Commits, reader: CommitReader, **session: Any) -> Appender:
        return Appender(
            commits,
            reader,
            max_bytes=self._server.max_document_bytes,
            now=self._clock.now,
            log_format=self._log_format,
            check_log=self._check_log,
            trusted=self.trusted,
            **session,
        )

    def _check_log(self) -> None:
        """Raise LogReplacedError where this is no longer the log that was opened."""
        now = monotonic()
        self._namespace.check_log_id(self.log_id)
        self._log_seen_at = now

    def _check_log_now_and_then(self) -> None:
        if monotonic() - self._log_seen_at >= self.trusted:
            self._check_log()

    # --- What it is

    @property
    def capabilities(self) -> frozenset[Capability]:
        joins = {Capability.JOIN_TRANSACTION} if self._server.has_transactions else ()
        return frozenset({Capability.MULTI_PROCESS, Capability.PERSISTENT, *joins})

    def durability_risks(self) -> Sequence[str]:
        try:
            with self._within(self._timeout):
                engine = self._client.admin.command("serverStatus").get("storageEngine", {})
        except EventStoreError:
            return ()  # it takes a role of its own to ask
        if engine.get("persistent", True):
            return ()
        return [f"the server keeps data in memory only ({engine.get('name')}); use wiredTiger"]

    def info(self) -> Mapping[str, str | int]:
        durable = self._settings.durability is not Durability.RELAXED
        facts: dict[str, str | int] = {
            "backend": self.name,
            "server": self._server.name,
            "durability": f"w=majority, j={str(durable).lower()}",
        }
        with self._within(self._timeout):
            try:
                stats = self._namespace.database.command("collStats", self._commits.name)
            except OperationFailure:
                return facts  # it takes a privilege of its own
        facts["size_bytes"] = int(stats.get("storageSize", 0) + stats.get("totalIndexSize", 0))
        return facts

    # --- Writing

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        with self._within(timeout):
            return self._appender.commit(group, timeout)

    def join(self, connection: Any, batch: Batch, timeout: float) -> Outcome:
        if not self._server.has_transactions:
            raise UnsupportedOperationError(
                "connection: this server has no transactions (a standalone one has none)"
            )
        session = checked_session(connection)
        with self._within(timeout), translating(classify_in_transaction):
            name = self._namespace.database.name
            database = session.client.get_database(name, codec_options=CODEC)
            theirs = Namespace(database, self._settings.namespace)
            about = theirs.meta.find_one(LOG, session=session)
            if about is None or about.get("log_id") != self.log_id:
                self._check_log()
                raise ConfigurationError("connection: the session is one to another server")
            if is_weak(session):
                report_risk(
                    "connection: the transaction's write concern is weaker than w=majority; what it"
                    " commits may be lost; set it in start_transaction() or the client",
                    self._settings.durability,
                )
            reader = self._reader_of(theirs.commits, session=session)
            return self._appender_of(theirs.commits, reader, session=session).join(batch)

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.in_transaction)

    # --- Reading

    def read(self, page: PageRequest) -> list[Event]:
        with self._within(self._timeout):
            events = self._reader.page(page)
            self._check_log_now_and_then()
            return events

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        with self._within(self._timeout):
            return self._reader.with_ids(keys)

    def count(self, query: EventQuery) -> int:
        with self._within(self._timeout):
            return self._reader.count(query, self._reader.head())

    def head(self) -> int:
        with self._within(self._timeout):
            seen = self._reader.seen
            head = self._reader.head()
            self._check_log_now_and_then()
            if head < seen:  # the log was put back to an older copy, or
                confirmed = self.confirmed_head()
                if confirmed >= seen:
                    raise StoreUnavailableError("a new primary has not caught up yet")
                self._reader.seen = confirmed
            return head

    def confirmed_head(self) -> int:
        with self._within(self._timeout):
            head = self._reader.head()
            while (after := self._reader.next_after(head)) is not None:
                head = after
            self._check_log()
            return head

    def version(self, entity: Entity) -> int:
        with self._within(self._timeout):
            return self._reader.versions([entity]).get(entity, 0)

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        with self._within(self._timeout):
            entities = self._reader.new_entities(entity_type, tenant_id, self._reader.head())
            # Not to offset + limit, which may be more than any number of events.
            return list(islice(islice(entities, offset, None), limit))

    # --- Waiting

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        if not self._streams:
            super().wait(after, timeout, nap)
            return
        try:
            with self._within(self._timeout):
                # Half of what the call has left at the most, so that the answer comes within it.
                seconds = min(timeout, time_left(self._timeout) / 2)
                await_insert(self._commits, lambda: self._reader.head() > after, seconds)
        except (ConfigurationError, StoreUnavailableError) as error:
            if isinstance(error, StoreUnavailableError) and error.transient:
                raise
            self._streams = False  # not offered here, or not to this user: poll


def _is_given(settings: Settings) -> bool:
    """Return whether the client is the caller's own."""
    return settings.own_options.get("client") is not None
