"""An event on its way into the log: checked and encoded once, whatever becomes of it then."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from eventstore._core.checks import (
    checked_integer,
    checked_name,
    checked_names,
    checked_tenant,
    checked_time,
)
from eventstore._core.payloads import decode_object, encode_object
from eventstore.errors import InvalidEventError
from eventstore.event import Entity, Event

MAX_SCHEMA_VERSION: Final = 2**31 - 1


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A valid, encoded event on its way into the log. Backends store its fields as they are."""

    entity: Entity
    """The entity the event is about: the next three fields."""

    tenant_id: str
    entity_type: str
    entity_id: str
    event_id: UUID
    event_type: str
    workflow_id: str | None
    tags: tuple[str, ...]
    """As given: an index over them must take each one once."""
    data: bytes
    """JSON text in UTF-8, to be kept verbatim."""
    metadata: bytes
    """JSON text in UTF-8, to be kept verbatim."""
    schema_version: int
    timestamp: datetime
    """In UTC."""
    identity: tuple[str, bytes]
    """Tenant and id, for sets and dicts (``planner.Identity``)."""

    def recorded(
        self, *, sequence: int, version: int, batch_sequence: int, recorded_at: datetime
    ) -> Event:
        """Return the event as it stands in the log."""
        return Event(
            event_type=self.event_type,
            entity_type=self.entity_type,
            entity_id=self.entity_id,
            data=decode_object(self.data),
            event_id=self.event_id,
            workflow_id=self.workflow_id,
            tenant_id=self.tenant_id,
            tags=self.tags,
            metadata=decode_object(self.metadata),
            schema_version=self.schema_version,
            timestamp=self.timestamp,
            sequence=sequence,
            version=version,
            batch_sequence=batch_sequence,
            recorded_at=recorded_at,
        )


def draft_of(event: Event, tenant_id: str | None = None) -> Draft:
    """Return ``event`` checked and encoded, of ``tenant_id`` where one is given.

    Raises InvalidEventError, naming the field and what it may be.
    """
    error = InvalidEventError
    if type(event) is not Event:  # a subclass could say one thing now and another later
        raise error(f"event: must be an Event, not {type(event).__name__}")
    event_id = event.event_id
    if type(event_id) is not UUID:
        raise error(f"event_id: must be a uuid.UUID, not {type(event_id).__name__}")
    tenant = checked_tenant(event.tenant_id, error)
    if tenant_id is not None:
        if tenant not in ("", tenant_id):
            raise error(f"tenant_id: {tenant!r} is not the tenant of this view, {tenant_id!r}")
        tenant = tenant_id
    entity_type = checked_name("entity_type", event.entity_type, error)
    entity_id = checked_name("entity_id", event.entity_id, error)
    workflow_id = event.workflow_id
    return Draft(
        Entity(entity_type, entity_id, tenant),
        tenant,
        entity_type,
        entity_id,
        event_id,
        checked_name("event_type", event.event_type, error),
        None if workflow_id is None else checked_name("workflow_id", workflow_id, error),
        checked_names("tags", event.tags, error),
        encode_object("data", event.data),
        encode_object("metadata", event.metadata),
        checked_integer(
            "schema_version", event.schema_version, error, least=1, most=MAX_SCHEMA_VERSION
        ),
        checked_time("timestamp", event.timestamp, error),
        (tenant, event_id.int.to_bytes(16, "big")),
    )
