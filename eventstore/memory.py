"""``memory://``: the reference implementation, the plainest code that is right.

For unit tests, and the oracle of the property-based ones. ``memory://`` is a new log each
time; ``memory://name`` is shared within the process until it is dropped.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Self

import msgspec
from uuid_utils.compat import uuid4

from eventstore.backend import (
    Accepted,
    Backend,
    Batch,
    Capability,
    Draft,
    EventKey,
    Identity,
    LogState,
    Outcome,
    PageRequest,
    Settings,
    entities_of,
    plan,
    twins_of,
)
from eventstore.errors import ConfigurationError, LogReplacedError, UnsupportedOperationError
from eventstore.event import Entity, Event
from eventstore.query import EventQuery


class _Record(msgspec.Struct, gc=False):
    """What stands in the log; payloads stay encoded, so nobody can change them."""

    draft: Draft
    sequence: int
    version: int
    batch_sequence: int
    recorded_at: datetime

    def event(self) -> Event:
        return self.draft.recorded(
            sequence=self.sequence,
            version=self.version,
            batch_sequence=self.batch_sequence,
            recorded_at=self.recorded_at,
        )


class _MemoryLog:
    """The records of one log, and what is looked up in them.

    A writer holds the lock, adds records, and publishes them by one assignment. A reader takes
    no lock, so a signal handler may interrupt it and append: it looks at what is published.
    """

    def __init__(self) -> None:
        self.log_id = str(uuid4())
        self.lock = threading.Lock()
        self.writer = 0
        """The thread that holds the lock."""
        self.head = 0
        """The highest sequence that is published."""
        self.dropped = False
        self.records: list[_Record] = []
        """The record with sequence n at n - 1."""
        self.by_entity: defaultdict[Entity, list[_Record]] = defaultdict(list)
        """The record with version n at n - 1."""
        self.by_identity: dict[Identity, _Record] = {}

    def add(self, accepted: Accepted) -> None:
        for index, draft in enumerate(accepted.drafts):
            record = _Record(
                draft,
                accepted.first_sequence + index,
                accepted.versions[index],
                accepted.first_sequence,
                accepted.recorded_at,
            )
            self.records.append(record)
            self.by_entity[draft.entity].append(record)
            self.by_identity[draft.identity] = record

    def take_back(self) -> None:
        """Remove what was added but not published."""
        for record in self.records[self.head :]:
            self.by_identity.pop(record.draft.identity, None)
            of_entity = self.by_entity[record.draft.entity]
            while of_entity and of_entity[-1].sequence > self.head:
                of_entity.pop()
            if not of_entity:
                del self.by_entity[record.draft.entity]
        del self.records[self.head :]

    def version(self, entity: Entity) -> int:
        head, records = self.head, self.by_entity.get(entity, ())
        version = len(records)
        while version and records[version - 1].sequence > head:
            version -= 1
        return version

    def find(self, identities: Iterable[Identity]) -> list[Event]:
        head, by_identity = self.head, self.by_identity
        found = [by_identity.get(identity) for identity in identities]
        return [each.event() for each in found if each is not None and each.sequence <= head]

    def first_match(self, query: EventQuery, after: int) -> int:
        """Return the sequence of the first match above ``after``, or 0."""
        for record in self.records[after:]:
            if query.takes(record.draft, record.sequence):
                return record.sequence
        return 0


_named_logs: Final[dict[tuple[str, str], _MemoryLog]] = {}
"""By name and namespace: what ``memory://name`` shares within the process."""


class MemoryBackend(Backend):
    """A log in a list."""

    max_group_bytes = 0

    def __init__(self, log: _MemoryLog, namespace: str) -> None:
        self._log = log
        self._namespace = namespace

    @classmethod
    def open(cls, settings: Settings) -> Self:
        settings.refuse_driver_options()
        key = settings.path, settings.namespace
        if not settings.create and key not in _named_logs:
            raise ConfigurationError(
                f"{settings.safe_url}: has no log {settings.namespace!r}; make it with"
                " `eventstore init`, or open it without create=false"
            )
        if not settings.path:
            return cls(_MemoryLog(), settings.namespace)
        return cls(_named_logs.setdefault(key, _MemoryLog()), settings.namespace)

    @classmethod
    def drop(cls, settings: Settings) -> bool:
        settings.refuse_driver_options()
        log = _named_logs.pop((settings.path, settings.namespace), None)
        if log is None:
            return False
        with log.lock:
            log.dropped = True
        return True

    def close(self) -> None:
        pass

    def after_fork(self) -> None:
        self._log.lock, self._log.writer = threading.Lock(), 0
        self._log.take_back()  # what another thread of the parent was about to publish

    @property
    def log_id(self) -> str:
        return self._log.log_id

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset()

    def info(self) -> Mapping[str, str | int]:
        return {"backend": "memory", "server": "none", "durability": "none: gone with the process"}

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        log, me = self._log, threading.get_ident()
        if log.writer == me:  # through another store of the same name, in a signal handler
            raise UnsupportedOperationError(
                "append: this thread is in the middle of an append to this log already"
            )
        # By "with" alone: between a call of acquire and a try, Ctrl-C would leave it locked.
        with log.lock:
            log.writer = me
            try:
                self._check_not_dropped()
                outcomes = self._commit(group)
                log.head = len(log.records)
            except BaseException:  # Ctrl-C: a batch is stored whole or not at all
                log.take_back()
                raise
            finally:
                log.writer = 0
        return outcomes

    def _commit(self, group: Sequence[Batch]) -> Sequence[Outcome]:
        log = self._log
        planned = plan(
            group,
            LogState(
                head=log.head,
                recorded_at=log.records[-1].recorded_at if log.records else None,
                now=datetime.now(UTC),
                versions={entity: log.version(entity) for entity in entities_of(group)},
                twins=twins_of(log.find([each for batch in group for each in batch.identities])),
                matches=[
                    log.first_match(batch.condition.query, batch.condition.checked_to)
                    if batch.condition
                    else 0
                    for batch in group
                ],
            ),
        )
        for accepted in planned.accepted:
            log.add(accepted)
        return planned.outcomes

    def read(self, page: PageRequest) -> list[Event]:
        head = self._log.head
        up_to = head if page.up_to is None else min(page.up_to, head)
        matches = (each for each in self._candidates(page, up_to) if _takes(page, up_to, each))
        return [each.event() for each in islice(matches, page.offset, page.offset + page.limit)]

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        return self._log.find(
            [(tenant, event_id.int.to_bytes(16, "big")) for tenant, event_id in keys]
        )

    def count(self, query: EventQuery) -> int:
        records = self._log.records[: self._log.head]
        return sum(query.takes(each.draft, each.sequence) for each in records)

    def head(self) -> int:
        self._check_not_dropped()
        return self._log.head

    def _check_not_dropped(self) -> None:
        if self._log.dropped:
            raise LogReplacedError(
                f"the log {self._namespace!r} was removed while this store was open: open it anew"
            )

    def version(self, entity: Entity) -> int:
        return self._log.version(entity)

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        entities = [
            entity
            for entity in reversed(list(self._log.by_entity))  # a dict: in order of first event
            if entity_type in (None, entity.entity_type)
            and tenant_id in (None, entity.tenant_id)
            and self._log.version(entity)
        ]
        return entities[offset : offset + limit]

    def _candidates(self, page: PageRequest, up_to: int) -> Iterable[_Record]:
        """Return the records among which the page is, in its order."""
        query = page.query
        if query.entity_type is None or query.entity_id is None or query.tenant_id is None:
            records = self._log.records[page.after : up_to]
        else:
            entity = Entity(query.entity_type, query.entity_id, query.tenant_id)
            records = self._log.by_entity.get(entity, [])[page.above_version :]
        if page.order_by == "timestamp":
            return sorted(records, key=_time_key, reverse=not page.ascending)
        return records if page.ascending else reversed(records)


def _time_key(record: _Record) -> tuple[datetime, int]:
    return record.draft.timestamp, record.sequence


def _takes(page: PageRequest, up_to: int, record: _Record) -> bool:
    if not page.after < record.sequence <= up_to:
        return False
    if page.resume is not None:
        beyond = _time_key(record) > page.resume
        if beyond != page.ascending or _time_key(record) == page.resume:
            return False
    return page.query.takes(record.draft, record.sequence)
