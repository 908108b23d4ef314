"""What a database must do to hold a log: the primitives behind ``EventStore``.

A backend does I/O and nothing else. What it is given is valid and encoded; retries, group
commit, paging, tenants, positions and closing are the core's (``_core/log.py``, ``store.py``).
docs/write-your-own-backend.md walks through one; ``memory.py`` is the reference;
``eventstore.testing`` proves it.

Every method may be called by several threads at once, except that ``commit`` is called by one
thread at a time. Errors of the driver are translated (``raise … from``):
``StoreUnavailableError`` for what may pass, with ``may_have_written`` where a commit's fate is
unknown; CorruptLogError for what cannot be read.

A method is given the time that the caller's whole call has left: whatever waits in it, in
``open``, ``drop`` and ``close`` too, waits for ``deadline.time_left(settings.timeout)`` at the most
(``commit`` and ``join`` are told it). Once a log was opened, no other one takes its place: where it
was dropped and made anew, ``commit``, ``join`` and ``head`` raise LogReplacedError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar, Literal, Self

import msgspec

from eventstore.backend.options import Options
from eventstore.backend.planner import Batch, EventKey, Outcome
from eventstore.backend.settings import Settings
from eventstore.errors import UnsupportedOperationError
from eventstore.event import Entity, Event
from eventstore.query import EventQuery


class Capability(Enum):
    """What not every backend can do."""

    JOIN_TRANSACTION = "join_transaction"
    """``connection=`` joins a transaction of the caller's."""
    MULTI_PROCESS = "multi_process"
    """Several processes may share one log."""
    PERSISTENT = "persistent"
    """The log outlives the store, and the process."""


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A page of events, by key. Bounds apply on top of those in ``query``."""

    query: EventQuery
    """Only its filter fields count here, ``any_of`` among them."""
    limit: int
    """At most so many events; at least 1."""
    offset: int = 0
    """Skip so many matches, in order, before the first."""
    after: int = 0
    """Only sequences above this one."""
    up_to: int | None = None
    """Only sequences up to this one; None: as many as one consistent read shows."""
    order_by: Literal["sequence", "timestamp"] = "sequence"
    ascending: bool = True
    above_version: int = 0
    """With the query of one whole entity in sequence order: only versions above this one."""
    resume: tuple[datetime, int] | None = None
    """In timestamp order: only events beyond this ``(timestamp, sequence)``."""


class Found(msgspec.Struct, frozen=True):
    """What a log says of itself."""

    log_id: str
    """The random id that was made with it."""
    least_reader: int
    """The least format that a release must understand to read it …"""
    least_writer: int
    """… and to append to it. An addition that readers may pass over raises this one alone, so
    that yesterday's programs go on reading."""


class Backend(ABC):
    """The primitives over one namespace of one database.

    Made by ``open_log`` (opening.py has the rules), closed by ``close``. Subclasses are registered
    by scheme in the entry-point group ``eventstore.adapters``.
    """

    options: ClassVar[Options] = Options()
    """What it takes beside the options that every store has."""

    log_format: ClassVar[int] = 1
    """The newest format of a log that it understands: it reads and appends to logs that ask for
    this one or an older."""

    max_group_bytes: ClassVar[int] = 4_000_000
    """Batches of many threads are committed together up to this weight (``Batch.weight``); 0
    where a commit waits for nothing, so that sharing one would only cost."""

    # --- Opening and closing

    found: Found
    """The log, as it was when it was opened."""

    @classmethod
    @abstractmethod
    def connect(cls, settings: Settings) -> Self:
        """Return a backend that reaches the engine, to be asked for the log. Nothing is made.

        Raises ConfigurationError for anything that is not as it must be.
        """

    def engine_doubt(self) -> str | None:
        """Return what it is that answers, where that is not known to keep the guarantees."""
        return None

    @abstractmethod
    def look(self) -> Found | None:
        """Return what the log says of itself, None where there is none.

        Raises ConfigurationError where something else has its place.
        """

    @abstractmethod
    def make(self) -> None:
        """Make the log, unless another was faster."""

    @abstractmethod
    def remove(self) -> bool:
        """Remove the log with all it holds; return whether it was there."""

    @classmethod
    def schema_ddl(cls, settings: Settings) -> str:
        """Return the statements that create the namespace and the rights that a least-privilege
        role needs, for teams that run their DDL by themselves. Connects to nothing."""
        raise UnsupportedOperationError(
            f"schema: {settings.scheme}:// has none to run by hand; `eventstore init` makes the log"
        )

    @abstractmethod
    def close(self) -> None:
        """Let go of every connection. No commit is in flight; reads may be."""

    @abstractmethod
    def after_fork(self) -> None:
        """Make state anew in a forked child: leave the parent's connections alone, neither
        using nor closing them (dropping the last reference may close), replace locks."""

    @property
    def log_id(self) -> str:
        """The random id made with the log."""
        return self.found.log_id

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """What it can do as it was opened."""

    def durability_risks(self) -> Sequence[str]:
        """Return how this server, as it stands, may lose acknowledged events, each with what
        to set instead. The core warns, refuses or accepts, as ``?durability=`` asks."""
        return ()

    def info(self) -> Mapping[str, str | int]:
        """Return facts for people: at least ``backend`` and ``server`` (name and version);
        also ``durability`` and, where cheap, ``size_bytes`` of the log and its indexes."""
        return {"backend": type(self).__name__}

    # --- Writing

    @abstractmethod
    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        """Store the batches that stand, atomically and durably, and return each one's outcome.

        All in one transaction, by the rules in ``planner.py``; an outcome that is an error
        leaves the others alone. Give up after ``timeout`` seconds with StoreUnavailableError.
        An exception (KeyboardInterrupt too) leaves no transaction open.
        """

    def join(self, connection: Any, batch: Batch, timeout: float) -> Outcome:
        """Store a batch inside the caller's open transaction, and leave that open.

        Begins the transaction where the connection does so by itself; depends on and changes
        none of its settings. ConfigurationError for another kind of connection, one outside a
        transaction, or one to another database; TransactionConflictError where the caller must
        run the transaction again.
        """
        raise UnsupportedOperationError(
            "connection: this backend cannot join a transaction (Capability.JOIN_TRANSACTION)"
        )

    def in_transaction(self, connection: Any) -> bool:
        """Return whether a connection that was joined still holds its transaction open."""
        return False

    # --- Reading: all that a returned append wrote is seen (G4)

    @abstractmethod
    def read(self, page: PageRequest) -> list[Event]:
        """Return a page of events, in one consistent read."""

    @abstractmethod
    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        """Return the events of these identities, those that are recorded, in any order."""

    @abstractmethod
    def count(self, query: EventQuery) -> int:
        """Return how many events the filter fields of ``query`` match."""

    @abstractmethod
    def head(self) -> int:
        """Return the highest sequence, 0 when empty. Never goes back.

        LogReplacedError where this is not the log that was opened.
        """

    def confirmed_head(self) -> int:
        """Return the head beyond doubt, where reads may lag after a failover.

        Asked before a position is called beyond the head.
        """
        return self.head()

    @abstractmethod
    def version(self, entity: Entity) -> int:
        """Return the entity's current version, 0 where it has no events."""

    @abstractmethod
    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        """Return entities, newest first by the sequence of their first event."""

    # --- Waiting

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        """Return when the head may be above ``after``, at the latest after ``timeout`` seconds.

        This default polls with a growing interval. ``nap(seconds)`` sleeps, but wakes at once
        when this store appends or closes, and raises where the wait was called off; a backend
        that blocks in its driver instead is called in short turns.
        """
        interval = 0.001
        while timeout > 0 and self.head() <= after:
            nap(min(interval, timeout))
            timeout -= interval
            interval = min(interval * 2, 0.05)
