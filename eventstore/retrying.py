"""Trying again within one deadline what an outage interrupted, and forgetting no doubt.

Repeating is safe: reads change nothing, and an append that was stored is recognised (G7). But
once an attempt may have stored something, no later one may end in an error that says it did not.
"""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVar

from eventstore.commit import Outcome
from eventstore.deadline import INSTANT, this_call
from eventstore.errors import (
    ConditionFailedError,
    ConfigurationError,
    DuplicateEventError,
    EventStoreError,
    StoreUnavailableError,
    VersionConflictError,
)
from eventstore.url import Settings

_T = TypeVar("_T")

logger: Final = logging.getLogger("eventstore")

Answer = Outcome | Exception
"""What became of a batch; an exception is to be raised in its caller."""

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_DOUBLINGS: Final = 5
"""After so many tries a pause is as long as it gets."""
_LAST_TRY: Final = 0.25
"""Seconds left to the last try, or a tenth of the timeout where that is less."""

_PASSING: Final = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EAGAIN,
        errno.EINTR,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
    }
)
_TO_BE_MENDED: Final = frozenset(
    {
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EINVAL,
    }
)


def keep_trying(
    attempt: Callable[[float], _T],
    settings: Settings,
    sleep: Callable[[float], None],
    in_doubt: Callable[[_T], _T] | None = None,
) -> _T:
    """Return what ``attempt(seconds left)`` returns, tried again while the engine is away: at
    most ``settings.retries`` times, and for the whole of ``settings.timeout``.

    ``sleep`` may raise to end it. ``in_doubt`` judges what is returned once an attempt before
    may have stored something.
    """

    # What ``within`` does is written out: this runs for every call of the store's.
    outer, now = this_call.end, monotonic()
    end = now + settings.timeout
    if outer is not None and outer < end:
        end = outer
    this_call.end = end
    try:
        try:
            return attempt(settings.timeout if outer is None else max(end - now, INSTANT))
        except (EventStoreError, OSError) as error:
            failures = _Failures(settings, end)
            failures.add(error)
        while True:
            try:
                sleep(failures.pause())
                answer = attempt(max(end - monotonic(), INSTANT))
            except (EventStoreError, OSError) as error:
                failures.add(error)
            else:
                return in_doubt(answer) if in_doubt and failures.may_have_written else answer
    finally:
        this_call.end = outer


class _Failures:
    """The attempts of one call that an outage interrupted."""

    def __init__(self, settings: Settings, end: float) -> None:
        self.may_have_written = False
        self._retries = settings.retries
        self._count = 0
        self._last_begin = end - min(_LAST_TRY, settings.timeout / 10)
        """When the last attempt begins."""

    def add(self, caught: EventStoreError | OSError) -> None:
        """Remember a failure; raise it where trying again is of no use, or too late."""
        error = caught if isinstance(caught, EventStoreError) else by_the_system(caught)
        if self.may_have_written:
            error = _unsettled(error)
        self._count += 1
        if not (
            isinstance(error, StoreUnavailableError)
            and error.transient
            and self._count <= self._retries
            and monotonic() < self._last_begin
        ):
            raise error from (caught.__cause__ if error is caught else caught)
        self.may_have_written = error.may_have_written
        if self._count == 1:
            logger.info("trying again: %s", error)

    def pause(self) -> float:
        """Return how many seconds to wait before the next attempt."""
        longest = min(_FIRST_PAUSE * 2 ** min(self._count - 1, _DOUBLINGS), _LONGEST_PAUSE)
        pause = random.uniform(0, longest)  # noqa: S311 - no secret
        return max(min(pause, self._last_begin - monotonic()), 0.0)


def settled(answer: Answer) -> Answer:
    """Return what may be said of a batch that an attempt before may have stored, or may yet
    store: only what stays true whatever becomes of that one."""
    if not isinstance(answer, EventStoreError):
        return answer
    if isinstance(answer, (DuplicateEventError, ConditionFailedError)) or (
        # The entity has passed the version that was expected, and never goes back.
        isinstance(answer, VersionConflictError)
        and 0 <= answer.expected_version < answer.actual_version
    ):
        return answer
    return _unsettled(answer)


def _unsettled(error: EventStoreError) -> StoreUnavailableError:
    """Return ``error`` as one that says that something may be stored."""
    if isinstance(error, StoreUnavailableError):
        error.may_have_written = True
        return error
    unknown = StoreUnavailableError(
        f"it is not known what became of an append whose answer was lost: {error}",
        may_have_written=True,
        transient=False,
    )
    unknown.__cause__ = error
    return unknown


def by_the_system(error: OSError) -> StoreUnavailableError | ConfigurationError:
    """Return what the operating system refused, a file or a socket, as an error of ours."""
    what = f"the operating system refused: {error.strerror or type(error).__name__}"
    if error.errno in _TO_BE_MENDED:
        return ConfigurationError(what + (f" ({error.filename!r})" if error.filename else ""))
    return StoreUnavailableError(what, transient=error.errno in _PASSING)
