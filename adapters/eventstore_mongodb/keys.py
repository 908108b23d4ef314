"""What documents are looked up by: keys, ids and times."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from bson.binary import UUID_SUBTYPE, Binary

from eventstore.backend import Draft, to_microseconds
from eventstore.event import Entity

NEW: Final = "new"
"""The key of an entity's first event; followed by a type, of that type."""
_OF_TENANTS: Final = "tenants:"


def id_key(event_id: UUID) -> Binary:
    """Return an event's id as it is stored."""
    return Binary(event_id.bytes, UUID_SUBTYPE)


def entity_key(entity: Entity) -> str:
    """Return the key that stands for exactly this entity."""
    of_none = _entity_of_no_tenant(entity.entity_type, entity.entity_id)
    return f"{of_none}/{_escaped(entity.tenant_id)}" if entity.tenant_id else of_none


def _entity_of_no_tenant(entity_type: str, entity_id: str) -> str:
    return f"entity:{_escaped(entity_type)}/{_escaped(entity_id)}"


def keys_of_any_tenant(entity_type: str, entity_id: str) -> list[str]:
    """Return the keys of which one stands beside every event of such an entity."""
    of_none = _entity_of_no_tenant(entity_type, entity_id)
    return [of_none, f"{_OF_TENANTS}{of_none}"]


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F") if "/" in name or "%" in name else name


def keys_of_event(draft: Draft, version: int, log_format: int) -> Iterator[str]:
    """Yield, each once, what this event can be looked up by, beside the entity itself."""
    yield f"entity_type:{draft.entity_type}"
    yield f"entity_id:{draft.entity_id}"
    yield f"type:{draft.event_type}"
    if draft.workflow_id is not None:
        yield f"workflow:{draft.workflow_id}"
    for tag in dict.fromkeys(draft.tags):
        yield f"tag:{tag}"
    if draft.tenant_id:
        yield f"tenant:{draft.tenant_id}"
        # In a log of format 1 tenants' events share a key with the entity that has no tenant,
        # for that is where its writers look for both.
        of_none, of_tenants = keys_of_any_tenant(draft.entity_type, draft.entity_id)
        yield of_none if log_format == 1 else of_tenants
    if version == 1:
        yield NEW
        yield f"{NEW}:{draft.entity_type}"


# --- Times
#
# The events of a commit are not in time order, so a commit spans a time. To find those that
# touch a moment by one scalar index, commits are classed by the length of their span, in powers
# of 16: in class k it is shorter than 16^k ms, so such a commit begins less than that before.

_CLASS_BITS: Final = 50
TIME_CLASSES: Final = range(14)
"""Enough for a span of 8,000 years."""
_YEAR_ONE: Final = to_microseconds(datetime.min.replace(tzinfo=UTC)) // 1000


def time_index(earliest: int, latest: int) -> int:
    """Return the entry of a commit whose events happened in between (microseconds)."""
    start = earliest // 1000
    time_class = ((latest // 1000 - start).bit_length() + 3) // 4
    return time_class << _CLASS_BITS | (start - _YEAR_ONE)


def time_range(time_class: int, lowest: int | None, highest: int | None) -> dict[str, int]:
    """Return the entries of the commits of a class that may hold an event in between
    (microseconds, inclusive)."""
    first, last = 0, (1 << _CLASS_BITS) - 1
    if lowest is not None:
        first = max(lowest // 1000 - _YEAR_ONE - 16**time_class + 1, 0)
    if highest is not None:
        last = highest // 1000 - _YEAR_ONE
    base = time_class << _CLASS_BITS
    return {"$gte": base + first, "$lte": base + last}


def time_bounds(time_index: int) -> tuple[int, int]:
    """Return between which times the events of a commit lie (microseconds, inclusive)."""
    time_class, start = divmod(time_index, 1 << _CLASS_BITS)
    earliest = (start + _YEAR_ONE) * 1000
    return earliest, earliest + 16**time_class * 1000 - 1
