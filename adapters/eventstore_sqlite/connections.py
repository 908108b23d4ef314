"""Connections to one database file: pooled, checkpointed with care, closed before a fork.

Checkpoints. SQLite before 3.51.3 may corrupt a database when a checkpoint runs beside another
connection's write (https://www.sqlite.org/wal.html#walresetbug). So automatic checkpoints are
off, and one runs only while this store holds the write lock, from a second connection. (The
one that SQLite runs when the last connection closes has the whole file to itself.)

Forks. A child inherits what SQLite remembers of the locks that its parent's connections hold,
but not the locks, and a connection that the child opens then takes none either: the parent's
last close removed the write-ahead log under it in a trial, and acknowledged events with it. So
all connections are closed before a fork, and opened again when they are needed.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from weakref import WeakSet

from eventstore.errors import (
    ConfigurationError,
    EventStoreError,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from eventstore_sqlite.faults import identity, is_busy, take_lock, translated

logger: Final = logging.getLogger("eventstore")

_LONG_WAL: Final = 4000
"""Frames (pages) in the write-ahead log after which it is checkpointed."""
_IDLE: Final = 8
"""Connections kept for the next reads."""


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
        self._file: tuple[int, int] | None = None
        self._checked_wal = b"", _LONG_WAL
        self._closed = False
        self._unusable = ""
        self._begin()
        _all_connections.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._gate = threading.Condition(self._lock)
        self._turn = threading.RLock()
        self._frozen = False
        self._in_use = 0
        self._readers: list[sqlite3.Connection] = []
        self._writers: list[sqlite3.Connection] = []

    # --- Using one

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for statements that each read by themselves."""
        with translated(self.name), self._lent(self._readers) as connection:
            yield connection

    @contextmanager
    def writing(self, timeout: float) -> Iterator[sqlite3.Connection]:
        """Lend the writer, holding the write lock; commit in the end what the block wrote.

        An exception undoes it. Raises StoreUnavailableError if the lock is not free in time.
        """
        pool = self._readers if self.path is None else self._writers
        with translated(self.name) as doing, self._lent(pool) as writer:
            self._check_file()
            take_lock(lambda: writer.execute("BEGIN IMMEDIATE"), self.name, timeout)
            yield writer
            doing.append("commit")
            writer.execute("COMMIT")
            doing.clear()
            if self.path is not None and self._wal_is_long():
                self.checkpoint(writer)

    @contextmanager
    def _lent(
        self, pool: list[sqlite3.Connection], *, second: bool = False
    ) -> Iterator[sqlite3.Connection]:
        alone = self.path is None
        turn: list[bool] = []
        connection = None
        counted = keep = False
        try:
            if alone:
                # One step for the interpreter: Ctrl-C comes before or after it, and finds in
                # ``turn`` whether the lock was taken.
                turn += map(self._turn.acquire, (True,), (self._timeout,))
                if True not in turn:
                    raise StoreUnavailableError(f"{self.name} was in use all the time")
            with self._lock:
                # A fork waits for who has a connection, so that may take a second one.
                if not second:
                    self._gate.wait_for(lambda: not self._frozen, self._timeout)
                self._check_usable()
                self._in_use += 1
                counted = True  # nothing is called in between, so no Ctrl-C comes in between
                connection = pool.pop() if pool else None
            if connection is None:
                connection = self._connect(busy_timeout=0 if pool is self._writers else None)
            yield connection
            keep = True
        finally:
            if counted:
                self._take_back(connection, pool, keep=keep or alone)
            if True in turn:
                self._turn.release()

    def _take_back(
        self, connection: sqlite3.Connection | None, pool: list[sqlite3.Connection], *, keep: bool
    ) -> None:
        """Put a connection back, or close one that an exception left in an unknown state."""
        if connection is not None and self.path is None and connection.in_transaction:
            connection.execute("ROLLBACK")
        with self._lock:
            if connection is not None:
                if keep and not self._closed and len(pool) < _IDLE:
                    pool.append(connection)
                else:
                    connection.close()
            self._in_use -= 1
            self._gate.notify_all()

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed")
        if self._unusable:
            raise UnsupportedOperationError(self._unusable)

    # --- Opening one

    def _connect(self, busy_timeout: float | None) -> sqlite3.Connection:
        seconds = self._timeout if busy_timeout is None else busy_timeout
        if self.path is None:
            return _open(":memory:", seconds)
        # Only the first connection may create the file: one that vanished is not made anew.
        mode = "rwc" if self._file is None else "rw"
        connection = _open(f"{self.path.as_uri()}?mode={mode}", seconds)
        try:
            take_lock(lambda: self._set_up(connection), self.name, self._timeout)
            self._check_file()
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        # Another program may have changed the journal mode since the last connection.
        ((mode,),) = connection.execute("PRAGMA journal_mode = WAL").fetchall()
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
            connection.execute(f"PRAGMA {setting}")

    def _check_file(self) -> None:
        """Raise unless the path still names the file that was opened at first."""
        if self.path is None:
            return
        try:
            found = identity(self.path)
        except OSError as error:
            raise ConfigurationError(f"{self.name}: is gone: {error.strerror}") from error
        if self._file is None:
            self._file = found
        elif found != self._file:
            raise ConfigurationError(
                f"{self.name}: was replaced by another file while this store was open; open it anew"
            )

    def is_open_at(self, path: str) -> bool:
        """Return whether ``path`` names the same file."""
        with suppress(OSError):
            return bool(path) and identity(path) == self._file
        return False

    # --- Checkpoints

    def _wal_is_long(self) -> bool:
        """Return whether the log has grown by ``_LONG_WAL`` frames since it was checkpointed.

        Frames of the log's present round carry the salt of its header; those that follow are
        left over from an earlier one.
        """
        try:
            log = os.open(self._wal, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            header = os.pread(log, 32, 0)
            page_size, salt = int.from_bytes(header[8:12], "big"), header[16:24]
            if self._checked_wal[0] != salt:
                self._checked_wal = salt, _LONG_WAL
            last = 32 + (self._checked_wal[1] - 1) * (24 + page_size)
            return os.pread(log, 8, last + 8) == salt != b""
        finally:
            os.close(log)

    def checkpoint(self, writer: sqlite3.Connection) -> None:
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
        except (sqlite3.Error, EventStoreError) as error:
            if not is_busy(error):
                logger.warning("the write-ahead log could not be checkpointed: %s", error)

    # --- Closing and forking

    def close(self) -> None:
        """Close what is idle; what is in use closes when it comes back."""
        with self._lock:
            self._closed = True
            self._close_idle()
            self._gate.notify_all()
        _all_connections.discard(self)

    def _close_idle(self) -> None:
        for pool in (self._readers, self._writers):
            while pool:
                pool.pop().close()

    def before_fork(self) -> None:
        """Close all connections, once nobody uses one, and keep everybody from opening more."""
        self._lock.acquire()
        self._frozen = True
        if self._gate.wait_for(lambda: self._in_use == 0, self._timeout) and self.path is not None:
            self._close_idle()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._frozen = False
        self._gate.notify_all()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew. A database in memory was copied with the process, and goes its own way."""
        if self._in_use:
            _inherited.extend((*self._readers, *self._writers))
            self._unusable = (
                f"{self.name}: was in use when the process forked, and SQLite connections do not"
                " survive that; fork at another moment, or start processes with 'spawn'"
            )
        in_memory = self._readers if self.path is None and not self._in_use else []
        self._begin()
        self._readers += in_memory


_all_connections: Final[WeakSet[Connections]] = WeakSet()
_forking: Final[list[Connections]] = []
_inherited: Final[list[sqlite3.Connection]] = []
"""Connections of a parent process: neither used nor closed here."""


def _before_fork() -> None:
    _forking[:] = _all_connections
    for connections in _forking:
        connections.before_fork()


def _after_fork_in_parent() -> None:
    for connections in _forking:
        connections.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for connections in _forking:
        connections.after_fork_in_child()
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)


def _open(database: str, busy_timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(
        database,
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
