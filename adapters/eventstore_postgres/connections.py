"""Connections to PostgreSQL: one to append by, those to read by, and how long each may take."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from math import ceil, inf
from time import monotonic
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import tuple_row

from eventstore.backend import Durability, Settings, deadline, time_left, translating
from eventstore.errors import ConfigurationError, StoreClosedError, StoreUnavailableError
from eventstore_postgres import records
from eventstore_postgres.options import driver_arguments
from eventstore_postgres.selecting import load
from eventstore_postgres.translation import classify, classify_unconnected

OLDEST_SERVER: Final = 130000

_MOST_IDLE_SECONDS: Final = 600.0
"""Longer than this, an idle session is not kept for readers."""


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose statements end by a deadline, even if the server falls silent."""

    deadline: float = inf
    """By ``time.monotonic()``."""
    is_checked: bool = False
    """Whether its server was looked at, and its settings made where they stay."""

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        # libpq counts whole seconds, and at least two, and for each host anew.
        made = super()._connect_gen(*args, **kwargs)
        return (yield from _until(monotonic() + time_left(inf), made))

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Drive a statement, looking at the deadline while nothing comes in."""
        return super().wait(_until(self.deadline, gen), *args, **kwargs)


class GuestCursor(psycopg.Cursor[Any]):
    """A cursor of a connection of the caller's, whose statements end by a deadline."""

    deadline: float = inf

    def _execute_gen(self, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return _until(self.deadline, super()._execute_gen(*args, **kwargs))


def _until(end: float, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Drive an exchange with the server, which is over by ``end``."""
    try:
        ready = yield next(gen)
        while True:
            if not ready and monotonic() > end:
                raise errors.ConnectionTimeout("the server did not answer in time")
            ready = yield gen.send(ready)
    except StopIteration as stop:
        return stop.value


class _Loan:
    """One reader's claim to a session."""

    session: Session | None = None


class Guest:
    """A connection of the caller's, used as a Session is: whatever was set for it."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection: Final = connection
        self.deadline: float = inf
        self.info: Final = connection.info
        self.pgconn: Final = connection.pgconn
        self.cancel_safe: Final = connection.cancel_safe
        self.close: Final = connection.close

    @property
    def closed(self) -> bool:
        return self.connection.closed

    def cursor(self) -> GuestCursor:
        cursor = GuestCursor(self.connection, row_factory=tuple_row)
        cursor.deadline = self.deadline
        records.adapt(cursor.adapters)
        return cursor

    def execute(
        self,
        text: str,
        parameters: Any = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
    ) -> psycopg.Cursor[Any]:
        return self.cursor().execute(text, parameters, prepare=prepare, binary=binary)


Lent = Session | Guest

_S = TypeVar("_S", bound=Lent)


class Sessions(ABC):
    """All connections of one store."""

    settled_once: bool
    """Whether what is set for a session stays set. Not so behind a pooler that gives each
    transaction whichever server process is free, nor in a pool of the caller's: there every
    transaction of an append begins by setting what it depends on, and nobody can LISTEN."""

    def __init__(self, settings: Settings) -> None:
        self.timeout: Final = settings.timeout
        self.spare: Final = min(max(settings.timeout / 10, 0.2), 0.5)
        """Seconds that the server is given longer than itself to say that time is up."""
        self._classify: Final = partial(classify, log=settings.namespace)
        self._relaxed: Final = settings.durability is Durability.RELAXED

    @abstractmethod
    def writing(self, timeout: float, *, checked: bool = True) -> AbstractContextManager[Lent]:
        """Lend the session that appends, to one thread at a time.

        ``checked``: whether its server was looked at, so that it is known as PostgreSQL.
        """

    @abstractmethod
    def reading(self) -> AbstractContextManager[Lent]:
        """Lend a session for statements that commit by themselves."""

    @abstractmethod
    def connected_anew(self) -> AbstractContextManager[Lent]:
        """Lend a session that no restart of the server has ended."""

    @abstractmethod
    def close(self) -> None:
        """Close what is idle; connections in use are closed when they come back."""

    @abstractmethod
    def after_fork(self, *others: object) -> None:
        """Keep the parent's connections from being used or closed in this process."""

    @contextmanager
    def bounded(self, session: _S, timeout: float) -> Iterator[_S]:
        """End what takes longer than ``timeout``; after any exception leave ``session`` either
        idle or closed."""
        session.deadline = monotonic() + timeout + self.spare
        try:
            yield session
        except StoreUnavailableError:
            _leave_idle(session)
            if session.closed:
                self._close_idle()  # the other connections are gone as well, most likely
            raise
        except BaseException:
            _leave_idle(session)
            raise

    def begin(self, session: Lent) -> None:
        """Begin a transaction that depends on none of the role's defaults."""
        session.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        if not self.settled_once:
            self._settle(session, local=True)

    def _settle(self, session: Lent, *, local: bool) -> None:
        """Make a session, or its transaction alone, independent of the role's defaults."""
        patience = ceil(self.timeout * 1000)
        parameters = {
            "patience": str(patience),
            "half": str(patience // 2),
            # Longer than an append waits for the lock, which says more.
            "statement": str(patience + ceil(self.spare * 500)),
            "local": local,
            "relaxed": self._relaxed,
        }
        session.execute(load("session.sql"), parameters, prepare=False)

    def _look_at_server(self, session: Lent) -> None:
        if session.info.server_version < OLDEST_SERVER:
            raise ConfigurationError(
                f"PostgreSQL 13 or later is needed, not {session.info.server_version // 10000}"
            )
        encoding = session.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise ConfigurationError(
                f"the database's encoding must be UTF8, not {encoding}: create it with"
                " ENCODING 'UTF8' TEMPLATE template0"
            )

    @abstractmethod
    def _close_idle(self) -> None:
        """Close the sessions that nobody uses."""


class OwnSessions(Sessions):
    """One connection to append by, some to read by, and others for as long as needed."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._where: Final = settings.safe_url
        self._conninfo, self._kwargs = driver_arguments(settings)
        self.settled_once = self._kwargs["prepare_threshold"] is not None
        self._most_lent: Final[int] = settings.own_options["pool_size"]
        self._left_to_parent: list[Any] = []
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        # The lock is entered by itself: Ctrl-C in a condition's __enter__ would leave it locked.
        self._lock = threading.RLock()
        self._returned = threading.Condition(self._lock)
        self._loans: set[_Loan] = set()
        self._idle: deque[tuple[Session, float]] = deque()
        """And since when; lent from the right end, so that few are kept busy."""
        self._writer: Session | None = None

    def connect(self, timeout: float = inf) -> Session:
        """Return a new connection, which the caller closes."""
        session = self._connect(timeout)
        self._check(session)
        return session

    def _connect(self, timeout: float) -> Session:
        with (
            deadline(min(timeout, self.timeout)),
            translating(classify_unconnected, f"cannot connect to {self._where}"),
        ):
            session = Session.connect(self._conninfo, **self._kwargs)
            session.deadline = monotonic() + time_left(self.timeout) + self.spare
            return session

    def writing(self, timeout: float, *, checked: bool = True) -> AbstractContextManager[Session]:
        end = monotonic() + timeout
        session = self._writer
        if session is None or session.closed:
            self._writer = None
            self._writer = session = self._connect(timeout)
        if checked and not session.is_checked:
            self._check(session)
        return self.bounded(session, end - monotonic())

    @contextmanager
    def reading(self) -> Iterator[Session]:
        loan = _Loan()
        try:
            self._admit(loan)
            if loan.session is None:
                loan.session = self.connect()
            with (
                self.bounded(loan.session, time_left(self.timeout)),
                translating(self._classify, "the query failed"),
            ):
                yield loan.session
        finally:
            try:
                self._take_back(loan)
            finally:  # once more, should Ctrl-C have struck
                self._take_back(loan)

    @contextmanager
    def connected_anew(self) -> Iterator[Session]:
        with self.connect() as session:
            yield session

    def _admit(self, loan: _Loan) -> None:
        with self._lock:
            if len(self._loans) >= self._most_lent and not self._returned.wait_for(
                lambda: self._closed or len(self._loans) < self._most_lent, time_left(self.timeout)
            ):
                raise StoreUnavailableError(
                    f"no connection to {self._where} was free in time: all {self._most_lent}"
                    " (pool_size) are in use"
                )
            if self._closed:
                raise StoreClosedError("the store was closed meanwhile")
            self._loans.add(loan)
            if self._idle:
                loan.session = self._idle[-1][0]
                self._idle.pop()

    def _take_back(self, loan: _Loan) -> None:
        over = None
        with self._lock:
            session, loan.session = loan.session, None
            if session is not None and not session.closed:
                if self._closed:
                    over = session
                elif not any(each is session for each, _ in self._idle):
                    self._idle.append((session, monotonic()))
            if self._idle and self._idle[0][1] < monotonic() - _MOST_IDLE_SECONDS:
                over = self._idle.popleft()[0]
            self._loans.discard(loan)
            self._returned.notify()
        if over is not None:
            over.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._returned.notify_all()
        if self._writer is not None:
            self._writer.close()
        self._close_idle()

    def after_fork(self, *others: object) -> None:
        self._left_to_parent += [self._idle, self._loans, self._writer, *others]
        self._begin()

    def _check(self, session: Session) -> None:
        """Make a session ready for use; close it where it cannot be."""
        try:
            # Not the reasons why no connection is made, which say nothing of one that stands.
            with translating(classify, f"cannot connect to {self._where}"):
                self._look_at_server(session)
                if self.settled_once:
                    self._settle(session, local=False)
            session.is_checked = True
        except BaseException:
            session.close()
            raise

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, deque()
        for session, _ in idle:
            session.close()


def _leave_idle(session: Lent) -> None:
    """Bring an interrupted session to rest, or close it where that is not possible."""
    try:
        if session.info.transaction_status == TransactionStatus.ACTIVE:
            _drain(session)
        if session.info.transaction_status in (
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        ):
            session.execute("ROLLBACK")
    except psycopg.Error:
        session.close()
    finally:
        if session.info.transaction_status != TransactionStatus.IDLE:
            session.close()


def _drain(session: Lent) -> None:
    """Let go of a command whose answer was not awaited: Ctrl-C may strike anywhere. (A new
    connection instead takes so long that it might be struck again.)"""
    left = session.deadline - monotonic()
    if left > 0:
        session.cancel_safe(timeout=min(left, 1.0))
        while (result := session.pgconn.get_result()) is not None:
            if result.status not in (
                ExecStatus.TUPLES_OK,
                ExecStatus.COMMAND_OK,
                ExecStatus.FATAL_ERROR,
            ):
                return  # in the middle of COPY
