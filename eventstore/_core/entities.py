"""Reading an entity's events by version: a window of them, forwards or backwards, in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import msgspec

from eventstore._core.checks import MAX_INT64
from eventstore._core.log import Log
from eventstore._core.reading import FIRST_PAGE, PAGE, fitting_page, lower
from eventstore.backend import PageRequest
from eventstore.errors import CorruptLogError
from eventstore.event import Entity, Event
from eventstore.query import EventQuery


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
    size = FIRST_PAGE if flat else PAGE
    version, end = versions.after, versions.up_to
    if versions.limit is not None:
        end = lower(end, version + versions.limit)
    while (wanted := size if end is None else min(size, end - version)) > 0:
        page = msgspec.structs.replace(page, limit=wanted, above_version=version)
        events = open_log().page(page)
        _check_versions(entity, events, version + 1, 1)
        version += len(events)
        is_last = len(events) < wanted
        if events:  # where the last page ended tells more than its version alone
            page = msgspec.structs.replace(page, after=events[-1].sequence)
        if flat and not is_last:  # before they are handed out, for their payloads may be changed
            size = fitting_page(events)
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
    size = FIRST_PAGE if flat else PAGE
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
            version, left = top, lower(left, top - after)
        page = msgspec.structs.replace(page, up_to=found[0].sequence if found else at_top.up_to)
    while left is None or left > 0:
        wanted = lower(left, size)
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
            size = fitting_page(events)
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
