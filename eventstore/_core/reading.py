"""Reading in pages by key, positions that are verified, and waiting.

Dense sequences make iteration simple: the head at the start is the snapshot, and the last key
of a page is where the next one begins. Nothing is held open in between.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cache, partial
from itertools import chain
from threading import TIMEOUT_MAX
from threading import Event as Flag
from time import monotonic
from typing import Any, Final

import msgspec

from eventstore._core.checks import MAX_INT64, checked_integer
from eventstore._core.log import CalledOff, Log
from eventstore._core.payloads import canonical
from eventstore._core.retrying import logger
from eventstore.backend import Backend, PageRequest
from eventstore.backend.deadline import INSTANT
from eventstore.backend.planner import position_beyond
from eventstore.checkpoint import Checkpoint
from eventstore.errors import (
    CheckpointError,
    CorruptLogError,
    InvalidQueryError,
    StoreUnavailableError,
)
from eventstore.event import Entity, Event
from eventstore.query import EventQuery

_EVERYTHING: Final = EventQuery()

PAGE: Final = 1000
"""Events read at once, where they are of common size."""

_FIRST_PAGE: Final = 200
_PAGE_BYTES: Final = 8_000_000
"""Roughly what a page of large events may weigh while iterating."""

_WAIT_TURN: Final = 0.25
"""Seconds that a wait may spend in a driver before it looks whether the store was closed."""

_STOPPABLE_TURN: Final = 0.1
"""The same for one that can be called off: nobody tells the driver."""

_BOUNDS_OF_THE_PAGE: Final = {"from_sequence": None, "to_sequence": None}
"""What a page of a query bounds by itself."""


def in_tenant(query: EventQuery, tenant_id: str | None) -> EventQuery:
    """Return ``query`` restricted to the tenant of a view; InvalidQueryError if it names
    another."""
    if tenant_id is None:
        return query
    for named in (query, *(query.any_of or ())):
        if named.tenant_id not in (None, tenant_id):
            raise InvalidQueryError(
                f"tenant_id: {named.tenant_id!r} is not the tenant of this view, {tenant_id!r}"
            )
    return query.replace(tenant_id=tenant_id)


def verified(log: Log, query: EventQuery, tenant_id: str | None) -> EventQuery:
    """Return ``query`` with sequences in the place of checkpoints, which are verified.

    Raises CheckpointError.
    """
    if not query.has_checkpoint:
        return query
    queries = (query, *(query.any_of or ()))
    own, *alternatives = (_verified_alone(log, each, tenant_id) for each in queries)
    log.head()  # after them, so that they are surely of the log that was opened
    return own.replace(any_of=tuple(alternatives) or None)


def _verified_alone(log: Log, query: EventQuery, tenant_id: str | None) -> EventQuery:
    if not isinstance(query.from_sequence, Checkpoint):
        return query
    position = verified_position(log, query.from_sequence, "from_sequence", tenant_id)
    return query.replace(from_sequence=position)


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
        found = log.page(
            PageRequest(query=_EVERYTHING, after=sequence - 1, up_to=sequence, limit=1)
        )
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
                changes["to_sequence"] = _lower(one.to_sequence, until)
        return one.replace(**changes)

    query = query.replace(any_of=query.any_of and tuple(map(bounded, query.any_of)))
    query = bounded(query)
    return query if later else query.replace(to_sequence=_lower(query.to_sequence, head))


def _lower(bound: int | None, other: int) -> int:
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
    size = _FIRST_PAGE

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
                up_to=(ends := _lower(asked.to_sequence, head)),
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
            size = _fitting_page(events)
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


def _fitting_page(events: Sequence[Event]) -> int:
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


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """Which of an entity's events to read, and in which order."""

    after: int = 0
    up_to: int | None = None
    limit: int | None = None
    ascending: bool = True


def read_entity(log: Log, entity: Entity, versions: Versions) -> list[Event]:
    """Return an entity's events."""
    pages = _pages_of_entity(lambda: log, entity, versions, flat=False)
    return log.in_one_call(lambda: list(chain.from_iterable(pages)))


def stream_entity(
    open_log: Callable[[], Log], entity: Entity, versions: Versions
) -> Iterator[Event]:
    """Yield an entity's events as they stand at the first ``next``, in flat memory.

    ``open_log`` returns the log or raises StoreClosedError; it is asked before every page.
    """
    pages = _pages_of_entity(open_log, entity, versions, flat=True)
    while (events := open_log().in_one_call(lambda: next(pages, None))) is not None:
        yield from events


def _pages_of_entity(
    open_log: Callable[[], Log], entity: Entity, versions: Versions, *, flat: bool
) -> Iterator[list[Event]]:
    query = EventQuery(
        entity_type=entity.entity_type, entity_id=entity.entity_id, tenant_id=entity.tenant_id
    )
    page = PageRequest(
        query=query, limit=PAGE, above_version=versions.after, ascending=versions.ascending
    )
    pages = _pages_forwards if versions.ascending else _pages_backwards
    return pages(open_log, entity, versions, page, flat=flat)


def _pages_forwards(
    open_log: Callable[[], Log],
    entity: Entity,
    versions: Versions,
    page: PageRequest,
    *,
    flat: bool,
) -> Iterator[list[Event]]:
    size = _FIRST_PAGE if flat else PAGE
    version, end = versions.after, versions.up_to
    if versions.limit is not None:
        end = _lower(end, version + versions.limit)
    while (wanted := size if end is None else min(size, end - version)) > 0:
        page = msgspec.structs.replace(page, limit=wanted, above_version=version)
        events = open_log().page(page)
        _check_versions(entity, events, version + 1, 1)
        version += len(events)
        is_last = len(events) < wanted
        if events:  # where the last page ended tells more than its version alone
            page = msgspec.structs.replace(page, after=events[-1].sequence)
        if flat and not is_last:  # before they are handed out, for their payloads may be changed
            size = _fitting_page(events)
            if end is None:
                end = open_log().read(lambda backend: backend.version(entity))
        yield events
        if is_last:
            return


def _pages_backwards(
    open_log: Callable[[], Log],
    entity: Entity,
    versions: Versions,
    page: PageRequest,
    *,
    flat: bool,
) -> Iterator[list[Event]]:
    size = _FIRST_PAGE if flat else PAGE
    after, left = versions.after, versions.limit
    version: int | None = None
    """Of the next event, once it is known."""
    if (top := versions.up_to) is not None:
        if top <= after:
            return
        at_top = PageRequest(query=page.query, limit=1, above_version=top - 1)
        if not (found := open_log().page(at_top)):
            # It has not come so far; and what it does from now on must not be read.
            at_top = msgspec.structs.replace(at_top, up_to=open_log().head())
            found = open_log().page(at_top)
        if found:
            version, left = top, _lower(left, top - after)
        page = msgspec.structs.replace(page, up_to=found[0].sequence if found else at_top.up_to)
    while left is None or left > 0:
        wanted = _lower(left, size)
        events = open_log().page(msgspec.structs.replace(page, limit=wanted))
        if not events and version is None:
            return
        version = events[0].version if version is None else version
        _check_versions(entity, events, version, -1)
        if not events:
            raise _missing_version(entity, version)
        version -= len(events)
        left = min(version - after, MAX_INT64 if left is None else left - len(events))
        page = msgspec.structs.replace(page, up_to=events[-1].sequence - 1)
        if flat:
            size = _fitting_page(events)
        yield events


def _check_versions(entity: Entity, events: Sequence[Event], first: int, step: int) -> None:
    """Raise CorruptLogError unless the versions are ``first``, ``first + step`` …"""
    version = first
    for event in events:
        if event.version != version:
            raise _missing_version(entity, version)
        version += step


def _missing_version(entity: Entity, version: int) -> CorruptLogError:
    return CorruptLogError(
        f"version {version} of {entity.entity_type!r} {entity.entity_id!r} is missing"
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


# --- Positions
#
# A tenant's view judges them by its own events alone: whether another event, or none, stands
# somewhere, and how far the log goes, would tell of the other tenants.


def read_since(
    log: Log, position: int | Checkpoint, limit: int, tenant_id: str | None
) -> list[Event]:
    """Return the page after a position, which is verified."""
    checked_integer("limit", limit, InvalidQueryError, least=1)
    after = _sequence_of(position, "position")
    if isinstance(position, Checkpoint):
        _check_log_id(log, position, "position")
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
        _check_not_beyond(log, after, "position", tenant_id)
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
    if not _stands_first(checkpoint, events):
        _check_stands(log, checkpoint, "position", tenant_id)
        events = page_of_this_log(log, page)  # the engine has caught up with itself
    return events[1:] or _not_missing(log, _page_after(after, limit, tenant_id))


def _page_after(after: int, limit: int, tenant_id: str | None) -> PageRequest:
    page = PageRequest(query=in_tenant(_EVERYTHING, tenant_id), after=after, limit=limit)
    if tenant_id is None:
        page = msgspec.structs.replace(page, up_to=min(after + limit, MAX_INT64))
    return page


def _not_missing(log: Log, page: PageRequest) -> list[Event]:
    """Return a page of the whole log that was empty a moment ago; CorruptLogError if it still
    is and should not be."""
    if page.query is not _EVERYTHING or log.head() <= page.after:
        return []
    events = log.page(page)  # what was appended between the two reads is there now
    if not events:
        raise CorruptLogError(f"the event at sequence {page.after + 1} is missing from the log")
    return events


def page_of_this_log(log: Log, page: PageRequest) -> list[Event]:
    """Return a page that is surely of the log that was opened; LogReplacedError otherwise."""
    events = log.page(page)
    log.head()  # afterwards: had the log been replaced before the page was read, it would tell
    return events


def verified_position(
    log: Log, position: int | Checkpoint, what: str, tenant_id: str | None
) -> int:
    """Return the sequence a consumer stands at; CheckpointError if this log was never there
    or holds another event there (G12).

    Whether it is the log that was opened, the head tells: to be asked afterwards.
    """
    after = _sequence_of(position, what)
    if not isinstance(position, Checkpoint):
        if after:
            _check_not_beyond(log, after, what, tenant_id)
        return after
    _check_log_id(log, position, what)
    if after:
        _check_stands(log, position, what, tenant_id)
    return after


def last_sequence(log: Log, tenant_id: str | None) -> int:
    """Return the sequence of the last event, in a tenant's view that of its own last one; 0
    where there is none."""
    if tenant_id is None:
        return log.head()
    found = log.page(PageRequest(query=EventQuery(tenant_id=tenant_id), limit=1, ascending=False))
    return found[0].sequence if found else 0


def _check_stands(log: Log, checkpoint: Checkpoint, what: str, tenant_id: str | None) -> None:
    """Raise CheckpointError unless the event of ``checkpoint`` stands where it says."""
    after = checkpoint.sequence
    page = PageRequest(
        query=in_tenant(_EVERYTHING, tenant_id), after=after - 1, up_to=after, limit=1
    )
    found = log.page(page)
    if not found:
        head = log.read(lambda backend: backend.confirmed_head())
        if tenant_id is None and after > head:
            raise position_beyond(what, after)
        found = log.page(page)
    if not found and tenant_id is None:
        raise CorruptLogError(f"the event at sequence {after} is missing from the log")
    if not _stands_first(checkpoint, found):
        log.head()  # a log made anew under an open store holds other events, too
        whose = "" if tenant_id is None else f" of the tenant {tenant_id!r}"
        raise CheckpointError(
            f"{what}: the event {checkpoint.event_id} does not stand at sequence {after}{whose}:"
            " the log lost events after that position was seen, and went on; or the checkpoint is"
            " another consumer's"
        )


def _stands_first(checkpoint: Checkpoint, events: Sequence[Event]) -> bool:
    return (
        bool(events)
        and events[0].sequence == checkpoint.sequence
        and events[0].event_id == checkpoint.event_id
    )


def _sequence_of(position: object, what: str) -> int:
    if type(position) is Checkpoint:  # a subclass could say one thing now and another later
        return position.sequence
    return checked_integer(f"{what} (a sequence or a Checkpoint)", position, InvalidQueryError)


def _check_log_id(log: Log, checkpoint: Checkpoint, what: str) -> None:
    if checkpoint.log_id != log.backend.log_id:
        raise CheckpointError(
            f"{what}: it is of the log {checkpoint.log_id}, but this is {log.backend.log_id}"
        )


def _check_not_beyond(log: Log, position: int, what: str, tenant_id: str | None) -> None:
    """Raise CheckpointError if ``position`` is above the last sequence."""
    if position > last_sequence(log, tenant_id):
        head = log.read(lambda backend: backend.confirmed_head())
        if position > (head if tenant_id is None else last_sequence(log, tenant_id)):
            raise position_beyond(what, position)


def wait(
    open_log: Callable[[], Log],
    after: int | Checkpoint,
    timeout: float | None,
    query: EventQuery,
    tenant_id: str | None,
    *,
    stop: Flag | None,
) -> bool:
    """Return True once an event that matches stands after a position; False when time is up, or
    once ``stop`` is set.

    ``open_log`` returns the log or raises StoreClosedError; it is asked before every turn. A
    turn, the first with the look at the position, is one call for the engine's timeout; an
    outage ends a wait that has an end of its own, and is waited through by one that has none.
    """
    log = open_log()
    end = None if timeout is None else monotonic() + min(timeout, TIMEOUT_MAX)
    longest = min(_WAIT_TURN if stop is None else _STOPPABLE_TURN, log.settings.timeout / 2)
    nap = log.napper(stop)
    position = -1
    everything = False
    told = False

    def turn() -> bool | None:
        """Return what the wait returns, or None after a while."""
        nonlocal position, query, everything
        log = open_log()
        if position < 0:
            query = verified(log, query, tenant_id)
            everything = query.filters_nothing
            position = verified_position(log, after, "after", tenant_id)
        else:
            log.read(partial(_wait_a_turn, position, max(seconds_left(), INSTANT), nap))
        head = open_log().head()
        if head < position:  # the log was put back to an older copy: it may never get there
            position = verified_position(log, after, "after", tenant_id)
        elif head > position:
            if everything:
                return True
            asked = in_sequences(log, query, tenant_id, after=position, head=head)
            if log.page(PageRequest(query=asked, after=position, up_to=head, limit=1)):
                return True
            position = head
        return None if seconds_left() > 0 else False

    def seconds_left() -> float:
        return longest if end is None else min(longest, end - monotonic())

    answer: bool | None = None
    while answer is None:
        try:
            if told:
                nap(longest)
            answer = log.until(stop, turn)
            told = False
        except CalledOff:
            return False
        except StoreUnavailableError as error:
            if end is not None or not error.transient:
                raise
            if not told:
                logger.warning("%s; waiting for it to come back", error)
            told = True
            position = -1  # it may come back as an older copy: where this stands is verified anew
    return answer


def _wait_a_turn(
    after: int, seconds: float, nap: Callable[[float], None], backend: Backend
) -> None:
    backend.wait(after, seconds, nap)
