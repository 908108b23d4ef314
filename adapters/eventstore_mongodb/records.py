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

import os
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from eventstore.backend import Accepted, Draft, decode_object, to_microseconds
from eventstore_mongodb.keys import entity_key, id_key, keys_of_event, time_index

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
ONLY_TOKEN: Final[Projection] = {"token": 1}
ONLY_LAST: Final[Projection] = {"_id": 0, "last": 1}
"""The projection of where a commit ends: the index holds it."""

END: Final = "end"
"""The field by which documents with events are in order: parts have no ``last``."""

OF_PARTS: Final = "part"
"""The key of every part."""

PART: Final = 20
"""Events in a document at most; a commit of more stands in parts. Fewer make a batch slower to
write, more an event slower to find. Whoever reads format 2 relies on it."""

_EMPTY: Final = b"{}"
_LARGE_NUMBER: Final = re.compile(rb"[0-9]{10}")


class Written(NamedTuple):
    """A commit as it is written."""

    first: int
    token: bytes
    parts: Sequence[RawBSONDocument]
    """To be written first; none where the commit holds its events itself."""
    commit: RawBSONDocument

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return len(self.commit.raw) + sum(len(part.raw) for part in self.parts)


def written(accepted: Sequence[Accepted], log_format: int) -> Written:
    """Return these batches, which follow each other, as they are written."""
    token = os.urandom(12)
    parts, commit = _commit_of(accepted, token, log_format)
    return Written(commit["_id"], token, [*map(_encoded, parts)], _encoded(commit))


def _encoded(document: Mapping[str, Any]) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(document, codec_options=OPTIONS), RAW)


def _commit_of(
    accepted: Sequence[Accepted], token: bytes, log_format: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the documents that record these batches: parts, if there are any, then the commit."""
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
        return [], {**commit, **_events_of(facts, first, log_format)}
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
    return parts, commit


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
        for key in keys_of_event(draft, version, log_format):
            keys[key] = keys.get(key, 0) + 1
        times.append(to_microseconds(draft.timestamp))
        event = _stored(draft, sequence, version)
        if batch_sequence != commit:
            event["batch_sequence"] = batch_sequence
        events.append(event)
    fields: dict[str, Any] = {
        "time_index": Int64(time_index(min(times), max(times))),
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


def restored(value: Any) -> Any:
    """Return a payload of an event that is marked to be restored, as it was."""
    if type(value) is dict:
        return {
            chr(int(key[1:3], 16)) + key[3:] if key.startswith("%") else key: restored(item)
            for key, item in value.items()
        }
    if type(value) is list:
        return [restored(item) for item in value]
    return int(value) if type(value) is Int64 else value
