"""Opening a log: one rule for which engines will do, what may be made, and who may read and write
what is there."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from eventstore.backend.interface import Backend
from eventstore.backend.settings import Engine, Settings
from eventstore.errors import (
    ConfigurationError,
    StoreUnavailableError,
    UnsupportedOperationError,
)

_B = TypeVar("_B", bound=Backend)


def open_log(adapter: type[_B], settings: Settings) -> _B:
    """Return an open backend of a log, made where it was not there and may be.

    Raises ConfigurationError for an engine not known to keep the guarantees, for a log that is
    not there and may not be made, and for one that only a newer release reads.
    """
    backend = adapter.connect(settings)
    try:
        _check_engine(backend, settings)
        found = backend.look()
        if found is None:
            if not settings.create:
                raise ConfigurationError(
                    f"{settings.safe_url}: has no log {settings.namespace!r}; make it with"
                    " `eventstore init`, or open it without create=false"
                )
            backend.make()
            found = backend.look()
            if found is None:
                raise StoreUnavailableError(
                    f"the log {settings.namespace!r} was removed while it was opened"
                )
        if found.least_reader > adapter.log_format:
            raise ConfigurationError(
                f"namespace: the log {settings.namespace!r} has format {found.least_reader}, and"
                f" this release reads up to {adapter.log_format}: upgrade eventstore-toolkit"
            )
        backend.found = found
    except BaseException:
        backend.close()
        raise
    return backend


def drop_log(adapter: type[Backend], settings: Settings) -> bool:
    """Remove a log with all it holds; return whether it was there."""
    backend = adapter.connect(msgspec.structs.replace(settings, create=False))
    try:
        return backend.remove()
    finally:
        backend.close()


def refusal_to_append(backend: Backend, settings: Settings) -> UnsupportedOperationError | None:
    """Return why this release may not append to a log that it reads; None where it may."""
    least = backend.found.least_writer
    if least <= backend.log_format:
        return None
    return UnsupportedOperationError(
        f"append: the log {settings.namespace!r} takes what has format {least} or newer, and this"
        f" release writes format {backend.log_format}: upgrade eventstore-toolkit (reading works)"
    )


def _check_engine(backend: Backend, settings: Settings) -> None:
    """Refuse what speaks an engine's protocol and is another: its locks may be stubs, its reads
    and writes mean less than they say."""
    doubt = backend.engine_doubt()
    if doubt is not None and settings.engine is Engine.KNOWN:
        raise ConfigurationError(
            f"{settings.safe_url}: {doubt}, which is not known to keep the guarantees; run the"
            " conformance suite on it, and give engine=unchecked to use it all the same"
        )
