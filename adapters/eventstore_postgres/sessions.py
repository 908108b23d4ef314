"""Connections to PostgreSQL: options, session settings, the pool, and errors translated."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from math import ceil, inf
from time import monotonic
from typing import Any, Final, NoReturn

import psycopg
import psycopg_pool
from psycopg import conninfo, errors, pq
from psycopg.adapt import AdaptersMap
from psycopg.pq import ExecStatus, TransactionStatus

from eventstore.errors import (
    ConfigurationError,
    CorruptLogError,
    StoreClosedError,
    StoreUnavailableError,
    TransactionConflictError,
)
from eventstore.url import Durability, Settings, as_integer
from eventstore_postgres import wire
from eventstore_postgres.queries import load

OLDEST_SERVER: Final = 130000
PRIMARY: Final = "primary"

_SPARE_SECONDS: Final = 1.0
"""The server is given so much longer than itself to say that time is up."""

_VOIDING: Final = {
    "options": "the settings of a session are the store's own",
    "replication": "a replication connection runs no queries",
    "client_encoding": "text travels as UTF8",
}


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose statements end by a deadline, even if the server falls silent."""

    deadline: float = inf
    """By ``time.monotonic()``."""

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Drive a statement, looking at the deadline while nothing comes in."""
        return super().wait(self._until_deadline(gen), *args, **kwargs)

    def _until_deadline(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        try:
            ready = yield next(gen)
            while True:
                if not ready and monotonic() > self.deadline:
                    raise errors.ConnectionTimeout("the server did not answer in time")
                ready = yield gen.send(ready)
        except StopIteration as end:
            return end.value


class Sessions:
    """All connections of one store: a pool to read by, and others for as long as needed."""

    def __init__(self, settings: Settings) -> None:
        self.timeout: Final = settings.timeout
        self._where: Final = settings.safe_url
        self._conninfo, self._kwargs = _driver_arguments(settings)
        self.held: Final = self._kwargs["prepare_threshold"] is not None
        """Whether a connection keeps a session: not so behind a pooler of transactions."""
        self._pool_size = as_integer(
            "pool_size", settings.own_options.get("pool_size", 10), least=1, most=1000
        )
        self._relaxed = settings.durability is Durability.RELAXED
        self._left_to_parent: list[Any] = []
        self._pool: psycopg_pool.ConnectionPool[Session] | None = None
        self._lock = threading.Lock()
        self._is_reachable = False
        self._closed = False

    def connect(self, timeout: float = inf) -> Session:
        """Return a new connection, which the caller closes."""
        timeout = min(timeout, self.timeout)
        with translated(f"cannot connect to {self._where}"):
            session = Session.connect(
                self._conninfo, connect_timeout=max(1, ceil(timeout)), **self._kwargs
            )
            try:
                self._configure(session)
            except BaseException:
                session.close()
                raise
            self._is_reachable = True
            return session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a connection of the pool for statements that commit by themselves."""
        pool = self._pool or self._open_pool()
        session = self._taken_from(pool)
        try:
            with self.bounded(session, self.timeout), translated("the query failed"):
                yield session
        finally:
            pool.putconn(session)

    def _taken_from(self, pool: psycopg_pool.ConnectionPool[Session]) -> Session:
        try:
            return pool.getconn(self.timeout)
        except psycopg_pool.PoolTimeout as error:
            raise StoreUnavailableError(
                f"no connection to {self._where} was free within {self.timeout:g} s: all"
                f" {self._pool_size} (pool_size) are in use"
            ) from error
        except psycopg_pool.PoolClosed as error:
            self._check_open()
            raise StoreUnavailableError("connections are being made anew") from error
        except BaseException:
            self._renew_pool()  # an interrupted wait leaks the connection it waited for
            raise

    @contextmanager
    def bounded(self, session: Session, timeout: float) -> Iterator[None]:
        """End what takes longer than ``timeout``; after any exception leave ``session`` either
        idle or closed."""
        session.deadline = monotonic() + timeout + _SPARE_SECONDS
        try:
            yield
        except StoreUnavailableError:
            _leave_idle(session)
            if session.closed:
                self._renew_pool()  # the other connections are gone as well, most likely
            raise
        except BaseException:
            _leave_idle(session)
            raise

    def settle(self, session: Session, *, local: bool) -> None:
        """Make a session, or its transaction alone, independent of the role's defaults."""
        parameters = {
            "patience": ceil(self.timeout * 1000),
            "local": local,
            "relaxed": self._relaxed,
        }
        session.execute(load("session.sql"), parameters, prepare=False)

    def close(self) -> None:
        """Close the pool; connections in use are closed when they come back."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def after_fork(self, *others: object) -> None:
        """Keep the parent's connections from being used or closed in this process."""
        self._left_to_parent += [self._pool, *others]
        self._pool = None
        self._lock = threading.Lock()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the store was closed meanwhile")

    def _configure(self, session: Session) -> None:
        session.deadline = monotonic() + self.timeout + _SPARE_SECONDS
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
        if self.held:
            self.settle(session, local=False)

    def _open_pool(self) -> psycopg_pool.ConnectionPool[Session]:
        # The pool would try again in the background, and only say that time ran out: so what is
        # wrong is learnt from a connection of our own.
        if not self._is_reachable:
            self.connect().close()
        with self._lock:
            self._check_open()
            if self._pool is None:
                self._pool = psycopg_pool.ConnectionPool(
                    self._conninfo,
                    connection_class=Session,
                    kwargs=self._kwargs,
                    configure=self._configure,
                    min_size=0,
                    max_size=self._pool_size,
                    num_workers=1,
                    open=True,
                    name="eventstore",
                )
            return self._pool

    def _renew_pool(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
            self._is_reachable = False
        if pool is not None:
            pool.close(timeout=0.2)


def _leave_idle(session: Session) -> None:
    """Bring an interrupted session to rest, or close it where that is not possible."""
    try:
        if session.info.transaction_status == TransactionStatus.ACTIVE:
            _drain(session)
        if session.info.transaction_status in (
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        ):
            session.rollback()
    except psycopg.Error:
        session.close()
    finally:
        if session.info.transaction_status != TransactionStatus.IDLE:
            session.close()


def _drain(session: Session) -> None:
    """Let go of a command whose answer was not awaited: Ctrl-C may strike anywhere. (A new
    connection instead takes so long that it might be struck again.)"""
    if monotonic() < session.deadline:
        session.cancel_safe(timeout=1.0)
        while (result := session.pgconn.get_result()) is not None:
            if result.status not in (
                ExecStatus.TUPLES_OK,
                ExecStatus.COMMAND_OK,
                ExecStatus.FATAL_ERROR,
            ):
                return  # in the middle of COPY


def _driver_arguments(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Return the libpq connection string and psycopg's own arguments."""
    given = dict(settings.driver_options)
    threshold = given.pop("prepare_threshold", 5)
    if threshold in (None, "None", "none"):
        threshold = None
    else:
        threshold = as_integer("prepare_threshold", threshold)
    _check_options(settings, given)
    try:
        parts = conninfo.conninfo_to_dict(f"postgresql://{settings.location}")
    except psycopg.ProgrammingError:
        parts = {}  # its message may quote the password
    if not parts or any("@" in str(parts.get(name, "")) for name in ("host", "port", "dbname")):
        raise ConfigurationError(
            "url: must be postgresql://user:password@host:port/database; percent-encode '@',"
            " ':', '/', '?', '#' and '%' in a user name or password"
        )
    defaults: dict[str, str | int] = {
        "fallback_application_name": "eventstore",
        "target_session_attrs": PRIMARY,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": ceil(settings.timeout * 1000),
        "client_encoding": "UTF8",
    }
    text = {name: str(value) for name, value in given.items()}
    try:
        made = conninfo.make_conninfo("", **{**defaults, **parts, **text})
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"url: {error}") from None
    return made, {
        "autocommit": True,
        "prepare_threshold": threshold,
        "context": wire.adapt(AdaptersMap(psycopg.adapters)),
    }


def _check_options(settings: Settings, given: Mapping[str, Any]) -> None:
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name, value in given.items():
        if name in _VOIDING:
            raise ConfigurationError(f"{name}: cannot be given: {_VOIDING[name]}")
        if name == "target_session_attrs" and value not in (PRIMARY, "read-write"):
            raise ConfigurationError(
                f"{name}: must be primary or read-write, not {value!r:.100}: a standby lags"
            )
        if name not in known:
            raise ConfigurationError(
                f"{name}: neither postgresql:// nor libpq knows such an option; there are"
                " namespace, create, durability, timeout, retries, prepare_threshold, "
                + ", ".join(sorted(settings.known_options | known - _VOIDING.keys()))
            )


@contextmanager
def translated(what: str, *, may_have_written: bool = False) -> Iterator[None]:
    """Turn the driver's errors into ours. ``may_have_written`` where a lost connection leaves
    a commit's fate unknown."""
    try:
        yield
    except psycopg.Error as error:
        _raise_translated(error, what, may_have_written)


def _raise_translated(error: psycopg.Error, what: str, may_have_written: bool) -> NoReturn:
    said = (error.diag.message_primary or str(error)).strip()
    match error:
        case errors.SerializationFailure() | errors.DeadlockDetected():
            raise TransactionConflictError(f"{what}: {said}") from error
        case errors.QueryCanceled() | errors.LockNotAvailable():
            raise StoreUnavailableError(
                f"{what}: it took longer than the time-out allows ({said})", transient=False
            ) from error
        case errors.ReadOnlySqlTransaction() | errors.InsufficientResources():
            full = isinstance(error, errors.DiskFull)
            raise StoreUnavailableError(f"{what}: {said}", transient=not full) from error
        case errors.InsufficientPrivilege() | errors.UndefinedTable() | errors.UndefinedFunction():
            raise ConfigurationError(
                f"{what}: {said}; `eventstore schema URL` prints what the log and a role need"
            ) from error
        case errors.InvalidSchemaName() | errors.ReservedName():
            raise ConfigurationError(f"{what}: {said}") from error
        case errors.IntegrityError():
            raise CorruptLogError(f"{what}: {said}") from error
    unsure = error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
    ended = (error.sqlstate or "").startswith("25P0")  # idle in a transaction for too long
    if unsure or ended or isinstance(error, psycopg.OperationalError):
        raise StoreUnavailableError(
            f"{what}: {said}", may_have_written=may_have_written and unsure
        ) from error
    raise ConfigurationError(f"{what}: {said} (SQLSTATE {error.sqlstate})") from error
