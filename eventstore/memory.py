"""``memory://``: the reference implementation, the plainest code that is right.

For unit tests, and the oracle of the property-based ones. ``memory://`` is a new log each
time; ``memory://name`` is shared within the process until it is dropped.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    Found,
    Identity,
    Outcome,
    PageRequest,
    Settings,
    plan_over,
    replaced,
)
from eventstore.errors import UnsupportedOperationError
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
        self.least_reader = self.least_writer = 1
        self.lock = threading.Lock()
        self.writer = 0
        """The thread that holds the lock."""
        self.published = 0
        """The highest sequence that readers see."""
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
        for record in self.records[self.published :]:
            self.by_identity.pop(record.draft.identity, None)
            of_entity = self.by_entity[record.draft.entity]
            while of_entity and of_entity[-1].sequence > self.published:
                of_entity.pop()
            if not of_entity:
                del self.by_entity[record.draft.entity]
        del self.records[self.published :]

    def version(self, entity: Entity) -> int:
        head, records = self.published, self.by_entity.get(entity, ())
        version = len(records)
        while version and records[version - 1].sequence > head:
            version -= 1
        return version

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        head, by_identity = self.published, self.by_identity
        found = [by_identity.get((tenant, id_.int.to_bytes(16, "big"))) for tenant, id_ in keys]
        return [each.event() for each in found if each is not None and each.sequence <= head]

    # --- What the planner asks for (``LogView``)

    def head(self) -> tuple[int, datetime | None]:
        return self.published, self.records[-1].recorded_at if self.records else None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def versions(self, entities: Collection[Entity]) -> Mapping[Entity, int]:
        return {entity: self.version(entity) for entity in entities}

    def first_match(self, query: EventQuery, after: int, up_to: int) -> int:
        for record in self.records[after:up_to]:
            if query.takes(record.draft, record.sequence):
                return record.sequence
        return 0


_named_logs: Final[dict[tuple[str, str], _MemoryLog]] = {}
"""By name and namespace: what ``memory://name`` shares within the process."""


class MemoryBackend(Backend):
    """A log in a list."""

    max_group_bytes = 0

    def __init__(self, settings: Settings) -> None:
        self._key = settings.path, settings.namespace
        self._namespace = settings.namespace
        self._logs = _named_logs if settings.path else {}

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        return cls(settings)

    def look(self) -> Found | None:
        log = self._logs.get(self._key)
        if log is None:
            return None
        self._log = log
        return Found(log.log_id, log.least_reader, log.least_writer)

    def make(self) -> None:
        self._logs.setdefault(self._key, _MemoryLog())

    def remove(self) -> bool:
        log = self._logs.pop(self._key, None)
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
                log.published = len(log.records)
            except BaseException:  # Ctrl-C: a batch is stored whole or not at all
                log.take_back()
                raise
            finally:
                log.writer = 0
        return outcomes

    def _commit(self, group: Sequence[Batch]) -> Sequence[Outcome]:
        log = self._log
        planned = plan_over(log, group)
        for accepted in planned.accepted:
            log.add(accepted)
        return planned.outcomes

    def read(self, page: PageRequest) -> list[Event]:
        head = self._log.published
        up_to = head if page.up_to is None else min(page.up_to, head)
        matches = (each for each in self._candidates(page, up_to) if _takes(page, up_to, each))
        return [each.event() for each in islice(matches, page.offset, page.offset + page.limit)]

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        return self._log.find(keys)

    def count(self, query: EventQuery) -> int:
        records = self._log.records[: self._log.published]
        return sum(query.takes(each.draft, each.sequence) for each in records)

    def head(self) -> int:
        self._check_not_dropped()
        return self._log.published

    def _check_not_dropped(self) -> None:
        if self._log.dropped:
            raise replaced(self._namespace)

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
            records = self._log.records
            if not page.ascending and page.order_by == "sequence":  # without a copy of the log
                return (records[place] for place in range(up_to - 1, page.after - 1, -1))
            records = records[page.after : up_to]
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
