"""Trying again within one deadline what an outage interrupted, and forgetting no doubt.

Repeating is safe: reads change nothing, and an append that was stored is recognised (G7). But
once an attempt may have stored something, no later one may end in an error that says it did not.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVar

import tenacity

from eventstore.backend.deadline import INSTANT, this_call
from eventstore.backend.planner import Outcome
from eventstore.backend.settings import Settings
from eventstore.errors import (
    ConditionFailedError,
    ConfigurationError,
    DuplicateEventError,
    EventStoreError,
    StoreUnavailableError,
    VersionConflictError,
)

_T = TypeVar("_T")
_S = TypeVar("_S")

logger: Final = logging.getLogger("eventstore")

Answer = Outcome | Exception
"""What became of a batch; an exception is to be raised in its caller."""

_backoff: Final = tenacity.wait_random_exponential(multiplier=0.05, max=1.0)
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
        except (EventStoreError, OSError) as caught:
            error = _ours(caught)
            if not _is_passing(error) or not settings.retries:
                raise error from _cause(error, caught)
        logger.info("trying again: %s", error)
        return _try_again(attempt, settings, error, end=end, sleep=sleep, in_doubt=in_doubt)
    finally:
        this_call.end = outer


def _try_again(
    attempt: Callable[[float], _T],
    settings: Settings,
    error: EventStoreError,
    *,
    end: float,
    sleep: Callable[[float], None],
    in_doubt: Callable[[_T], _T] | None,
) -> _T:
    """Go on after a first attempt that met ``error``."""
    last_begin = end - min(_LAST_TRY, settings.timeout / 10)
    may_have_written = _wrote(error)

    def remembering(step: Callable[[float], _S], seconds: float) -> _S:
        nonlocal may_have_written
        try:
            return step(seconds)
        except (EventStoreError, OSError) as caught:
            error = _ours(caught)
            if may_have_written:
                error = _unsettled(error)
            may_have_written = _wrote(error)
            raise error from _cause(error, caught)

    def again() -> _T:
        answer = remembering(attempt, max(end - monotonic(), INSTANT))
        return in_doubt(answer) if in_doubt and may_have_written else answer

    def is_over(state: tenacity.RetryCallState) -> bool:
        return state.attempt_number >= settings.retries or monotonic() >= last_begin

    def pause(state: tenacity.RetryCallState) -> float:
        return max(min(_backoff(state), last_begin - monotonic()), 0.0)

    if monotonic() >= last_begin:
        raise error
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_passing),
        stop=is_over,
        wait=pause,
        sleep=lambda seconds: remembering(sleep, seconds),
        reraise=True,
    )(again)


def _ours(caught: EventStoreError | OSError) -> EventStoreError:
    return caught if isinstance(caught, EventStoreError) else by_the_system(caught)


def _cause(error: EventStoreError, caught: EventStoreError | OSError) -> BaseException | None:
    return caught.__cause__ if error is caught else caught


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailableError) and error.transient


def _wrote(error: EventStoreError) -> bool:
    return isinstance(error, StoreUnavailableError) and error.may_have_written


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
