"""The driver's errors as ours: by SQLSTATE, for its classes group them otherwise (a full disk is
no "insufficient resource" there)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from eventstore.errors import (
    ConfigurationError,
    CorruptLogError,
    EventStoreError,
    LogReplacedError,
    StoreUnavailableError,
    TransactionConflictError,
)

_CONFLICT: Final = ("40001", "40P01")  # serialization_failure, deadlock_detected
_TIME_IS_UP: Final = ("57014", "55P03", "25P04")
_FORBIDDEN: Final = "42501"
_MISSING: Final = ("42P01", "42883", "3F000")  # table, function, schema
_LOST: Final = ("08", "57P01", "57P02", "57P03", "57P05", "40003")
"""The connection, or the server behind it: what became of a command in flight is not known."""
_PASSING: Final = ("25006", "25P03", "53000", "53200", "53300")
"""A primary that has just become a standby, idle for too long, short of memory or connections."""
_LASTING: Final = ("28", "3D000", "53", "57", "58")
"""Refused access, a missing database, a full disk (53100), what else an administrator mends."""
_CORRUPT: Final = ("23", "XX001", "XX002")

# A connection that fails carries no SQLSTATE, only libpq's text. Where a password was sent or
# asked for, or the text says that much, trying again won't help; but it does where all
# connections are taken. (The severity may be translated, so what is sure goes first.)
_REFUSED: Final = re.compile(
    r"does not exist|no such database|no pg_hba\.conf entry|not permitted to log in"
    r"|authentication|permission denied|certificate|SSL|invalid "
)
_FULL: Final = re.compile(
    r"too many|slots are reserved|starting up|shutting down|in recovery|not (yet )?accepting"
    r"|terminating|closed the connection|reset by peer|timed out|timeout expired"
)


@contextmanager
def translated(
    what: str, *, may_have_written: bool = False, log: str | None = None, joined: bool = False
) -> Iterator[None]:
    """Turn the driver's errors into ours.

    ``may_have_written`` where a lost connection leaves a commit's fate unknown; ``log`` is the
    name of one that was open, so that it must have been there; ``joined`` in the caller's
    transaction, which only the caller can run again.
    """
    try:
        yield
    except psycopg.Error as error:
        raise _translation(error, what, may_have_written, log, joined) from error


@contextmanager
def connecting(where: str) -> Iterator[None]:
    """Turn what the driver says of a connection that could not be made into our error."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is not None:
            raise _translation(error, f"cannot connect to {where}", False, None, False) from error
        raise StoreUnavailableError(
            f"cannot connect to {where}: {_said(error)}", transient=not _is_lasting(error)
        ) from error


def replaced(log: str) -> LogReplacedError:
    """Return the error for a log that is no longer the one that was opened."""
    return LogReplacedError(
        f"the log {log!r} was removed or replaced while this store was open: open it anew"
    )


def _is_lasting(error: psycopg.Error) -> bool:
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return False
    tried = error.pgconn
    if tried is None:
        return True  # the name of its host is not known
    said = str(error)
    if _FULL.search(said):
        return False
    return tried.used_password or tried.needs_password or bool(_REFUSED.search(said))


def _translation(
    error: psycopg.Error, what: str, may_have_written: bool, log: str | None, joined: bool
) -> EventStoreError:
    state = error.sqlstate
    told = f"{what}: {_said(error)}"
    if state is None or state.startswith(_LOST):
        return StoreUnavailableError(told, may_have_written=may_have_written)
    if state in _CONFLICT:
        return TransactionConflictError(told) if joined else StoreUnavailableError(told)
    if state in _TIME_IS_UP:
        return StoreUnavailableError(
            f"{what}: it took longer than the time-out allows ({_said(error)})", transient=False
        )
    if state in _PASSING:
        return StoreUnavailableError(told)
    if state.startswith(_LASTING):
        return StoreUnavailableError(told, transient=False)
    if state in _MISSING and log is not None:
        return replaced(log)
    if state in _MISSING or state == _FORBIDDEN:
        return ConfigurationError(
            f"{told}; `eventstore schema URL` prints what the log and a role need"
        )
    if state.startswith(_CORRUPT):
        return CorruptLogError(told)
    return ConfigurationError(f"{told} (SQLSTATE {state})")


def _said(error: psycopg.Error) -> str:
    """Return the driver's words on one line."""
    return " ".join((error.diag.message_primary or str(error)).split())
