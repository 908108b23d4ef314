"""Documents that were read, taken apart as far as somebody asks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from eventstore.errors import CorruptLogError
from eventstore.event import Event
from eventstore_mongodb.keys import time_bounds
from eventstore_mongodb.records import END, OPTIONS, part_ids, restored

_OF_EVENTS: Final = frozenset({"events", "keys", "parts", "repeated", "versions"})
"""The fields that are as long as there are events."""
_EVENT_ID: Final = slice(13, 29)
"""Where an event's id stands in its bytes: ``id`` is its first field."""


class Piece:
    """A document: a commit with its events, a commit that stands in parts, or a part of one. Its
    events are decoded when they are asked for."""

    __slots__ = (
        *("_elements", "_raw", "_time_index"),
        *("commit", "first", "id", "is_part", "last", "recorded_at", "token"),
    )

    def __init__(self, document: RawBSONDocument) -> None:
        with _readable():
            self._raw = bytes(document.raw)  # where it is large, the driver gives a memoryview
            self._elements = _elements(self._raw)
            head = self._decoded(self._elements.keys() - _OF_EVENTS)
            self.id: int | str = head["_id"]
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

    def part_ids(self, after: int, up_to: int) -> list[str]:
        """Return the ``_id`` of the parts of a commit that hold something in between."""
        if not self.has_parts:
            return []
        with _readable():
            ends = self._decoded(("parts",))["parts"]
            begins = [self.first, *(end + 1 for end in ends)]
            return [
                part_id
                for part_id, begin, end in zip(
                    part_ids(self.first, self.token, len(ends)), begins, ends, strict=False
                )
                if begin <= up_to and end > after
            ]

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
            data, metadata = restored(data), restored(metadata)
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
