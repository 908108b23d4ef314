"""Connecting, by a client of the store's own or of the caller's."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final
from urllib.parse import unquote

import pymongo
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from eventstore.backend import INSTANT, Durability, Settings, time_left
from eventstore.errors import ConfigurationError
from eventstore_mongodb.records import OPTIONS

_DEFAULT_DATABASE: Final = "eventstore"
_SECRET: Final = re.compile(r"(?i)password|authmechanismproperties")
_CLOCK_ASKED_EVERY: Final = 60.0


class Clock:
    """The server's time, without asking for it each time. Threads that ask at once get an answer
    each, and either will do."""

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


def connected(settings: Settings) -> pymongo.MongoClient[Any]:
    """Return a client of the driver's; ConfigurationError for a bad URL or option."""
    milliseconds = max(round(time_left(settings.timeout) * 1000), 1)
    options = {
        # Unlike what is given, for the driver takes these in any case of letters too.
        "connecttimeoutms": min(milliseconds, 20_000),
        "appname": "eventstore",
        **{name.lower(): value for name, value in settings.driver_options.items()},
        "serverselectiontimeoutms": milliseconds,
        "retrywrites": False,  # the store tries again by itself, and on every server
    }
    url = f"{settings.scheme}://{settings.location}"
    try:
        if "." in _database_name(settings):
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


def given_client(settings: Settings) -> pymongo.MongoClient[Any]:
    """Return the caller's client; ConfigurationError where the URL says how to connect too, or
    the client would void a guarantee."""
    client: pymongo.MongoClient[Any] = settings.own_options["client"]
    if settings.location.partition("/")[0] or settings.driver_options:
        raise ConfigurationError(
            "client: it has its hosts and options already: give with it no more of a URL than"
            " mongodb:///database"
        )
    if client.options.auto_encryption_opts is not None:
        raise ConfigurationError("client: it encrypts fields by itself, and look-ups need them")
    return client


def database_of(client: Any, settings: Settings) -> Database[Any]:
    """Return the database that the URL names, read and written as the guarantees need it,
    whatever the client is set to."""
    durable = settings.durability is not Durability.RELAXED
    database: Database[Any] = client.get_database(
        _database_name(settings) or _DEFAULT_DATABASE,
        codec_options=OPTIONS,
        read_preference=ReadPreference.PRIMARY,
        read_concern=ReadConcern("majority"),
        write_concern=WriteConcern("majority", j=durable),
    )
    return database


def closed(client: pymongo.MongoClient[Any], timeout: float) -> None:
    """Close a client within ``timeout`` seconds, whether or not the server says goodbye."""
    with pymongo.timeout(max(timeout, INSTANT)):
        client.close()


def _database_name(settings: Settings) -> str:
    return unquote(settings.location.rpartition("@")[2].partition("/")[2])


def _without_secrets(text: str, options: Mapping[str, Any]) -> str:
    """Return what the driver says without the values of options that may be secret."""
    for name, value in options.items():
        if _SECRET.search(name) and str(value):
            text = text.replace(str(value), "***")
    return text
