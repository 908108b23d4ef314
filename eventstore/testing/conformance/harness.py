"""What the suite must be told about a backend, since the interface does not show it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from eventstore import EventStore, drop_namespace, open_store


class Joins(ABC):
    """How to make transactions that an append can join with ``connection=``.

    Needed by a backend with ``Capability.JOIN_TRANSACTION``. ``namespace`` is that of the
    test, to keep the caller's own table apart from others'.
    """

    conflict_leaves_transaction_usable: bool = True
    """Whether the transaction goes on after an append in it was refused."""

    @abstractmethod
    def connect(self, namespace: str) -> AbstractContextManager[Any]:
        """Return a new connection to the harness's database, closed at the end of ``with``.

        It has a table (or the like) for ``write_note``.
        """

    @abstractmethod
    def begin(self, connection: Any) -> None:
        """Begin a transaction; nothing where the connection begins them by itself."""

    def begin_with_snapshot(self, connection: Any) -> bool:
        """Begin a transaction that goes on seeing the database as it is now, and return True;
        False where there is no such thing."""
        return False

    @abstractmethod
    def commit(self, connection: Any) -> None:
        """Commit the open transaction."""

    @abstractmethod
    def rollback(self, connection: Any) -> None:
        """Roll the open transaction back."""

    @abstractmethod
    def write_note(self, connection: Any, note: str) -> None:
        """Write a record of the caller's own within the open transaction."""

    @abstractmethod
    def notes(self, connection: Any) -> list[str]:
        """Return the caller's committed records, in any order."""

    def unsuitable(self, namespace: str) -> Mapping[str, Callable[[], AbstractContextManager[Any]]]:
        """Return connections that must be refused with ConfigurationError, each by a name:
        one in autocommit outside a transaction, one to another database …"""
        return {}


@dataclass(frozen=True, kw_only=True)
class Harness:
    """Where a backend's logs are, and what a test must know of it beside the interface.

    ``url`` names a database whose logs can be opened several times; each test uses a
    namespace of its own in it and drops that at its end.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keywords for ``open_store``."""
    joins: Joins | None = None
    """Needed exactly by a backend with ``Capability.JOIN_TRANSACTION``."""
    voiding_options: Sequence[tuple[str, str]] = ()
    """Options of the driver, with a value each, that would void a guarantee, and which must be
    refused by name."""
    own_options: Sequence[tuple[str, Any]] = ()
    """Options of the adapter's own, each with a value that must be refused by name."""

    set_formats: Callable[[str, int, int], None] | None = None
    """Given a namespace, a least reader and a least writer, notes these in that log, as a newer
    release would. Without it, what a log of another format means is not tested."""

    history_seconds: float = 3.0
    """How long the history checker's processes work."""

    def options_of(self, namespace: str, **options: Any) -> dict[str, Any]:
        """Return the keywords that open the log of ``namespace``. Its timeout is long, so that
        a busy machine fails no test."""
        return {"timeout": 30.0, **self.options, "namespace": namespace, **options}

    def open(self, namespace: str, **options: Any) -> EventStore:
        """Open the log of ``namespace``."""
        return open_store(self.url, **self.options_of(namespace, **options))

    def drop(self, namespace: str) -> None:
        """Remove the log of ``namespace``."""
        drop_namespace(self.url, **self.options_of(namespace))
