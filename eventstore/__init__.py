"""A synchronous event store over many engines, chosen by a URL.

from eventstore import Event, EventQuery, open_store

with open_store("sqlite:///orders.db") as store:
    store.append(Event(event_type="OrderPlaced", entity_type="order", entity_id="o-1"))
    for event in store.get_events(EventQuery(entity_type="order")):
        print(event.sequence, event.event_type, event.data)
"""

from eventstore.backend import Capability
from eventstore.checkpoint import Checkpoint
from eventstore.errors import (
    BatchTooLargeError,
    CheckpointError,
    ConcurrencyError,
    ConditionFailedError,
    ConfigurationError,
    CorruptLogError,
    DuplicateEventError,
    DurabilityWarning,
    EventStoreError,
    InvalidEventError,
    InvalidQueryError,
    LogReplacedError,
    MissingDriverError,
    StoreClosedError,
    StoreUnavailableError,
    TransactionConflictError,
    UnsupportedOperationError,
    VersionConflictError,
)
from eventstore.event import Entity, Event
from eventstore.query import AppendCondition, EventQuery
from eventstore.registry import drop_namespace, open_store, schema_ddl
from eventstore.result import AppendResult
from eventstore.store import EventStore
from eventstore.transfer import append_in_order
from eventstore.versions import ExpectedVersion

__version__ = "0.1.0"

__all__ = [
    "AppendCondition",
    "AppendResult",
    "BatchTooLargeError",
    "Capability",
    "Checkpoint",
    "CheckpointError",
    "ConcurrencyError",
    "ConditionFailedError",
    "ConfigurationError",
    "CorruptLogError",
    "DuplicateEventError",
    "DurabilityWarning",
    "Entity",
    "Event",
    "EventQuery",
    "EventStore",
    "EventStoreError",
    "ExpectedVersion",
    "InvalidEventError",
    "InvalidQueryError",
    "LogReplacedError",
    "MissingDriverError",
    "StoreClosedError",
    "StoreUnavailableError",
    "TransactionConflictError",
    "UnsupportedOperationError",
    "VersionConflictError",
    "__version__",
    "append_in_order",
    "drop_namespace",
    "open_store",
    "schema_ddl",
]
