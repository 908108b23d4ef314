"""An event as the texts of an entry of the stream (query.lua says what stands where)."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from eventstore.backend import (
    Draft,
    EventKey,
    decode_object,
    from_microseconds,
    to_microseconds,
)
from eventstore.errors import CorruptLogError
from eventstore.event import Event

FIELDS: Final = 3
"""How many texts an event takes as an argument of append.lua."""
TEXTS: Final = 5
"""How many it takes in what read.lua and find.lua return."""

_TIME_SHIFT: Final = 2 * 10**18
"""Added to microseconds: 19 digits for every year from 1 to 9999, compared as text."""


def time_text(time: datetime) -> str:
    """Return a time as text that sorts by time."""
    return str(to_microseconds(time) + _TIME_SHIFT)


def identity_text(key: EventKey) -> bytes:
    """Return an identity as the scripts tell one event from another."""
    tenant_id, event_id = key
    return event_id.bytes + tenant_id.encode()


def identity_in(text: bytes) -> EventKey:
    """Return the identity of such a text."""
    return text[16:].decode(), UUID(bytes=text[:16])


def texts_of(draft: Draft) -> tuple[bytes, bytes, bytes]:
    """Return the fields of an entry that a script does not assign."""
    facts = (
        f"{to_microseconds(draft.timestamp) + _TIME_SHIFT}{draft.tenant_id}",
        draft.entity_type,
        draft.entity_id,
        draft.event_type,
        draft.workflow_id or "",
        str(draft.schema_version),
        *draft.tags,
        "",
    )
    return draft.event_id.bytes + "\0".join(facts).encode(), draft.data, draft.metadata


def events_in(texts: list[bytes]) -> list[Event]:
    """Return the events that read.lua and find.lua return."""
    each = iter(texts)
    return [_event(*entry) for entry in zip(each, each, each, each, each, strict=True)]


def events_of(entries: list[tuple[bytes, list[bytes]]]) -> list[Event]:
    """Return the events in entries of the stream; CorruptLogError where one holds none."""
    for entry_id, values in entries:
        if len(values) != 8:
            raise CorruptLogError(f"the entry {entry_id.decode()} of the log is no event")
    return [_event(entry_id, *values[1::2]) for entry_id, values in entries]


def _event(entry_id: bytes, event: bytes, data: bytes, metadata: bytes, stored: bytes) -> Event:
    try:
        tenant_id, entity_type, entity_id, event_type, workflow_id, schema_version, *tags, _ = (
            event[35:].decode().split("\0")
        )
        version, batch_sequence, recorded_at = stored.split()
        return Event(
            event_type=event_type,
            entity_type=entity_type,
            entity_id=entity_id,
            data=decode_object(data),
            event_id=UUID(bytes=event[:16]),
            workflow_id=workflow_id or None,
            tenant_id=tenant_id,
            tags=tuple(tags),
            metadata=decode_object(metadata),
            schema_version=int(schema_version),
            timestamp=from_microseconds(int(event[16:35]) - _TIME_SHIFT),
            sequence=int(entry_id[:-2]),
            version=int(version),
            batch_sequence=int(batch_sequence),
            recorded_at=from_microseconds(int(recorded_at)),
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise CorruptLogError(
            f"the entry {bytes(entry_id)!r} of the log cannot be read: {error}"
        ) from error
