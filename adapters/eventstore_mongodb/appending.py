"""Appending: a compare-and-set on the whole log, and who has to try again.

Why inserting ``_id = last + 1`` is one. Say that every commit so far took its ``_id`` from the
``last`` of a commit that stood (or 1 in an empty log): they form one chain, in which each begins
right after the one before it. An appender that has seen ``last`` of any link, the newest or an
old one, inserts ``last + 1``. If that link has a successor, the successor's ``_id`` is that same
number, and ``_id`` is unique: refused. If it has none, it is the newest, and the new commit
becomes the next link. So a stale appender never falls *into* the range of another commit, for
ranges begin only at such numbers.

And whatever is read *after* the tail (ids, versions, conditions) still holds when the insert
succeeds: nothing was appended in between. Read before the tail, a commit in between would go
unnoticed.

The chain is cut where the database is put back to an older copy, or the log is made anew, while
an insert is under way: it would leave a gap, or land in another log. No server checks that at the
moment of the insert. So a tail is trusted for a moment only; and where an insert ended later than
that, it is looked whether the link before it still stands, known by its token, and if not the
insert is taken back. Nobody has passed it: readers refuse a gap, and so do appenders beneath the
tail.

A commit in parts is the same: its parts are written first, and confirmed as durably, then the one
document whose ``_id`` is the compare-and-set, which names them by its random token. Before it
stands nobody takes them for events; once it stands, all of them have stood before. If it never
does, they stay nobody's: whoever lost removes its own, and what a killed writer leaves is removed
once another commit stands in its place, for then it can never be completed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any, Final, NamedTuple, Self

import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo.errors import DuplicateKeyError, PyMongoError

from eventstore.backend import (
    INSTANT,
    Accepted,
    AnotherPastError,
    Batch,
    EventKey,
    Outcome,
    Trouble,
    keys_of,
    plan_over,
    translated,
    twins_of,
)
from eventstore.errors import (
    BatchTooLargeError,
    CorruptLogError,
    EventStoreError,
    LogReplacedError,
    StoreUnavailableError,
)
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_mongodb.keys import entity_key
from eventstore_mongodb.pieces import Piece
from eventstore_mongodb.reading import CommitReader
from eventstore_mongodb.records import ONLY_IDS, WITHOUT_EVENTS, Projection, Written, written
from eventstore_mongodb.translation import CONFLICT, in_doubt, several_inserted, understood
from eventstore_mongodb.walking import Commits

_FEW_COMMITS: Final = 64
"""So many commits of others, since the last one's tail, are read to bring what is known up to
date. Where there are more, it is forgotten, and looked up anew as far as it is needed."""
TRUSTED: Final = 0.03
"""Seconds after it was seen for which the tail is trusted to stand: less than it takes to restart
a server, and waited out by whoever removes a log."""
_KNOWN_ENTITIES: Final = 20_000
_PAUSE: Final = 0.002
"""Seconds that who has lost pauses at most. It does not grow: the longer a pause, the likelier
that the winner, who has none, wins again. With pauses that doubled up to 10 ms the slowest of four
racing processes had 0.3 of its fair share, with this 0.55, for 5 % less in all."""
_FRESH: Final = 0.1
"""Seconds after it was seen for which the tail is followed without another look …"""
_PROMPT: Final = 0.5
"""… seconds that the insert of a commit may take then before it is looked whether it was right:
together less than it takes to put a database back …"""
_BYTES_A_SECOND: Final = 2_000_000
"""… and for a large one as many more as it takes to send it at this rate."""
_PAUSE_IN_DOUBT: Final = 0.01
_PATIENCE: Final = 0.9
"""Of the time that is left, for which a gap is waited out: to say that it stays takes time too, and
an answer that comes too late would tell of an outage instead."""


class _Known(NamedTuple):
    """What an appender remembers from its last commit, so as not to ask again: appends to an
    entity that is known are two and a half times as fast as without the versions, and nearly four
    times as without any of it."""

    first: int
    """Where the newest commit begins; 0 in an empty log."""
    last: int
    token: bytes
    """That of the newest commit."""
    recorded_at: datetime | None
    versions: dict[str, int]
    """By ``entity_key``, as they are at ``last``; entities that are not here are not known."""
    seen_at: float
    """When a link of this chain was last seen to stand."""

    @classmethod
    def of(cls, tail: Piece | None, seen_at: float) -> Self:
        if tail is None:
            return cls(0, 0, b"", None, {}, seen_at)
        return cls(tail.first, tail.last, tail.token, tail.recorded_at, {}, seen_at)

    def with_news(self, tail: Piece, pieces: Sequence[Piece], seen_at: float) -> Self:
        """Return it brought up to a later tail; ``pieces`` hold what came since."""
        for piece in pieces:
            self.versions.update(piece.versions())
        return type(self)(
            tail.first, tail.last, tail.token, tail.recorded_at, self.versions, seen_at
        )


class Appender:
    """Appends to a log, for one thread at a time: the core has one that commits. So what it knows
    of the tail and of entities' versions needs no lock; and that it may be stale harms nobody, for
    the insert fails then. Each join has an appender of its own, which knows nothing."""

    def __init__(
        self,
        commits: Commits,
        reader: CommitReader,
        *,
        max_bytes: int,
        now: Callable[[], datetime],
        log_format: int,
        check_log: Callable[[], None],
        trusted: float,
        **session: Any,
    ) -> None:
        """``max_bytes`` is what a commit may have; ``check_log`` raises LogReplacedError where
        this is no longer the log that was opened; ``trusted`` is for how many seconds a tail
        is."""
        self._commits = commits
        self._put: Callable[[Sequence[RawBSONDocument]], None]
        self._put = partial(_put, commits, **session)
        self._log_format = log_format
        self._reader = reader
        self._max_bytes = max_bytes
        self._now = now
        self._check_log = check_log
        self._trusted = trusted
        self._known: _Known | None = None

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        """Commit a group as ``Backend.commit`` does."""
        deadline = time.monotonic() + timeout
        known, self._known = self._known, None  # kept only where all goes well
        known = self._caught_up(known, deadline, looked_to=_looked_to(group))
        view = _View(self._reader, self._now, known, group)
        while True:
            planned = plan_over(view, group)
            if not planned.accepted:
                # A new primary may lag; that nothing follows the tail is asked for beyond doubt.
                if self._reader.next_after(view.known.last) is None:
                    self._remember(view.known)
                    return planned.outcomes
            else:
                commit = written(planned.accepted, self._log_format)
                if commit.size > self._max_bytes:
                    return self._divided(group, commit.size, deadline)
                if self._insert(commit, view.known, deadline):
                    self._remember(_after(view.known, planned.accepted, commit.token))
                    return planned.outcomes
                self._remove(commit.parts, deadline)
            if time.monotonic() >= deadline:
                raise StoreUnavailableError(f"other appends were faster for {timeout:g} seconds")
            # Someone was faster. All who lost know it at the same moment; jitter parts them.
            time.sleep(random.random() * _PAUSE)  # noqa: S311 - no secret
            view = self._moved_on(view, group, deadline)

    def join(self, batch: Batch) -> Outcome:
        """Commit a batch within a transaction, in which this appender reads and inserts."""
        known = _Known.of(self._reader.tail(), time.monotonic())
        planned = plan_over(_View(self._reader, self._now, known, [batch]), [batch])
        if known.last < _looked_to([batch]) and isinstance(planned.outcomes[0], AnotherPastError):
            raise translated(CONFLICT)  # the transaction sees less than has been seen outside of it
        if planned.accepted:
            commit = written(planned.accepted, self._log_format)
            if commit.size > self._max_bytes:
                return self._too_large(commit.size)
            for documents in (commit.parts, [commit.commit]):
                if documents:
                    self._put(documents)
        return planned.outcomes[0]

    # --- What is known of the tail

    def _caught_up(self, known: _Known | None, deadline: float, *, looked_to: int = 0) -> _Known:
        """Return what is known, brought up to the tail of the log; ``looked_to`` is where someone
        else has seen it reach."""
        now = time.monotonic()
        if known is not None and known.last >= looked_to and now - known.seen_at < self._trusted:
            return known  # at worst stale: it loses, and looks then
        if known is not None and (news := self._follows(known, WITHOUT_EVENTS)) is not None:
            return known.with_news(*news, now)
        patience = now + (deadline - now) * _PATIENCE
        while True:
            now = time.monotonic()
            tail = self._reader.tail()
            self._check_log()
            if tail is None or tail.first == 1 or self._reader.ends_at(tail.first - 1):
                return _Known.of(tail, now)
            if now >= patience:
                raise CorruptLogError(
                    f"the event at sequence {tail.first - 1} is missing from the log"
                )
            # Whoever left the gap is about to take its commit back.
            time.sleep(random.random() * _PAUSE_IN_DOUBT)  # noqa: S311 - no secret

    def _follows(
        self, known: _Known, projection: Projection
    ) -> tuple[Piece, Sequence[Piece]] | None:
        """Return the tail and what came since, None where that cannot be told: the tail that was
        known is gone (the log was rewound or replaced), one of the commits is missing where shards
        were read at different moments, or there were too many."""
        if not known.last:
            return None
        commits = self._reader.since(known.last, _FEW_COMMITS, projection)
        if not commits or commits[0].token != known.token or len(commits) == _FEW_COMMITS:
            return None
        if any(before.last + 1 != after.first for before, after in pairwise(commits)):
            return None
        pieces = self._reader.pieces_of_all(commits[1:], projection)
        return None if pieces is None else (commits[-1], pieces)

    def _moved_on(self, view: _View, group: Sequence[Batch], deadline: float) -> _View:
        """Return what the planner asks for, brought up to the tail: by what came since if possible.

        That is one short read: so whoever has lost is quicker than one who begins, and nobody
        starves.
        """
        now = time.monotonic()
        news = self._follows(view.known, ONLY_IDS)
        ids = {event_id.bytes for _, event_id in keys_of(group)}
        if not news or any(not ids.isdisjoint(piece.ids()) for piece in news[1]):
            return _View(self._reader, self._now, self._caught_up(None, deadline), group)
        view.move_on(view.known.with_news(*news, now))
        return view

    def _remember(self, known: _Known) -> None:
        if len(known.versions) < _KNOWN_ENTITIES:
            self._known = known
        self._reader.seen = max(self._reader.seen, known.last)

    # --- Writing

    def _insert(self, commit: Written, known: _Known, deadline: float) -> bool:
        """Return True once the commit stands after what is known, False where it does not and
        another has taken its place, or what is known is gone.

        Where the answer was lost, or a majority has not confirmed, it looks, and asks again for
        the same: with this ``_id`` it can happen but once.
        """
        first, token = commit.first, commit.token
        parts_left = commit.parts
        is_sent = is_stored = is_repeated = False
        doubt: PyMongoError | None = None
        looked_at = known.seen_at
        while True:
            is_sending = False
            try:
                with pymongo.timeout(max(deadline - time.monotonic(), INSTANT)):
                    if is_repeated and not is_stored:
                        there = self._commits.find_one({"_id": first}, {"token": 1})
                        if there is not None and there["token"] != token:
                            return False
                        is_stored = there is not None
                    if parts_left:  # they must stand before what makes them visible
                        self._put(parts_left)
                        parts_left = []
                    if not is_stored:
                        # Whatever came since the look may have waited for a server that was away.
                        if time.monotonic() - looked_at >= _FRESH and not self._stands(known):
                            return False  # never leave a gap
                        is_sending = True
                        # Not to wait for a server that is away: it may come back as a copy from
                        # before, and would show this commit beyond a gap until it is taken back.
                        with pymongo.timeout(_PROMPT + len(commit.commit.raw) / _BYTES_A_SECOND):
                            self._put([commit.commit])
                        is_stored, is_sending = True, False
                    if doubt is None and time.monotonic() - known.seen_at < self._trusted:
                        return True
                    if self._stands(known):
                        return True
                    self._commits.delete_one({"_id": first, "token": token})
                    return False
            except DuplicateKeyError as error:
                if doubt is None:
                    return False
                doubt = error  # own or another's: to be seen once a majority has it
            except PyMongoError as error:
                fault = understood(error)
                is_sent |= is_sending and not fault.settled
                if is_stored or is_sent:
                    doubt = error
                if fault.trouble is not Trouble.PASSING:
                    raise translated(fault) if doubt is None else in_doubt(fault) from error
                if time.monotonic() >= deadline:
                    raise StoreUnavailableError(
                        "no answer came in time to whether the append was stored (the server is"
                        " gone, or another session's open transaction holds the log:"
                        f" db.currentOp() shows it): {fault.said}",
                        may_have_written=doubt is not None,
                    ) from error
            is_repeated, looked_at = True, -inf
            time.sleep(random.random() * _PAUSE_IN_DOUBT)  # noqa: S311 - no secret

    def _stands(self, known: _Known) -> bool:
        """Return whether the newest commit known is (still) there, in the log that was opened."""
        if known.last:
            there = self._commits.find_one({"_id": known.first}, {"token": 1})
            return there is not None and bool(there["token"] == known.token)
        try:
            self._check_log()
        except LogReplacedError:
            return False
        return True

    def _remove(self, parts: Sequence[RawBSONDocument], deadline: float) -> None:
        """Remove the parts of a commit that does not stand. What cannot be removed now is when a
        store is opened (see ``sweeping.py``)."""
        if parts:
            ids = [part["_id"] for part in parts]
            with (
                suppress(PyMongoError),
                pymongo.timeout(max(deadline - time.monotonic(), INSTANT)),
            ):
                self._commits.delete_many({"_id": {"$in": ids}})

    def _divided(self, group: Sequence[Batch], size: int, deadline: float) -> Sequence[Outcome]:
        """Commit a group that is too large as two."""
        if len(group) == 1:
            return [self._too_large(size)]
        half = len(group) // 2
        outcomes: list[Outcome] = []
        for part in (group[:half], group[half:]):
            try:
                outcomes += self.commit(part, deadline - time.monotonic())
            except EventStoreError as error:
                if not outcomes:
                    raise
                # What the first part has stored stands, and its callers are told so.
                outcomes += [error.again() for _ in part]
        return outcomes

    def _too_large(self, size: int) -> BatchTooLargeError:
        return BatchTooLargeError(
            f"the batch takes {size} bytes, but a batch may take as many as a MongoDB document,"
            f" {self._max_bytes}: append it in parts"
        )


class _View:
    """The log up to a tail that is known: what the planner asks for."""

    def __init__(
        self,
        reader: CommitReader,
        now: Callable[[], datetime],
        known: _Known,
        group: Sequence[Batch],
    ) -> None:
        self._reader = reader
        self.now = now
        self.known = known
        self._looked_to = 0
        self._matches: dict[tuple[int, int], int] = {}
        """What was found by ``first_match``, whatever comes later."""
        # The planner asks for twins and for witnesses; one look answers both.
        found = reader.with_ids([*keys_of(group), *_witnesses_of(group)], known.last)
        self._by_identity = twins_of(event for event in found if event.sequence <= known.last)

    def move_on(self, known: _Known) -> None:
        """Go on to a later tail of the same chain: what was seen still holds, since the link that
        was the newest stands."""
        self._looked_to, self.known = self.known.last, known

    def head(self) -> tuple[int, datetime | None]:
        return self.known.last, self.known.recorded_at

    def versions(self, entities: Collection[Entity]) -> Mapping[Entity, int]:
        versions = self.known.versions
        unknown = [entity for entity in entities if entity_key(entity) not in versions]
        found = self._reader.versions(unknown, self.known.last)
        versions.update((entity_key(entity), found.get(entity, 0)) for entity in unknown)
        return {entity: versions[entity_key(entity)] for entity in entities}

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        found = (self._by_identity.get((tenant_id, id_.bytes)) for tenant_id, id_ in keys)
        return [event for event in found if event is not None]

    def first_match(self, query: EventQuery, after: int, up_to: int) -> int:
        asked = id(query), after
        if not self._matches.get(asked) and (after := max(after, self._looked_to)) < up_to:
            self._matches[asked] = self._reader.first_match(query, after, up_to)
        return self._matches.get(asked, 0)


def _witnesses_of(group: Sequence[Batch]) -> list[EventKey]:
    conditions = (batch.condition for batch in group)
    return [each.witness for each in conditions if each is not None and each.witness is not None]


def _looked_to(group: Sequence[Batch]) -> int:
    """Return how far the core has seen the log reach."""
    conditions = (batch.condition for batch in group)
    return max((each.checked_to for each in conditions if each and each.witness), default=0)


def _put(commits: Commits, documents: Sequence[RawBSONDocument], **session: Any) -> None:
    if len(documents) == 1:
        commits.insert_one(documents[0], **session)
    else:
        with several_inserted():  # in a transaction, the first that is refused ends it
            commits.insert_many(documents, ordered=bool(session), **session)


def _after(known: _Known, accepted: Sequence[Accepted], token: bytes) -> _Known:
    """Return what is known once ``accepted`` stands."""
    for batch in accepted:
        for draft, version in zip(batch.drafts, batch.versions, strict=True):
            known.versions[entity_key(draft.entity)] = version
    final = accepted[-1]
    return _Known(
        accepted[0].first_sequence,
        final.first_sequence + len(final.drafts) - 1,
        token,
        final.recorded_at,
        known.versions,
        known.seen_at,
    )
