"""Finding and reading commits: by place, by key, by time.

A read that touches an index twice, or several shards, could show a later commit without an
earlier one. So reads are bounded by a head that was read before them; where all commits count,
they end at the first that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from time import monotonic
from typing import Any, Final

from pymongo.collection import Collection as MongoCollection
from pymongo.read_concern import ReadConcern

from eventstore.backend import PageRequest
from eventstore.commit import EventKey
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore.reading import filters_nothing
from eventstore_mongodb.by_time import page_by_time
from eventstore_mongodb.documents import (
    NEW,
    ONLY_IDS,
    WITHOUT_EVENTS,
    WITHOUT_PAYLOADS,
    StoredCommit,
    entity_key,
    id_key,
)
from eventstore_mongodb.selecting import (
    FIRST_VERSION,
    any_key,
    keys_clause,
    needles_of,
    times_clause,
)

Commits = MongoCollection[Any]

_WINDOW: Final = 1000
"""Sequences looked through at once, at first."""
_WIDEST: Final = 100_000
_FEW: Final = 8
_GROWTH: Final = 8
"""By what a window grows that held few commits."""
_FETCHED_BYTES: Final = 8_000_000
"""Roughly how much is fetched at once."""
_AT_ONCE: Final = 200
"""Keys looked up at once: so many an engine merges in index order without sorting."""
_PLACES: Final = 1000
_CUT_KEPT: Final = 1.0
"""Seconds for which a commit is not read again that the last page did not exhaust."""

_END: Final = {"_id": 0, "last": 1}
"""The projection of where a commit ends: every index that is used by key holds it."""


class CommitReader:
    """Reads one log's commits, within a session or without."""

    def __init__(
        self,
        commits: Commits,
        raw: Callable[[Any], Any] = lambda document: document,
        *,
        linearizable: bool = False,
        **session: Any,
    ) -> None:
        """``commits`` gives raw documents, or documents that ``raw`` makes raw.
        ``linearizable`` tells whether the server has such reads."""
        self._concern = ReadConcern("linearizable" if linearizable else "majority")
        self._commits = commits
        self._raw = raw
        self._session = session
        self.seen = 0
        """The head, as it was seen last."""
        self._end = (0, 0)
        """A sequence, and where the commit that holds it ends."""
        self._cut: tuple[StoredCommit | None, float] = (None, 0.0)
        """The commit in which the last page ended, and when that was."""
        self._places: dict[Entity, tuple[int, int]] = {}
        """Where a page of an entity ended: version and sequence."""

    # --- The tail

    def since(self, last: int, limit: int) -> list[StoredCommit]:
        """Return the commit that ends at ``last`` and those after it, without events."""
        found = self.find({"last": {"$gte": last}}, WITHOUT_EVENTS)
        return self._taken(found.sort("last", 1).limit(limit))

    def after(self, last: int, limit: int) -> list[StoredCommit]:
        """Return the commits after ``last``, with the ids of their events alone."""
        found = self.find({"last": {"$gt": last}}, ONLY_IDS)
        return self._taken(found.sort("last", 1).limit(limit))

    def tail(self) -> StoredCommit | None:
        """Return the newest commit, without events."""
        found = self.find({"last": {"$gte": self.head()}}, WITHOUT_EVENTS)
        return next(iter(self._taken(found.sort("last", -1).limit(1))), None)

    def head(self) -> int:
        """Return where the newest commit ends; 0 in an empty log."""
        for lower in (self.seen, 0):  # an index is quickest from near the end of a range
            for found in self.find({"last": {"$gte": lower}}, _END).sort("last", -1).limit(1):
                self.seen = int(found["last"])
                return self.seen
        self.seen = 0
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
        after = max(page.after, self._place(page))
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
        commits = self._commits_between(
            page.query, lowest, highest, ascending=page.ascending, wanted=wanted
        )
        with closing(commits):
            for commit in commits:
                if key and commit.versions().get(key, 0) <= page.above_version:
                    continue
                events = commit.events(needles, lowest, highest)
                if accept is not None:
                    events = [event for event in events if accept(event)]
                taken += events if page.ascending else reversed(events)
                if len(taken) >= wanted:
                    self._cut = (commit, monotonic())
                    break
        taken = taken[page.offset : wanted]
        self._remember_place(page, taken)
        return taken

    # --- By identity

    def with_ids(self, keys: Sequence[EventKey]) -> list[Event]:
        """Return the events of these identities, those that are recorded."""
        wanted = {(tenant_id, event_id.bytes) for tenant_id, event_id in keys}
        events: list[Event] = []
        for start in range(0, len(keys), _WINDOW):
            ids = [id_key(event_id) for _, event_id in keys[start : start + _WINDOW]]
            found = self.find({"events.id": ids[0] if len(ids) == 1 else {"$in": ids}})
            bare = set(map(bytes, ids))
            for commit in map(self.commit, found):
                events += [
                    event
                    for event in commit.events_with_ids(bare)
                    if (event.tenant_id, event.event_id.bytes) in wanted
                ]
        return events

    def versions(self, entities: Collection[Entity]) -> dict[Entity, int]:
        """Return the versions of entities, those that have events."""
        by_key = {entity_key(entity): entity for entity in entities}
        keys = list(by_key)
        found: dict[Entity, int] = {}
        for start in range(0, len(keys), _AT_ONCE):
            wanted = set(keys[start : start + _AT_ONCE])
            below: Mapping[str, Any] = {}
            while wanted:
                # The newest commits come first, so each that is looked at settles an entity or
                # more; unless it holds another tenant's, and then the search goes on below it.
                limit = len(wanted)
                query = {**any_key(sorted(wanted)), **below}
                newest = self._taken(self.find(query, WITHOUT_EVENTS).sort("last", -1).limit(limit))
                for commit in newest:
                    versions = commit.versions()
                    for key in wanted & versions.keys():
                        found[by_key[key]] = versions[key]
                        wanted.remove(key)
                if len(newest) < limit:
                    break
                below = {"last": {"$lt": newest[-1].last}}
        return found

    # --- Summaries

    def count(self, query: EventQuery, head: int) -> int:
        """Return how many events up to ``head`` match."""
        if filters_nothing(query):
            return head
        needles = needles_of(query)
        commits = self._commits_between(query, 0, head, projection=WITHOUT_PAYLOADS)
        return sum(sum(map(query.matches, commit.events(needles, 0, head))) for commit in commits)

    def new_entities(
        self, entity_type: str | None, tenant_id: str | None, head: int
    ) -> Iterator[Entity]:
        """Yield entities, newest first by their first event."""
        key = NEW if entity_type is None else f"{NEW}:{entity_type}"
        query = EventQuery(entity_type=entity_type, tenant_id=tenant_id)
        needles = [FIRST_VERSION, *needles_of(query)]
        for commit in self._windows(
            {"keys": key}, 0, head, ascending=False, projection=WITHOUT_PAYLOADS
        ):
            for event in reversed(commit.events(needles, 0, head)):
                if event.version == 1 and query.matches(event):
                    yield event.entity

    # --- Windows

    def _commits_between(
        self,
        query: EventQuery,
        after: int,
        up_to: int,
        *,
        ascending: bool = True,
        wanted: int = _WINDOW,
        projection: Any = None,
    ) -> Generator[StoredCommit]:
        clause = keys_clause(query) or times_clause(query)
        if query.from_sequence is not None:
            after = max(after, query.from_sequence)
        if query.to_sequence is not None:
            up_to = min(up_to, query.to_sequence)
        return self._windows(
            clause, after, up_to, ascending=ascending, wanted=wanted, projection=projection
        )

    def _windows(
        self,
        clause: Mapping[str, Any],
        after: int,
        up_to: int,
        *,
        ascending: bool = True,
        wanted: int = _WINDOW,
        projection: Any = None,
    ) -> Generator[StoredCommit]:
        """Yield commits that hold something above ``after`` and up to ``up_to``.

        Where they end is read first, from an index alone, a window of sequences at a time; then
        they are fetched. So an engine never has to sort documents, nor reads any in vain.
        """
        if ascending and after < up_to and (commit := self._cut_at(after + 1)) is not None:
            yield commit
            after = commit.last
        if after >= up_to:
            return
        if ascending and not clause:
            yield from self._chain(after, up_to, projection)
            return
        low, high = after, self._end_of_commit(up_to)
        width = max(wanted, _WINDOW)
        while low < high:
            middle = min(low + width, high) if ascending else max(high - width, low)
            window = (low, middle) if ascending else (middle, high)
            query = {**clause, "last": {"$gt": window[0], "$lte": window[1]}}
            ends = sorted(found["last"] for found in self.find(query, _END))
            yield from self._ending_at(ends if ascending else ends[::-1], projection)
            if len(ends) < _FEW:
                width = min(width * _GROWTH, _WIDEST)
            low, high = (middle, high) if ascending else (low, middle)

    def _ending_at(self, ends: Sequence[int], projection: Any) -> Iterator[StoredCommit]:
        """Yield the commits that end at these sequences, in their order."""
        start, count = 0, 1
        while start < len(ends):
            some = list(ends[start : start + count])
            found = self.find({"last": some[0] if count == 1 else {"$in": some}}, projection)
            commits = {commit.last: commit for commit in self._taken(found)}
            yield from (commits[end] for end in some if end in commits)
            start += count
            average = sum(commit.size for commit in commits.values()) // max(len(commits), 1)
            count = max(1, min(count * 4, _FETCHED_BYTES // max(average, 1)))

    def _chain(self, after: int, up_to: int, projection: Any) -> Generator[StoredCommit]:
        """Yield all commits that hold something above ``after`` and up to ``up_to``, which may
        be beyond the head; end where one is missing."""
        ended_by = self.find({"last": {"$gt": after, "$lte": up_to}}, projection)
        with closing(ended_by.sort("last", 1)):
            for commit in map(self.commit, ended_by):
                if commit.first > after + 1:
                    return
                after = commit.last
                yield commit
        # Then the one that holds up_to; or, one by one, what was added meanwhile.
        while after < up_to and (found := self._commit_with(after + 1)):
            if found[0].first > after + 1:
                return
            after = found[0].last
            yield found[0]

    def _commit_with(self, sequence: int) -> list[StoredCommit]:
        """Return the commit that holds ``sequence``, if there is one."""
        return self._taken(self.find({"last": {"$gte": sequence}}).sort("last", 1).limit(1))

    def _end_of_commit(self, sequence: int) -> int:
        """Return the last sequence of the commit that holds ``sequence``."""
        known, end = self._end
        if known != sequence:
            found = self.find({"last": {"$gte": sequence}}, _END).sort("last", 1).limit(1)
            end = next((int(commit["last"]) for commit in found), sequence)
            self._end = (sequence, end)
        return end

    def _cut_at(self, sequence: int) -> StoredCommit | None:
        """Return the commit in which the last page ended, if it was only just read, and the
        next one begins there."""
        commit, when = self._cut
        if commit is None or monotonic() - when > _CUT_KEPT:
            return None
        return commit if commit.first < sequence <= commit.last else None

    def up_to(self, page: PageRequest) -> int:
        if page.up_to is not None:
            return page.up_to
        head = self.head()
        self._end = (head, head)
        return head

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

    def commit(self, document: Any) -> StoredCommit:
        return StoredCommit(self._raw(document))

    def _taken(self, found: Any) -> list[StoredCommit]:
        return [self.commit(document) for document in found]


def _acceptor(page: PageRequest) -> Callable[[Event], bool] | None:
    """Return what tells whether a page takes an event within its bounds; None: all of them."""
    if filters_nothing(page.query):
        return None
    if not page.above_version:
        return page.query.matches
    return lambda event: event.version > page.above_version and page.query.matches(event)


def _entity_of(query: EventQuery) -> Entity:
    return Entity(query.entity_type or "", query.entity_id or "", query.tenant_id or "")


def _entity_key_of(page: PageRequest) -> str:
    return entity_key(_entity_of(page.query))
