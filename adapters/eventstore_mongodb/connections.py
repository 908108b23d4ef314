"""Connecting: which options the driver may be given, what the server can do, and what the
driver's errors mean."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import pymongo
from bson.errors import BSONError
from pymongo.client_session import ClientSession
from pymongo.common import VALIDATORS
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    InvalidName,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)
from pymongo.errors import ConfigurationError as DriverConfigurationError

from eventstore.backend import INSTANT, Settings, time_left
from eventstore.errors import (
    ConfigurationError,
    CorruptLogError,
    StoreUnavailableError,
    TransactionConflictError,
)

_PASSED_ON: Final = re.compile(
    "appname|auth(mechanism(properties)?|source)|compressors|zlibcompressionlevel"
    "|connecttimeoutms|heartbeatfrequencyms|localthresholdms|servermonitoringmode"
    "|(max|min)poolsize|maxconnecting|maxidletimems|retryreads"
    "|directconnection|loadbalanced|replicaset|srvmaxhosts|srvservicename"
    "|ssl|tls(allowinvalid(certificates|hostnames)|cafile|certificatekeyfile(password)?|crlfile"
    "|disableocspendpointcheck|insecure)?"
)
"""Options, in lower case, that change no guarantee."""

_SECRET: Final = re.compile(r"(?i)password|authmechanismproperties")

_SETTLED: Final = {
    "w": "majority",
    "journal": "true",
    "readconcernlevel": "majority",
    "readpreference": "primary",
}
"""Options that are as they are; common URLs carry them, so the same value is welcome."""

_DRIVERS_OPTIONS: Final = frozenset(VALIDATORS)
"""All that the driver knows, in lower case."""

_INSTEAD: Final = dict.fromkeys(
    (
        "timeoutms",
        "sockettimeoutms",
        "serverselectiontimeoutms",
        "waitqueuetimeoutms",
        "wtimeoutms",
    ),
    "use timeout (seconds), which bounds every operation",
)

_DUPLICATE: Final = 11000
_REPEATED: Final = re.compile(
    r"(?s), (full error|Timeout): .*| ?\(configured timeouts: [^)]*\)|\[Errno -?\d+\] "
)
"""What the driver says once more, or of itself: the whole reply, its view of all servers."""

_OUT_OF_DISK: Final = 14031
_UNAUTHORIZED: Final = frozenset({13, 18, 8000})
_TRANSIENT: Final = frozenset(
    {6, 7, 50, 89, 91, 112, 134, 189, 202, 246, 262, 290, 9001, 10107}
    | {11600, 11601, 11602, 13435, 13436}
)
"""Codes of what passes: network, time limits, write conflicts, shutdown, a change of primary,
reads that a majority cannot serve yet, an operation that was killed."""
_CLOCK_ASKED_EVERY: Final = 60.0


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of itself."""

    version: str
    name: str = ""
    """What it is, with its version: not all that speak MongoDB's protocol are MongoDB."""
    has_replication: bool = False
    """A replica set or a router: there are linearizable reads and change streams."""
    is_router: bool = False
    has_transactions: bool = False
    max_document_bytes: int = 16 * 1024 * 1024


class Clock:
    """The server's time, without asking for it each time."""

    def __init__(self, server_time: Callable[[], datetime]) -> None:
        self._server_time = server_time
        self._ahead = timedelta()
        self._asked: float | None = None

    def now(self) -> datetime:
        """Return the time in whole milliseconds, as BSON keeps it."""
        if self._asked is None or monotonic() - self._asked > _CLOCK_ASKED_EVERY:
            self._ahead = self._server_time().replace(tzinfo=UTC) - datetime.now(UTC)
            self._asked = monotonic()
        now = datetime.now(UTC) + self._ahead
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


def client_options(settings: Settings) -> dict[str, Any]:
    """Return what the driver is to be given; ConfigurationError, by name, for what may not."""
    options: dict[str, Any] = {}
    for name, value in settings.driver_options.items():
        lower = name.lower()
        text = str(value).lower() if isinstance(value, bool) else value
        if _PASSED_ON.fullmatch(lower):
            options[name] = text
        elif lower in _SETTLED:
            if str(text).lower() != _SETTLED[lower]:
                raise ConfigurationError(
                    f"{name}: must be {_SETTLED[lower]}, not {value!r:.100}: anything else could"
                    " lose events or show an old state"
                )
        elif lower == "retrywrites":
            pass  # the store tries again by itself, on servers without retryable writes too
        elif lower in _INSTEAD:
            raise ConfigurationError(f"{name}: {_INSTEAD[lower]}")
        elif lower in _DRIVERS_OPTIONS:
            raise ConfigurationError(
                f"{name}: could change what the store guarantees; leave it out"
            )
        else:
            raise settings.unknown_option(name, [*_SETTLED, *_DRIVERS_OPTIONS])
    milliseconds = max(round(time_left(settings.timeout) * 1000), 1)
    options.setdefault("connectTimeoutMS", min(milliseconds, 20_000))
    options.setdefault("appName", "eventstore")
    return {**options, "serverSelectionTimeoutMS": milliseconds, "retryWrites": False}


def connected(settings: Settings) -> pymongo.MongoClient[Any]:
    """Return a client of the driver's; ConfigurationError for a bad URL or option."""
    options = client_options(settings)
    url = f"{settings.scheme}://{settings.location}"
    database = settings.location.rpartition("@")[2].partition("/")[2]
    try:
        if "." in unquote(database):
            raise ValueError("the driver would take this for a database and a collection")
        pymongo.MongoClient[Any](url, connect=False).close()
    except (PyMongoError, ValueError, TypeError):
        # Without the cause: the driver's messages quote parts of the URL, so of the password.
        raise ConfigurationError(
            f"url: {settings.safe_url} is not readable as a MongoDB URL: it looks like"
            " mongodb://user:password@host:27017/database, the user and the password"
            " percent-encoded"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # some bad values the driver only warns of
            return pymongo.MongoClient[Any](url, connect=False, **options)
    except (PyMongoError, ValueError, TypeError, OSError, UserWarning) as error:
        # A missing certificate is an OSError. Without the cause, for the reason above.
        raise ConfigurationError(
            f"{settings.safe_url}: {_without_secrets(str(error), options)}"
        ) from None


def _without_secrets(text: str, options: Mapping[str, Any]) -> str:
    """Return what the driver says without the values of options that may be secret."""
    for name, value in options.items():
        if _SECRET.search(name) and str(value):
            text = text.replace(str(value), "***")
    return text


def closed(client: pymongo.MongoClient[Any], timeout: float) -> None:
    """Close a client within ``timeout`` seconds, whether or not the server says goodbye."""
    with pymongo.timeout(max(timeout, INSTANT)):
        client.close()


def described(client: pymongo.MongoClient[Any]) -> Server:
    """Ask the server what it is; ConfigurationError where it must not be spoken to directly."""
    hello = client.admin.command("hello")
    is_router = hello.get("msg") == "isdbgrid"
    members = [*hello.get("hosts", ()), *hello.get("passives", ())]
    if client.options.direct_connection and len(members) > 1:
        raise ConfigurationError(
            "directConnection: this server is a member of a replica set of several; connected to"
            " directly it would be read from when it is no longer the primary; leave it out"
        )
    build = client.server_info()
    return Server(
        version=str(build["version"]),
        name=server_name(build),
        has_replication=is_router or "setName" in hello,
        is_router=is_router,
        has_transactions=_has_transactions(client),
        max_document_bytes=hello["maxBsonObjectSize"],
    )


def server_name(build: Mapping[str, Any]) -> str:
    """Return what a server is, from its reply to ``buildInfo``.

    Others give MongoDB's version as theirs, for drivers look at it. Only MongoDB names the
    commit it was built from and its allocator; SecantusDB adds its own version.
    """
    said = f"MongoDB {build['version']}"
    if "secantusVersion" in build:
        return f"SecantusDB {build['secantusVersion']}, announced as {said}"
    if str(build.get("gitVersion", "")).strip("0") and "allocator" in build:
        return said
    return f"a server announced as {said}"


def _has_transactions(client: pymongo.MongoClient[Any]) -> bool:
    """Try it out: versions and topologies that say they have sessions differ in this."""
    try:
        with client.start_session() as session, session.start_transaction():
            client["eventstore"]["probe"].find_one({}, session=session)
    except (OperationFailure, DriverConfigurationError, InvalidOperation):
        return False
    return True


@contextmanager
def driver_errors(timeout: float, *, may_have_written: bool = False) -> Iterator[None]:
    """Bound what the driver does by ``timeout`` seconds, and translate its errors."""
    try:
        with pymongo.timeout(max(timeout, INSTANT)):
            yield
    except BSONError as error:
        raise CorruptLogError(f"a stored document cannot be read: {error}") from error
    except PyMongoError as error:
        raise translated(error, may_have_written=may_have_written) from error


def surely_unsent(error: PyMongoError) -> bool:
    """Return whether the driver had not begun to send."""
    return isinstance(error, (ServerSelectionTimeoutError, WaitQueueTimeoutError))


def is_passing(error: PyMongoError) -> bool:
    """Return whether the same may work soon, and may even have been done."""
    if isinstance(error, WriteConcernError):
        return True  # it was done, but not confirmed
    if isinstance(error, OperationFailure):
        labelled = error.has_error_label("RetryableWriteError")
        return labelled or error.timeout or error.code in _TRANSIENT
    return isinstance(error, ConnectionFailure) or error.timeout


def translated(error: PyMongoError, *, may_have_written: bool = False) -> Exception:
    """Return the error of ours for one of the driver's."""
    text = _summary(error)
    if isinstance(error, OperationFailure) and error.code in _UNAUTHORIZED:
        return ConfigurationError(
            f"the server refuses this user: {text}; check user, password, authSource and roles"
        )
    if isinstance(error, (DriverConfigurationError, InvalidName)):
        return ConfigurationError(text)
    written = may_have_written and not surely_unsent(error)
    if is_passing(error):
        return StoreUnavailableError(
            f"the MongoDB server did not answer as it should: {text}", may_have_written=written
        )
    full = isinstance(error, OperationFailure) and error.code == _OUT_OF_DISK
    what = "has no room left" if full else "refused"
    return StoreUnavailableError(
        f"the MongoDB server {what}: {text}", may_have_written=False, transient=False
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


def in_doubt(error: PyMongoError) -> StoreUnavailableError:
    """Return the error of ours where something may be stored, and ``error`` keeps us from
    finding out."""
    return StoreUnavailableError(
        f"it is not known whether the append was stored, for the look was refused:"
        f" {_summary(error)}; once that is settled, append the same events again",
        may_have_written=True,
        transient=False,
    )


def _summary(error: PyMongoError) -> str:
    return _REPEATED.sub("", str(error))


@contextmanager
def transaction_errors() -> Iterator[None]:
    """Translate what spoils the caller's transaction; other errors pass."""
    try:
        yield
    except pymongo.errors.DuplicateKeyError as error:
        raise conflict() from error
    except PyMongoError as error:
        if error.has_error_label("TransientTransactionError"):
            raise conflict() from error
        if isinstance(error, InvalidOperation):
            raise ConfigurationError(f"connection: {error}") from error
        raise


def conflict() -> TransactionConflictError:
    return TransactionConflictError(
        "another append came first, or the server was lost: abort the transaction and run it again"
    )


def is_weak(session: ClientSession) -> bool:
    """Return whether the session's open transaction commits with less than the store does."""
    # Nothing public tells what start_transaction() was given.
    options = session._transaction.opts
    concern = options.write_concern if options else None
    return concern is not None and concern.document.get("w", "majority") != "majority"
