"""Reading in pages by key.

Dense sequences make iteration simple: the head at the start is the snapshot, and the last key
of a page is where the next one begins. Nothing is held open in between.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

import msgspec

from eventstore._core.checks import MAX_INT64, checked_integer
from eventstore._core.log import Log
from eventstore._core.payloads import canonical
from eventstore._core.positions import (
    EVERYTHING,
    check_log_id,
    check_not_beyond,
    check_stands,
    in_tenant,
    page_of_this_log,
    sequence_of,
    stands_first,
    verified,
)
from eventstore.backend import PageRequest
from eventstore.checkpoint import Checkpoint
from eventstore.errors import (
    CorruptLogError,
    InvalidQueryError,
)
from eventstore.event import Event
from eventstore.query import EventQuery

PAGE: Final = 1000
"""Events read at once, where they are of common size."""

FIRST_PAGE: Final = 200
_PAGE_BYTES: Final = 8_000_000
"""Roughly what a page of large events may weigh while iterating."""

_BOUNDS_OF_THE_PAGE: Final = {"from_sequence": None, "to_sequence": None}
"""What a page of a query bounds by itself."""


def in_sequences(
    log: Log,
    query: EventQuery,
    tenant_id: str | None,
    *,
    after: int,
    head: int,
    later: bool = False,
) -> EventQuery:
    """Return ``query`` with sequences in the place of its bounds of ``recorded_at``, so that no
    backend has to know these: it takes the same events above ``after`` and up to ``head``.

    ``recorded_at`` never goes back along the log, so a bound is found by bisection, reading an
    event at a time. Of the events above ``head`` it takes none; with ``later``, all that may be
    within the bounds, for all that is known at ``head``.
    """
    if not query.has_recorded_bounds:
        return query

    @cache
    def recorded_at(sequence: int) -> datetime:
        found = log.page(PageRequest(query=EVERYTHING, after=sequence - 1, up_to=sequence, limit=1))
        if not found:  # a view is not told where, for it may be another tenant's
            which = f"the event at sequence {sequence}" if tenant_id is None else "an event"
            raise CorruptLogError(f"{which} is missing from the log")
        time = found[0].recorded_at
        assert time is not None  # noqa: S101 - it is recorded
        return time

    sequences = range(after + 1, head + 1)

    def bounded(one: EventQuery) -> EventQuery:
        changes: dict[str, Any] = {"from_recorded_at": None, "to_recorded_at": None}
        if (first := one.from_recorded_at) is not None:
            before = after + bisect_left(sequences, first, key=recorded_at)
            changes["from_sequence"] = max(before, one.after)
        if (last := one.to_recorded_at) is not None:
            until = after + bisect_right(sequences, last, key=recorded_at)
            if until < head or not later:
                changes["to_sequence"] = lower(one.to_sequence, until)
        return one.replace(**changes)

    query = query.replace(any_of=query.any_of and tuple(map(bounded, query.any_of)))
    query = bounded(query)
    return query if later else query.replace(to_sequence=lower(query.to_sequence, head))


def lower(bound: int | None, other: int) -> int:
    """Return the lower of two bounds, the first of which may be none."""
    return other if bound is None else min(bound, other)


def stream(
    open_log: Callable[[], Log], query: EventQuery, tenant_id: str | None
) -> Iterator[Event]:
    """Yield what matches in the log as it stands at the first ``next``.

    ``open_log`` returns the log or raises StoreClosedError; it is asked before every page.
    """
    page = PageRequest(
        query=query,
        limit=PAGE,
        offset=query.offset,
        order_by=query.order_by,
        ascending=query.ascending,
    )
    whole = page.order_by == "sequence" and not page.offset
    left = query.limit
    size = FIRST_PAGE

    def step() -> list[Event] | None:
        """Return the next page, or None after the last one. The first step finds the end."""
        nonlocal page, whole
        log = open_log()
        if page.up_to is None:
            asked = verified(log, query, tenant_id)
            head = log.head()
            asked = in_sequences(log, asked, tenant_id, after=query.after, head=head)
            page = msgspec.structs.replace(
                page,
                query=asked.replace(**_BOUNDS_OF_THE_PAGE),
                after=asked.after,
                up_to=(ends := lower(asked.to_sequence, head)),
            )
            whole = whole and page.query.filters_nothing
            if query.offset >= ends - asked.after:
                return None  # more than there is to skip; engines add it to a limit: overflow
        if page.after >= (page.up_to or 0) or left == 0:
            return None
        limit = size if left is None else min(size, left)
        request = msgspec.structs.replace(page, limit=limit)
        if whole:
            request = _narrowed(request)
        events = log.page(request)
        if whole:
            _check_whole(request, events)
        return events

    while (events := open_log().in_one_call(step)) is not None:
        limit = size if left is None else min(size, left)
        is_last = len(events) < limit
        if not is_last:  # before they are handed out, for their payloads may be changed there
            page = _next_page(page, events[-1])
            size = fitting_page(events)
        yield from events
        if is_last:
            return
        left = None if left is None else left - limit


def _next_page(page: PageRequest, last: Event) -> PageRequest:
    if page.order_by == "timestamp":
        return msgspec.structs.replace(page, offset=0, resume=(last.timestamp, last.sequence))
    if page.ascending:
        return msgspec.structs.replace(page, offset=0, after=last.sequence)
    return msgspec.structs.replace(page, offset=0, up_to=last.sequence - 1)


def _narrowed(page: PageRequest) -> PageRequest:
    """Return the same page of a whole log, bounded on both sides: sequences are dense, and an
    engine without statistics should not guess how many there are."""
    assert page.up_to is not None  # noqa: S101 - an iteration knows its snapshot
    if page.ascending:
        return msgspec.structs.replace(page, up_to=min(page.up_to, page.after + page.limit))
    return msgspec.structs.replace(page, after=max(page.after, page.up_to - page.limit))


def fitting_page(events: Sequence[Event]) -> int:
    """Return how many events the next page may have, judged by a few of the last."""
    few = events[:: max(1, len(events) // 5)]
    weight = sum(
        len(canonical(event.data)) + len(canonical(event.metadata)) for event in few
    ) // len(few)
    return max(1, min(PAGE, _PAGE_BYTES // max(weight, 1)))


def _check_whole(page: PageRequest, events: Sequence[Event]) -> None:
    """Raise CorruptLogError unless a page of an unfiltered read is without a gap (G12)."""
    assert page.up_to is not None  # noqa: S101 - an iteration knows its snapshot
    wanted = min(page.limit, page.up_to - page.after)
    first = page.after + 1 if page.ascending else page.up_to
    check_dense(events, first, 1 if page.ascending else -1)
    if len(events) < wanted:
        missing = first + len(events) * (1 if page.ascending else -1)
        raise CorruptLogError(f"the event at sequence {missing} is missing from the log")


def check_dense(events: Sequence[Event], first: int, step: int = 1) -> None:
    """Raise CorruptLogError unless the sequences are ``first``, ``first + step`` …"""
    if events and (events[0].sequence, events[-1].sequence) == (
        first,
        first + (len(events) - 1) * step,
    ):
        return  # ordered by sequence, which is unique: the ends tell
    for wanted, event in enumerate(events):
        if event.sequence != first + wanted * step:
            raise CorruptLogError(
                f"the event at sequence {first + wanted * step} is missing from the log"
            )


def count(log: Log, query: EventQuery, tenant_id: str | None) -> int:
    """Return how many events match the filter fields of ``query``."""
    if not (query.has_checkpoint or query.has_recorded_bounds):
        return log.read(lambda backend: backend.count(query))

    def verify_and_count() -> int:
        checked = verified(log, query, tenant_id)
        if checked.has_recorded_bounds:
            after, head = checked.after, log.head()
            checked = in_sequences(log, checked, tenant_id, after=after, head=head)
        return log.read(lambda backend: backend.count(checked))

    return log.in_one_call(verify_and_count)


def read_all(log: Log, query: EventQuery) -> list[Event]:
    """Return what matches the filter fields of ``query``, by sequence."""

    def read_them() -> list[Event]:
        events: list[Event] = []
        page = PageRequest(query=query, limit=PAGE)
        while True:
            found = log.page(page)
            events += found
            if len(found) < PAGE:
                return events
            page = _next_page(page, found[-1])
            if page.up_to is None:  # so that a busy tail cannot keep it from ending
                page = msgspec.structs.replace(page, up_to=log.head())

    return log.in_one_call(read_them)


def read_since(
    log: Log, position: int | Checkpoint, limit: int, tenant_id: str | None
) -> list[Event]:
    """Return the page after a position, which is verified."""
    checked_integer("limit", limit, InvalidQueryError, least=1)
    after = sequence_of(position, "position")
    if isinstance(position, Checkpoint):
        check_log_id(log, position, "position")
        events = log.in_one_call(lambda: _after_checkpoint(log, position, limit, tenant_id))
    else:
        events = log.in_one_call(lambda: _after_number(log, position, limit, tenant_id))
    if tenant_id is None:
        check_dense(events, after + 1)
    return events


def _after_number(log: Log, after: int, limit: int, tenant_id: str | None) -> list[Event]:
    page = _page_after(after, limit, tenant_id)
    events = log.page(page)
    if not events:
        check_not_beyond(log, after, "position", tenant_id)
        events = _not_missing(log, page)
    return events


def _after_checkpoint(
    log: Log, checkpoint: Checkpoint, limit: int, tenant_id: str | None
) -> list[Event]:
    after = checkpoint.sequence
    if not after:
        page = _page_after(0, limit, tenant_id)
        return page_of_this_log(log, page) or _not_missing(log, page)
    # The event that it stands at is read too, and compared.
    page = _page_after(after - 1, min(limit + 1, MAX_INT64), tenant_id)
    events = page_of_this_log(log, page)
    if not stands_first(checkpoint, events):
        check_stands(log, checkpoint, "position", tenant_id)
        events = page_of_this_log(log, page)  # the engine has caught up with itself
    return events[1:] or _not_missing(log, _page_after(after, limit, tenant_id))


def _page_after(after: int, limit: int, tenant_id: str | None) -> PageRequest:
    page = PageRequest(query=in_tenant(EVERYTHING, tenant_id), after=after, limit=limit)
    if tenant_id is None:
        page = msgspec.structs.replace(page, up_to=min(after + limit, MAX_INT64))
    return page


def _not_missing(log: Log, page: PageRequest) -> list[Event]:
    """Return a page of the whole log that was empty a moment ago; CorruptLogError if it still
    is and should not be."""
    if page.query is not EVERYTHING or log.head() <= page.after:
        return []
    events = log.page(page)  # what was appended between the two reads is there now
    if not events:
        raise CorruptLogError(f"the event at sequence {page.after + 1} is missing from the log")
    return events
