"""Every error this package raises on purpose, in one tree.

    EventStoreError
    ├── ConcurrencyError              someone else's event is in the way
    │   ├── VersionConflictError      the entity is at another version
    │   ├── ConditionFailedError      an event matches the append condition
    │   └── TransactionConflictError  the caller's own transaction must run again
    ├── DuplicateEventError           an event id is recorded with other content
    ├── InvalidEventError             (also ValueError)
    ├── InvalidQueryError             (also ValueError)
    ├── BatchTooLargeError            the backend cannot store so much at once
    ├── ConfigurationError            a bad URL, option or database object
    │   └── MissingDriverError        the driver is not installed
    ├── StoreUnavailableError         the engine did not answer
    ├── StoreClosedError              the store was closed
    ├── UnsupportedOperationError     this backend, or this moment, does not allow it
    ├── CorruptLogError               a gap, or a record that cannot be read
    └── CheckpointError               the log is not the one the checkpoint came from
        └── LogReplacedError          (also ConfigurationError) nor the one that was opened

No driver's exception leaks: it is chained as ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from uuid import UUID


def _rebuild(cls: type[EventStoreError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class EventStoreError(Exception):
    """The base of every error of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Let an error with keyword-only data travel between processes."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())

    def again(self) -> Self:
        """Return a copy to be raised in another thread, so that tracebacks do not mix."""
        copy: Self = _rebuild(type(self), self.args, self.__dict__)
        copy.__cause__ = self.__cause__
        return copy


class ConcurrencyError(EventStoreError):
    """An append lost against another: read again, decide again, append again."""


class VersionConflictError(ConcurrencyError):
    """An entity is not at the version that ``expected_version`` asks for."""

    def __init__(
        self,
        *,
        entity_type: str,
        entity_id: str,
        tenant_id: str,
        expected_version: int,
        actual_version: int,
    ) -> None:
        wanted = {0: "no events", -2: "at least one event"}.get(
            expected_version, f"version {expected_version}"
        )
        of_tenant = f" of tenant {tenant_id!r}" if tenant_id else ""
        super().__init__(
            f"expected {wanted} of {entity_type!r} {entity_id!r}{of_tenant},"
            f" but it is at version {actual_version}: read it again and decide anew"
        )
        self.entity_type = entity_type
        self.entity_id = entity_id
        self.tenant_id = tenant_id
        self.expected_version = expected_version
        self.actual_version = actual_version


class ConditionFailedError(ConcurrencyError):
    """A recorded event matches the query of an append condition."""

    def __init__(self, *, condition: Any, sequence: int) -> None:
        super().__init__(
            f"the event at sequence {sequence} matches the append condition:"
            " read again from there and decide anew"
        )
        self.condition = condition
        """The ``AppendCondition`` that was given."""
        self.sequence = sequence
        """The sequence of an event that matches (there may be more)."""


class TransactionConflictError(ConcurrencyError):
    """The caller's transaction met a serialization failure: roll back and run it again."""


class DuplicateEventError(EventStoreError):
    """An event id is already recorded, and this append is not a plain repeat of it."""

    def __init__(self, message: str, *, event_id: UUID) -> None:
        super().__init__(message)
        self.event_id = event_id


class InvalidEventError(EventStoreError, ValueError):
    """An event or an argument of an append is refused; nothing was sent."""


class InvalidQueryError(EventStoreError, ValueError):
    """A query or an argument of a read is refused; nothing was sent."""


class BatchTooLargeError(EventStoreError):
    """The backend cannot store a batch of this size atomically; nothing was written."""


class ConfigurationError(EventStoreError):
    """A URL, an option, a connection or a database object is not as it must be."""


class MissingDriverError(ConfigurationError):
    """The driver that a URL's scheme needs is not installed."""


class StoreUnavailableError(EventStoreError):
    """The engine could not be reached, was lost, or did not answer in time.

    ``may_have_written`` is False where the append surely stored nothing. Where it is True,
    append the same events (the same ids) again: if they were stored, they are returned.
    """

    def __init__(
        self, message: str, *, may_have_written: bool = False, transient: bool = True
    ) -> None:
        super().__init__(message)
        self.may_have_written = may_have_written
        self.transient = transient
        """Whether trying again soon may help; a full disk, for one, stays full."""


class StoreClosedError(EventStoreError):
    """The store was used after ``close()``, or closed while a call waited."""


class UnsupportedOperationError(EventStoreError):
    """This backend, or the state this thread is in, does not allow the operation."""


class CorruptLogError(EventStoreError):
    """The log has a gap or holds a record that cannot be read. Nothing is skipped."""


class CheckpointError(EventStoreError):
    """A checkpoint or position does not fit the log: it was restored, rewound or replaced."""


class LogReplacedError(CheckpointError, ConfigurationError):
    """The log is not the one that this store opened: it was dropped and made anew, or its file
    was replaced. Nothing was written; open it anew, and look at what became of the old one."""


class DurabilityWarning(UserWarning):
    """The server, as it stands, may lose events it has acknowledged."""
