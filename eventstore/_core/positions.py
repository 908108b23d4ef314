"""Positions that are verified (G12), and what a view may learn of them.

A tenant's view judges them by its own events alone: whether another event, or none, stands
somewhere, and how far the log goes, would tell of the other tenants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eventstore._core.checks import checked_integer
from eventstore._core.log import Log
from eventstore.backend import PageRequest
from eventstore.backend.planner import position_beyond
from eventstore.checkpoint import Checkpoint
from eventstore.errors import CheckpointError, CorruptLogError, InvalidQueryError
from eventstore.event import Event
from eventstore.query import EventQuery

EVERYTHING: Final = EventQuery()


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
    after = sequence_of(position, what)
    if not isinstance(position, Checkpoint):
        if after:
            check_not_beyond(log, after, what, tenant_id)
        return after
    check_log_id(log, position, what)
    if after:
        check_stands(log, position, what, tenant_id)
    return after


def last_sequence(log: Log, tenant_id: str | None) -> int:
    """Return the sequence of the last event, in a tenant's view that of its own last one; 0
    where there is none."""
    if tenant_id is None:
        return log.head()
    found = log.page(PageRequest(query=EventQuery(tenant_id=tenant_id), limit=1, ascending=False))
    return found[0].sequence if found else 0


def check_stands(log: Log, checkpoint: Checkpoint, what: str, tenant_id: str | None) -> None:
    """Raise CheckpointError unless the event of ``checkpoint`` stands where it says."""
    after = checkpoint.sequence
    page = PageRequest(
        query=in_tenant(EVERYTHING, tenant_id), after=after - 1, up_to=after, limit=1
    )
    found = log.page(page)
    if not found:
        head = log.read(lambda backend: backend.confirmed_head())
        if tenant_id is None and after > head:
            raise position_beyond(what, after)
        found = log.page(page)
    if not found and tenant_id is None:
        raise CorruptLogError(f"the event at sequence {after} is missing from the log")
    if not stands_first(checkpoint, found):
        log.head()  # a log made anew under an open store holds other events, too
        whose = "" if tenant_id is None else f" of the tenant {tenant_id!r}"
        raise CheckpointError(
            f"{what}: the event {checkpoint.event_id} does not stand at sequence {after}{whose}:"
            " the log lost events after that position was seen, and went on; or the checkpoint is"
            " another consumer's"
        )


def stands_first(checkpoint: Checkpoint, events: Sequence[Event]) -> bool:
    return (
        bool(events)
        and events[0].sequence == checkpoint.sequence
        and events[0].event_id == checkpoint.event_id
    )


def sequence_of(position: object, what: str) -> int:
    if type(position) is Checkpoint:  # a subclass could say one thing now and another later
        return position.sequence
    return checked_integer(f"{what} (a sequence or a Checkpoint)", position, InvalidQueryError)


def check_log_id(log: Log, checkpoint: Checkpoint, what: str) -> None:
    if checkpoint.log_id != log.backend.log_id:
        raise CheckpointError(
            f"{what}: it is of the log {checkpoint.log_id}, but this is {log.backend.log_id}"
        )


def check_not_beyond(log: Log, position: int, what: str, tenant_id: str | None) -> None:
    """Raise CheckpointError if ``position`` is above the last sequence."""
    if position > last_sequence(log, tenant_id):
        head = log.read(lambda backend: backend.confirmed_head())
        if position > (head if tenant_id is None else last_sequence(log, tenant_id)):
            raise position_beyond(what, position)
