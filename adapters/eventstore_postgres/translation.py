"""The driver's errors, understood by SQLSTATE: its classes group them otherwise (a full disk is no
"insufficient resource" there)."""

from __future__ import annotations

import re
from typing import Final

import psycopg

from eventstore.backend import Fault, Trouble, replaced

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


def classify(error: BaseException, *, log: str | None = None, joined: bool = False) -> Fault | None:
    """Return what an error of the driver's means.

    ``log`` is the name of one that was open, so that it must have been there; ``joined`` in the
    caller's transaction, which only the caller can run again.
    """
    if not isinstance(error, psycopg.Error):
        return None
    state, said = error.sqlstate, _said(error)
    if state is None or state.startswith(_LOST):
        return Fault(Trouble.PASSING, said, settled=False)
    if state in _CONFLICT:
        return Fault(Trouble.CONFLICT if joined else Trouble.PASSING, said)
    if state in _TIME_IS_UP:
        return Fault(Trouble.LASTING, f"it took longer than the time-out allows ({said})")
    if state in _PASSING:
        return Fault(Trouble.PASSING, said)
    if state.startswith(_LASTING):
        return Fault(Trouble.LASTING, said)
    if state in _MISSING and log is not None:
        return Fault(Trouble.REPLACED, str(replaced(log)))
    if state in _MISSING or state == _FORBIDDEN:
        hint = "`eventstore schema URL` prints what the log and a role need"
        return Fault(Trouble.MISFIT, f"{said}; {hint}")
    if state.startswith(_CORRUPT):
        return Fault(Trouble.CORRUPT, said)
    return Fault(Trouble.MISFIT, f"{said} (SQLSTATE {state})")


def classify_unconnected(error: BaseException) -> Fault | None:
    """Return what the driver says of a connection that could not be made."""
    if isinstance(error, psycopg.Error) and error.sqlstate is None:
        return Fault(Trouble.LASTING if _is_lasting(error) else Trouble.PASSING, _said(error))
    return classify(error)


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


def _said(error: psycopg.Error) -> str:
    """Return the driver's words on one line."""
    return " ".join((error.diag.message_primary or str(error)).split())
