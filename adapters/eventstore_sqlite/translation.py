"""SQLite's errors as ours, and waiting for its locks."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final, TypeVar

from eventstore.backend import time_left
from eventstore.errors import (
    BatchTooLargeError,
    ConfigurationError,
    CorruptLogError,
    EventStoreError,
    LogReplacedError,
    StoreUnavailableError,
)

_T = TypeVar("_T")

_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_SCARCE: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EIO}
_MISFIT: Final = {
    sqlite3.SQLITE_ERROR,  # no such table or column: not our tables
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_SCHEMA,
}


def identity(path: str | Path) -> tuple[int, int]:
    """Return what tells files apart. (Opening the file and closing it again would do away with
    every lock that SQLite holds on it in this process.)"""
    found = os.stat(path)  # noqa: PTH116 - also for text
    return found.st_dev, found.st_ino


def is_busy(error: BaseException) -> bool:
    """Return whether another connection is in the way."""
    return _code(error) in _BUSY


def _code(error: BaseException) -> int:
    """Return SQLite's primary result code; 0 if the error is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def take_lock(attempt: Callable[[], object], name: str, timeout: float) -> None:
    """Call ``attempt`` until the database is not busy, or the call's time is up."""
    began = monotonic()
    try:
        while_busy(attempt, timeout)
    except sqlite3.OperationalError as error:
        if not is_busy(error) or is_stale(error):
            raise
        raise locked(name, timeout, monotonic() - began) from error


def while_busy(attempt: Callable[[], _T], timeout: float) -> _T:
    """Return what ``attempt`` returns, called again while the database is busy.

    Like SQLite's own busy handler, but with shorter naps, and Ctrl-C ends it. Raises SQLite's
    error once ``timeout`` seconds, or those that the call has left, are over.
    """
    end = monotonic() + time_left(timeout)
    nap = 0.0005
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            left = end - monotonic()
            if not is_busy(error) or is_stale(error) or left <= 0:
                raise
        sleep(min(left, nap * random.random()))  # noqa: S311 - so that waiters do not march in step
        nap = min(nap * 1.5, 0.005)


def locked(name: str, timeout: float, waited: float = 0.0) -> StoreUnavailableError:
    """Return the error for who waited so long here, and in the whole call perhaps longer."""
    waited = max(waited, timeout - time_left(timeout))
    return StoreUnavailableError(
        f"{name}: was locked for {waited:.{1 if waited >= 1 else 2}f} s by {lock_holder(name)}"
    )


def is_stale(error: BaseException) -> bool:
    """Return whether a transaction cannot write because others wrote since it began to read."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY_SNAPSHOT


def lock_holder(name: str) -> str:
    """Return who holds the write lock, in words. Only Linux tells."""
    with suppress(OSError):
        inode = identity(f"{name}-shm")[1]
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            fields = line.split()  # 1: POSIX ADVISORY WRITE <pid> <device>:<inode> <start> <end>
            if fields[-3].endswith(f":{inode}") and fields[-2] == "120" and fields[3] == "WRITE":
                other = "another connection of this process"
                return other if int(fields[4]) == os.getpid() else f"process {fields[4]}"
    return "another connection"


@contextmanager
def translated(name: str, timeout: float) -> Iterator[list[str]]:
    """Turn SQLite's and the system's errors into ours. The list that is given says "commit"
    during one."""
    doing: list[str] = []
    try:
        yield doing
    except (sqlite3.Error, OverflowError) as error:
        if is_busy(error):
            raise locked(name, timeout) from error
        raise _translation(name, error, committing=bool(doing)) from error
    except OSError as error:
        if error.errno in _SCARCE:
            raise StoreUnavailableError(f"{name}: {error.strerror}") from error
        raise ConfigurationError(f"{name}: cannot be used: {error.strerror}") from error


def _translation(name: str, error: Exception, *, committing: bool) -> EventStoreError:
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailableError(f"{name}: the disk is full ({error})", transient=False)
    if code == sqlite3.SQLITE_TOOBIG or isinstance(error, OverflowError):
        return BatchTooLargeError(f"{name}: SQLite cannot store an event of this size ({error})")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT}:
        return CorruptLogError(f"{name}: {error}; see docs/sqlite.md")
    if code == sqlite3.SQLITE_ERROR and str(error).startswith("no such table"):
        return LogReplacedError(
            f"{name}: the log was removed or replaced while this store was open: open it anew"
        )
    if code in _MISFIT or not code or (code == sqlite3.SQLITE_CANTOPEN and not _is_usable(name)):
        return ConfigurationError(f"{name}: cannot be used as an event log: {error}")
    return StoreUnavailableError(f"{name}: {error}", may_have_written=committing)


def _is_usable(name: str) -> bool:
    """Return whether the file is there and this user's to write: what cannot be opened all the
    same waits for a descriptor."""
    return os.access(name, os.R_OK | os.W_OK)
