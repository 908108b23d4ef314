"""``open_store``: from a URL to a store, by way of the entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from eventstore.backend import Backend
from eventstore.errors import (
    ConfigurationError,
    MissingDriverError,
    UnsupportedOperationError,
)
from eventstore.log import Log, logger
from eventstore.store import EventStore
from eventstore.url import Settings, redacted, split_url

GROUP: Final = "eventstore.adapters"

_DRIVERS: Final = {
    "psycopg": "postgres",
    "psycopg_pool": "postgres",
    "redis": "redis",
    "fakeredis": "testing",
    "pymongo": "mongodb",
    "bson": "mongodb",
    "mongomock": "testing",
}
"""Which extra of this distribution installs a driver."""


def open_store(url: str, **options: Any) -> EventStore:
    """Open the log that ``url`` names, creating it where it is not there.

    Options go into the query string or are given as keywords, which win: ``namespace``
    ("eventstore"), ``create`` (True), ``durability`` ("standard", "strict" or "relaxed"),
    ``timeout`` (10.0 seconds to wait for the engine, a lock or a pool slot), ``retries`` (10),
    and the adapter's and the driver's own.

    Raises ConfigurationError for a URL or an option that is not as it must be,
    MissingDriverError where the driver is not installed, StoreUnavailableError where the
    engine does not answer. Emits DurabilityWarning where the server may lose what it
    acknowledges.
    """
    adapter, settings = _resolve(url, options)
    log = Log(adapter.open(settings), settings)
    try:
        log.report_durability()
    except BaseException:
        log.close()
        raise
    logger.debug("opened %s", settings.safe_url)
    return EventStore(log)


def drop_namespace(url: str, **options: Any) -> None:
    """Remove the log that ``url`` names, with every event in it. There is no way back.

    Takes the same options as ``open_store`` and raises the same errors. A log that does not
    exist is no error.
    """
    adapter, settings = _resolve(url, options)
    adapter.drop(settings)
    logger.debug("dropped %s", settings.safe_url)


def schema_ddl(url: str, *, strict: bool = False, **options: Any) -> str:
    """Return the statements that create the log that ``url`` names, to be run by hand before it
    is opened with ``create=False``. Nothing is connected to.

    ``strict``: for a log that is appended to by functions alone, with the rights of a role that
    cannot log in. Raises ConfigurationError, and UnsupportedOperationError where there is no such
    schema.
    """
    adapter, settings = _resolve(url, options | {"strict": True} if strict else options)
    if strict and "strict" not in adapter.options:
        raise UnsupportedOperationError(f"strict: {settings.scheme}:// has no stricter schema")
    return adapter.schema_ddl(settings)


def _resolve(url: str, options: dict[str, Any]) -> tuple[type[Backend], Settings]:
    scheme, _, _ = split_url(url)
    found = entry_points(group=GROUP)
    named = [entry for entry in found if entry.name == scheme]
    if not named:
        known = ", ".join(sorted(f"{name}://" for name in found.names))
        raise ConfigurationError(
            f"url: no adapter for {scheme}:// in {redacted(url)!r}; installed are {known}"
        )
    adapter = _load(named[0])
    return adapter, Settings.parse(url, options, adapter.options)


def _load(entry: EntryPoint) -> type[Backend]:
    try:
        adapter = entry.load()
    except ModuleNotFoundError as error:
        driver = (error.name or "").partition(".")[0]
        if driver not in _DRIVERS:
            raise
        raise MissingDriverError(
            f"{entry.name}:// needs the driver {driver!r}:"
            f" pip install 'eventstore-toolkit[{_DRIVERS[driver]}]'"
        ) from error
    if not (isinstance(adapter, type) and issubclass(adapter, Backend)):
        raise ConfigurationError(
            f"the entry point {entry.name!r} of {GROUP!r} is not a Backend but {adapter!r}"
        )
    return adapter
