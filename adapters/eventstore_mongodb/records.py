"""Commits as documents: what is written, what is indexed, and how it comes back unchanged.

A commit of the events 7, 8 and 9::

    {
      _id: 7, last: 9,                    // its first and last sequence
      end: 9,                             // of the last event in this document
      token: BinData(...),                // random: tells one's own insert from another's
      recorded_at: ISODate(...),
      time_index: Long(...),              // see below
      keys: ["entity:order/o-1", "entity_type:order", "type:OrderPlaced", ...],   // for look-ups
      versions: [4],                      // the last version of the entity of keys[0], [1] …
      repeated: ["entity_type:order", 3, "type:OrderPlaced", 2, ...],  // keys of several events
      events: [{id: UUID(...), sequence: 7, type: "OrderPlaced", entity_type: "order",
                entity_id: "o-1", version: 2, timestamp: ISODate(...), data: {...}}, ...]
    }

An event leaves out what is empty or usual: ``us`` (the microseconds that a BSON date cannot
hold), ``batch_sequence`` (where it is not the commit's ``_id``), ``tenant_id``,
``workflow_id``, ``tags``, ``schema_version``, ``data``, ``metadata``; ``restore`` is explained
at ``_payload``.

Whoever wants one event is given its document. So a commit of many events stands in parts, which
are written first, and which one more document then makes visible::

    {_id: "0000000000000007/5f…/0000", commit: 7, first: 7, end: 31, token, recorded_at,
     time_index, keys, versions, repeated, events}
    ...
    {_id: 7, last: 1006, token, recorded_at, parts: [31, 56, ..., 1006]}    // where each ends

A part counts only where a commit with its token stands at its place. A log of format 1, made
before there were parts, has none, no ``end`` and no ``repeated``: it is read, and written, as it
was.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final, NamedTuple
from uuid import UUID

import bson
from bson.binary import UUID_SUBTYPE, Binary, UuidRepresentation
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from eventstore.backend import Accepted, Draft, decode_object, to_microseconds
from eventstore.errors import CorruptLogError
from eventstore.event import Entity, Event

OPTIONS: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    document_class=dict, uuid_representation=UuidRepresentation.STANDARD
)
RAW: Final = OPTIONS.with_options(document_class=RawBSONDocument)

Projection = Mapping[str, int]
"""Which fields are read."""
_PLACE: Final[Projection] = dict.fromkeys(
    ("last", "first", "end", "commit", "parts", "token", "recorded_at"), 1
)
WITHOUT_EVENTS: Final[Projection] = {**_PLACE, "keys": 1, "versions": 1}
"""The projection that leaves out the events. To name what is wanted is quicker, where most of a
document is not."""
ONLY_IDS: Final[Projection] = {**WITHOUT_EVENTS, "events.id": 1}
"""The projection that leaves of each event the id."""
ONLY_COUNTS: Final[Projection] = {**_PLACE, "repeated": 1}
"""The projection that leaves how many events have a key."""
_OF_EVENTS: Final = frozenset({"events", "keys", "parts", "repeated", "versions"})
"""The fields that are as long as there are events."""
ONLY_TOKEN: Final[Projection] = {"token": 1}

END: Final = "end"
"""The field by which documents with events are in order: parts have no ``last``."""

OF_PARTS: Final = "part"
"""The key of every part."""
NEW: Final = "new"
"""The key of an entity's first event; followed by a type, of that type."""

PART: Final = 20
"""Events in a document at most; a commit of more stands in parts. Fewer make a batch slower to
write, more an event slower to find. Whoever reads format 2 relies on it."""

_OF_TENANTS: Final = "tenants:"
_EMPTY: Final = b"{}"
_LARGE_NUMBER: Final = re.compile(rb"[0-9]{10}")
_EVENT_ID: Final = slice(13, 29)
"""Where an event's id stands in its bytes: ``id`` is its first field."""


# --- Keys


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


def _keys_of(draft: Draft, version: int, log_format: int) -> Iterator[str]:
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


def _time_index(earliest: int, latest: int) -> int:
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


# --- Writing


class Written(NamedTuple):
    """A commit as it is written: its parts, if it has any, then what makes them visible."""

    parts: list[dict[str, Any]]
    commit: dict[str, Any]


def commit_of(accepted: Sequence[Accepted], token: bytes, log_format: int) -> Written:
    """Return the documents that record these batches, which follow each other."""
    first = accepted[0].first_sequence
    facts = [
        (draft, sequence, version, batch.first_sequence)
        for batch in accepted
        for sequence, (draft, version) in enumerate(
            zip(batch.drafts, batch.versions, strict=True), batch.first_sequence
        )
    ]
    last = first + len(facts) - 1
    recorded_at = accepted[-1].recorded_at.replace(tzinfo=None)
    commit: dict[str, Any] = {"_id": first, "last": last, "token": token, END: last}
    commit["recorded_at"] = recorded_at
    if log_format == 1:
        del commit[END]
    if log_format == 1 or len(facts) <= PART:
        return Written([], {**commit, **_events_of(facts, first, log_format)})
    del commit[END]
    commit["parts"] = [*range(first + PART - 1, last, PART), last]
    parts = [
        {
            "_id": part_id,
            "commit": first,
            "first": end - len(some) + 1,
            END: end,
            "token": token,
            "recorded_at": recorded_at,
            **_events_of(some, first, log_format),
        }
        for part_id, end, some in zip(
            part_ids(first, token, len(commit["parts"])),
            commit["parts"],
            (facts[start : start + PART] for start in range(0, len(facts), PART)),
            strict=True,
        )
    ]
    for part in parts:
        part["keys"].append(OF_PARTS)
    return Written(parts, commit)


def part_ids(commit: int, token: bytes, count: int) -> list[str]:
    """Return the ``_id`` of each part of a commit."""
    return [f"{commit:016x}/{token.hex()}/{number:04x}" for number in range(count)]


def _events_of(
    facts: Sequence[tuple[Draft, int, int, int]], commit: int, log_format: int
) -> dict[str, Any]:
    """Return the fields of a document that holds these events: each with its sequence, its
    version, and where its batch begins."""
    versions: dict[str, int] = {}
    keys: dict[str, int] = {}
    """How many of the events have each."""
    times: list[int] = []
    events: list[dict[str, Any]] = []
    for draft, sequence, version, batch_sequence in facts:
        entity = entity_key(draft.entity)
        versions[entity] = version
        keys[entity] = keys.get(entity, 0) + 1
        for key in _keys_of(draft, version, log_format):
            keys[key] = keys.get(key, 0) + 1
        times.append(to_microseconds(draft.timestamp))
        event = _stored(draft, sequence, version)
        if batch_sequence != commit:
            event["batch_sequence"] = batch_sequence
        events.append(event)
    fields: dict[str, Any] = {
        "time_index": Int64(_time_index(min(times), max(times))),
        "keys": [*versions, *(key for key in keys if key not in versions)],
        "versions": list(versions.values()),
    }
    if log_format > 1 and len(facts) > 1:
        repeated = [(key, count) for key, count in keys.items() if count > 1]
        if repeated:
            fields["repeated"] = [*chain.from_iterable(repeated)]
    fields["events"] = events
    return fields


def _stored(draft: Draft, sequence: int, version: int) -> dict[str, Any]:
    timestamp = draft.timestamp
    event: dict[str, Any] = {
        "id": id_key(draft.event_id),
        "sequence": sequence,
        "type": draft.event_type,
        "entity_type": draft.entity_type,
        "entity_id": draft.entity_id,
        "version": version,
        "timestamp": timestamp.replace(tzinfo=None),
    }
    if microseconds := timestamp.microsecond % 1000:
        event["us"] = microseconds
    if draft.tenant_id:
        event["tenant_id"] = draft.tenant_id
    if draft.workflow_id is not None:
        event["workflow_id"] = draft.workflow_id
    if draft.tags:
        event["tags"] = list(draft.tags)
    if draft.schema_version != 1:
        event["schema_version"] = draft.schema_version
    for field, text in (("data", draft.data), ("metadata", draft.metadata)):
        if text != _EMPTY:
            event[field] = _payload(text, event)
    return event


def _payload(text: bytes, event: dict[str, Any]) -> Any:
    """Return a payload as a document.

    Two things would not come back by themselves: ``{"$ref": …, "$id": …}`` is read as a DBRef,
    and an integer beyond 32 bits as an ``Int64``. Where either can be, keys that begin with
    ``$`` (or ``%``) are written with ``%24`` (``%25``) instead, and the event is marked to be
    restored when it is read; all others are read without looking.
    """
    payload = decode_object(text)
    if b'"$' in text or b'"%' in text or _LARGE_NUMBER.search(text):
        event["restore"] = True
        return _hidden(payload)
    return payload


def _hidden(value: Any) -> Any:
    if type(value) is dict:
        return {
            f"%{ord(key[0]):X}{key[1:]}" if key.startswith(("$", "%")) else key: _hidden(item)
            for key, item in value.items()
        }
    return [_hidden(item) for item in value] if type(value) is list else value


def _restored(value: Any) -> Any:
    if type(value) is dict:
        return {
            chr(int(key[1:3], 16)) + key[3:] if key.startswith("%") else key: _restored(item)
            for key, item in value.items()
        }
    if type(value) is list:
        return [_restored(item) for item in value]
    return int(value) if type(value) is Int64 else value


# --- Reading


class StoredCommit:
    """A commit that was read: its events, or how many parts hold them."""

    __slots__ = ("document", "first", "last", "part_ends", "recorded_at", "token")

    def __init__(self, document: RawBSONDocument) -> None:
        with _readable():
            self.document = document
            self.first = int(document["_id"])
            self.last = int(document["last"])
            self.token = bytes(document["token"])
            self.recorded_at: datetime = document["recorded_at"].replace(tzinfo=UTC)
            self.part_ends: list[int] = list(document.get("parts", ()))

    @property
    def size(self) -> int:
        """How many bytes the document has."""
        return len(self.document.raw)

    def part_ids(self, after: int, up_to: int) -> list[str]:
        """Return the ``_id`` of the parts that hold something in between."""
        ids = part_ids(self.first, self.token, len(self.part_ends))
        begins = [self.first, *(end + 1 for end in self.part_ends)]
        return [
            part_id
            for part_id, begin, end in zip(ids, begins, self.part_ends, strict=False)
            if begin <= up_to and end > after
        ]


class Piece:
    """Events that stand in one document, a small commit or a part of a large one. They are
    decoded when they are asked for."""

    __slots__ = (
        *("_elements", "_raw", "_time_index"),
        *("commit", "document", "first", "is_part", "last", "recorded_at", "token"),
    )

    def __init__(self, document: RawBSONDocument) -> None:
        with _readable():
            self.document = document
            self._raw = bytes(document.raw)  # where it is large, the driver gives a memoryview
            self._elements = _elements(self._raw)
            head = self._decoded(self._elements.keys() - _OF_EVENTS)
            self.is_part = "commit" in head
            self.commit = int(head["commit" if self.is_part else "_id"])
            self.first = int(head["first" if self.is_part else "_id"])
            self.last = int(head[END if self.is_part else "last"])
            self.token = bytes(head["token"])
            self.recorded_at: datetime = head["recorded_at"].replace(tzinfo=UTC)
            self._time_index = int(head.get("time_index", 0))

    @property
    def size(self) -> int:
        """How many bytes the document has."""
        return len(self._raw)

    @property
    def has_parts(self) -> bool:
        """Whether it is a commit whose events stand in parts."""
        return "parts" in self._elements

    @property
    def time_bounds(self) -> tuple[int, int]:
        """Between which times its events lie (microseconds)."""
        return time_bounds(self._time_index)

    def versions(self) -> dict[str, int]:
        """Return the last version here of each of its entities, by ``entity_key``."""
        with _readable():
            fields = self._decoded(("keys", "versions"))
            # Its entities are the first of its keys.
            return dict(zip(fields["keys"], fields["versions"], strict=False))

    def count(self, key: str) -> int:
        """Return how many of its events have a key that one of them has; not in a log of
        format 1."""
        with _readable():
            if "repeated" not in self._elements:
                return 1
            repeated = self._decoded(("repeated",))["repeated"]
            return int(dict(zip(repeated[::2], repeated[1::2], strict=True)).get(key, 1))

    def ids(self) -> set[bytes]:
        """Return the ids of its events, 16 bytes each (whoever may choose ids can choose UUIDs
        of one hash; nobody can choose such bytes)."""
        with _readable():
            events = self._decoded(("events",))["events"]
            return {event["id"].bytes for event in events}

    def events(self, needles: Sequence[bytes], after: int, up_to: int) -> list[Event]:
        """Return the events above ``after`` and up to ``up_to`` whose bytes hold all of
        ``needles``, in order."""
        if any(needle not in self._raw for needle in needles):
            return []
        with _readable():
            if not needles and after < self.first and up_to >= self.last:
                return [self._event(event) for event in self._decoded(("events",))["events"]]
            start, end = max(after + 1 - self.first, 0), max(up_to + 1 - self.first, 0)
            found = self._raw_events()[start:end]
            for needle in needles:
                found = [event for event in found if needle in event]
            return [self._event(bson.decode(event, OPTIONS)) for event in found]

    def events_with_ids(self, ids: set[bytes]) -> list[Event]:
        """Return the events with one of these ids (16 bytes each)."""
        with _readable():
            return [
                self._event(bson.decode(event, OPTIONS))
                for event in self._raw_events()
                if event[_EVENT_ID] in ids
            ]

    def _raw_events(self) -> list[bytes]:
        array = self._raw[self._elements["events"]].partition(b"\0")[2]
        return [array[value:end] for _, value, end in _walk(array)]

    def _decoded(self, names: Iterable[str]) -> dict[str, Any]:
        """Return fields of the document."""
        body = b"".join([self._raw[self._elements[name]] for name in names])
        return bson.decode(b"%s%s\0" % (_LENGTH.pack(len(body) + 5), body), OPTIONS)

    def _event(self, stored: dict[str, Any]) -> Event:
        get = stored.get
        data, metadata = get("data", {}), get("metadata", {})
        if "restore" in stored:
            data, metadata = _restored(data), _restored(metadata)
        timestamp = stored["timestamp"]
        return Event(
            event_type=stored["type"],
            entity_type=stored["entity_type"],
            entity_id=stored["entity_id"],
            data=data,
            event_id=stored["id"],
            workflow_id=get("workflow_id"),
            tenant_id=get("tenant_id", ""),
            tags=tuple(get("tags", ())),
            metadata=metadata,
            schema_version=get("schema_version", 1),
            timestamp=timestamp.replace(
                microsecond=timestamp.microsecond + get("us", 0), tzinfo=UTC
            ),
            sequence=int(stored["sequence"]),
            version=int(stored["version"]),
            batch_sequence=int(get("batch_sequence", self.commit)),
            recorded_at=self.recorded_at,
        )


# A document is a length, then elements, then 0; an element a type, a name, 0, and a value
# (https://bsonspec.org/spec.html). To walk over what is not wanted takes a tenth of the time of
# having the driver make an object of each event.

_LENGTH: Final = struct.Struct("<i")
_OURS: Final = {0x01: 8, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x12: 8}
_FIXED: Final = _OURS | {0x07: 12, 0x11: 8, 0x13: 16}
"""How many bytes a value has, by type: double, bool, date, null, integers; and what others may
have added: ObjectId, Timestamp, Decimal128."""
_COUNTED: Final = {0x02: 4, 0x03: 0, 0x04: 0, 0x05: 5}
"""How many beside those it counts itself: text, document, array, binary."""


def _elements(document: bytes) -> dict[str, slice]:
    """Return where each field of a document stands, with its type and name."""
    return {
        document[start + 1 : value - 1].decode(): slice(start, end)
        for start, value, end in _walk(document)
    }


def _walk(document: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield where each element begins, where its value does, and where it ends."""
    start = _LENGTH.size
    while kind := document[start]:
        value = document.index(0, start + 1) + 1
        if (size := _FIXED.get(kind)) is None:
            size = _COUNTED[kind] + _LENGTH.unpack_from(document, value)[0]
        if size < 0:
            raise ValueError("a length is negative")
        end = value + size
        yield start, value, end
        start = end


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, struct.error, BSONError) as error:
        raise CorruptLogError(f"a stored commit cannot be read: {error!r}") from error
