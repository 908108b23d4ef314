"""One open log: a backend with what every backend needs around it.

Group commit, retries within a deadline, closing, waking waiters, and starting anew in a
forked child. ``EventStore`` and its tenant views are the public face of a ``Log``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, TypeVar
from weakref import WeakSet

from eventstore._core.group_commit import GroupCommit, OneByOne
from eventstore._core.retrying import Answer, by_the_system, keep_trying, logger, settled
from eventstore.backend import Backend, PageRequest
from eventstore.backend.deadline import time_left, within
from eventstore.backend.opening import refusal_to_append
from eventstore.backend.planner import Batch, Outcome
from eventstore.backend.settings import Durability, Settings
from eventstore.errors import (
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from eventstore.event import Event

_T = TypeVar("_T")

_open_logs: Final[WeakSet[Log]] = WeakSet()
"""What a forked child must make anew."""


_LOOK: Final = 0.02
"""Seconds between two looks at the event that calls a wait off, for nobody tells of it."""


class CalledOff(Exception):  # noqa: N818 - no error: what its caller asked for
    """Ends a wait, wherever in it the thread sleeps."""


class Log:
    """An open backend, shared by an ``EventStore`` and its tenant views."""

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self.backend = backend
        self.settings = settings
        self._refusal = refusal_to_append(backend, settings)
        self._close_lock = threading.RLock()
        self._closed = False
        self._begin()
        _open_logs.add(self)

    def _begin(self) -> None:
        """Make what must not be shared with a parent process."""
        commit, max_group_bytes = self.backend.commit, self.backend.max_group_bytes
        self._commits = (
            GroupCommit(commit, max_group_bytes) if max_group_bytes else OneByOne(commit)
        )
        self._joined = threading.local()
        self._called_off = threading.local()
        self._stir = _Stir()

    # --- Writing

    def append(self, batches: Sequence[Batch]) -> Sequence[Answer]:
        """Commit ``batches`` in order, each by itself, and return what became of each.

        Raises StoreUnavailableError once time or retries have run out.
        """
        self._refuse_newer_format()
        self._refuse_self_deadlock()
        commits = self._commits
        answers = self.persist(
            lambda timeout: _available(commits.submit(batches, timeout)), _settled
        )
        self._stir.stir()
        return answers

    def join(self, connection: Any, batch: Batch) -> Outcome:
        """Commit ``batch`` inside the caller's transaction. Nothing is tried again there."""
        self.check_open()
        self._refuse_newer_format()
        outcome = self.in_one_call(
            lambda: self.backend.join(connection, batch, time_left(self.settings.timeout))
        )
        joined = self._open_joins_of_this_thread()
        if not any(other is connection for other in joined):
            joined.append(connection)
        return outcome

    def _refuse_newer_format(self) -> None:
        if self._refusal is not None:
            self.check_open()
            raise self._refusal.again()

    def _open_joins_of_this_thread(self) -> list[Any]:
        """Return the connections joined by this thread whose transaction is still open; others
        are let go, for they are the caller's."""
        joined: list[Any] | None = getattr(self._joined, "connections", None)
        if joined is None:
            joined = self._joined.connections = []
        if joined:
            joined[:] = [each for each in joined if self.backend.in_transaction(each)]
        return joined

    def _refuse_self_deadlock(self) -> None:
        if self._open_joins_of_this_thread():
            raise UnsupportedOperationError(
                "append: this thread holds an open transaction that an append has joined, and"
                " would wait for itself; end that transaction, or pass connection= here too"
            )

    # --- Reading

    def read(self, question: Callable[[Backend], _T]) -> _T:
        """Return ``question(backend)``, asked again while the engine does not answer."""
        return self.persist(lambda _: question(self.backend))

    def head(self) -> int:
        """Return the highest sequence, 0 when empty."""
        return self.persist(lambda _: self.backend.head())

    def page(self, request: PageRequest) -> list[Event]:
        """Return a page of events."""
        return self.persist(lambda _: self.backend.read(request))

    # --- Trying again

    def persist(
        self,
        attempt: Callable[[float], _T],
        in_doubt: Callable[[_T], _T] | None = None,
    ) -> _T:
        """Return what ``attempt(seconds left)`` returns; see ``keep_trying``."""
        if self._closed:
            self.check_open()
        try:
            return keep_trying(attempt, self.settings, self._sleep, in_doubt)
        except StoreUnavailableError as error:
            if self._closed and not error.may_have_written:
                raise StoreClosedError("the store was closed meanwhile") from error
            raise

    def in_one_call(self, work: Callable[[], _T]) -> _T:
        """Return ``work()``, which asks the engine more than once, within one timeout."""
        return within(self.settings.timeout, lambda _: work())

    # --- Waiting

    def until(self, stop: threading.Event | None, work: Callable[[], _T]) -> _T:
        """Return ``in_one_call(work)``; CalledOff once ``stop`` is set, and it would sleep."""
        if stop is None:
            return self.in_one_call(work)
        _refuse_to_go_on(stop)
        self._called_off.by = stop
        try:
            return self.in_one_call(work)
        finally:
            self._called_off.by = None

    def _sleep(self, seconds: float) -> None:
        """Sleep between two attempts. Appends of this store do not cut it short: they say nothing
        about the engine's being back. StoreClosedError once the store closes."""
        stop = getattr(self._called_off, "by", None)
        self._stir.wait_for(lambda: self._closed, seconds, stop)
        self.check_open()

    def napper(self, stop: threading.Event | None = None) -> Callable[[float], None]:
        """Return a sleep that ends early when this store appends or closes, and by CalledOff
        once ``stop`` is set.

        It remembers what it has seen, so that nothing is missed between two naps.
        """
        return self._stir.napper(stop)

    # --- Opening and closing

    def check_open(self) -> None:
        """Raise StoreClosedError after ``close``."""
        if self._closed:
            raise StoreClosedError("the store is closed")

    def close(self) -> None:
        """Refuse new calls, wait for appends in flight, let go of the engine, all within the
        store's timeout. Idempotent."""
        self._commits.refuse_reentry("close")
        with self._close_lock:
            if not self._closed:
                self._closed = True
                self.in_one_call(self._let_go)

    def _let_go(self) -> None:
        try:
            self._stir.stir()
            if not self._commits.close(time_left(self.settings.timeout)):
                logger.warning("closed while an append was still waiting for the engine")
        finally:  # Ctrl-C ends the wait; nobody could close the backend later
            try:
                self.backend.close()
            except OSError as error:
                raise by_the_system(error) from error
            finally:
                _open_logs.discard(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child; the parent's connections and queues are left alone."""
        self._close_lock = threading.RLock()
        self._begin()
        self.backend.after_fork()

    def durability_risks(self) -> Sequence[str]:
        """Return how the server may lose what it acknowledges (G8), where that matters."""
        if self.settings.durability is Durability.RELAXED:
            return ()
        return self.backend.durability_risks()


class _Stir:
    """Tells sleepers that something happened here."""

    def __init__(self) -> None:
        # Entered by itself, not through the condition: an interrupt within the latter's
        # __enter__, which is Python code, would leave it locked. Re-entrant for handlers.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._count = 0

    def stir(self) -> None:
        with self._lock:
            self._count += 1
            self._condition.notify_all()

    def wait_for(
        self, condition: Callable[[], bool], seconds: float, stop: threading.Event | None
    ) -> None:
        with self._lock:
            if stop is None:
                self._condition.wait_for(condition, seconds)
                return
            end = monotonic() + seconds
            while (left := end - monotonic()) > 0:
                _refuse_to_go_on(stop)
                if self._condition.wait_for(condition, min(left, _LOOK)):
                    return

    def napper(self, stop: threading.Event | None) -> Callable[[float], None]:
        seen = self._count

        def nap(seconds: float) -> None:
            nonlocal seen
            with self._lock:
                self.wait_for(lambda: self._count != seen, seconds, stop)
                seen = self._count

        return nap


def _refuse_to_go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise CalledOff


def _available(answers: Sequence[Answer]) -> Sequence[Answer]:
    """Return ``answers``, or raise the first that tells of an outage, to be tried again."""
    for answer in answers:
        if isinstance(answer, StoreUnavailableError):
            answer.may_have_written = any(map(_may_be_stored, answers))
            raise answer
    return answers


def _may_be_stored(answer: Answer) -> bool:
    if isinstance(answer, StoreUnavailableError):
        return answer.may_have_written
    return not isinstance(answer, Exception)


def _settled(answers: Sequence[Answer]) -> Sequence[Answer]:
    return _available([settled(answer) for answer in answers])


def _begin_anew_in_child() -> None:
    for log in list(_open_logs):
        try:
            log.after_fork()
        except Exception:  # noqa: BLE001 - one that fails must not keep the others from beginning anew
            logger.exception("a store could not begin anew after a fork")


os.register_at_fork(after_in_child=_begin_anew_in_child)
