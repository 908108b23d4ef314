"""Values as PostgreSQL's binary protocol has them: one encoding for parameters and for arrays,
whatever adapters a connection (maybe the caller's) has been given."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from struct import Struct
from typing import Any, Final, cast
from uuid import UUID

from psycopg import postgres
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format
from psycopg.types.array import ArrayBinaryLoader
from psycopg.types.bool import BoolBinaryLoader
from psycopg.types.numeric import Int4BinaryLoader, Int8BinaryLoader
from psycopg.types.string import ByteaBinaryLoader, TextBinaryLoader
from psycopg.types.uuid import UUIDBinaryLoader

from eventstore.backend import Draft, EventKey, decode_object, to_microseconds
from eventstore.event import Entity, Event

COLUMNS: Final = (
    "event_id, tenant_id, entity_type, entity_id, event_type, workflow_id, tags, data, metadata,"
    ' schema_version, "timestamp", sequence, version, batch_sequence, recorded_at'
)
"""What ``row_of`` gives and ``event_of`` take, in this order."""

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_MICROSECONDS: Final = to_microseconds(_EPOCH)

_INT4: Final = Struct("!i").pack
_INT8: Final = Struct("!q").pack
_NULL: Final = _INT4(-1)
_EMPTY: Final = Struct("!iii").pack
_HEAD: Final = Struct("!iiiii").pack

_BOOL_OID, _INT4_OID, _INT8_OID, _JSON_OID, _TEXT_OID, _TIME_OID, _UUID_OID = (
    postgres.types[name].oid
    for name in ("bool", "int4", "int8", "json", "text", "timestamptz", "uuid")
)

Value = bytes | None


# --- Reading


def to_time(microseconds: int) -> datetime:
    """Return the time of a timestamptz, which is read as a number."""
    return _EPOCH + timedelta(0, 0, microseconds)


_to_time_again = lru_cache(maxsize=16)(to_time)  # the events of a batch share their recorded_at


class _AsItIs(Dumper):
    """For bytes: a value in binary form. The server infers its type."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: bytes) -> bytes:
        return obj


def adapt(adapters: AdaptersMap) -> AdaptersMap:
    """Make a map of adapters depend on nothing that others registered.

    The loaders are those of psycopg that are compiled; ``event_of`` does the rest.
    """
    adapters.register_dumper(bytes, _AsItIs)
    for oid, loader in (
        (_BOOL_OID, BoolBinaryLoader),
        (_INT4_OID, Int4BinaryLoader),
        (_INT8_OID, Int8BinaryLoader),
        (_JSON_OID, ByteaBinaryLoader),
        (_TEXT_OID, TextBinaryLoader),
        (_TIME_OID, Int8BinaryLoader),
        (_UUID_OID, UUIDBinaryLoader),
        (postgres.types["text"].array_oid, ArrayBinaryLoader),
        (postgres.types["int8"].array_oid, ArrayBinaryLoader),
    ):
        adapters.register_loader(oid, loader)
    return adapters


def event_of(row: Sequence[Any]) -> Event:
    """Return the event of a row of ``COLUMNS``."""
    (
        event_id, tenant_id, entity_type, entity_id, event_type, workflow_id, tags, data, metadata,
        schema_version, timestamp, sequence, version, batch_sequence, recorded_at,
    ) = row  # fmt: skip
    return Event(
        event_id=event_id,
        tenant_id=tenant_id,
        entity_type=entity_type,
        entity_id=entity_id,
        event_type=event_type,
        workflow_id=workflow_id,
        tags=tuple(tags),
        data=decode_object(data),
        metadata=decode_object(metadata),
        schema_version=schema_version,
        timestamp=to_time(timestamp),
        sequence=sequence,
        version=version,
        batch_sequence=batch_sequence,
        recorded_at=_to_time_again(recorded_at),
    )


# --- Writing


def int8(value: int) -> bytes:
    """Return a bigint."""
    return _INT8(value)


def int8_or_null(value: int | None) -> Value:
    """Return a bigint, or NULL."""
    return None if value is None else _INT8(value)


def time(value: datetime) -> bytes:
    """Return a timestamptz."""
    return _INT8(to_microseconds(value) - _EPOCH_MICROSECONDS)


def row_of(draft: Draft) -> tuple[Value, ...]:
    """Return the values of a draft, in the order of ``COLUMNS``."""
    return (
        draft.event_id.bytes,
        draft.tenant_id.encode(),
        draft.entity_type.encode(),
        draft.entity_id.encode(),
        draft.event_type.encode(),
        None if draft.workflow_id is None else draft.workflow_id.encode(),
        texts(draft.tags),
        draft.data,
        draft.metadata,
        _INT4(draft.schema_version),
        time(draft.timestamp),
    )


def arrays_of(drafts: Sequence[Draft]) -> tuple[bytes, ...]:
    """Return the values of drafts as an array a column, without those of their entities: ids,
    tenants, event types, workflows, tags (as array literals), data, metadata, schema versions,
    timestamps."""
    return (
        uuids([draft.event_id for draft in drafts]),
        texts([draft.tenant_id for draft in drafts]),
        texts([draft.event_type for draft in drafts]),
        texts([draft.workflow_id for draft in drafts]),
        texts([_array_literal(draft.tags) for draft in drafts]),
        _array(_JSON_OID, [draft.data for draft in drafts]),
        _array(_JSON_OID, [draft.metadata for draft in drafts]),
        _array_of(4, _INT4_OID, [_INT4(draft.schema_version) for draft in drafts]),
        _array_of(8, _TIME_OID, [time(draft.timestamp) for draft in drafts]),
    )


def arrays_of_entities(entities: Collection[Entity]) -> tuple[bytes, ...]:
    """Return their types, ids and tenants."""
    return tuple(texts([entity[field] for entity in entities]) for field in range(3))


def arrays_of_keys(keys: Sequence[EventKey]) -> tuple[bytes, ...]:
    """Return the ids of events, and their tenants."""
    tenants = texts([tenant_id for tenant_id, _ in keys])
    return uuids([event_id for _, event_id in keys]), tenants


def texts(values: Sequence[str | None]) -> bytes:
    """Return a text[]."""
    return _array(_TEXT_OID, [None if value is None else value.encode() for value in values])


def uuids(values: Sequence[UUID]) -> bytes:
    """Return a uuid[]."""
    return _array_of(16, _UUID_OID, [value.int.to_bytes(16) for value in values])


def int8s(values: Sequence[int]) -> bytes:
    """Return a bigint[]."""
    return _array_of(8, _INT8_OID, list(map(_INT8, values)))


def int8s_or_nulls(values: Sequence[int | None]) -> bytes:
    """Return a bigint[] in which some may be NULL."""
    return _array(_INT8_OID, [None if value is None else _INT8(value) for value in values])


def _array_literal(values: Sequence[str]) -> str:
    """Return a text[] in text form, to travel as an element of another."""
    if not values:
        return "{}"
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') > 2 * (len(values) - 1):
        escaped = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
        joined = '","'.join(escaped)
    return f'{{"{joined}"}}'


def _array(oid: int, values: Sequence[Value]) -> bytes:
    """Return a one-dimensional array of a type."""
    if not values:
        return _EMPTY(0, 0, oid)
    has_null = None in values
    if has_null:
        fields = [_NULL if value is None else _INT4(len(value)) + value for value in values]
    else:
        known = cast("Sequence[bytes]", values)
        fields = list(chain.from_iterable(zip(map(_INT4, map(len, known)), known, strict=True)))
    return b"".join((_HEAD(1, has_null, oid, len(values), 1), *fields))


def _array_of(size: int, oid: int, values: Sequence[bytes]) -> bytes:
    """Return a one-dimensional array of a type whose values have ``size`` bytes each."""
    if not values:
        return _EMPTY(0, 0, oid)
    length = _INT4(size)
    return _HEAD(1, 0, oid, len(values), 1) + length + length.join(values)
