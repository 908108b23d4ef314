"""From a driver's error to one of ours: an adapter says what happened, the rules and the kinds of
errors are here.

An adapter gives a function that looks at an error and returns a ``Fault``, or None for an error
that is none of its driver's. ``translating`` raises what that means, the driver's error chained;
so alike troubles are alike on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

import msgspec

from eventstore.errors import (
    BatchTooLargeError,
    ConfigurationError,
    CorruptLogError,
    EventStoreError,
    LogReplacedError,
    StoreUnavailableError,
    TransactionConflictError,
)


class Trouble(Enum):
    """What a driver's error means to the caller."""

    PASSING = "passing"
    """Not reached, lost, starting, overloaded: trying again may help. StoreUnavailableError."""
    LASTING = "lasting"
    """Trying again soon will not help: a wrong password, an unknown host or database, a full
    disk, a lock held for too long. StoreUnavailableError that is not ``transient``."""
    MISFIT = "misfit"
    """It is not as it must be: a missing right, a table of somebody else's. ConfigurationError."""
    REPLACED = "replaced"
    """The log is not the one that was opened. LogReplacedError."""
    CORRUPT = "corrupt"
    """What is stored cannot be what we wrote. CorruptLogError."""
    TOO_LARGE = "too large"
    """The engine cannot take so much at once. BatchTooLargeError."""
    CONFLICT = "conflict"
    """The caller's own transaction must run again. TransactionConflictError."""


class Fault(msgspec.Struct, frozen=True):
    """A driver's error, understood."""

    trouble: Trouble
    said: str
    """For the user, on one line: no stack of the driver's, no password."""
    settled: bool = True
    """Whether the engine is sure to have done nothing. False: the answer was lost, so what was
    sent may have been done."""


Classify = Callable[[BaseException], Fault | None]


@contextmanager
def translating(classify: Classify, what: str = "", *, writes: bool = False) -> Iterator[None]:
    """Raise a driver's errors as ours, each message beginning with ``what``.

    ``writes`` where the block may store something: then so may have what was not settled.
    """
    try:
        yield
    except EventStoreError:
        raise
    except Exception as error:
        fault = classify(error)
        if fault is None:
            raise
        raise translated(fault, what, writes=writes) from error


def translated(fault: Fault, what: str = "", *, writes: bool = False) -> EventStoreError:
    """Return the error that tells of a fault; see ``translating``."""
    message = f"{what}: {fault.said}" if what else fault.said
    if fault.trouble in (Trouble.PASSING, Trouble.LASTING):
        return StoreUnavailableError(
            message,
            may_have_written=writes and not fault.settled,
            transient=fault.trouble is Trouble.PASSING,
        )
    return _ERRORS[fault.trouble](message)


def replaced(namespace: str) -> LogReplacedError:
    """Return the error for a log that is no longer the one that was opened."""
    return LogReplacedError(
        f"the log {namespace!r} was removed or replaced while this store was open: open it anew"
    )


_ERRORS: dict[Trouble, type[EventStoreError]] = {
    Trouble.MISFIT: ConfigurationError,
    Trouble.REPLACED: LogReplacedError,
    Trouble.CORRUPT: CorruptLogError,
    Trouble.TOO_LARGE: BatchTooLargeError,
    Trouble.CONFLICT: TransactionConflictError,
}
