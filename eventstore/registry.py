"""``open_store``: from a URL to a store, by way of the entry points."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Literal

from eventstore._core.log import Log
from eventstore._core.retrying import by_the_system, keep_trying, logger
from eventstore.backend import Backend, drop_log, open_log
from eventstore.backend.deadline import within
from eventstore.backend.durability import report_risk
from eventstore.backend.settings import Durability, Engine, Settings, split_url
from eventstore.errors import (
    ConfigurationError,
    MissingDriverError,
    UnsupportedOperationError,
)
from eventstore.store import EventStore

GROUP: Final = "eventstore.adapters"
URL_VARIABLE: Final = "EVENTSTORE_URL"
"""The environment variable that names the log where no URL is given."""


class _NotGiven:
    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final[Any] = _NotGiven()
"""Stands for an option that is left to the URL. Not None: a variable that happens to be None must
not quietly mean the default, least of all where a log is dropped."""

_DRIVERS: Final = {
    "psycopg": ("psycopg", "postgres"),
    "redis": ("redis", "redis"),
    "fakeredis": ("fakeredis", "testing"),
    "pymongo": ("pymongo", "mongodb"),
    "bson": ("pymongo", "mongodb"),
    "mongomock": ("mongomock", "testing"),
}
"""For a module the distribution that holds it, and which extra of this one installs that."""


def open_store(
    url: str | None = None,
    *,
    namespace: str = NOT_GIVEN,
    create: bool = NOT_GIVEN,
    durability: Durability | Literal["standard", "strict", "relaxed"] = NOT_GIVEN,
    timeout: float = NOT_GIVEN,
    retries: int = NOT_GIVEN,
    engine: Engine | Literal["known", "unchecked"] = NOT_GIVEN,
    **options: Any,
) -> EventStore:
    """Open the log that ``url`` names, creating it where it is not there::

        with open_store("sqlite:///orders.db", timeout=5) as store:
            store.append(Event(event_type="Placed", entity_type="order", entity_id="o-1"))

    ``url``: ``sqlite:///path``, ``postgresql://user@host/database``, ``mongodb://host/database``
        (``mongodb+srv://``), ``redis://host`` (``rediss://``, ``redis+cluster://``); for tests
        ``memory://`` or ``memory://name``, ``fakeredis://``, ``mongomock://``. Packages of
        others may add schemes. Without it that in the environment variable ``EVENTSTORE_URL``
        counts.

    Every option may stand in the query string too (``sqlite:///orders.db?timeout=5``); one given
    here wins.

    ``namespace``: which of the database's logs; "eventstore" unless given. A lower-case letter
        and up to 39 more letters, digits or "_".
    ``create``: make the log where it is not there; True unless given.
    ``durability``: what to do where the server may lose what it acknowledged: "standard" warns
        (unless given), "strict" refuses to open, "relaxed" accepts it, and may trade safety for
        speed.
    ``timeout``: how many seconds this call, and each one of the store, waits for the engine; 10
        unless given.
    ``retries``: how often it tries again within that; as often as it can unless given.
    ``engine``: "known" refuses what speaks an engine's protocol but is not known to keep the
        guarantees (unless given), "unchecked" takes it at your word.
    ``options``: the adapter's own (docs/ has a page on each) and its driver's, such as
        ``sslmode`` or ``replicaSet``. What nobody knows is refused by name.

    Raises ConfigurationError for a URL or an option that is not as it must be,
    MissingDriverError where the driver is not installed, StoreUnavailableError where the
    engine does not answer within ``timeout``. Emits DurabilityWarning where the server may
    lose what it acknowledges.
    """
    if url is None and not (url := os.environ.get(URL_VARIABLE)):
        raise ConfigurationError(
            f"url: give one, such as sqlite:///orders.db, or set {URL_VARIABLE}"
        )
    core = _given(
        namespace=namespace,
        create=create,
        durability=durability,
        timeout=timeout,
        retries=retries,
        engine=engine,
    )
    adapter, settings = _resolve(url, core | options)
    log, risks = keep_trying(partial(_open, adapter, settings), settings, time.sleep)
    try:
        for risk in risks:
            report_risk(risk, settings.durability)
    except BaseException:
        log.close()
        raise
    logger.debug("opened %s", settings.safe_url)
    return EventStore(log)


def _open(adapter: type[Backend], settings: Settings, _: float) -> tuple[Log, Sequence[str]]:
    log = Log(open_log(adapter, settings), settings)
    try:
        return log, log.durability_risks()
    except BaseException:
        log.close()
        raise


def drop_namespace(
    url: str,
    *,
    namespace: str = NOT_GIVEN,
    create: bool = NOT_GIVEN,
    durability: Durability | Literal["standard", "strict", "relaxed"] = NOT_GIVEN,
    timeout: float = NOT_GIVEN,
    retries: int = NOT_GIVEN,
    engine: Engine | Literal["known", "unchecked"] = NOT_GIVEN,
    **options: Any,
) -> bool:
    """Remove the log that ``url`` names, with every event in it, and return whether there was
    one. There is no way back::

        drop_namespace("sqlite:///orders.db", namespace="test_orders")

    Takes the options that ``open_store`` takes, so that one set of them serves both, and raises
    the same errors.
    """
    core = _given(
        namespace=namespace,
        create=create,
        durability=durability,
        timeout=timeout,
        retries=retries,
        engine=engine,
    )
    adapter, settings = _resolve(url, core | options)
    with _errors_of_the_system():
        was_there = within(
            settings.timeout,
            lambda _: drop_log(adapter, settings),
        )
    logger.debug("dropped %s", settings.safe_url)
    return was_there


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not NOT_GIVEN}


def settings_of(url: str, **options: Any) -> Settings:
    """Return a URL and its options taken apart, as ``open_store`` would. Nothing is connected to.

    Raises ConfigurationError.
    """
    return _resolve(url, options)[1]


def schema_ddl(url: str, *, strict: bool = False, **options: Any) -> str:
    """Return the statements that create the log that ``url`` names, to be run by hand before it
    is opened with ``create=False``. Nothing is connected to.

    ``strict``: for a log that is appended to by functions alone, with the rights of a role that
    cannot log in. Raises ConfigurationError, and UnsupportedOperationError where there is no such
    schema.
    """
    scheme, _, _ = split_url(url)
    adapter = _adapter_of(scheme)
    if strict:
        if "strict" not in adapter.options.own:
            raise UnsupportedOperationError(f"strict: {scheme}:// has no stricter schema")
        options["strict"] = True
    return adapter.schema_ddl(Settings.parse(url, options, adapter.options))


def _resolve(url: str, options: dict[str, Any]) -> tuple[type[Backend], Settings]:
    scheme, _, _ = split_url(url)
    adapter = _adapter_of(scheme)
    return adapter, Settings.parse(url, options, adapter.options)


def _adapter_of(scheme: str) -> type[Backend]:
    with _errors_of_the_system():
        found = entry_points(group=GROUP)
        named = [entry for entry in found if entry.name == scheme]
        if not named:
            known = ", ".join(sorted(f"{name}://" for name in found.names))
            engine, plus, _ = scheme.partition("+")
            hint = (
                f"; write {engine}:// alone (a driver in the scheme is SQLAlchemy's form)"
                if plus and engine in found.names
                else ""
            )
            raise ConfigurationError(
                f"url: no adapter for {scheme:.40}://{hint}; installed are {known}"
            )
        if len(named) > 1:
            raise ConfigurationError(
                f"url: {scheme}:// is registered by several distributions,"
                f" {' and '.join(sorted(map(_origin, named)))}: uninstall all but one"
            )
        return _load(named[0])


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name!r} ({entry.value})" if entry.dist else entry.value


@contextmanager
def _errors_of_the_system() -> Iterator[None]:
    """Raise what the operating system refuses (a file, a socket) as errors of ours."""
    try:
        yield
    except OSError as error:
        raise by_the_system(error) from error


def _load(entry: EntryPoint) -> type[Backend]:
    try:
        adapter = entry.load()
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _DRIVERS:
            raise
        driver, extra = _DRIVERS[module]
        raise MissingDriverError(
            f"{entry.name}:// needs the driver {driver!r}:"
            f" pip install 'eventstore-toolkit[{extra}]'"
        ) from error
    if not (isinstance(adapter, type) and issubclass(adapter, Backend)):
        raise ConfigurationError(
            f"the entry point {entry.name!r} of {GROUP!r} is not a Backend but {adapter!r}"
        )
    return adapter
