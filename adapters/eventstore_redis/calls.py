"""What the scripts are called with: their keys, their arguments, and a request in JSON.

This is the protocol between Python and Lua. A call of a script has

- **KEYS**: every key that it touches, told by its number from 1 (``Names``). The first ones are
  always the same for a script; which, its header says.
- **ARGV**: in append.lua and read.lua first the request (JSON), then the log id, then texts. The
  request holds numbers and flags, and for keys and texts their numbers: ids are bytes, which JSON
  cannot hold, and all else would have to be escaped. find.lua takes plain arguments alone.

The request of **append.lua** is a list of batches:

=============  ====================================================================================
``first``      the place of its first event among all of the call, from 0: event ``n`` has the texts
               ``3 + 3n`` … ``5 + 3n`` of ARGV (see ``records.texts_of``)
``entities``   for each event the key of its entity's list, whose length is the entity's version
``lists``      pairs of a key and offsets within the batch: to which lists of sequences (query.lua
               names them) the events at these offsets are added, their entities' among them
``ids``        pairs of the key of a tenant's ids and the offsets of the tenant's events
``expected``   pairs of the key of an entity's list and the version that is asked for
``condition``  where there is one: ``after``, ``checked_to`` and ``match`` as in ``Condition``,
               ``query`` as below, ``witness``: the text of the identity that must stand at
               ``checked_to`` (left out where none is known), and ``rough``: the query takes
               more than the condition asks for, so what it takes must be looked into here
=============  ====================================================================================

The request of **read.lua**:

==============  ===================================================================================
``query``       what an event must fit, as below
``after``,      the bounds of sequences, exclusive and inclusive (``up_to`` is left out where there
``up_to``       is none)
``limit``,      how many to return, after how many are skipped; ``count``: return none, count all
``offset``
``by_time``     in the order of time; ``ascending``: which end comes first
``resume``      in the order of time: the text of the key (time and sequence) to go on after
``walking``     whether that is where an earlier call of the same page stopped, which walked along
                all times: this one is to do the same
``skip``        how many of an entity's first versions to pass over; the query is of one entity then
``exact``       the query has a single index, and all of that matches: no event need be looked at
                to be counted or skipped
==============  ===================================================================================

A **query**, and each of its ``any_of``:

===============  ==================================================================================
``equal``        pairs of a fact's place (1 tenant, 2 entity type, 3 entity id, 4 type, 5 workflow)
                 and the texts of which it must be one
``tags``         the texts of tags that it must have, each between two NULs
``lists``        (read.lua) groups of keys of lists of sequences. Every event that fits stands in
                 one list of each group, so the shortest group gives the candidates
``first``        only first events of entities
``above``,       bounds of the alternative itself
``up_to``
``from_time``,   texts that bound the time
``to_time``
===============  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from eventstore.backend import Batch, Condition, Draft, EventKey, PageRequest
from eventstore.event import Entity
from eventstore.query import EventQuery
from eventstore_redis.records import FIELDS, identity_text, texts_of, time_text

BASE: Final = ("meta", "log", "times", "firsts")
"""The keys that every log has; the first so many are the first ones of every script."""
MAX_SEQUENCE: Final = 2**53
"""Numbers up to here are exact in Lua; no log gets there."""

# Where a fact stands in an event's text: see query.lua.
_TENANT, _ENTITY_TYPE, _ENTITY_ID, _TYPE, _WORKFLOW = 1, 2, 3, 4, 5
_OF_ENTITY = (_TENANT, _ENTITY_TYPE, _ENTITY_ID)
"""Their lists hold all that the entity's own does: where that is known, they are no help."""

_MOST_NAMES: Final = 2000
"""In a query for a script, which holds up all others while it judges by them."""

_encode = msgspec.json.Encoder().encode

Call = tuple[Sequence[str], Sequence[str | bytes | int]]
"""The keys and arguments of a script."""

Part = dict[str, Any]
"""A piece of a request, on its way to JSON."""


class Names:
    """The keys of a log, and those that one call of a script touches, by number from 1."""

    def __init__(self, namespace: str, *always: str) -> None:
        self._prefix = f"{{{namespace}}}:"
        self._numbers = {self._prefix + name: n for n, name in enumerate(always, 1)}

    def __call__(self, name: str) -> int:
        """Return the number of a key."""
        return self._numbers.setdefault(self._prefix + name, len(self._numbers) + 1)

    def entity(self, entity: Entity) -> int:
        """Return the number of the key of an entity's list."""
        return self(entity_name(entity))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, in the order of their numbers."""
        return tuple(self._numbers)


def entity_name(entity: Entity) -> str:
    """Return the name of an entity's list."""
    return f"entity:{entity.tenant_id}\0{entity.entity_type}\0{entity.entity_id}"


class Arguments:
    """The texts that go with a plan or request, numbered as in ARGV."""

    def __init__(self, reserved: int) -> None:
        self.texts: list[str | bytes | int] = []
        self._reserved = reserved

    def __call__(self, text: str | bytes) -> int:
        """Add a text and return its number."""
        self.texts.append(text)
        return self._reserved + len(self.texts)


def append_call(namespace: str, log_id: str, group: Sequence[Batch]) -> Call:
    """Return keys and arguments for append.lua."""
    name = Names(namespace, *BASE)
    arguments = Arguments(reserved=2)
    texts = arguments.texts
    plan: list[Part] = []
    for batch in group:
        first = len(texts) // FIELDS
        entities: list[int] = []
        lists: dict[int, list[int]] = {}
        ids: dict[int, list[int]] = {}
        for offset, draft in enumerate(batch.drafts):
            texts += texts_of(draft)
            entity = name.entity(draft.entity)
            entities.append(entity)
            for number in (entity, *_lists_of(draft, name)):
                lists.setdefault(number, []).append(offset)
            ids.setdefault(name(f"ids:{draft.tenant_id}"), []).append(offset)
        plan.append(
            {
                "first": first,
                "entities": entities,
                "lists": list(lists.items()),
                "ids": list(ids.items()),
                "expected": [(name.entity(entity), version) for entity, version in batch.expected],
            }
        )
    for batch, part in zip(group, plan, strict=True):  # after all events: those are counted off
        if batch.condition is not None:
            part["condition"] = _condition_part(batch.condition, arguments)
    return name.keys, [_encode(plan), log_id, *texts]


def _lists_of(draft: Draft, name: Names) -> list[int]:
    numbers = [
        name(f"entity_type:{draft.entity_type}"),
        name(f"entity_id:{draft.entity_id}"),
        name(f"tenant:{draft.tenant_id}"),
        name(f"type:{draft.event_type}"),
    ]
    if draft.workflow_id is not None:
        numbers.append(name(f"workflow:{draft.workflow_id}"))
    if draft.tags:
        numbers += [name(f"tag:{tag}") for tag in dict.fromkeys(draft.tags)]
    return numbers


def rough(query: EventQuery) -> EventQuery:
    """Return a query small enough for a script, which takes at least what ``query`` takes; mostly
    ``query`` itself."""
    alternatives = tuple(query.any_of or ())
    if sum(map(_names_in, (query, *alternatives))) <= _MOST_NAMES:
        return query
    room = _MOST_NAMES // (len(alternatives) + 1)
    fewer = [_with_names(each, room) for each in alternatives]
    everything = EventQuery()
    any_of = fewer if fewer and everything not in fewer else None
    return _with_names(query, room).replace(any_of=any_of)


def for_one_call(batches: Sequence[Batch]) -> Sequence[Batch]:
    """Return the first of some batches, at least one, whose conditions together are small enough
    for a script."""
    values = 0
    for place, batch in enumerate(batches):
        if batch.condition is not None:
            query = batch.condition.query
            values += sum(map(_values_in, (query, *(query.any_of or ()))))
            if place and values > _MOST_NAMES:
                return batches[:place]
    return batches


def _names_in(query: EventQuery) -> int:
    return len(query.event_types or ()) + len(query.tags or ())


def _values_in(query: EventQuery) -> int:
    """Return how much a script has to prepare for a query, its alternatives aside."""
    fields = (query.entity_type, query.entity_id, query.workflow_id, query.tenant_id)
    return 1 + _names_in(query) + sum(value is not None for value in fields)


def _with_names(query: EventQuery, most: int) -> EventQuery:
    types, tags = tuple(query.event_types or ()), tuple(query.tags or ())
    few_types = types if len(types) <= most else ()
    few_tags = tags[: most - len(few_types)]
    return query.replace(event_types=few_types or None, tags=few_tags or None)


def _condition_part(condition: Condition, arguments: Arguments) -> Part:
    query = rough(condition.query)
    part: Part = {
        "rough": query is not condition.query,
        "after": min(condition.after, MAX_SEQUENCE),
        "checked_to": min(condition.checked_to, MAX_SEQUENCE),
        "match": condition.match,
        "query": _query_part(query, arguments, None),
    }
    if condition.witness is not None:
        part["witness"] = arguments(identity_text(condition.witness))
    return part


def _query_part(query: EventQuery, text: Arguments, name: Names | None) -> Part:
    """Return a query for ``takes`` in query.lua; with ``name``, also its lists."""
    equal: list[tuple[int, list[int]]] = []
    lists: list[list[int]] = []
    entity = _entity_of(query) if name else None
    if name and entity is not None:
        lists.append([name.entity(entity)])
    for place, field, value in (
        (_ENTITY_TYPE, "entity_type", query.entity_type),
        (_ENTITY_ID, "entity_id", query.entity_id),
        (_TENANT, "tenant", query.tenant_id),
        (_WORKFLOW, "workflow", query.workflow_id),
        (_TYPE, "type", query.event_types),
    ):
        if value is not None:
            values = (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))
            equal.append((place, [text(each) for each in values]))
            if name and (entity is None or place not in _OF_ENTITY):
                lists.append([name(f"{field}:{each}") for each in values])
    tags = tuple(dict.fromkeys(query.tags or ()))
    if name:
        lists += [[name(f"tag:{tag}")] for tag in tags]
    part: Part = {
        "equal": equal,
        "tags": [text(f"\0{tag}\0") for tag in tags],
        "lists": lists,
    }
    if query.any_of:
        part["any_of"] = [_query_part(each, text, name) for each in query.any_of]
    if query.after:
        part["above"] = min(query.after, MAX_SEQUENCE)
    if query.to_sequence is not None:
        part["up_to"] = min(query.to_sequence, MAX_SEQUENCE)
    if query.from_timestamp is not None:
        part["from_time"] = text(time_text(query.from_timestamp))
    if query.to_timestamp is not None:
        part["to_time"] = text(time_text(query.to_timestamp))
    return part


def _entity_of(query: EventQuery) -> Entity | None:
    if query.entity_type is None or query.entity_id is None or query.tenant_id is None:
        return None
    return Entity(query.entity_type, query.entity_id, query.tenant_id)


def read_call(
    namespace: str,
    log_id: str,
    page: PageRequest,
    resume: str,
    *,
    count: bool = False,
    firsts: bool = False,
) -> Call:
    """Return keys and arguments for read.lua.

    ``resume`` is where an earlier call in the order of time stopped; ``firsts`` restricts to
    the first events of entities.
    """
    name = Names(namespace, *BASE[:3])
    arguments = Arguments(reserved=2)
    query = _query_part(page.query, arguments, name)
    if firsts:
        query["first"] = True
        query["lists"].append([name("firsts")])
    by_time = page.order_by == "timestamp"
    walking = bool(resume)
    if page.resume is not None and not resume:
        time, sequence = page.resume
        resume = f"{time_text(time)}{sequence:016d}"
    others = query.keys() - {"equal", "tags", "lists", "first"}
    request: Part = {
        "query": query,
        "after": min(page.after, MAX_SEQUENCE),
        "limit": page.limit,
        "offset": min(page.offset, MAX_SEQUENCE),
        "ascending": page.ascending,
        "by_time": by_time,
        "walking": walking,
        "skip": min(page.above_version, MAX_SEQUENCE),
        "count": count,
        "exact": len(query["lists"]) == 1 and not others and not by_time,
    }
    if page.up_to is not None:
        request["up_to"] = min(page.up_to, MAX_SEQUENCE)
    if resume:
        request["resume"] = arguments(resume)
    return name.keys, [_encode(request), log_id, *arguments.texts]


def find_call(namespace: str, log_id: str, keys: Sequence[EventKey]) -> Call:
    """Return keys and arguments for find.lua."""
    name = Names(namespace, *BASE[:2])
    arguments: list[str | bytes | int] = [log_id]
    for tenant_id, event_id in keys:
        arguments += (name(f"ids:{tenant_id}"), event_id.bytes)
    return name.keys, arguments
