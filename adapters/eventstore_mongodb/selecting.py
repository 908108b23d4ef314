"""Which documents may hold what a query asks for, and which of their bytes tell that quickly.

What is found this way is checked on the events: a document that has a key has an event with it,
but not necessarily one that matches in every field.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from eventstore.backend import to_microseconds
from eventstore.event import Entity
from eventstore.query import EventQuery
from eventstore_mongodb.keys import TIME_CLASSES, entity_key, keys_of_any_tenant, time_range

FIRST_VERSION: Final = b"\x10version\x00\x01\x00\x00\x00"
"""What the bytes of an entity's first event hold."""

_TELLING: Final[Sequence[Sequence[str]]] = (
    *(("entity_type", "entity_id"), ("entity_type", "entity_id", "tenant_id")),
    *(("entity_type",), ("entity_id",), ("workflow_id",), ("tags",), ("tenant_id",)),
    ("event_types",),
)
"""Filters that one key stands for, where no others are given."""


def any_key(keys: Sequence[str]) -> dict[str, Any]:
    """Return the clause for documents that have one of these keys."""
    return {"keys": keys[0] if len(keys) == 1 else {"$in": list(keys)}}


def keys_clause(query: EventQuery) -> dict[str, Any]:
    """Return what narrows down the documents by key; empty where nothing does."""
    keys = _lookup_of(query)
    return {} if keys is None else any_key(keys)


def telling_keys(query: EventQuery) -> list[str]:
    """Return the keys (one, or two) of which exactly one stands beside every event that matches,
    and none beside another event; none where keys alone do not tell."""
    for fields in _TELLING:
        given = {field: getattr(query, field) for field in fields}
        if None not in given.values() and query == EventQuery(**given):
            break
    else:
        return []
    if query.tenant_id == "" and query.entity_id is None:
        return []  # nothing stands beside the events of no tenant
    if len(set(query.tags or query.event_types or ())) > 1:
        return []  # an event has several tags; and one key for each type is no quicker
    return list(dict.fromkeys(_lookup_of(query) or ()))


def times_of(query: EventQuery) -> tuple[int | None, int | None]:
    """Return its bounds of ``timestamp``, in microseconds."""
    lowest, highest = query.from_timestamp, query.to_timestamp
    return (
        None if lowest is None else to_microseconds(lowest),
        None if highest is None else to_microseconds(highest),
    )


def time_clauses(query: EventQuery) -> list[dict[str, Any]]:
    """Return what narrows down the documents by time, one for each time class, to be asked for
    one by one (engines read an ``$or`` of them, or one beside another bound, without the index);
    none where nothing does."""
    lowest, highest = times_of(query)
    if lowest is None and highest is None:
        return []
    return [{"time_index": time_range(number, lowest, highest)} for number in TIME_CLASSES]


def _lookup_of(query: EventQuery) -> list[str] | None:
    """Return keys of which a document has at least one if an event in it matches; None if the
    query has no field that is indexed by key.

    Only the most selective field counts: an engine uses one entry of an array at a time, and
    the events are checked anyway.
    """
    ranked = _ranked_lookup(query)
    return ranked[1] if ranked else None


def _ranked_lookup(query: EventQuery) -> tuple[int, list[str]] | None:
    if query.entity_id is not None:
        if query.entity_type is None:
            return 1, [f"entity_id:{query.entity_id}"]
        if query.tenant_id is None:
            return 0, keys_of_any_tenant(query.entity_type, query.entity_id)
        return 0, [entity_key(Entity(query.entity_type, query.entity_id, query.tenant_id))]
    if query.workflow_id is not None:
        return 2, [f"workflow:{query.workflow_id}"]
    if query.tags is not None:
        return 3, [f"tag:{next(iter(query.tags))}"]
    found: list[tuple[int, list[str]]] = []
    if query.any_of is not None:
        alternatives = [_ranked_lookup(alternative) for alternative in query.any_of]
        known = [alternative for alternative in alternatives if alternative is not None]
        if len(known) == len(alternatives):
            keys = [key for _, keys in known for key in keys]
            found.append((max(rank for rank, _ in known), keys))
    if query.tenant_id:
        found.append((4, [f"tenant:{query.tenant_id}"]))
    if query.event_types is not None:
        found.append((5, [f"type:{event_type}" for event_type in query.event_types]))
    if query.entity_type is not None:
        found.append((6, [f"entity_type:{query.entity_type}"]))
    return min(found, key=lambda ranked: ranked[0], default=None)


def needles_of(query: EventQuery) -> list[bytes]:
    """Return bytes that every event that matches holds, so that others need no decoding."""
    fields = ("entity_type", "entity_id", "workflow_id")
    needles = [
        _text_field(field, value)
        for field in fields
        if (value := getattr(query, field)) is not None
    ]
    if query.tenant_id:
        needles.append(_text_field("tenant_id", query.tenant_id))
    needles += [_text(tag) for tag in query.tags or ()]
    if query.event_types is not None and len(query.event_types) == 1:
        needles.append(_text_field("type", next(iter(query.event_types))))
    return needles


def _text_field(name: str, value: str) -> bytes:
    return b"\x02%s\0%s" % (name.encode(), _text(value))


def _text(value: str) -> bytes:
    text = value.encode()
    return b"%s%s\0" % (struct.pack("<i", len(text) + 1), text)
