"""Events from rows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, SafeUUID

import msgspec

from eventstore.backend import EPOCH
from eventstore.errors import CorruptLogError
from eventstore.event import Event

COLUMNS: Final = (
    "e.sequence, e.batch_sequence, e.event_id, e.tenant_id, e.entity_type, e.entity_id, e.version,"
    " e.event_type, e.workflow_id, e.schema_version, e.timestamp, e.recorded_at, e.tags, e.data,"
    " e.metadata"
)
"""What is read of an event."""

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_tags = msgspec.json.Decoder(tuple[str, ...]).decode
_no_safety: Final = SafeUUID.unknown

# UUID(bytes=…) checks what cannot be wrong here and costs as much as all the rest of an event.
_new_uuid: Final = UUID.__new__
_set_int: Final = vars(UUID)["int"].__set__
_set_safety: Final = vars(UUID)["is_safe"].__set__


def events_of(rows: Iterable[tuple[Any, ...]]) -> list[Event]:
    """Return the events in rows of COLUMNS; CorruptLogError if one cannot be read."""
    sequence = 0
    last_recorded, recorded_at = 0, EPOCH
    events = []
    try:
        for (
            sequence,
            batch_sequence,
            event_id,
            tenant_id,
            entity_type,
            entity_id,
            version,
            event_type,
            workflow_id,
            schema_version,
            timestamp,
            recorded,
            tags,
            data,
            metadata,
        ) in rows:
            uuid = _new_uuid(UUID)
            _set_int(uuid, int.from_bytes(event_id, "big"))
            _set_safety(uuid, _no_safety)
            if recorded != last_recorded:
                last_recorded, recorded_at = recorded, EPOCH + timedelta(0, 0, recorded)
            events.append(
                Event(
                    event_type=event_type,
                    entity_type=entity_type,
                    entity_id=entity_id,
                    data={} if data == "{}" else _decode_object(data),
                    event_id=uuid,
                    workflow_id=workflow_id,
                    tenant_id=tenant_id,
                    tags=() if tags == "[]" else _decode_tags(tags),
                    metadata={} if metadata == "{}" else _decode_object(metadata),
                    schema_version=schema_version,
                    timestamp=EPOCH + timedelta(0, 0, timestamp),
                    sequence=sequence,
                    version=version,
                    batch_sequence=batch_sequence,
                    recorded_at=recorded_at,
                )
            )
    except (TypeError, ValueError, OverflowError, msgspec.DecodeError) as error:
        raise CorruptLogError(
            f"the event at sequence {sequence} cannot be read: {error}"
        ) from error
    return events
