"""Payloads as JSON text: what may enter the log, and how it comes back unchanged.

An encoder that accepts a value is no validation (many turn NaN into null and tuples into
lists), so a payload is walked by exact types first. See docs/payloads.md for the model.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, Final
from uuid import UUID

import msgspec

from eventstore.errors import CorruptLogError, InvalidEventError
from eventstore.event import Entity, Event
from eventstore.names import (
    MAX_INT64,
    checked_integer,
    checked_name,
    checked_names,
    checked_tenant,
    checked_time,
    shown,
)

MAX_DEPTH: Final = 64
MAX_SCHEMA_VERSION: Final = 2**31 - 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_MIN_INT64: Final = -MAX_INT64 - 1
_TOO_DEEP: Final = f": is nested more than {MAX_DEPTH} deep; flatten it or keep it as text"

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_EMPTY_OBJECT: Final = b"{}"


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
    """Tenant and id, for sets and dicts (``commit.Identity``)."""

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


def encode_object(field: str, value: object) -> bytes:
    """Return a JSON object as text in UTF-8, or raise InvalidEventError with the path."""
    if type(value) is not dict:
        raise InvalidEventError(f"{field}: must be a dict, not {type(value).__name__}")
    if not value:
        return _EMPTY_OBJECT
    if (fault := _fault_in_object(value, 1)) is not None:
        raise InvalidEventError(f"{field}{fault}")
    try:
        return _encode(value)
    except UnicodeEncodeError:
        raise InvalidEventError(
            f"{field}{_path_to_surrogate(value)}: text must not contain lone surrogates"
        ) from None


def decode_object(text: bytes | str) -> dict[str, Any]:
    """Return the JSON object that ``encode_object`` wrote; CorruptLogError if it is none."""
    if text == _EMPTY_OBJECT:
        return {}
    try:
        return _decode_object(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptLogError(f"a stored payload cannot be read: {error}") from error


def canonical(value: dict[str, Any]) -> bytes:
    """Return a form that is equal for payloads of the same content.

    1, 1.0 and True differ, the order of keys does not matter.
    """
    return _encode_sorted(value)


def to_microseconds(time: datetime) -> int:
    """Return the microseconds from the epoch to ``time`` (exact, unlike ``timestamp()``)."""
    since = time - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_microseconds(microseconds: int) -> datetime:
    """Return the time in UTC, ``microseconds`` after the epoch."""
    return EPOCH + timedelta(microseconds=microseconds)


# The walk runs once for every event appended, so what is right is passed over in the two loops,
# and a path is only put together once something is wrong.


def _fault_in_object(value: dict[Any, Any], depth: int) -> str | None:
    """Return the path to what is wrong and why, or None."""
    if depth > MAX_DEPTH:
        return _TOO_DEEP
    for key, item in value.items():
        if type(key) is not str:
            return f": keys must be text, but {shown(key)} is {type(key).__name__}"
        if "\0" in key:
            return f": keys must not contain NUL (U+0000), but {shown(key)} does"
        kind = type(item)
        if (
            kind is str
            or (kind is int and _MIN_INT64 <= item <= MAX_INT64)
            or (kind is float and -inf < item < inf)
            or kind is bool
            or item is None
        ):
            continue
        if kind is dict:
            fault = _fault_in_object(item, depth + 1)
        elif kind is list:
            fault = _fault_in_array(item, depth + 1)
        else:
            fault = _fault(item)
        if fault is not None:
            return f"[{shown(key)}]{fault}"
    return None


def _fault_in_array(value: list[Any], depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return _TOO_DEEP
    for index, item in enumerate(value):
        kind = type(item)
        if (
            kind is str
            or (kind is int and _MIN_INT64 <= item <= MAX_INT64)
            or (kind is float and -inf < item < inf)
            or kind is bool
            or item is None
        ):
            continue
        if kind is dict:
            fault = _fault_in_object(item, depth + 1)
        elif kind is list:
            fault = _fault_in_array(item, depth + 1)
        else:
            fault = _fault(item)
        if fault is not None:
            return f"[{index}]{fault}"
    return None


def _fault(item: Any) -> str:
    """Return why neither a container nor one of the loops above takes ``item``."""
    kind = type(item)
    if kind is float:
        return f": floats must be finite, not {item}; use None or text"
    if kind is int:
        # Python refuses to print integers of thousands of digits.
        number = item if item.bit_length() < 1000 else f"an integer of {item.bit_length()} bits"
        return f": integers must fit signed 64 bits, not {number}; keep larger ones as text"
    return (
        f": must be null, bool, int, float, str, list or dict exactly, not {kind.__name__}"
        f" {shown(item)}; convert it first"
    )


def _path_to_surrogate(value: Any) -> str:
    """Return the path to the first text, key or value, that UTF-8 cannot hold."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return ""
        return "-"
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        if isinstance(key, str) and _path_to_surrogate(key) == "":
            return f"[{shown(key)}]"
        if (path := _path_to_surrogate(item)) != "-":
            return f"[{shown(key)}]{path}"
    return "-"
