"""Pages, counts and look-ups: plain ranges of the stream, or calls of read.lua and find.lua, each
of which stops in time for others to be served and is asked again from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from eventstore.backend import INSTANT, EventKey, PageRequest, time_left
from eventstore.errors import StoreUnavailableError
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_redis.calls import (
    MAX_SEQUENCE,
    Names,
    entity_name,
    find_call,
    read_call,
    rough,
)
from eventstore_redis.records import TEXTS, events_in, events_of
from eventstore_redis.server import FIND, READ, LogServer

_CHUNK: Final = 1000
"""Entries asked for at once, lest others wait long for the server."""


class Selecting:
    """Reads the log on a server."""

    def __init__(self, server: LogServer) -> None:
        self._server = server

    def read(self, page: PageRequest) -> list[Event]:
        """Return a page of events."""
        query = page.query
        after = max(page.after, query.after)
        ends = [end for end in (page.up_to, query.to_sequence) if end is not None]
        page = msgspec.structs.replace(page, after=after, up_to=min(ends, default=None))
        if after > MAX_SEQUENCE:
            return []
        whole = page.order_by == "sequence" and not page.offset and not page.above_version
        if whole and query.replace(from_sequence=None, to_sequence=None).filters_nothing:
            return self._range(page)
        return self.pages(page)

    def _range(self, page: PageRequest) -> list[Event]:
        """Return a page without a filter: plain ranges of the stream."""
        events: list[Event] = []
        low = page.after + 1
        high: int | str = "+" if page.up_to is None else page.up_to
        while len(events) < page.limit and (high == "+" or low <= int(high)):
            count = min(page.limit - len(events), _CHUNK)
            way = ("XRANGE", self._server.log, low, high)
            back = ("XREVRANGE", self._server.log, high, low)
            entries = self._server.of_log((*(way if page.ascending else back), "COUNT", count))
            events += events_of(entries)
            if len(entries) < count:
                break
            if page.ascending:
                low = events[-1].sequence + 1
            else:
                high = events[-1].sequence - 1
        return events

    def pages(self, page: PageRequest, *, firsts: bool = False) -> list[Event]:
        """Return the events of a page: in one call, unless the filter takes few of many.

        ``firsts``: only the first events of entities.
        """
        if rough(page.query) is not page.query:
            return list(islice(self._sifted(page), page.offset, page.offset + page.limit))
        found: list[Event] = []
        for _, texts in self._calls(page, firsts=firsts):
            found += events_in(texts)
        return found

    def _calls(self, page: PageRequest, **what: bool) -> Iterator[tuple[int, list[bytes]]]:
        """Yield how many matches each call finds, and their texts, until the page is whole."""
        resume, seen = "", 0
        while True:
            call = read_call(self._server.namespace, self._server.log_id, page, resume, **what)
            head, resumed, offset, count, texts = self._server.call(READ, call)[0]
            if head < seen:
                raise StoreUnavailableError("the log was put back to an older copy meanwhile")
            yield count, texts
            if not resumed:
                return
            # The log as the first call saw it; what it has skipped and found is behind.
            page, seen = _beyond(page, resumed, head, offset, len(texts) // TEXTS), head
            resume = resumed.decode() if page.order_by == "timestamp" else ""

    def _sifted(self, page: PageRequest) -> Iterator[Event]:
        """Yield what matches a query too large for a script: the server sifts roughly, and what
        is left is sifted here."""
        query = page.query
        up_to = self.head() if page.up_to is None else page.up_to
        page = msgspec.structs.replace(
            page, query=rough(query), up_to=up_to, offset=0, limit=_CHUNK
        )
        while True:
            if time_left(self._server.timeout) <= INSTANT:
                raise StoreUnavailableError("query: looking for what matches takes too long")
            events = self.pages(page)
            yield from (event for event in events if query.takes(event, event.sequence))
            if len(events) < _CHUNK:
                return
            last = events[-1]
            if page.order_by == "timestamp":
                page = msgspec.structs.replace(page, resume=(last.timestamp, last.sequence))
            elif page.ascending:
                page = msgspec.structs.replace(page, after=last.sequence)
            else:
                page = msgspec.structs.replace(page, up_to=last.sequence - 1)

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        """Return the recorded events of these identities."""
        events: list[Event] = []
        start = 0
        while start < len(keys):
            few = keys[start : start + _CHUNK]
            call = find_call(self._server.namespace, self._server.log_id, few)
            looked, texts = self._server.call(FIND, call)[0]
            events += events_in(texts)
            start += looked
        return events

    def count(self, query: EventQuery) -> int:
        """Return how many events match."""
        after = query.after
        rest = query.replace(from_sequence=None, to_sequence=None)
        if rest.filters_nothing:
            head = self.head()
            to = head if query.to_sequence is None else min(query.to_sequence, head)
            return max(to - after, 0)
        page = PageRequest(query=rest, limit=1, after=after, up_to=query.to_sequence)
        if rough(rest) is not rest:
            return sum(1 for _ in self._sifted(page))
        return sum(count for count, _ in self._calls(page, count=True))

    def head(self) -> int:
        """Return the highest sequence."""
        return int(self._server.of_log(("XLEN", self._server.log)))

    def version(self, entity: Entity) -> int:
        """Return the current version of an entity."""
        (key,) = Names(self._server.namespace, entity_name(entity)).keys
        return int(self._server.of_log(("LLEN", key)))

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        """Return entities, newest first."""
        query = EventQuery(entity_type=entity_type, tenant_id=tenant_id)
        page = PageRequest(query=query, limit=limit, offset=offset, ascending=False)
        return [event.entity for event in self.pages(page, firsts=True)]


def _beyond(page: PageRequest, resumed: bytes, head: int, offset: int, found: int) -> PageRequest:
    """Return what is left of a page after a call that stopped early."""
    up_to = head if page.up_to is None else min(page.up_to, head)
    page = msgspec.structs.replace(page, up_to=up_to, offset=offset, limit=page.limit - found)
    if page.order_by == "timestamp":
        return page
    if page.ascending:
        return msgspec.structs.replace(page, after=int(resumed))
    return msgspec.structs.replace(page, up_to=int(resumed) - 1)
