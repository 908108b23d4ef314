"""Finding and reading events: the tail, pages, by identity, and what sums them up.

A read that touches an index twice, or several shards, could show a later commit without an
earlier one. So reads are bounded by a head that was read before them; where all commits count,
they end at the first that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Final, TypeVar

from pymongo.read_concern import ReadConcern

from eventstore.backend import EventKey, PageRequest
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_mongodb.by_time import page_by_time
from eventstore_mongodb.keys import NEW, entity_key, id_key
from eventstore_mongodb.pieces import Piece
from eventstore_mongodb.records import END, ONLY_COUNTS, ONLY_LAST, WITHOUT_EVENTS, Projection
from eventstore_mongodb.selecting import (
    FIRST_VERSION,
    any_key,
    keys_clause,
    needles_of,
    telling_keys,
    time_clauses,
)
from eventstore_mongodb.walking import FIRST, LAST_FIRST, MANY, WINDOW, Commits, Walker

_T = TypeVar("_T")

_AT_ONCE: Final = 200
"""Keys looked up at once: so many an engine merges in index order without sorting."""


class CommitReader(Walker):
    """Reads one log's commits and their events, within a session or without, for any number of
    threads."""

    def __init__(
        self, commits: Commits, log_format: int, *, linearizable: bool = False, **session: Any
    ) -> None:
        """``commits`` gives raw documents; ``linearizable`` tells whether the server has such
        reads."""
        super().__init__(commits, log_format, **session)
        self._concern = ReadConcern("linearizable" if linearizable else "majority")
        self.seen = 0
        """The highest head that was seen: where a look for the tail begins. Of threads that raise
        it in the same moment the lower may win, until the next look."""

    # --- The tail

    def since(self, last: int, limit: int, projection: Projection) -> list[Piece]:
        """Return the commit that ends at ``last`` and those after it."""
        found = self.find({"last": {"$gte": last}}, projection, sort=FIRST, limit=limit)
        return self.pieces(found)

    def ends_at(self, sequence: int) -> bool:
        """Return whether a commit ends there."""
        return any(True for _ in self.find({"last": sequence}, ONLY_LAST, limit=1))

    def tail(self) -> Piece | None:
        """Return the newest commit, without events."""
        query = {"last": {"$gte": self.head()}}
        found = self.find(query, WITHOUT_EVENTS, sort=LAST_FIRST, limit=1)
        return next(map(Piece, found), None)

    def head(self) -> int:
        """Return where the newest commit ends; 0 in an empty log."""
        for lower in (self.seen, 0):  # an index is quickest from near the end of a range
            query = {"last": {"$gte": lower}}
            for found in self.find(query, ONLY_LAST, sort=LAST_FIRST, limit=1):
                head = int(found["last"])
                self.seen = max(self.seen, head)
                return head
        return 0

    def next_after(self, last: int) -> int | None:
        """Return the last sequence of the commit that follows ``last``, None if beyond doubt
        there is none.

        A linearizable read waits until a majority has confirmed that this is the primary, and is
        promised for queries that name one document: and the next commit's ``_id`` is known.
        """
        commits = self.commits.with_options(read_concern=self._concern)
        found = commits.find_one({"_id": last + 1}, {"last": 1})
        return None if found is None else int(found["last"])

    # --- Pages

    def page(self, page: PageRequest) -> list[Event]:
        """Return a page of events."""
        if page.order_by == "timestamp":
            return page_by_time(self, page, _acceptor(page) or (lambda _: True))
        after, wanted = page.after, page.limit + page.offset
        needles = needles_of(page.query)
        accept = _acceptor(page)
        taken: list[Event] = []
        up_to = self.up_to(page)
        lowest, highest = after, up_to
        if accept is None:  # every event counts, and there are no gaps
            lowest = after if page.ascending else max(after, up_to - wanted)
            highest = min(up_to, after + wanted) if page.ascending else up_to
        key = _entity_key_of(page.query) if page.above_version else None
        pieces = self.pieces_between(
            page.query, lowest, highest, ascending=page.ascending, wanted=wanted
        )
        with closing(pieces):
            for piece in pieces:
                if key and piece.versions().get(key, 0) <= page.above_version:
                    continue
                events = piece.events(needles, lowest, highest)
                if accept is not None:
                    events = [event for event in events if accept(event)]
                taken += events if page.ascending else reversed(events)
                if len(taken) >= wanted:
                    break
        return taken[page.offset : wanted]

    def first_match(self, query: EventQuery, after: int, up_to: int) -> int:
        """Return the sequence of an event in between that matches, 0 if none does."""
        page = PageRequest(query=query, after=after, up_to=up_to, limit=1)
        return next((event.sequence for event in self.page(page)), 0)

    # --- By identity

    def with_ids(self, keys: Sequence[EventKey], head: int | None = None) -> list[Event]:
        """Return the events of these identities, those that are recorded; ``head`` as in
        ``_of_whole_commits``."""
        return self._of_whole_commits(partial(self._with_ids, keys), head)

    def _with_ids(self, keys: Sequence[EventKey], head: int | None) -> list[Event] | None:
        wanted = {(tenant_id, event_id.bytes) for tenant_id, event_id in keys}
        events: list[Event] = []
        for start in range(0, len(keys), WINDOW):
            ids = [id_key(event_id) for _, event_id in keys[start : start + WINDOW]]
            query = {"events.id": ids[0] if len(ids) == 1 else {"$in": ids}}
            bare = set(map(bytes, ids))
            pieces = self.pieces(self.find(query))
            if (whole := _of_whole(pieces, head)) is None:
                return None
            for piece in self.standing(whole):
                events += [
                    event
                    for event in piece.events_with_ids(bare)
                    if (event.tenant_id, event.event_id.bytes) in wanted
                ]
        return events

    def versions(self, entities: Collection[Entity], head: int | None = None) -> dict[Entity, int]:
        """Return the versions of entities, those that have events; ``head`` as in
        ``_of_whole_commits``."""
        return self._of_whole_commits(partial(self._versions, entities), head)

    def _versions(self, entities: Collection[Entity], head: int | None) -> dict[Entity, int] | None:
        by_key = {entity_key(entity): entity for entity in entities}
        keys = list(by_key)
        found: dict[Entity, int] = {}
        for start in range(0, len(keys), _AT_ONCE):
            wanted = set(keys[start : start + _AT_ONCE])
            below: Mapping[str, Any] = {}
            widening = 1
            while wanted:
                # The newest come first, so each that is looked at settles an entity or more;
                # unless it is no commit's, or in a log of format 1 holds another tenant's: then
                # the search goes on below it.
                limit = len(wanted) * widening
                widening = min(widening * 4, _AT_ONCE)
                query = {**any_key(sorted(wanted)), **below}
                newest = self.pieces(
                    self.find(query, WITHOUT_EVENTS, sort=[(self.end_field, -1)], limit=limit)
                )
                if (whole := _of_whole(newest, head)) is None:
                    return None
                for piece in self.standing(whole):
                    versions = piece.versions()
                    for key in wanted & versions.keys():
                        found[by_key[key]] = versions[key]
                        wanted.remove(key)
                if len(newest) < limit:
                    break
                # Who raced for the same place wrote parts that end alike: one that counts for
                # nothing must not hide the one that counts.
                end = newest[-1].last
                passed = [piece.id for piece in newest if piece.last == end]
                if below.get(self.end_field) == {"$lte": end}:
                    passed += below["_id"]["$nin"]
                below = {self.end_field: {"$lte": end}, "_id": {"$nin": passed}}
        return found

    def _of_whole_commits(self, look: Callable[[int | None], _T | None], head: int | None) -> _T:
        """Return what ``look`` finds in commits that stood when it began, up to ``head``.

        A look that is not bounded may meet a commit that is just being written, with some of its
        parts, and ask whether it stands when it does. Where the caller has not read the head
        before, that is only read if parts are met, and then the look begins again.
        """
        if (found := look(head)) is None:
            found = look(self.head())
        assert found is not None  # noqa: S101 - a look with a head does not ask for one
        return found

    # --- Summaries

    def count(self, query: EventQuery, head: int) -> int:
        """Return how many events up to ``head`` match."""
        if query.filters_nothing:
            return head
        if self.end_field == END and (keys := telling_keys(query)):
            return sum(
                piece.count(key)
                for key in keys
                for piece in self.all_of({"keys": key}, ONLY_COUNTS)
                if piece.last <= head
            )
        needles = needles_of(query)
        clauses = [clause] if (clause := keys_clause(query)) else time_clauses(query)
        if clauses:  # in no order
            pieces = (piece for each in clauses for piece in self.all_of(each))
        else:
            pieces = self.pieces_between(query, 0, head, wanted=MANY)
        return sum(sum(map(query.matches, piece.events(needles, 0, head))) for piece in pieces)

    def new_entities(
        self, entity_type: str | None, tenant_id: str | None, head: int
    ) -> Iterator[Entity]:
        """Yield entities, newest first by their first event."""
        key = NEW if entity_type is None else f"{NEW}:{entity_type}"
        query = EventQuery(entity_type=entity_type, tenant_id=tenant_id)
        needles = [FIRST_VERSION, *needles_of(query)]
        for piece in self.windows({"keys": key}, 0, head, ascending=False):
            for event in reversed(piece.events(needles, 0, head)):
                if event.version == 1 and query.matches(event):
                    yield event.entity

    def up_to(self, page: PageRequest) -> int:
        return self.head() if page.up_to is None else page.up_to


def _of_whole(pieces: Sequence[Piece], head: int | None) -> Sequence[Piece] | None:
    """Return those of ``pieces`` that are of commits up to ``head``; None where that is needed, for
    there are parts among them, and not known.

    What stands beyond is no harm to an appender as long as the log only grows, for it loses then.
    But were the log put back to an older copy, that ends at ``head``, it would win by a past that
    is gone.
    """
    if head is None:
        return None if any(piece.is_part for piece in pieces) else pieces
    return [piece for piece in pieces if (piece.commit if piece.is_part else piece.first) <= head]


def _acceptor(page: PageRequest) -> Callable[[Event], bool] | None:
    """Return what tells whether a page takes an event within its bounds; None: all of them."""
    if page.query.filters_nothing:
        return None
    if not page.above_version:
        return page.query.matches
    return lambda event: event.version > page.above_version and page.query.matches(event)


def _entity_key_of(query: EventQuery) -> str:
    return entity_key(Entity(query.entity_type or "", query.entity_id or "", query.tenant_id or ""))
