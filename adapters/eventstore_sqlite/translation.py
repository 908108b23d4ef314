"""SQLite's errors understood, and waiting for its locks."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final, TypeVar

from eventstore.backend import Fault, Trouble, time_left

_T = TypeVar("_T")

_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_SCARCE: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EIO}
_NOT_A_LOG: Final = {
    0,  # not SQLite's, but its driver's: a closed connection, or one of another thread
    sqlite3.SQLITE_ERROR,  # no such column: not our tables
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_SCHEMA,
}


class StillLockedError(sqlite3.OperationalError):
    """Another connection was in the way for so many seconds: all that there were."""

    sqlite_errorcode = sqlite3.SQLITE_BUSY

    def __init__(self, seconds: float) -> None:
        super().__init__(f"locked for {seconds:.2f} s")
        self.seconds = seconds


def classify(name: str, error: BaseException) -> Fault | None:
    """Return what an error means that a connection to the file ``name`` met."""
    if isinstance(error, StillLockedError):
        said = f"was locked for {error.seconds:.2f} s by {lock_holder(name)}"
        return Fault(Trouble.LASTING, said)
    if isinstance(error, OSError):
        trouble = Trouble.PASSING if error.errno in _SCARCE else Trouble.MISFIT
        return Fault(trouble, f"cannot be used: {error.strerror}")
    if isinstance(error, OverflowError):
        return Fault(Trouble.TOO_LARGE, f"SQLite cannot store an event of this size ({error})")
    return _classify_driver(name, error) if isinstance(error, sqlite3.Error) else None


def _classify_driver(name: str, error: sqlite3.Error) -> Fault:
    code = _code(error)
    if is_stale(error):
        return Fault(
            Trouble.CONFLICT,
            "others wrote since its transaction began to read; roll it back and run it again, best"
            " with BEGIN IMMEDIATE",
        )
    if code in _BUSY:
        return Fault(Trouble.LASTING, f"is locked by {lock_holder(name)}")
    if code == sqlite3.SQLITE_FULL:
        return Fault(Trouble.LASTING, f"the disk is full ({error})")
    if code == sqlite3.SQLITE_TOOBIG:
        return Fault(Trouble.TOO_LARGE, f"SQLite cannot store an event of this size ({error})")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT):
        return Fault(Trouble.CORRUPT, f"{error}; see docs/sqlite.md")
    if code == sqlite3.SQLITE_ERROR and str(error).startswith("no such table"):
        return Fault(
            Trouble.REPLACED,
            "the log was removed or replaced while this store was open: open it anew",
        )
    # What is there and ours, and cannot be opened all the same, waits for a descriptor.
    if code in _NOT_A_LOG or (
        code == sqlite3.SQLITE_CANTOPEN and not os.access(name, os.R_OK | os.W_OK)
    ):
        return Fault(Trouble.MISFIT, f"cannot be used as an event log: {error}")
    return Fault(Trouble.PASSING, str(error), settled=False)


def is_busy(error: BaseException) -> bool:
    """Return whether another connection is in the way."""
    return _code(error) in _BUSY


def is_stale(error: BaseException) -> bool:
    """Return whether a transaction cannot write because others wrote since it began to read."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY_SNAPSHOT


def _code(error: BaseException) -> int:
    """Return SQLite's primary result code; 0 if the error is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def while_busy(attempt: Callable[[], _T], timeout: float) -> _T:
    """Return what ``attempt`` returns, called again while another connection is in the way.

    Like SQLite's own busy handler, but with shorter naps, and Ctrl-C ends it. Raises
    StillLockedError once ``timeout`` seconds, or those that the call has left, are over.
    """
    began = monotonic()
    end = began + time_left(timeout)
    nap = 0.0005
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or is_stale(error):
                raise
            now = monotonic()
            if now >= end:
                raise StillLockedError(now - began) from error
        # Of random length, so that those who wait do not all try at the same moment.
        sleep(min(end - now, nap * random.random()))  # noqa: S311
        nap = min(nap * 1.5, 0.005)


def lock_holder(name: str) -> str:
    """Return who holds the write lock, in words. Only Linux tells."""
    with suppress(OSError):
        locks = Path("/proc/locks").read_text("ascii").splitlines()
        _, inode = identity(f"{name}-shm") or (0, 0)
        for line in locks:
            fields = line.split()  # 1: POSIX ADVISORY WRITE <pid> <device>:<inode> <start> <end>
            if fields[-3].endswith(f":{inode}") and fields[-2] == "120" and fields[3] == "WRITE":
                other = "another connection of this process"
                return other if int(fields[4]) == os.getpid() else f"process {fields[4]}"
    return "another connection"


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells files apart, None where there is none. (Opening the file and closing it
    again would do away with every lock that SQLite holds on it in this process.)"""
    try:
        found = os.stat(path)  # noqa: PTH116 - on the way of every read
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
