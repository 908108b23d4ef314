"""Connections to one database file: pooled, checkpointed with care, closed before a fork.

Checkpoints. SQLite before 3.51.3 may corrupt a database when a checkpoint runs beside another
connection's write (https://www.sqlite.org/wal.html#walresetbug). So automatic checkpoints are
off, and one runs only while this store holds the write lock, from a second connection. (The
one that SQLite runs when the last connection closes has the whole file to itself.)

Forks. A child inherits what SQLite remembers of the locks that its parent's connections hold,
but not the locks, and a connection that the child opens then takes none either: the parent's
last close removed the write-ahead log under it in a trial, and acknowledged events with it. So
all connections are closed before a fork, and opened again when they are needed; and a file that
was open all the same (a read that took too long, a connection of the caller's) is refused in
the child, by whatever path it comes (``forks``).

Cursors. SQLite keeps a closed connection's file open for as long as one of its statements
lives, and a cursor holds its statement. So a connection is only used through one cursor, made
with it and closed before it; whoever still holds that, in a traceback perhaps, holds nothing.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic, time_ns
from typing import Final

from eventstore.backend import deadline, time_left, translating
from eventstore.errors import (
    ConfigurationError,
    EventStoreError,
    LogReplacedError,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from eventstore_sqlite import forks
from eventstore_sqlite.translation import classify, identity, is_busy, while_busy

logger: Final = logging.getLogger("eventstore")

_LONG_WAL: Final = 4000
"""Frames (pages) in the write-ahead log after which it is checkpointed."""
_CHECKED: Final = 0.005
"""Seconds for which reads take the file at the path for the same."""
_COARSE: Final = 50_000_000
"""Nanoseconds between two changes of a file that surely show in its time."""
Mark = tuple[int, int, int]
"""The state of a file: its inode, size and time of change."""

_IDLE: Final = 8
"""Connections kept for the next reads."""


class _Loan:
    """A connection in use, once there is one: by its only cursor."""

    __slots__ = ("cursor",)

    def __init__(self) -> None:
        self.cursor: sqlite3.Cursor | None = None


class Connections:
    """The connections of one store: any number that read, and one that writes.

    They begin no transaction by themselves. ``path`` is None for a database in memory, which
    lives in a single connection that threads take turns at.
    """

    def __init__(self, path: Path | None, *, timeout: float, synchronous: str) -> None:
        self.path = path
        self.name = ":memory:" if path is None else str(path)
        self._wal = f"{self.name}-wal"
        self._timeout = timeout
        self._synchronous = synchronous
        self._classify = partial(classify, self.name)
        self._file: tuple[int, int] | None = None
        self._next_check = 0.0
        self._checked_wal = b"", _LONG_WAL
        self._closed = False
        self._came_over_a_fork = False
        self._memory = _open(":memory:") if path is None else None
        """In no pool, so that nothing can lose it."""
        self._begin()
        forks.register(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._gate = threading.Condition(self._lock)
        self._frozen = False
        self._loans: set[_Loan] = set()
        self._readers: list[sqlite3.Cursor] = []
        self._writers: list[sqlite3.Cursor] = []

    # --- Using one

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Cursor]:
        """Lend a connection for statements that each read by themselves."""
        with translating(self._classify, self.name), self._lent(self._readers) as cursor:
            yield cursor

    @contextmanager
    def writing(self, timeout: float) -> Iterator[sqlite3.Cursor]:
        """Lend the writer, holding the write lock; commit in the end what the block wrote.

        An exception undoes it. Raises StoreUnavailableError if the lock is not free in time.
        """
        with (
            deadline(timeout),
            translating(self._classify, self.name),
            self._lent(self._writers) as writer,
        ):
            self._begin_writing(writer)
            yield writer
            with translating(self._classify, self.name, writes=True):
                writer.execute("COMMIT")
            if self.path is not None and self._wal_is_long():
                self.checkpoint(writer)

    def _begin_writing(self, writer: sqlite3.Cursor) -> None:
        while_busy(lambda: writer.execute("BEGIN IMMEDIATE"), self._timeout)

    def write_anew(self, writer: sqlite3.Cursor) -> None:
        """Undo what was written, and take the write lock again."""
        writer.execute("ROLLBACK")
        self._begin_writing(writer)

    @contextmanager
    def _lent(
        self, pool: list[sqlite3.Cursor], *, second: bool = False
    ) -> Iterator[sqlite3.Cursor]:
        loan = _Loan()
        keep = False
        try:
            self._lend(loan, pool, second=second)
            if loan.cursor is None:
                loan.cursor = self._connect()
            elif pool is self._writers or monotonic() > self._next_check:
                self._check_file()
            yield loan.cursor
            keep = True
        finally:
            try:
                self._take_back(loan, pool, keep=keep)
            finally:
                if loan in self._loans:  # Ctrl-C came in the middle of it
                    self._take_back(loan, pool, keep=keep)

    def _lend(self, loan: _Loan, pool: list[sqlite3.Cursor], *, second: bool) -> None:
        """Register a loan, of an idle connection if there is one, as soon as it may be."""
        with self._lock:
            # A fork waits for who has a connection, so that one may take a second.
            while (self._frozen and not second) or (self._memory and self._loans):
                if not self._gate.wait(time_left(self._timeout)):
                    raise StoreUnavailableError(f"{self.name}: was in use all the time")
            self._check_usable()
            self._loans.add(loan)
            loan.cursor = pool.pop() if pool else self._memory

    def _take_back(self, loan: _Loan, pool: list[sqlite3.Cursor], *, keep: bool) -> None:
        """Put a connection back, or close one that an exception left in an unknown state."""
        with self._lock:
            if loan not in self._loans:  # lent to nobody, or by the parent of this process
                return
            if loan.cursor is not None:
                self._put_back(loan, loan.cursor, pool, keep=keep)
            self._loans.discard(loan)
            self._gate.notify_all()

    def _put_back(
        self, loan: _Loan, cursor: sqlite3.Cursor, pool: list[sqlite3.Cursor], *, keep: bool
    ) -> None:
        try:
            if cursor.connection.in_transaction:
                cursor.execute("ROLLBACK")
            if self._memory is not None and not self._closed:
                return
            if keep and not self._closed and len(pool) < _IDLE:
                loan.cursor = None  # first: it must not be put back twice
                pool.append(cursor)
                return
        except sqlite3.Error as error:  # must not fail what was committed
            logger.warning("%s: a transaction could not be undone: %s", self.name, error)
        with suppress(sqlite3.Error):
            _close(cursor)

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed")
        if self._came_over_a_fork:
            raise self._inherited()

    # --- Opening one

    def make_file(self) -> None:
        """Make a new file for this user alone; leave one that is there as it is.

        It is not opened, where the system can do that: closing it again would do away with the
        locks of another thread's connection to it.
        """
        if self.path is not None:
            with translating(self._classify, self.name), suppress(FileExistsError):
                try:
                    os.mknod(self.path, 0o600)
                except (AttributeError, PermissionError):
                    self.path.touch(0o600, exist_ok=False)

    def _connect(self) -> sqlite3.Cursor:
        assert self.path is not None  # noqa: S101 - that in memory is there
        self._check_file()
        self._check_not_inherited()
        cursor = _open(f"{self.path.as_uri()}?mode=rw")
        try:
            while_busy(lambda: self._set_up(cursor), self._timeout)
            self._check_file()
        except BaseException:
            _close(cursor)
            raise
        return cursor

    def _set_up(self, cursor: sqlite3.Cursor) -> None:
        # Another program may have changed the journal mode since the last connection.
        ((mode,),) = cursor.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != "wal":
            raise ConfigurationError(
                f"{self.name}: must be in journal mode WAL, but SQLite keeps it in {mode!r}:"
                " the file system has no shared memory, or the file is opened in a special way"
            )
        for setting in (
            f"synchronous = {self._synchronous}",
            "fullfsync = ON",  # macOS: through the disk's own cache
            "checkpoint_fullfsync = ON",
            "wal_autocheckpoint = 0",
            "journal_size_limit = 67108864",  # what one large batch took is given back
            "cache_size = -16000",
        ):
            cursor.execute(f"PRAGMA {setting}")

    def _check_file(self) -> None:
        """Raise unless the path still names the file that was opened at first.

        A pooled connection would go on with the old one. A look costs half of what it costs to
        read the head, so reads share one for a few milliseconds.
        """
        if self.path is None:
            return
        found = identity(self.name)
        if self._file is None:
            self._file = found
        if found is None or found != self._file:
            what = "is gone, removed" if found is None else "was replaced by another file"
            raise LogReplacedError(f"{self.name}: {what} while this store was open: open it anew")
        self._next_check = monotonic() + _CHECKED

    def _check_not_inherited(self) -> None:
        if self._file is not None and forks.is_inherited(self._file):
            raise self._inherited()

    def _inherited(self) -> UnsupportedOperationError:
        return UnsupportedOperationError(
            f"{self.name}: was in use when the process forked, and SQLite connections do not"
            " survive that; fork at another moment, close your own connections before, or start"
            " processes with 'spawn'"
        )

    def check_joinable(self, path: str) -> None:
        """Raise unless a connection to ``path``, of the caller's, is one to this store's file."""
        self._check_usable()
        self._check_file()
        if not path or identity(path) != self._file:
            raise ConfigurationError(
                f"connection: must be one to {self.name}, the file of this store"
            )
        self._check_not_inherited()

    # --- Checkpoints

    def _wal_is_long(self) -> bool:
        """Return whether the log has grown by ``_LONG_WAL`` frames since it was checkpointed.

        Frames of the log's present round carry the salt of its header; those that follow are
        left over from an earlier one.
        """
        try:
            log = os.open(self._wal, os.O_RDONLY)
        except OSError:  # out of descriptors, perhaps: the next append looks again
            return False
        try:
            header = os.pread(log, 32, 0)
            page_size, salt = int.from_bytes(header[8:12], "big"), header[16:24]
            if self._checked_wal[0] != salt:
                self._checked_wal = salt, _LONG_WAL
            last = 32 + (self._checked_wal[1] - 1) * (24 + page_size)
            return os.pread(log, 8, last + 8) == salt != b""
        except OSError:
            return False
        finally:
            os.close(log)

    def quiet_mark(self) -> Mark | None:
        """Return what changes with the next commit of anybody's: cheaper than to ask SQLite.

        None where that is not sure: the time of a file's last change is coarse, so two commits
        soon after one another may leave the same.
        """
        try:
            found = os.stat(self._wal)  # noqa: PTH116 - many times a second
        except OSError:
            return None
        if -_COARSE < time_ns() - found.st_mtime_ns < _COARSE:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def checkpoint(self, writer: sqlite3.Cursor) -> None:
        """Copy the write-ahead log into the database, if the write lock is free.

        The next write then begins the log from its start, as long as no one reads an old state.
        What is committed is safe in the log, so a failure only waits for the next time.
        """
        try:
            writer.execute("BEGIN IMMEDIATE")
            try:
                with self._lent(self._readers, second=True) as other:
                    ((_, frames, _),) = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                writer.execute("ROLLBACK")
            self._checked_wal = self._checked_wal[0], frames + _LONG_WAL
        except (sqlite3.Error, EventStoreError, OSError) as error:
            if not is_busy(error):
                logger.warning("the write-ahead log could not be checkpointed: %s", error)

    # --- Closing and forking

    def close(self) -> None:
        """Close what is idle; what is in use closes when it comes back, and a fork waits for it."""
        with self._lock:
            if self._memory is not None and not self._loans and not self._closed:
                _close(self._memory)
            self._closed = True
            self._close_idle()
            self._gate.notify_all()

    def _close_idle(self) -> None:
        for pool in (self._readers, self._writers):
            while pool:
                _close(pool.pop())

    def before_fork(self) -> None:
        """Close all connections, once nobody uses one, and keep everybody from opening more."""
        self._lock.acquire()
        self._frozen = True
        if self._gate.wait_for(lambda: not self._loans, self._timeout):
            self._close_idle()

    def after_fork_in_parent(self) -> None:
        """Let everybody open connections again."""
        self._frozen = False
        self._gate.notify_all()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew. A database in memory was copied with the process, and goes its own way."""
        loans, idle = self._loans, [*self._readers, *self._writers]
        self._begin()
        lent = [loan.cursor for loan in loans if loan.cursor is not None]
        forks.keep((*idle, *lent))
        if loans or idle:
            self._came_over_a_fork = True


def _open(database: str) -> sqlite3.Cursor:
    return sqlite3.connect(
        database,
        uri=True,
        timeout=0,  # who waits for a lock does so by the call's deadline (translation.py)
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    ).cursor()


def _close(cursor: sqlite3.Cursor) -> None:
    connection = cursor.connection
    try:
        cursor.close()
    finally:
        connection.close()
