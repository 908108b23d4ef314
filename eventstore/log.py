"""One open log: a backend with what every backend needs around it.

Group commit, retries within a deadline, closing, waking waiters, and starting anew in a
forked child. ``EventStore`` and its tenant views are the public face of a ``Log``.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, TypeVar
from weakref import WeakSet

import tenacity

from eventstore.backend import Backend, PageRequest
from eventstore.commit import Batch, Outcome
from eventstore.deadline import INSTANT, deadline
from eventstore.errors import (
    ConfigurationError,
    DurabilityWarning,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from eventstore.event import Event
from eventstore.group_commit import Answer, GroupCommit, OneByOne
from eventstore.url import Durability, Settings

_T = TypeVar("_T")

logger: Final = logging.getLogger("eventstore")

_open_logs: Final[WeakSet[Log]] = WeakSet()
"""What a forked child must make anew."""


class Log:
    """An open backend, shared by an ``EventStore`` and its tenant views."""

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self.backend = backend
        self.settings = settings
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
        self._stir = _Stir()

    # --- Writing

    def append(self, batches: Sequence[Batch]) -> Sequence[Answer]:
        """Commit ``batches`` in order, each by itself, and return what became of each.

        Raises StoreUnavailableError once time or retries have run out.
        """
        self._refuse_self_deadlock()
        commits = self._commits
        answers = self.persist(lambda timeout: _available(commits.submit(batches, timeout)))
        self._stir.stir()
        return answers

    def join(self, connection: Any, batch: Batch) -> Outcome:
        """Commit ``batch`` inside the caller's transaction. Nothing is tried again there."""
        self.check_open()
        outcome = self.backend.join(connection, batch, self.settings.timeout)
        joined = self._open_joins_of_this_thread()
        if not any(other is connection for other in joined):
            joined.append(connection)
        return outcome

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

    def persist(self, attempt: Callable[[float], _T]) -> _T:
        """Return what ``attempt(seconds left)`` returns; try again what an outage interrupted.

        Repeating is safe: reads change nothing, and an append that was stored is recognised.
        """
        with deadline(self.settings.timeout) as call:
            return self._persist(attempt, call.end)

    def _persist(self, attempt: Callable[[float], _T], end: float) -> _T:
        self.check_open()
        try:
            return attempt(max(end - monotonic(), INSTANT))
        except StoreUnavailableError as error:
            may_have_written = error.may_have_written
            if self._closed and not may_have_written:
                raise _closed_meanwhile() from error
            if not error.transient or not self.settings.retries or monotonic() >= end:
                raise
            logger.info("trying again: %s", error)

        def again() -> _T:
            nonlocal may_have_written
            try:
                return attempt(max(end - monotonic(), INSTANT))
            except StoreUnavailableError as error:
                may_have_written |= error.may_have_written
                error.may_have_written = may_have_written
                if self._closed and not may_have_written:
                    raise _closed_meanwhile() from error
                raise
            except StoreClosedError as error:
                if not may_have_written:
                    raise
                raise StoreUnavailableError(
                    "the store was closed before it was known what became of an append",
                    may_have_written=True,
                    transient=False,
                ) from error

        def is_over(state: tenacity.RetryCallState) -> bool:
            return (
                self._closed
                or state.attempt_number >= self.settings.retries
                or monotonic() + state.upcoming_sleep >= end
            )

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, StoreUnavailableError) and error.transient
            ),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=1.0),
            stop=is_over,
            sleep=self._sleep,
            reraise=True,
        )(again)

    # --- Waiting

    def _sleep(self, seconds: float) -> None:
        """Sleep, unless the store closes; what it appends meanwhile is no reason to hurry."""
        self._stir.wait_for(lambda: self._closed, seconds)

    def napper(self) -> Callable[[float], None]:
        """Return a sleep that ends early when this store appends or closes.

        It remembers what it has seen, so that nothing is missed between two naps.
        """
        return self._stir.napper()

    # --- Opening and closing

    def check_open(self) -> None:
        """Raise StoreClosedError after ``close``."""
        if self._closed:
            raise StoreClosedError("the store is closed")

    def close(self) -> None:
        """Refuse new calls, wait for appends in flight, let go of the engine. Idempotent."""
        self._commits.refuse_reentry("close")
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._stir.stir()
                if not self._commits.close(self.settings.timeout):
                    logger.warning("closed while an append was still waiting for the engine")
            finally:  # Ctrl-C ends the wait; nobody could close the backend later
                self.backend.close()
                _open_logs.discard(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child; the parent's connections and queues are left alone."""
        self._close_lock = threading.RLock()
        self._begin()
        self.backend.after_fork()

    def report_durability(self) -> None:
        """Warn of, or refuse, a server that may lose what it acknowledges (G8)."""
        durability = self.settings.durability
        if durability is Durability.RELAXED:
            return
        for risk in self.backend.durability_risks():
            if durability is Durability.STRICT:
                raise ConfigurationError(f"durability: strict is asked for, but {risk}")
            warnings.warn(risk, DurabilityWarning, stacklevel=3)


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

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        with self._lock:
            self._condition.wait_for(condition, seconds)

    def napper(self) -> Callable[[float], None]:
        seen = self._count

        def nap(seconds: float) -> None:
            nonlocal seen
            with self._lock:
                self._condition.wait_for(lambda: self._count != seen, seconds)
                seen = self._count

        return nap


def _closed_meanwhile() -> StoreClosedError:
    return StoreClosedError("the store was closed meanwhile")


def _available(answers: Sequence[Answer]) -> Sequence[Answer]:
    """Return ``answers``, or raise the first that tells of an outage, to be tried again."""
    for answer in answers:
        if isinstance(answer, StoreUnavailableError):
            raise answer
    return answers


def _begin_anew_in_child() -> None:
    for log in list(_open_logs):
        try:
            log.after_fork()
        except Exception:  # one that fails must not keep the others from beginning anew
            logger.exception("a store could not begin anew after a fork")


os.register_at_fork(after_in_child=_begin_anew_in_child)
