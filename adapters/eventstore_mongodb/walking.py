"""Walking along a log, document by document: in a window of sequences at a time, along the chain of
commits, or in no order.

What is found by a key, an id or a time may be a part that no commit made visible (see
``records.py``): ``standing`` leaves those out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from typing import Any, Final

from pymongo.collection import Collection

from eventstore.query import EventQuery
from eventstore_mongodb.pieces import Piece
from eventstore_mongodb.records import END, ONLY_LAST, ONLY_TOKEN, PART, Projection
from eventstore_mongodb.selecting import keys_clause, time_clauses

Commits = Collection[Any]

FIRST: Final = [("last", 1)]
LAST_FIRST: Final = [("last", -1)]
"""Orders of a look at commits."""

WINDOW: Final = 1000
"""Sequences looked through at once, at first."""
MANY: Final = 10_000
"""Documents wanted where all of them are."""
_WIDEST: Final = 10_000_000
_GROWTH: Final = 16
"""By what a window grows, at most, that held few documents."""
_FETCHED_BYTES: Final = 8_000_000
"""Roughly how much is fetched at once."""
_BATCH: Final = 500
"""Documents taken from a cursor, or asked for by ``_id``, at once."""
_PARTS: Final = 50
"""Parts of one commit fetched at once."""


class Walker:
    """Walks along one log, within a session or without, for any number of threads."""

    def __init__(self, commits: Commits, log_format: int, **session: Any) -> None:
        """``commits`` gives raw documents."""
        self.commits = commits
        self.end_field = "last" if log_format == 1 else END
        self._session = session
        self._too_wide: Sequence[Mapping[str, Any]] = ()
        """A range of times that holds too much to be fetched at once: so the pages of a long read
        find it out once, and take a fifth of the time. Threads may forget each other's, which
        costs a look."""

    def find(
        self, query: Mapping[str, Any], projection: Projection | None = None, **shape: Any
    ) -> Any:
        """Return a cursor; ``shape`` is what PyMongo calls ``sort``, ``limit`` and so on."""
        fields = projection and dict(projection)
        return self.commits.find(query, fields, **shape, **self._session)

    def pieces(self, found: Iterable[Any]) -> list[Piece]:
        """Return what a cursor gives."""
        return [*map(Piece, found)]

    def pieces_between(
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
        yield from self.windows(clause, after, up_to, ascending=ascending, wanted=wanted)

    def windows(
        self,
        clause: Mapping[str, Any],
        after: int,
        up_to: int,
        *,
        ascending: bool = True,
        wanted: int = WINDOW,
    ) -> Generator[Piece]:
        """Yield, in order, what holds something above ``after`` and up to ``up_to``: a window of
        sequences at a time, which is fetched as it comes and sorted here, so that no engine has
        to. A window grows where it held less than is wanted."""
        if after >= up_to:
            return
        if ascending and not clause:
            yield from self._chain(after, up_to)
            return
        low, high = after, self._end_of_holder(up_to, self.end_field if clause else "last")
        width = max(wanted, WINDOW)
        growth = _GROWTH if clause else 1  # without one every window is full
        while low < high:
            middle = min(low + width, high) if ascending else max(high - width, low)
            window = (low, middle) if ascending else (middle, high)
            pieces: Iterable[Piece] | None = None
            if clause:
                pieces = self._few([{**clause, self.end_field: _within(*window)}])
                if pieces is None and width > WINDOW:
                    width, growth = max(width // _GROWTH, WINDOW), 1
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

    def all_of(
        self, query: Mapping[str, Any], projection: Projection | None = None
    ) -> Iterator[Piece]:
        """Yield what a query finds, in no order."""
        with closing(self.find(query, projection)) as found:
            while some := self.pieces(islice(found, _BATCH)):
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
        field = self.end_field if clause else "last"
        query = {**clause, field: _within(*window)}
        found = self.find(query, {"_id": 0, field: 1})
        ends = sorted({each[field] for each in found}, reverse=not ascending)
        start, count = 0, 1
        while start < len(ends):
            some = ends[start : start + count]
            found = list(self.find({**clause, field: some[0] if count == 1 else {"$in": some}}))
            if clause:
                pieces = self.standing(self.pieces(found))
                yield from sorted(pieces, key=_last_of, reverse=not ascending)
            else:
                for commit in sorted(self.pieces(found), key=_last_of, reverse=not ascending):
                    yield from self._pieces_of(commit, after, up_to, ascending=ascending)
            start += count
            average = sum(len(each.raw) for each in found) // max(len(found), 1)
            count = max(1, min(count * 4, _FETCHED_BYTES // max(average, 1)))

    def _chain(self, after: int, up_to: int) -> Generator[Piece]:
        """Yield all that holds something above ``after`` and up to ``up_to``, which may be
        beyond the head; end where something is missing."""
        following = self._following(lambda: after, up_to)
        with closing(self.find({"last": _within(after, up_to)}, sort=FIRST)) as ended:
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
            found = list(self.find({"last": {"$gt": after}}, sort=FIRST, limit=1))
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
        ids = commit.part_ids(after, up_to)[:: 1 if ascending else -1]
        for start in range(0, len(ids), _PARTS):
            found = self.find({"_id": {"$in": ids[start : start + _PARTS]}})
            yield from sorted(self.pieces(found), key=_last_of, reverse=not ascending)

    def pieces_of_all(self, commits: Sequence[Piece], projection: Projection) -> list[Piece] | None:
        """Return what ``commits``, read with ``projection``, hold, in order; None if it is too
        much, or not all there."""
        ids = [part_id for commit in commits for part_id in commit.part_ids(0, commit.last)]
        if len(ids) > _BATCH:
            return None
        pieces = [commit for commit in commits if not commit.has_parts]
        if ids:
            parts = self.pieces(self.find({"_id": {"$in": ids}}, projection))
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
        found = self.find({"last": {"$gte": sequence}}, ONLY_LAST, sort=FIRST, limit=1)
        return next((int(commit["last"]) for commit in found), sequence)


def _last_of(piece: Piece) -> int:
    return piece.last


def _within(after: int, up_to: int) -> dict[str, int]:
    return {"$gt": after, "$lte": up_to}
