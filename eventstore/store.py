"""``EventStore``: the public interface, the same over every backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Event as Flag
from typing import Any, Final, Self
from uuid import UUID

from eventstore._core import appending, entities, positions, reading, waiting
from eventstore._core.appending import Expectation
from eventstore._core.checks import checked_integer, checked_name, checked_tenant, shown
from eventstore._core.log import Log
from eventstore.backend import Capability, PageRequest
from eventstore.checkpoint import Checkpoint
from eventstore.errors import (
    InvalidEventError,
    InvalidQueryError,
    StoreClosedError,
)
from eventstore.event import Entity, Event, Name
from eventstore.query import AppendCondition, EventQuery, refuse_shape
from eventstore.result import AppendResult
from eventstore.versions import ExpectedVersion

_FACTS_FOR_TENANTS: Final = ("backend", "server", "durability")


class EventStore:
    """A log of events. Made by ``open_store``; safe to share between threads.

    One rule for tenants: an identity (an entity, an event id) has the tenant as a part,
    ``""`` unless given; a filter that is not given does not filter. Every method raises
    InvalidQueryError for an argument that is not as it must be, StoreClosedError after
    ``close``, StoreUnavailableError where the engine does not answer within the store's
    ``timeout``, and CorruptLogError where the log has a gap or cannot be read.
    """

    def __init__(self, log: Log, tenant_id: str | None = None) -> None:
        self._log = log
        self._tenant_id = tenant_id
        self._view_closed = False

    # --- Writing

    def append(
        self,
        event: Event,
        *,
        expected_version: Expectation = ExpectedVersion.ANY,
        condition: AppendCondition | None = None,
        connection: Any = None,
    ) -> Event:
        """Store one event durably and return it as recorded; all else as ``append_batch``."""
        result = self.append_batch(
            (event,),
            expected_version=expected_version,
            condition=condition,
            connection=connection,
        )
        return result[0]

    def append_batch(
        self,
        events: Iterable[Event],
        *,
        expected_version: Expectation = ExpectedVersion.ANY,
        condition: AppendCondition | None = None,
        connection: Any = None,
    ) -> AppendResult:
        """Store a batch of events atomically and durably, and return them as recorded.

        ``expected_version`` is a number (the batch then writes one entity) or a mapping by
        entity, which may name entities that the batch does not write. ``condition`` fails the
        append if an event matches. ``connection`` joins a transaction of the caller's. Events
        that are all recorded already are returned as they are, whatever ``expected_version``
        and ``condition`` say, so any append can be retried. A batch without events stores
        nothing, but what is expected (a mapping, for it names no entity itself) and the
        condition are checked, atomically, and raise as they do in any append.

        Raises, before anything is sent, InvalidEventError and BatchTooLargeError; where
        nothing was written, VersionConflictError, ConditionFailedError, DuplicateEventError,
        CheckpointError, TransactionConflictError and ConfigurationError (``connection``);
        StoreUnavailableError, whose ``may_have_written`` says whether anything can have been.
        """
        given = _events(events)
        batch = appending.batch_of(given, expected_version, self._tenant_id)
        if condition is not None and type(condition) is not AppendCondition:
            raise InvalidQueryError(
                f"condition: must be an AppendCondition, not {type(condition).__name__}"
            )
        log = self._open_log()
        if not batch.drafts and not batch.expected and condition is None:
            return AppendResult()
        return appending.append(
            log,
            batch,
            must_be_recorded=any(event.sequence for event in given),
            condition=condition,
            tenant_id=self._tenant_id,
            connection=connection,
        )

    # --- Reading

    def get_events(self, query: EventQuery | None = None) -> Iterator[Event]:
        """Stream the events that match, in pages, from the log as it stands at the first
        ``next``. Arguments are checked now; no lock or cursor is held in between."""
        checked = self._query(query)
        self._open_log()
        return reading.stream(self._open_log, checked, self._tenant_id)

    def get_events_for_entity(
        self,
        entity_type: Name,
        entity_id: Name,
        from_version: int = 0,
        *,
        to_version: int | None = None,
        limit: int | None = None,
        ascending: bool = True,
        tenant_id: Name = "",
    ) -> list[Event]:
        """Return an entity's events with versions after ``from_version``, up to and with
        ``to_version``, in order: at most ``limit``. ``ascending=False`` begins with the last."""
        entity = self._entity(entity_type, entity_id, tenant_id)
        versions = _versions(from_version, to_version, limit, ascending)
        return entities.read_entity(self._open_log(), entity, versions)

    def iterate_entity(
        self,
        entity_type: Name,
        entity_id: Name,
        from_version: int = 0,
        *,
        to_version: int | None = None,
        limit: int | None = None,
        ascending: bool = True,
        tenant_id: Name = "",
    ) -> Iterator[Event]:
        """Stream what ``get_events_for_entity`` returns, in pages, as it stands at the first
        ``next``. Arguments are checked now; no lock or cursor is held in between."""
        entity = self._entity(entity_type, entity_id, tenant_id)
        versions = _versions(from_version, to_version, limit, ascending)
        self._open_log()
        return entities.stream_entity(self._open_log, entity, versions)

    def get_events_for_workflow(
        self, workflow_id: Name, from_sequence: int = 0, *, tenant_id: Name | None = None
    ) -> list[Event]:
        """Return a workflow's events with sequences after ``from_sequence``, in order."""
        query = EventQuery(
            workflow_id=checked_name("workflow_id", workflow_id, InvalidQueryError),
            from_sequence=checked_integer("from_sequence", from_sequence, InvalidQueryError),
            tenant_id=tenant_id,
        )
        return reading.read_all(self._open_log(), self._query(query))

    def get_events_since(self, position: int | Checkpoint, limit: int = 1000) -> list[Event]:
        """Return at most ``limit`` events after ``position``, a sequence or a Checkpoint.

        Raises CheckpointError where the log was never there, or holds another event there;
        StoreUnavailableError after the store's ``timeout``: where it is ``transient``,
        ``wait_for_events`` is what waits for the engine to come back.
        """
        return reading.read_since(self._open_log(), position, limit, self._tenant_id)

    def get_event_by_id(self, event_id: UUID, *, tenant_id: Name = "") -> Event | None:
        """Return the event with this id within the tenant, or None."""
        if type(event_id) is not UUID:
            raise InvalidQueryError(f"event_id: must be a UUID, not {type(event_id).__name__}")
        key = self._identity_tenant(tenant_id), event_id
        found = self._open_log().read(lambda backend: backend.find([key]))
        return found[0] if found else None

    def event_exists(self, event_id: UUID, *, tenant_id: Name = "") -> bool:
        """Return whether an event with this id is recorded within the tenant."""
        return self.get_event_by_id(event_id, tenant_id=tenant_id) is not None

    def count_events(self, query: EventQuery | None = None) -> int:
        """Return how many events match; a query with limit, offset or order is refused."""
        checked = self._query(query)
        refuse_shape("query", checked)
        return reading.count(self._open_log(), checked, self._tenant_id)

    def get_current_sequence(self) -> int:
        """Return the head: the highest sequence, 0 when empty. In a tenant's view that of the
        tenant's own last event."""
        return positions.last_sequence(self._open_log(), self._tenant_id)

    def get_current_version(
        self, entity_type: Name, entity_id: Name, *, tenant_id: Name = ""
    ) -> int:
        """Return an entity's version, 0 where it has no events."""
        entity = self._entity(entity_type, entity_id, tenant_id)
        return self._open_log().read(lambda backend: backend.version(entity))

    def list_entities(
        self,
        entity_type: Name | None = None,
        *,
        tenant_id: Name | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Entity]:
        """Return entities, newest first by their first event."""
        checked_integer("limit", limit, InvalidQueryError, most=2**31 - 1)
        checked_integer("offset", offset, InvalidQueryError)
        query = self._query(EventQuery(entity_type=entity_type, tenant_id=tenant_id))
        log = self._open_log()
        if limit == 0:
            return []
        return log.read(
            lambda backend: backend.list_entities(query.entity_type, query.tenant_id, limit, offset)
        )

    # --- Following

    def wait_for_events(
        self,
        after: int | Checkpoint,
        timeout: float | None = None,
        query: EventQuery | None = None,
        *,
        stop: Flag | None = None,
    ) -> bool:
        """Block until an event that matches stands after ``after``; False after ``timeout``
        seconds (None: never), or once ``stop``, a ``threading.Event``, is set. ``close()`` ends
        it with StoreClosedError.

        Without a timeout it waits through an outage of the engine too, however long, and says so
        once, in a warning of the logger "eventstore"; with one, it raises StoreUnavailableError
        as every call does. ``stop`` is noticed within a tenth of a second; while the engine does
        not answer, within the store's ``timeout``. Raises CheckpointError like
        ``get_events_since``.
        """
        checked = self._query(query)
        refuse_shape("query", checked)
        if timeout is not None and not (type(timeout) in (int, float) and timeout >= 0):
            raise InvalidQueryError(f"timeout: must be None or seconds ≥ 0, not {shown(timeout)}")
        if stop is not None and not isinstance(stop, Flag):
            raise InvalidQueryError(
                f"stop: must be None or a threading.Event, not {type(stop).__name__}"
            )
        return waiting.wait(self._open_log, after, timeout, checked, self._tenant_id, stop=stop)

    def checkpoint(self, event: Event | None = None) -> Checkpoint:
        """Return where a consumer that has processed ``event`` stands; without one, the head
        (in a tenant's view the tenant's own last event)."""
        log = self._open_log()
        if event is None:
            page = PageRequest(query=self._query(None), limit=1, ascending=False)
            found = log.in_one_call(lambda: positions.page_of_this_log(log, page))
            if not found:
                return Checkpoint(log.backend.log_id, 0, None)
            event = found[0]
        elif type(event) is not Event or event.sequence == 0:
            raise InvalidEventError("event: must be a recorded event (one that has a sequence)")
        elif self._tenant_id not in (None, event.tenant_id):
            raise InvalidEventError(
                f"event: it is of the tenant {event.tenant_id!r}, not of this view's,"
                f" {self._tenant_id!r}"
            )
        return Checkpoint(log.backend.log_id, event.sequence, event.event_id)

    # --- The store itself

    def for_tenant(self, tenant_id: Name) -> EventStore:
        """Return a view: it stamps every append and filters every read and condition, and
        refuses whatever names another tenant. Closing a view closes that view alone."""
        tenant = checked_tenant(tenant_id, InvalidQueryError)
        if self._tenant_id not in (None, tenant):
            raise InvalidQueryError(
                f"tenant_id: {tenant!r} is not the tenant of this view, {self._tenant_id!r}"
            )
        return EventStore(self._open_log(), tenant)

    def close(self) -> None:
        """Wait for appends in flight and let go of the engine. Idempotent."""
        self._view_closed = True
        if self._tenant_id is None:
            self._log.close()

    def __enter__(self) -> Self:
        self._open_log()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL it was opened by, without the password."""
        return self._log.settings.safe_url

    @property
    def log_id(self) -> str:
        """The log's identity, made with it; another log under the same URL has another."""
        return self._log.backend.log_id

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this backend can do."""
        return self._log.backend.capabilities

    def info(self) -> Mapping[str, str | int]:
        """Return facts for people: ``backend``, ``server``, ``durability``, and ``size_bytes``
        where it is cheap to know. A tenant's view leaves out all that tells of others."""
        facts = self._open_log().read(lambda backend: backend.info())
        if self._tenant_id is None:
            return facts
        return {name: facts[name] for name in _FACTS_FOR_TENANTS if name in facts}

    def __repr__(self) -> str:
        tenant = "" if self._tenant_id is None else f" tenant {self._tenant_id!r}"
        return f"<EventStore {self.url}{tenant}>"

    # --- Arguments

    def _open_log(self) -> Log:
        if self._view_closed:
            raise StoreClosedError("the store is closed")
        self._log.check_open()
        return self._log

    def _query(self, query: EventQuery | None) -> EventQuery:
        if query is None:
            query = EventQuery()
        elif type(query) is not EventQuery:  # a subclass could name one tenant and match another
            raise InvalidQueryError(f"query: must be an EventQuery, not {type(query).__name__}")
        return positions.in_tenant(query, self._tenant_id)

    def _identity_tenant(self, tenant_id: Name) -> str:
        tenant = checked_tenant(tenant_id, InvalidQueryError)
        if self._tenant_id is None:
            return tenant
        if tenant not in ("", self._tenant_id):
            raise InvalidQueryError(
                f"tenant_id: {tenant!r} is not the tenant of this view, {self._tenant_id!r}"
            )
        return self._tenant_id

    def _entity(self, entity_type: Name, entity_id: Name, tenant_id: Name) -> Entity:
        return Entity(
            checked_name("entity_type", entity_type, InvalidQueryError),
            checked_name("entity_id", entity_id, InvalidQueryError),
            self._identity_tenant(tenant_id),
        )


def _versions(
    from_version: int, to_version: int | None, limit: int | None, ascending: bool
) -> entities.Versions:
    for field, value in (("to_version", to_version), ("limit", limit)):
        if value is not None:
            checked_integer(field, value, InvalidQueryError)
    if type(ascending) is not bool:
        raise InvalidQueryError(f"ascending: must be a bool, not {shown(ascending)}")
    return entities.Versions(
        after=checked_integer("from_version", from_version, InvalidQueryError),
        up_to=to_version,
        limit=limit,
        ascending=ascending,
    )


def _events(events: object) -> Sequence[Event]:
    """Return the given events as a sequence; each is checked when it is encoded."""
    if isinstance(events, (list, tuple)):
        return events
    if isinstance(events, (str, bytes, Mapping)) or not isinstance(events, Iterable):
        raise InvalidEventError(
            f"events: must be an iterable of Event, not {type(events).__name__}"
        )
    return list(events)
