"""Group commit: appends of many threads travel to the engine in one commit.

The first thread in becomes the leader and commits what has queued up, its own batch first, as
one group; then it hands leadership to the oldest batch still queued. A single thread pays
nothing, and many share the cost of one flush. The idea is that of database logs (DeWitt et al.,
"Implementation techniques for main memory database systems", 1984).

What may interrupt it: KeyboardInterrupt can be raised in the main thread after almost any
bytecode. So everything shared changes under one lock, by single assignments; leaving is
idempotent and tried twice, so that one interrupt in the middle of it is repaired; and a
batch that was taken but not answered is put back for its own caller to see through, which G7
makes safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from eventstore._core.retrying import Answer, by_the_system, settled
from eventstore.backend.deadline import INSTANT
from eventstore.backend.planner import Batch, Outcome
from eventstore.errors import (
    EventStoreError,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedOperationError,
)

Commit = Callable[[Sequence[Batch], float], Sequence[Outcome]]
"""``Backend.commit``."""

_FOREVER: Final = threading.TIMEOUT_MAX
_SLOW_COMMIT: Final = 0.0004
"""Seconds from which a commit is slow enough for company to be worth a wait."""
_GAP: Final = 0.0003
"""Seconds that a leader waits for the next newcomer. Who returns from the last group and appends
again takes less than that to be back; once nobody has come for so long, nobody will."""


class _Ticket:
    """One caller's batches on their way through a group."""

    __slots__ = ("abandoned", "answers", "batches", "put_back", "wake")

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches
        self.answers: Sequence[Answer] | None = None
        """One for each batch, once they are settled."""
        self.abandoned = False
        """Its caller has left and will not look again."""
        self.put_back = False
        """It was in a group whose leader was interrupted, and may have been stored by that."""
        self.wake = threading.Lock()
        """The bell of its caller, who sleeps by acquiring this lock: it is taken from the start,
        and released (``call``) when there is something to look at. That is: the ticket is settled
        or has become the leader's; or, where the leader waits for company, that is complete."""
        self.wake.acquire()

    @property
    def weight(self) -> int:
        return sum(batch.weight for batch in self.batches)

    def call(self) -> None:
        """Wake its caller; harmless when repeated."""
        if self.wake.locked():
            self.wake.release()


class OneByOne:
    """The way to a backend whose commits cost nothing that could be shared (memory)."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._closed = False
        self._inside: set[int] = set()
        """The threads that are in ``submit``."""

    def submit(self, batches: Sequence[Batch], timeout: float) -> Sequence[Answer]:
        """Commit ``batches`` in order, each by itself; return what became of each.

        Raises StoreUnavailableError where the engine could not be reached or ``timeout``
        seconds have passed, StoreClosedError, and UnsupportedOperationError where this thread
        is in the middle of an append already (a signal or logging handler that appends).
        """
        self.refuse_reentry("append")
        me = threading.get_ident()
        try:
            self._inside.add(me)
            with self._lock:
                if self._closed:
                    raise StoreClosedError("the store is closed")
                return self._commit_all(batches, monotonic() + timeout)
        finally:
            self._inside.discard(me)

    def close(self, timeout: float) -> bool:
        """Refuse new batches, wait for those in flight; return whether all were settled."""
        self._closed = True
        if not self._lock.acquire(timeout=timeout):
            return False
        self._lock.release()
        return True

    def refuse_reentry(self, what: str) -> None:
        """Raise UnsupportedOperationError if this thread is in the middle of an append."""
        if threading.get_ident() in self._inside:
            raise UnsupportedOperationError(
                f"{what}: this thread is in the middle of an append (a signal or logging handler"
                f" interrupted it?); it would wait for itself"
            )

    def _commit_all(self, batches: Sequence[Batch], deadline: float) -> Sequence[Answer]:
        """Commit as one; what the engine refuses as a whole, batch by batch, so that one bad
        batch fails alone."""
        try:
            return self._commit(batches, max(deadline - monotonic(), INSTANT))
        except StoreUnavailableError as error:
            return [error.again() for _ in batches]
        except OSError as error:
            return [_lost(error) for _ in batches]
        except Exception as error:  # noqa: BLE001 - handed to its caller, or tried alone
            if len(batches) == 1:
                return [error]
            nothing_written = isinstance(error, EventStoreError)
        answers = [self._commit_all([batch], deadline)[0] for batch in batches]
        return answers if nothing_written else [settled(answer) for answer in answers]


class GroupCommit(OneByOne):
    """The queue in front of one backend's ``commit``."""

    def __init__(self, commit: Commit, max_group_bytes: int) -> None:
        super().__init__(commit)
        self._max_group_bytes = max_group_bytes
        self._idle = threading.Condition(self._lock)
        self._queue: list[_Ticket] = []
        """Waiting to be taken, oldest first. A leader about to begin stands first."""
        self._group: Sequence[_Ticket] = ()
        """Taken by the leader, being committed."""
        self._leader: _Ticket | None = None
        self._last_size = 0
        """How many callers the last group had …"""
        self._last_seconds = 0.0
        """… how long its commit took …"""
        self._last_end = 0.0
        """… and when that was over."""

    def submit(self, batches: Sequence[Batch], timeout: float) -> Sequence[Answer]:
        self.refuse_reentry("append")
        me = threading.get_ident()
        ticket = _Ticket(batches)
        deadline = monotonic() + timeout
        try:
            self._inside.add(me)
            self._enqueue(ticket)
            self._await_turn(ticket, deadline)
            if ticket.answers is None:
                self._lead(ticket, deadline)
            assert ticket.answers is not None  # noqa: S101 - settled, or an error was raised
            if ticket.put_back:
                return [settled(answer) for answer in ticket.answers]
            return ticket.answers
        finally:
            try:
                self._settle(ticket, me)
            finally:
                self._settle(ticket, me)

    def close(self, timeout: float) -> bool:
        with self._lock:
            self._closed = True
            return self._idle.wait_for(lambda: self._leader is None, timeout)

    def _enqueue(self, ticket: _Ticket) -> None:
        with self._lock:
            if self._closed:
                raise StoreClosedError("the store is closed")
            queue = [*self._queue, ticket]
            if self._leader is None:
                self._leader = ticket
            self._queue = queue
            if len(queue) == self._last_size:
                self._leader.call()  # if it waits for company, that is complete

    def _await_turn(self, ticket: _Ticket, deadline: float) -> None:
        """Return once ``ticket`` is settled or leads."""
        if self._leader is ticket:
            return
        while True:
            woken = ticket.wake.acquire(timeout=min(max(deadline - monotonic(), 0.0), _FOREVER))
            if ticket.answers is not None:
                return
            # Under the lock, for a heir is called a moment before it is made the leader.
            with self._lock:
                if ticket.answers is not None or self._leader is ticket:
                    return
                if not woken:
                    raise StoreUnavailableError(
                        "timed out waiting for the append before this one",
                        may_have_written=ticket.put_back or ticket in self._group,
                    )

    def _lead(self, ticket: _Ticket, deadline: float) -> None:
        self._await_company(ticket)
        group = self._take_group()
        batches = [batch for member in group for batch in member.batches]
        began = monotonic()
        answers = self._commit_all(batches, deadline)
        self._last_end = monotonic()
        self._last_size, self._last_seconds = len(group), self._last_end - began
        start = 0
        for member in group:
            end = start + len(member.batches)
            member.answers = answers[start:end]
            start = end

    def _await_company(self, ticket: _Ticket) -> None:
        """Let the callers of a large group come back before the next one begins.

        Woken all at once, they need the interpreter one after another; the first one back
        would commit alone and the others wait for a second flush. So the leader waits while
        they keep coming, until all are there.
        """
        if (
            self._last_size < 2
            or self._last_seconds < _SLOW_COMMIT
            or monotonic() - self._last_end > _GAP
        ):
            return
        here = 0
        while here < len(self._queue) < self._last_size:
            here = len(self._queue)
            ticket.wake.acquire(timeout=_GAP)

    def _take_group(self) -> Sequence[_Ticket]:
        with self._lock:
            queue = self._queue
            size = 1
            if len(queue) > 1:
                weight = queue[0].weight
                while size < len(queue):
                    weight += queue[size].weight
                    if weight > self._max_group_bytes:
                        break
                    size += 1
            self._group, self._queue = queue[:size], queue[size:]
            return self._group

    def _settle(self, ticket: _Ticket, thread: int) -> None:
        self._leave(ticket)
        self._inside.discard(thread)

    def _leave(self, ticket: _Ticket) -> None:
        """Withdraw what is not taken; as the leader, settle the group and hand over."""
        if ticket.answers is not None and self._leader is not ticket:
            return
        with self._lock:
            ticket.abandoned = True
            if self._leader is not ticket:
                self._queue = _without(ticket, self._queue)
                return
            unanswered = _unanswered(self._group)
            for other in self._group:
                if other.answers is not None:
                    other.call()
            for other in unanswered:
                other.put_back = True
            rest = _without(ticket, self._queue)
            self._group, self._queue = (), unanswered + rest
            if self._queue:
                # In this order: an interrupt in between is mended by leaving again.
                self._queue[0].call()
                self._leader = self._queue[0]
            else:
                self._leader = None
                self._idle.notify_all()


def _lost(error: OSError) -> StoreUnavailableError:
    """Return what the operating system refused in the middle of a commit, at whatever place."""
    what = by_the_system(error)
    lost = StoreUnavailableError(
        str(what),
        may_have_written=True,
        transient=isinstance(what, StoreUnavailableError) and what.transient,
    )
    lost.__cause__ = error
    return lost


# Functions of their own: from Python 3.12 on, an interrupt in a comprehension that stands inside
# a with block was seen to pass by the block's end, and to leave the lock held.


def _without(ticket: _Ticket, queue: Sequence[_Ticket]) -> list[_Ticket]:
    return [other for other in queue if other is not ticket]


def _unanswered(group: Sequence[_Ticket]) -> list[_Ticket]:
    return [other for other in group if other.answers is None and not other.abandoned]
