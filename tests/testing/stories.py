"""Histories told by hand, for the tests of what judges them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

from msgspec.structs import replace

from eventstore import Entity, Event, EventQuery
from eventstore.testing.history import History, Rule, check
from eventstore.testing.history.recording import (
    Append,
    Asked,
    LogEntry,
    Lookup,
    Operation,
    Outcome,
    Read,
    Receipt,
    Stored,
    added_up,
    runs_of,
)

CART = Entity("cart", "c-1")
SHIP = Entity("ship", "s-1")
DAWN = datetime(2024, 1, 1, tzinfo=UTC)


class Story:
    """A history made by hand, call after call; right, unless a test bends it."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[Operation] = []
        self.log: list[LogEntry] = []
        self._ids = 0

    def history(self) -> History:
        return History(self.calls, self.log)

    def rules(self) -> set[Rule]:
        return {violation.rule for violation in check(self.history())}

    # --- Telling what happened

    def tick(self) -> int:
        self.now += 10
        return self.now

    def new(self, *entities: Entity) -> list[Asked]:
        asked = []
        for entity in entities:
            self._ids += 1
            asked.append(Asked(UUID(int=self._ids), entity, content=self._ids * 1000))
        return asked

    def store(self, events: list[Asked], *, tags: tuple[str, ...] = ()) -> list[Receipt]:
        """Put events at the end of the log."""
        first = len(self.log) + 1
        receipts = []
        for asked in events:
            sequence = len(self.log) + 1
            version = 1 + sum(entry.event.entity == asked.entity for entry in self.log)
            event = Event(
                event_type="Happened",
                **asked.entity._asdict(),
                event_id=asked.event_id,
                tags=tags,
                sequence=sequence,
                version=version,
                batch_sequence=first,
                recorded_at=DAWN + timedelta(seconds=sequence),
            )
            self.log.append(LogEntry(event, asked.content, digest=asked.content + sequence))
            receipts.append(self.receipt(sequence))
        return receipts

    def receipt(self, sequence: int) -> Receipt:
        entry = self.log[sequence - 1]
        event = entry.event
        return Receipt(event.event_id, sequence, event.version, event.batch_sequence, entry.digest)

    def called(self, events: list[Asked], outcome: Outcome | None, **asked: Any) -> Append:
        call = Append(
            worker=1,
            number=len(self.calls),
            what="append",
            began=self.tick(),
            events=events,
            ended=self.tick(),
            outcome=outcome,
            **asked,
        )
        self.calls.append(call)
        return call

    def append(self, *entities: Entity, tags: tuple[str, ...] = (), **asked: Any) -> Append:
        """Append new events, rightly."""
        events = self.new(*entities)
        return self.called(events, Stored(self.store(events, tags=tags)), **asked)

    def read(self, query: EventQuery | None = None, *, shown: list[int] | None = None) -> Read:
        """Read events: those in the log now, unless ``shown``."""
        query = query or EventQuery()
        if shown is None:
            matching = [e.event.sequence for e in self.log if query.matches(e.event)]
            ordered = matching if query.ascending else matching[::-1]
            shown = ordered[query.offset :][: query.limit]
        call = Read(
            worker=1,
            what="get_events",
            began=self.tick(),
            ended=self.tick(),
            query=query,
            count=len(shown),
            runs=runs_of(shown),
            digest=added_up(self.log[n - 1].digest for n in shown if n <= len(self.log)),
        )
        self.calls.append(call)
        return call

    def count(self, count: int, query: EventQuery | None = None) -> Read:
        call = Read(
            worker=1,
            what="count",
            began=self.tick(),
            ended=self.tick(),
            query=query or EventQuery(),
            count=count,
        )
        self.calls.append(call)
        return call

    def find(self, event_id: UUID, found: Receipt | None) -> None:
        self.calls.append(
            Lookup(1, "get_event_by_id", self.tick(), self.tick(), event_id, "", found)
        )

    # --- Bending it

    def bend(self, sequence: int, /, **changes: Any) -> None:
        """Change an event in the log."""
        entry = self.log[sequence - 1]
        self.log[sequence - 1] = replace(entry, event=entry.event.replace(**changes))

    def swap(self, old: Operation, new: Operation) -> None:
        self.calls[self.calls.index(old)] = new

    def at_once(self, *calls: Append) -> Self:
        """Let calls have overlapped."""
        began = min(call.began for call in calls)
        ended = max(call.ended or 0 for call in calls)
        for call in calls:
            self.swap(call, replace(call, began=began, ended=ended))
        return self


def of(entity: Entity) -> EventQuery:
    return EventQuery(**entity._asdict())
