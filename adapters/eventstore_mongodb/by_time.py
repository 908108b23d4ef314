"""Pages in the order of ``timestamp``."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Final

from eventstore.backend import PageRequest, to_microseconds
from eventstore.event import Event
from eventstore_mongodb.keys import TIME_CLASSES, time_range
from eventstore_mongodb.pieces import Piece
from eventstore_mongodb.selecting import keys_clause, needles_of, times_of

if TYPE_CHECKING:
    from eventstore_mongodb.reading import CommitReader

_BATCH: Final = 16
"""Documents of a class read at once."""


def page_by_time(
    reader: CommitReader, page: PageRequest, accept: Callable[[Event], bool]
) -> list[Event]:
    """Return a page in the order of ``timestamp``.

    The algorithm: the documents of each time class (see ``records.py``) come from an index
    in the order in which they begin; the classes are merged by the first (or, descending,
    the last) moment that an event of one can have; a heap keeps the best
    ``offset + limit`` events seen, and reading ends at the first that cannot better
    them. Memory: these events, and one batch of 16 documents a class. A page begins where the
    one before it ended, so no cursor is held in between.
    """
    sign = 1 if page.ascending else -1
    wanted = page.limit + page.offset
    up_to = reader.up_to(page)
    needles = needles_of(page.query)
    resume = None
    if page.resume is not None:
        resume = sign * to_microseconds(page.resume[0]), sign * page.resume[1]
    best: list[tuple[int, int, Event]] = []  # a heap, its first the last in the page's order
    with ExitStack() as cursors:
        for bound, piece in _pieces_by_time(reader, page, cursors):
            if len(best) == wanted and bound > -best[0][0]:
                break
            for event in filter(accept, piece.events(needles, page.after, up_to)):
                key = sign * to_microseconds(event.timestamp), sign * event.sequence
                if resume is not None and key <= resume:
                    continue
                entry = (-key[0], -key[1], event)
                if len(best) < wanted:
                    heapq.heappush(best, entry)
                elif entry > best[0]:
                    heapq.heapreplace(best, entry)
    return [event for *_, event in sorted(best, reverse=True)][page.offset :]


def _pieces_by_time(
    reader: CommitReader, page: PageRequest, cursors: ExitStack
) -> Iterator[tuple[int, Piece]]:
    """Yield documents with the first moment, in the page's order, an event there can have."""
    lowest, highest = times_of(page.query)
    sign = 1 if page.ascending else -1
    if page.resume is not None:
        moment = to_microseconds(page.resume[0])
        if page.ascending:
            lowest = max(moment, moment if lowest is None else lowest)
        else:
            highest = min(moment, moment if highest is None else highest)
    clause = keys_clause(page.query)

    def of_class(time_class: int) -> Iterator[tuple[int, Piece]]:
        times = {"time_index": time_range(time_class, lowest, highest)}
        order = [("time_index", sign)]
        found = reader.find({**clause, **times}, sort=order, batch_size=_BATCH)
        cursors.callback(found.close)
        while some := [Piece(document) for document in islice(found, _BATCH)]:
            for piece in reader.standing(some):
                bounds = piece.time_bounds
                yield (bounds[0] if page.ascending else -bounds[1]), piece

    return heapq.merge(*map(of_class, TIME_CLASSES), key=lambda found: found[0])
