"""Finding and reading events: by place, by key, by time.

A read that touches an index twice, or several shards, could show a later commit without an
earlier one. So reads are bounded by a head that was read before them; where all commits count,
they end at the first that is missing. What is found by a key, an id or a time may be a part that
no commit made visible (see ``records.py``): ``standing`` leaves those out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Any, Final, TypeVar

from pymongo.collection import Collection as MongoCollection
from pymongo.read_concern import ReadConcern

from eventstore.backend import EventKey, PageRequest
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_mongodb.by_time import page_by_time
from eventstore_mongodb.records import (
    END,
    NEW,
    ONLY_COUNTS,
    ONLY_TOKEN,
    PART,
    WITHOUT_EVENTS,
    Piece,
    Projection,
    StoredCommit,
    entity_key,
    id_key,
)
from eventstore_mongodb.selecting import (
    FIRST_VERSION,
    any_key,
    keys_clause,
    needles_of,
    telling_keys,
    time_clauses,
)

_T = TypeVar("_T")

Commits = MongoCollection[Any]

_WINDOW: Final = 1000
"""Sequences looked through at once, at first."""
_WIDEST: Final = 10_000_000
_GROWTH: Final = 16
"""By what a window grows, at most, that held few documents."""
_MANY: Final = 10_000
"""Documents wanted where all of them are."""
_FETCHED_BYTES: Final = 8_000_000
"""Roughly how much is fetched at once."""
_AT_ONCE: Final = 200
"""Keys looked up at once: so many an engine merges in index order without sorting."""
_BATCH: Final = 500
"""Documents taken from a cursor, or asked for by ``_id``, at once."""
_PARTS: Final = 50
"""Parts of one commit fetched at once."""
_PLACES: Final = 1000

_ONLY_LAST: Final[Projection] = {"_id": 0, "last": 1}
"""The projection of where a commit ends: the index holds it."""


class CommitReader:
    """Reads one log's commits and their events, within a session or without."""

    def __init__(
        self,
        commits: Commits,
        *,
        log_format: int,
        linearizable: bool = False,
        **session: Any,
    ) -> None:
        """``commits`` gives raw documents; ``linearizable`` tells whether the server has such
        reads."""
        self._end_field = "last" if log_format == 1 else END
        self._concern = ReadConcern("linearizable" if linearizable else "majority")
        self._commits = commits
        self._session = session
        self.seen = 0
        """The head, as it was seen last."""
        self._too_wide: Sequence[Mapping[str, Any]] = ()
        """A range of times that holds too much to be fetched at once."""
        self._places: dict[Entity, tuple[int, int]] = {}
        """Where a page of an entity ended: version and sequence. To be looked at again, for the
        log may have been put back since."""

    # --- The tail

    def since(self, last: int, limit: int, projection: Projection) -> list[StoredCommit]:
        """Return the commit that ends at ``last`` and those after it."""
        found = self.find({"last": {"$gte": last}}, projection)
        return [StoredCommit(document) for document in found.sort("last", 1).limit(limit)]

    def ends_at(self, sequence: int) -> bool:
        """Return whether a commit ends there."""
        return any(True for _ in self.find({"last": sequence}, _ONLY_LAST).limit(1))

    def tail(self) -> StoredCommit | None:
        """Return the newest commit, without events."""
        found = self.find({"last": {"$gte": self.head()}}, WITHOUT_EVENTS)
        return next(map(StoredCommit, found.sort("last", -1).limit(1)), None)

    def head(self) -> int:
        """Return where the newest commit ends; 0 in an empty log."""
        for lower in (self.seen, 0):  # an index is quickest from near the end of a range
            for found in self.find({"last": {"$gte": lower}}, _ONLY_LAST).sort("last", -1).limit(1):
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
        commits = self._commits.with_options(read_concern=self._concern)
        found = commits.find_one({"_id": last + 1}, {"last": 1})
        return None if found is None else int(found["last"])

    # --- Pages

    def page(self, page: PageRequest) -> list[Event]:
        """Return a page of events."""
        if page.order_by == "timestamp":
            return page_by_time(self, page, _acceptor(page) or (lambda _: True))
        place = self._place(page)
        after = max(page.after, place - 1)
        wanted = page.limit + page.offset
        needles = needles_of(page.query)
        accept = _acceptor(page)
        taken: list[Event] = []
        up_to = self.up_to(page)
        lowest, highest = after, up_to
        if accept is None:  # every event counts, and there are no gaps
            lowest = after if page.ascending else max(after, up_to - wanted)
            highest = min(up_to, after + wanted) if page.ascending else up_to
        key = _entity_key_of(page) if page.above_version else None
        pieces = self._pieces_between(
            page.query, lowest, highest, ascending=page.ascending, wanted=wanted
        )
        with closing(pieces):
            begin = [*islice(pieces, 1)] if place else []
            if place and not (begin and _holds(begin[0], page, place)):
                self._places.clear()
                return self.page(page)
            for piece in chain(begin, pieces):
                if key and piece.versions().get(key, 0) <= page.above_version:
                    continue
                events = piece.events(needles, lowest, highest)
                if accept is not None:
                    events = [event for event in events if accept(event)]
                taken += events if page.ascending else reversed(events)
                if len(taken) >= wanted:
                    break
        taken = taken[page.offset : wanted]
        self._remember_place(page, taken)
        return taken

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
        for start in range(0, len(keys), _WINDOW):
            ids = [id_key(event_id) for _, event_id in keys[start : start + _WINDOW]]
            query = {"events.id": ids[0] if len(ids) == 1 else {"$in": ids}}
            bare = set(map(bytes, ids))
            pieces = self._pieces(self.find(query))
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
                newest = self._pieces(
                    self.find(query, WITHOUT_EVENTS).sort(self._end_field, -1).limit(limit)
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
                passed = [piece.document["_id"] for piece in newest if piece.last == end]
                if below.get(self._end_field) == {"$lte": end}:
                    passed += below["_id"]["$nin"]
                below = {self._end_field: {"$lte": end}, "_id": {"$nin": passed}}
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
        if self._end_field == END and (keys := telling_keys(query)):
            return sum(
                piece.count(key)
                for key in keys
                for piece in self._all({"keys": key}, ONLY_COUNTS)
                if piece.last <= head
            )
        needles = needles_of(query)
        clauses = [clause] if (clause := keys_clause(query)) else time_clauses(query)
        if clauses:  # in no order
            pieces = (piece for each in clauses for piece in self._all(each))
        else:
            pieces = self._pieces_between(query, 0, head, wanted=_MANY)
        return sum(sum(map(query.matches, piece.events(needles, 0, head))) for piece in pieces)

    def new_entities(
        self, entity_type: str | None, tenant_id: str | None, head: int
    ) -> Iterator[Entity]:
        """Yield entities, newest first by their first event."""
        key = NEW if entity_type is None else f"{NEW}:{entity_type}"
        query = EventQuery(entity_type=entity_type, tenant_id=tenant_id)
        needles = [FIRST_VERSION, *needles_of(query)]
        for piece in self._windows({"keys": key}, 0, head, ascending=False):
            for event in reversed(piece.events(needles, 0, head)):
                if event.version == 1 and query.matches(event):
                    yield event.entity

    # --- Windows

    def _pieces_between(
        self, query: EventQuery, after: int, up_to: int, *, ascending: bool = True, wanted: int
    ) -> Generator[Piece]:
        after = max(after, query.after)
        if query.to_sequence is not None:
            up_to = min(up_to, query.to_sequence)
        clause = keys_clause(query)
        if not clause and (times := time_clauses(query)) and times != self._too_wide:
            found = self._few(times)
            if found is None:
                self._too_wide = times  # and it stays so, for nothing is ever removed
            else:
                found = [piece for piece in found if piece.last > after and piece.first <= up_to]
                yield from found if ascending else reversed(found)
                return
        yield from self._windows(clause, after, up_to, ascending=ascending, wanted=wanted)

    def _windows(
        self,
        clause: Mapping[str, Any],
        after: int,
        up_to: int,
        *,
        ascending: bool = True,
        wanted: int = _WINDOW,
    ) -> Generator[Piece]:
        """Yield, in order, what holds something above ``after`` and up to ``up_to``: a window of
        sequences at a time, which is fetched as it comes and sorted here, so that no engine has
        to. A window grows where it held less than is wanted."""
        if after >= up_to:
            return
        if ascending and not clause:
            yield from self._chain(after, up_to)
            return
        low, high = after, self._end_of_holder(up_to, self._end_field if clause else "last")
        width = max(wanted, _WINDOW)
        growth = _GROWTH if clause else 1  # without one every window is full
        while low < high:
            middle = min(low + width, high) if ascending else max(high - width, low)
            window = (low, middle) if ascending else (middle, high)
            pieces: Iterable[Piece] | None = None
            if clause:
                pieces = self._few([{**clause, self._end_field: _within(*window)}])
                if pieces is None and width > _WINDOW:
                    width, growth = max(width // _GROWTH, _WINDOW), 1
                    continue
                if pieces is not None and not ascending:
                    pieces = reversed(pieces)
            if pieces is None:
                pieces = self._one_by_one(clause, window, after, up_to, ascending=ascending)
            count = 0
            for piece in pieces:
                count += 1
                yield piece
            width = min(width * max(min(growth, wanted // max(count, 1)), 1), _WIDEST)
            low, high = (middle, high) if ascending else (low, middle)

    def _few(self, queries: Sequence[Mapping[str, Any]]) -> list[Piece] | None:
        """Return, in order, what any of ``queries`` finds, None where that is too much at once."""
        pieces: list[Piece] = []
        size = 0
        for query in queries:
            with closing(self.find(query)) as found:
                for piece in map(Piece, found):
                    size += piece.size
                    if size > _FETCHED_BYTES:
                        return None
                    pieces.append(piece)
        return sorted(self.standing(pieces), key=_last_of)

    def _all(
        self, query: Mapping[str, Any], projection: Projection | None = None
    ) -> Iterator[Piece]:
        """Yield what a query finds, in no order."""
        with closing(self.find(query, projection)) as found:
            while some := self._pieces(islice(found, _BATCH)):
                yield from self.standing(some)

    def _one_by_one(
        self,
        clause: Mapping[str, Any],
        window: tuple[int, int],
        after: int,
        up_to: int,
        *,
        ascending: bool,
    ) -> Iterator[Piece]:
        """Yield, in order, what ends in a window: where, is read first."""
        field = self._end_field if clause else "last"
        query = {**clause, field: _within(*window)}
        found = self.find(query, {"_id": 0, field: 1})
        ends = sorted({each[field] for each in found}, reverse=not ascending)
        start, count = 0, 1
        while start < len(ends):
            some = ends[start : start + count]
            found = list(self.find({**clause, field: some[0] if count == 1 else {"$in": some}}))
            if clause:
                pieces = self.standing(self._pieces(found))
                yield from sorted(pieces, key=_last_of, reverse=not ascending)
            else:
                for commit in sorted(self._pieces(found), key=_last_of, reverse=not ascending):
                    yield from self._pieces_of(commit, after, up_to, ascending=ascending)
            start += count
            average = sum(len(each.raw) for each in found) // max(len(found), 1)
            count = max(1, min(count * 4, _FETCHED_BYTES // max(average, 1)))

    def _chain(self, after: int, up_to: int) -> Generator[Piece]:
        """Yield all that holds something above ``after`` and up to ``up_to``, which may be
        beyond the head; end where something is missing."""
        following = self._following(lambda: after, up_to)
        with closing(self.find({"last": _within(after, up_to)}).sort("last", 1)) as ended:
            for document in chain(ended, following):
                reached = after
                for piece in self._pieces_of(Piece(document), after, up_to):
                    if piece.first > after + 1:
                        return
                    after = piece.last
                    yield piece
                if after == reached:
                    return

    def _following(self, reached: Callable[[], int], up_to: int) -> Iterator[Any]:
        """Yield the commit that holds ``up_to``; or, one by one, what was added meanwhile."""
        while (after := reached()) < up_to:
            found = list(self.find({"last": {"$gt": after}}).sort("last", 1).limit(1))
            if not found:
                return
            yield found[0]

    def _pieces_of(
        self, commit: Piece, after: int, up_to: int, *, ascending: bool = True
    ) -> Iterator[Piece]:
        """Yield, in order, what of a commit holds something above ``after`` and up to
        ``up_to``."""
        if not commit.has_parts:
            yield commit
            return
        ids = StoredCommit(commit.document).part_ids(after, up_to)[:: 1 if ascending else -1]
        for start in range(0, len(ids), _PARTS):
            found = self.find({"_id": {"$in": ids[start : start + _PARTS]}})
            yield from sorted(self._pieces(found), key=_last_of, reverse=not ascending)

    def pieces_of_all(
        self, commits: Sequence[StoredCommit], projection: Projection
    ) -> list[Piece] | None:
        """Return what ``commits``, read with ``projection``, hold, in order; None if it is too
        much, or not all there."""
        ids = [part_id for commit in commits for part_id in commit.part_ids(0, commit.last)]
        if len(ids) > _BATCH:
            return None
        pieces = [Piece(commit.document) for commit in commits if not commit.part_ends]
        if ids:
            parts = self._pieces(self.find({"_id": {"$in": ids}}, projection))
            if len(parts) < len(ids):
                return None
            pieces += parts
        return sorted(pieces, key=_last_of)

    def standing(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Return those of ``pieces`` that a commit made visible, in the same order: a writer that
        lost a race, or ended before it committed, left parts that count for nothing."""
        places = list({piece.commit for piece in pieces if piece.is_part})
        if not places:
            return pieces
        tokens: dict[int, bytes] = {}
        for start in range(0, len(places), _BATCH):
            query = {"_id": {"$in": places[start : start + _BATCH]}}
            tokens.update((each["_id"], each["token"]) for each in self.find(query, ONLY_TOKEN))
        return [
            piece
            for piece in pieces
            if not piece.is_part or tokens.get(piece.commit) == piece.token
        ]

    def _end_of_holder(self, sequence: int, field: str) -> int:
        """Return a bound of ``field`` (the end of a document's events, or of a commit) in what
        holds ``sequence``."""
        if field == END:
            return sequence + PART - 1
        found = self.find({"last": {"$gte": sequence}}, _ONLY_LAST).sort("last", 1).limit(1)
        return next((int(commit["last"]) for commit in found), sequence)

    def up_to(self, page: PageRequest) -> int:
        return self.head() if page.up_to is None else page.up_to

    # --- Where a page of an entity ended

    def _place(self, page: PageRequest) -> int:
        """Return the sequence at ``page.above_version``, or 0 where it is not known."""
        if not page.above_version:
            return 0
        version, sequence = self._places.get(_entity_of(page.query), (0, 0))
        return sequence if version == page.above_version else 0

    def _remember_place(self, page: PageRequest, events: Sequence[Event]) -> None:
        if len(events) == page.limit > 1 and page.query.entity_id is not None:
            if len(self._places) >= _PLACES:
                self._places.clear()
            last = events[-1]
            self._places[last.entity] = (last.version, last.sequence)

    # --- Documents

    def find(self, query: Mapping[str, Any], projection: Any = None) -> Any:
        return self._commits.find(query, projection and dict(projection), **self._session)

    def _pieces(self, found: Iterable[Any]) -> list[Piece]:
        return [*map(Piece, found)]


def _holds(piece: Piece, page: PageRequest, place: int) -> bool:
    """Return whether the version that a page of an entity begins after still stands there."""
    events = piece.events(needles_of(page.query), place - 1, place)
    return any(
        event.version == page.above_version and page.query.matches(event) for event in events
    )


def _of_whole(pieces: Sequence[Piece], head: int | None) -> Sequence[Piece] | None:
    """Return those of ``pieces`` that are no parts of a commit beyond ``head``; None where that
    is needed and not known."""
    if not any(piece.is_part for piece in pieces):
        return pieces
    if head is None:
        return None
    return [piece for piece in pieces if not piece.is_part or piece.commit <= head]


def _last_of(piece: Piece) -> int:
    return piece.last


def _within(after: int, up_to: int) -> dict[str, int]:
    return {"$gt": after, "$lte": up_to}


def _acceptor(page: PageRequest) -> Callable[[Event], bool] | None:
    """Return what tells whether a page takes an event within its bounds; None: all of them."""
    if page.query.filters_nothing:
        return None
    if not page.above_version:
        return page.query.matches
    return lambda event: event.version > page.above_version and page.query.matches(event)


def _entity_of(query: EventQuery) -> Entity:
    return Entity(query.entity_type or "", query.entity_id or "", query.tenant_id or "")


def _entity_key_of(page: PageRequest) -> str:
    return entity_key(_entity_of(page.query))
