"""``mongodb://``: the primitives of a backend, over one collection of commits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from time import monotonic
from typing import Any, ClassVar, Final, Self

from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from eventstore.backend import (
    Backend,
    Batch,
    Capability,
    Durability,
    EventKey,
    Outcome,
    PageRequest,
    Settings,
    report_risk,
    time_left,
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
from eventstore_mongodb.connections import (
    Clock,
    Server,
    closed,
    connected,
    described,
    driver_errors,
    is_weak,
    several_inserted,
    transaction_errors,
)
from eventstore_mongodb.opening import LOG, Namespace
from eventstore_mongodb.reading import CommitReader, Commits
from eventstore_mongodb.records import OPTIONS, RAW
from eventstore_mongodb.sweeping import sweep

_DEFAULT_DATABASE: Final = "eventstore"


class MongoBackend(Backend):
    """A log in a collection of commits."""

    max_group_bytes: ClassVar[int] = 1_000_000
    trusted: ClassVar[float] = TRUSTED
    """Seconds for which what was seen of the log is trusted to stand."""

    def __init__(self, settings: Settings, client: Any) -> None:
        self._settings = settings
        self._timeout = settings.timeout
        self._inherited: list[Any] = []
        """Clients of parent processes: never used nor closed here."""
        self._is_forked = False
        self._rebinding = threading.Lock()
        self._streams = True
        """Whether change streams are worth a try."""
        with driver_errors(time_left(self._timeout)):
            self._server = self._describe(client)
            self._bind(client)
            self._check(self._namespace)
            about = self._namespace.log(create=settings.create)
            self._log_id, self._log_format = about.log_id, about.log_format
            self._log_seen_at = monotonic()
            self._begin()
            if self._log_format > 1:
                with suppress(OperationFailure):  # it is no more than tidy
                    sweep(self._namespace, about.swept)

    # --- Opening and closing

    @classmethod
    def open(cls, settings: Settings) -> Self:
        client = cls._connect(settings)
        try:
            return cls(settings, client)
        except BaseException:
            closed(client, time_left(settings.timeout))
            raise

    @classmethod
    def drop(cls, settings: Settings) -> bool:
        client = cls._connect(settings)
        try:
            with driver_errors(time_left(settings.timeout)):
                there = Namespace(cls._database(client, settings), settings.namespace)
                return there.drop(cls.trusted)
        finally:
            closed(client, time_left(settings.timeout))

    @classmethod
    def _connect(cls, settings: Settings) -> Any:
        return connected(settings)

    @classmethod
    def _database(cls, client: Any, settings: Settings) -> Database[Any]:
        durable = settings.durability is not Durability.RELAXED
        database: Database[Any] = client.get_default_database(_DEFAULT_DATABASE)
        return database.with_options(
            codec_options=OPTIONS,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=durable),
        )

    def _describe(self, client: Any) -> Server:
        return described(client)

    def _check(self, namespace: Namespace) -> None:
        namespace.refuse_what_cannot_hold_a_log()
        if self._server.is_router:
            namespace.refuse_other_shard_key()

    def _bind(self, client: Any) -> None:
        """Take another client."""
        database = self._database(client, self._settings)
        self._client = client
        self._namespace = Namespace(database, self._settings.namespace)
        self._commits: Commits = self._namespace.commits
        self._clock = self._clock_of(client)

    def _begin(self) -> None:
        """Make what knows of the log's past."""
        self._reader = self._reader_of(self._commits)
        self._appender = self._appender_of(self._commits, self._reader)

    def _clock_of(self, client: Any) -> Clock:
        return Clock(lambda: client.admin.command("hello")["localTime"])

    def _reader_of(self, commits: Commits, **session: Any) -> CommitReader:
        linearizable = self._server.has_replication and not session
        raw_commits = commits.with_options(codec_options=RAW)
        return CommitReader(
            raw_commits, linearizable=linearizable, log_format=self._log_format, **session
        )

    def _appender_of(self, commits: Commits, reader: CommitReader, **session: Any) -> Appender:
        return Appender(
            commits,
            reader,
            max_bytes=self._server.max_document_bytes,
            now=self._clock.now,
            insert=lambda documents: self._insert(commits, documents, **session),
            log_format=self._log_format,
            check_log=self._check_log,
            trusted=self.trusted,
        )

    def _insert(
        self, commits: Commits, documents: Sequence[RawBSONDocument], **session: Any
    ) -> None:
        if len(documents) == 1:
            commits.insert_one(documents[0], **session)
        else:
            with several_inserted():
                commits.insert_many(documents, ordered=bool(session), **session)

    def _check_log(self) -> None:
        """Raise LogReplacedError where this is no longer the log that was opened."""
        now = monotonic()
        self._namespace.check_log_id(self._log_id)
        self._log_seen_at = now

    def _check_log_now_and_then(self) -> None:
        if monotonic() - self._log_seen_at >= self.trusted:
            self._check_log()

    def close(self) -> None:
        if not self._is_forked:
            closed(self._client, time_left(self._timeout))

    def after_fork(self) -> None:
        self._inherited.append(self._client)
        self._is_forked = True  # to connect here, in the midst of the fork, could find locks held
        self._rebinding = threading.Lock()

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Bound what the driver does, translate its errors, and connect anew after a fork."""
        if self._is_forked:
            with self._rebinding:
                if self._is_forked:
                    self._bind(self._connect(self._settings))
                    self._begin()
                    self._is_forked = False
        with driver_errors(time_left(seconds)):
            yield

    # --- What it is

    @property
    def log_id(self) -> str:
        return self._log_id

    @property
    def capabilities(self) -> frozenset[Capability]:
        able = {Capability.MULTI_PROCESS, Capability.PERSISTENT}
        if self._server.has_transactions:
            able.add(Capability.JOIN_TRANSACTION)
        return frozenset(able)

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
            "backend": "mongodb",
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
        if not isinstance(connection, ClientSession):
            raise ConfigurationError(
                f"connection: must be a pymongo ClientSession, not {type(connection).__name__}"
            )
        if not connection.in_transaction:
            raise ConfigurationError(
                "connection: the session has no open transaction; call start_transaction() first"
            )
        with self._within(timeout), transaction_errors():
            name = self._namespace.database.name
            database = connection.client.get_database(name, codec_options=OPTIONS)
            theirs = Namespace(database, self._settings.namespace)
            about = theirs.meta.find_one(LOG, session=connection)
            if about is None or about.get("log_id") != self._log_id:
                self._check_log()
                raise ConfigurationError("connection: the session is one to another server")
            if is_weak(connection):
                report_risk(
                    "connection: the transaction's write concern is weaker than w=majority; what it"
                    " commits may be lost; set it in start_transaction() or the client",
                    self._settings.durability,
                )
            reader = self._reader_of(theirs.commits, session=connection)
            appender = self._appender_of(theirs.commits, reader, session=connection)
            return appender.join(batch)

    def in_transaction(self, connection: Any) -> bool:
        return isinstance(connection, ClientSession) and connection.in_transaction

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
            if head < seen and self.confirmed_head() >= seen:
                self._reader.seen = seen
                raise StoreUnavailableError("a new primary has not caught up yet")
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
        if not (self._streams and self._server.has_replication):
            super().wait(after, timeout, nap)
            return
        try:
            with self._within(self._timeout):
                self._await_change(after, timeout)
        except (ConfigurationError, StoreUnavailableError) as error:
            if isinstance(error, StoreUnavailableError) and error.transient:
                raise
            self._streams = False  # not offered here, or not to this user: poll

    def _await_change(self, after: int, timeout: float) -> None:
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"operationType": "insert"}},
            {"$project": {"_id": 1}},
        ]
        # Half of what the call has left at the most, so that the answer comes within it.
        timeout = min(timeout, time_left(self._timeout) / 2)
        milliseconds = max(round(timeout * 1000), 1)
        with self._commits.watch(pipeline, max_await_time_ms=milliseconds) as stream:
            if self._reader.head() <= after:  # once the stream stands: nothing is missed
                stream.try_next()
