"""What the driver's errors mean."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pymongo
from bson.errors import BSONError
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    InvalidName,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)

from eventstore.backend import INSTANT, Fault, Trouble, translating
from eventstore.errors import StoreUnavailableError

_REPEATED: Final = re.compile(
    r"(?s), (full error|Timeout): .*| ?\(configured timeouts: [^)]*\)|\[Errno -?\d+\] "
)
"""What the driver says once more, or of itself: the whole reply, its view of all servers."""
_ERRNO: Final = re.compile(r"\[Errno (-?\d+)\]")
_UNKNOWN_HOST: Final = {str(socket.EAI_NONAME), str(getattr(socket, "EAI_NODATA", ""))}

_UNAUTHORIZED: Final = 13
_DUPLICATE: Final = 11000
_OUT_OF_DISK: Final = 14031
_WRONG_PASSWORD: Final = frozenset({11, 18})
_OF_ATLAS: Final = 8000
_PASSING: Final = frozenset(
    {6, 7, 50, 89, 91, 112, 134, 189, 202, 246, 262, 290, 9001, 10107}
    | {11600, 11601, 11602, 13435, 13436}
)
"""Codes of what passes: network, time limits, write conflicts, shutdown, a change of primary,
reads that a majority cannot serve yet, an operation that was killed."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Bound what the driver does by ``seconds``, and translate its errors."""
    with translating(classify), pymongo.timeout(max(seconds, INSTANT)):
        yield


def classify(error: BaseException) -> Fault | None:
    """Return what an error of the driver's means, None for another's."""
    if isinstance(error, BSONError):
        return Fault(Trouble.CORRUPT, f"a stored document cannot be read: {error}")
    return understood(error) if isinstance(error, PyMongoError) else None


def understood(error: PyMongoError) -> Fault:
    """Return what an error of the driver's means."""
    text = _REPEATED.sub("", str(error))
    if isinstance(error, OperationFailure) and (fault := _of_users(error, text)):
        return fault
    if isinstance(error, ConfigurationError) and _is_of_dns(error):
        return Fault(Trouble.LASTING, f"the MongoDB server is not found: {text}")
    if isinstance(error, (ConfigurationError, InvalidName)):
        return Fault(Trouble.MISFIT, text)
    if isinstance(error, ServerSelectionTimeoutError) and _names_no_host(error):
        return Fault(Trouble.LASTING, f"the MongoDB server is not found: {text}")
    if _passes(error):
        # The driver has sent nothing where it found no server, or no free connection.
        unsent = isinstance(error, (ServerSelectionTimeoutError, WaitQueueTimeoutError))
        text = f"the MongoDB server did not answer as it should: {text}"
        return Fault(Trouble.PASSING, text, settled=unsent)
    full = isinstance(error, OperationFailure) and error.code == _OUT_OF_DISK
    what = "has no room left" if full else "refused"
    return Fault(Trouble.LASTING, f"the MongoDB server {what}: {text}")


def classify_in_transaction(error: BaseException) -> Fault | None:
    """Return what an error means within a transaction of the caller's."""
    if isinstance(error, PyMongoError):
        if isinstance(error, DuplicateKeyError) or error.has_error_label(
            "TransientTransactionError"
        ):
            return CONFLICT
        if isinstance(error, InvalidOperation):
            return Fault(Trouble.MISFIT, f"connection: {error}")
    return classify(error)


CONFLICT: Final = Fault(
    Trouble.CONFLICT,
    "another append came first, or the server was lost: abort the transaction and run it again",
)


def in_doubt(fault: Fault) -> StoreUnavailableError:
    """Return the error of ours where something may be stored, and ``fault`` keeps us from
    finding out."""
    return StoreUnavailableError(
        f"it is not known whether the append was stored, for the look was refused:"
        f" {fault.said}; once that is settled, append the same events again",
        may_have_written=True,
        transient=False,
    )


@contextmanager
def several_inserted() -> Iterator[None]:
    """Translate the driver's error for several documents into the one for each; let pass that
    they were inserted before, by an attempt whose answer was lost."""
    try:
        yield
    except BulkWriteError as error:
        details = error.details or {}
        refused = [each for each in details["writeErrors"] if each["code"] != _DUPLICATE]
        if refused:
            raise OperationFailure(refused[0]["errmsg"], refused[0]["code"]) from error
        for unconfirmed in details["writeConcernErrors"]:
            raise WriteConcernError(unconfirmed["errmsg"], unconfirmed["code"]) from error


def _of_users(error: OperationFailure, text: str) -> Fault | None:
    """Return what an error means that is about who asks."""
    wrong = error.code in _WRONG_PASSWORD or (error.code == _OF_ATLAS and "bad auth" in text)
    if wrong:
        return Fault(
            Trouble.LASTING,
            f"the server does not let this user in: {text}; check user, password and authSource",
        )
    if error.code in (_UNAUTHORIZED, _OF_ATLAS):
        return Fault(
            Trouble.MISFIT, f"the server refuses this user: {text}; check user, roles and rights"
        )
    return None


def _passes(error: PyMongoError) -> bool:
    """Return whether the same may work soon, and may even have been done."""
    if isinstance(error, WriteConcernError):
        return True  # it was done, but not confirmed
    if isinstance(error, OperationFailure):
        labelled = error.has_error_label("RetryableWriteError")
        return labelled or error.timeout or error.code in _PASSING
    return isinstance(error, ConnectionFailure) or error.timeout


def _is_of_dns(error: PyMongoError) -> bool:
    """Return whether the resolver of ``mongodb+srv://`` does not know the host."""
    return type(error.__cause__).__name__ in ("NXDOMAIN", "NoAnswer")


def _names_no_host(error: PyMongoError) -> bool:
    """Return whether none of the hosts has an address."""
    numbers = set(_ERRNO.findall(str(error).partition(", Timeout: ")[0]))
    return bool(numbers) and numbers <= _UNKNOWN_HOST
