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
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Self

import bson
import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo.errors import DuplicateKeyError, PyMongoError

from eventstore.backend import PageRequest
from eventstore.commit import (
    Accepted,
    Batch,
    LogState,
    Outcome,
    entities_of,
    keys_of,
    plan,
    twins_of,
)
from eventstore.errors import BatchTooLargeError, StoreUnavailableError
from eventstore_mongodb.documents import OPTIONS, RAW, StoredCommit, commit_of, entity_key
from eventstore_mongodb.reading import CommitReader, Commits
from eventstore_mongodb.server import is_passing, surely_unsent, translated

_CATCH_UP: Final = 64
"""Commits of others looked through one by one, rather than to forget what was known."""
_TRUSTED: Final = 1.0
"""Seconds after a commit for which the tail is not asked for again. (If nobody interfered, it
need never be: but if the database was restored from a copy meanwhile, the next commit would
leave a gap. After an error of any kind all is asked for.)"""
_KNOWN_ENTITIES: Final = 20_000
_PAUSE: Final = 0.002
"""Seconds that who has lost pauses at most. It does not grow: the longer a pause, the likelier
that the winner, who has none, wins again. With pauses that doubled up to 10 ms the slowest of four
racing processes had 0.3 of its fair share, with this 0.55, for 5 % less in all."""
_PAUSE_IN_DOUBT: Final = 0.01


class _Known(NamedTuple):
    """What an appender remembers from its last commit, so as not to ask again."""

    last: int
    recorded_at: datetime | None
    versions: dict[str, int]
    """By ``entity_key``, as they are at ``last``; entities that are not here are not known."""

    @classmethod
    def of(cls, tail: StoredCommit | None) -> Self:
        return cls(tail.last, tail.recorded_at, {}) if tail else cls(0, None, {})

    def with_commits(self, commits: Sequence[StoredCommit]) -> Self:
        """Return it brought up to the last of ``commits``, which follow."""
        for commit in commits:
            self.versions.update(commit.versions())
        if not commits:
            return self
        return self._replace(last=commits[-1].last, recorded_at=commits[-1].recorded_at)


class Appender:
    """Appends to a log, for one thread at a time."""

    def __init__(
        self,
        commits: Commits,
        reader: CommitReader,
        *,
        max_bytes: int,
        now: Callable[[], datetime],
        insert: Callable[[RawBSONDocument], object],
    ) -> None:
        """``max_bytes`` is what a document may have; ``insert`` puts one into ``commits``."""
        self._commits = commits
        self._put = insert
        self._reader = reader
        self._max_bytes = max_bytes
        self._now = now
        self._known: _Known | None = None
        self._known_since = 0.0

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        """Commit a group as ``Backend.commit`` does."""
        deadline = time.monotonic() + timeout
        known, self._known = self._known, None  # kept only where all goes well
        known = self._caught_up(known)
        state = self._state(group, known)
        while True:
            planned = plan(group, state)
            if not planned.accepted:
                # A new primary may lag; that nothing follows the tail is asked for beyond doubt.
                if self._reader.next_after(known.last) is None:
                    self._remember(known)
                    return planned.outcomes
            else:
                document = self._document(planned.accepted)
                if len(document.raw) > self._max_bytes:
                    return self._in_parts(group, len(document.raw), deadline)
                if self._insert(document, deadline):
                    self._remember(_after(known, planned.accepted))
                    return planned.outcomes
            if time.monotonic() >= deadline:
                raise StoreUnavailableError(f"other appends were faster for {timeout:g} seconds")
            # Someone was faster. All who lost know it at the same moment; jitter parts them.
            time.sleep(random.random() * _PAUSE)  # noqa: S311 - no secret
            known, state = self._news(group, known, state)

    def join(self, batch: Batch) -> Outcome:
        """Commit a batch within a transaction, in which this appender reads and inserts."""
        known = _Known.of(self._reader.tail())
        planned = plan([batch], self._state([batch], known))
        if planned.accepted:
            document = self._document(planned.accepted)
            if len(document.raw) > self._max_bytes:
                return self._too_large(len(document.raw))
            self._put(document)
        return planned.outcomes[0]

    # --- What the planner asks for

    def _state(self, group: Sequence[Batch], known: _Known) -> LogState:
        """Return what the planner asks for. The tail was read before all of it."""
        versions = known.versions
        entities = entities_of(group)
        unknown = [entity for entity in entities if entity_key(entity) not in versions]
        found = self._reader.versions(unknown)
        versions.update((entity_key(entity), found.get(entity, 0)) for entity in unknown)
        twins = self._reader.with_ids(keys_of(group))
        return LogState(
            head=known.last,
            recorded_at=known.recorded_at,
            now=self._now(),
            versions={entity: versions[entity_key(entity)] for entity in entities},
            twins=twins_of(twins),
            matches=[self._first_match(batch, known.last, 0) for batch in group],
        )

    def _first_match(self, batch: Batch, head: int, looked_to: int) -> int:
        """Return the sequence of an event that fails the batch's condition, of those that
        neither the core nor the last attempt has looked at; 0 if there is none."""
        condition = batch.condition
        if condition is None or (after := max(condition.checked_to, looked_to)) >= head:
            return 0
        page = PageRequest(query=condition.query, after=after, up_to=head, limit=1)
        found = self._reader.page(page)
        return found[0].sequence if found else 0

    def _caught_up(self, known: _Known | None) -> _Known:
        """Return what is known, brought up to the tail of the log."""
        if known is not None and time.monotonic() - self._known_since < _TRUSTED:
            return known  # at worst stale: it loses, and looks then
        if known is not None and known.last:
            commits = self._reader.since(known.last, _CATCH_UP)
            # If the one we knew is gone, the log was rewound.
            if commits and commits[0].last == known.last and _follow(known, commits[1:]):
                return known.with_commits(commits[1:])
        return _Known.of(self._reader.tail())

    def _news(
        self, group: Sequence[Batch], known: _Known, state: LogState
    ) -> tuple[_Known, LogState]:
        """Return ``known`` and ``state`` brought up to the tail, by what came since if possible.

        That is one short read: so whoever has lost is quicker than one who begins, and nobody
        starves.
        """
        commits = self._reader.after(known.last, _CATCH_UP)
        ids = {event_id.bytes for _, event_id in keys_of(group)}
        if not commits or not _follow(known, commits) or any(ids & new.ids() for new in commits):
            known = self._caught_up(None)
            return known, self._state(group, known)
        looked_to, known = known.last, known.with_commits(commits)
        return known, LogState(
            head=known.last,
            recorded_at=known.recorded_at,
            now=self._now(),
            versions={entity: known.versions[entity_key(entity)] for entity in state.versions},
            twins=state.twins,
            matches=[
                match or self._first_match(batch, known.last, looked_to)
                for batch, match in zip(group, state.matches, strict=True)
            ],
        )

    def _remember(self, known: _Known) -> None:
        if len(known.versions) < _KNOWN_ENTITIES:
            self._known = known
            self._known_since = time.monotonic()
        self._reader.seen = max(self._reader.seen, known.last)

    # --- Writing

    def _document(self, accepted: Sequence[Accepted]) -> RawBSONDocument:
        document = commit_of(accepted, token=os.urandom(12))
        return RawBSONDocument(bson.encode(document, codec_options=OPTIONS), RAW)

    def _insert(self, document: RawBSONDocument, deadline: float) -> bool:
        """Return True once the commit stands, False where another has taken its place.

        Where the answer was lost, or a majority has not confirmed, it looks, and asks again for
        the same: with this ``_id`` it can happen but once.
        """
        first, token = document["_id"], document["token"]
        doubt: PyMongoError | None = None
        while True:
            try:
                with pymongo.timeout(max(deadline - time.monotonic(), 0.001)):
                    if doubt is not None:
                        there = self._commits.find_one({"_id": first}, {"token": 1})
                        if there is not None:
                            return bool(there["token"] == token)
                        before = {"last": first - 1}
                        if first > 1 and not self._commits.find_one(before, {"_id": 1}):
                            return False  # the log was rewound: never leave a gap
                    self._put(document)
                    return True
            except DuplicateKeyError as error:
                if doubt is None:
                    return False
                doubt = error  # own or another's: to be seen once a majority has it
            except PyMongoError as error:
                if not is_passing(error):
                    raise translated(error) from error
                if doubt is not None or not surely_unsent(error):
                    doubt = error
                if time.monotonic() >= deadline:
                    raise StoreUnavailableError(
                        "no answer came in time to whether the append was stored (the server is"
                        " gone, or another session's open transaction holds the log:"
                        f" db.currentOp() shows it): {error}",
                        may_have_written=doubt is not None,
                    ) from error
            time.sleep(random.random() * _PAUSE_IN_DOUBT)  # noqa: S311 - no secret

    def _in_parts(self, group: Sequence[Batch], size: int, deadline: float) -> Sequence[Outcome]:
        """Commit a group that is too large for a document as two."""
        if len(group) == 1:
            return [self._too_large(size)]
        half = len(group) // 2
        return [
            outcome
            for part in (group[:half], group[half:])
            for outcome in self.commit(part, deadline - time.monotonic())
        ]

    def _too_large(self, size: int) -> BatchTooLargeError:
        return BatchTooLargeError(
            f"the batch takes {size} bytes, but a MongoDB document, so a batch, at most"
            f" {self._max_bytes}: append it in parts"
        )


def _after(known: _Known, accepted: Sequence[Accepted]) -> _Known:
    """Return what is known once ``accepted`` stands."""
    for batch in accepted:
        for draft, version in zip(batch.drafts, batch.versions, strict=True):
            known.versions[entity_key(draft.entity)] = version
    final = accepted[-1]
    return _Known(final.first_sequence + len(final.drafts) - 1, final.recorded_at, known.versions)


def _follow(known: _Known, commits: Sequence[StoredCommit]) -> bool:
    """Return whether ``commits`` are all that came since: one may be missing where shards were
    read at different moments, or where there were too many."""
    lasts = [known.last, *(commit.last for commit in commits)]
    chained = all(last + 1 == commit.first for last, commit in zip(lasts, commits, strict=False))
    return chained and len(commits) < _CATCH_UP - 1
