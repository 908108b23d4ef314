"""Which events to read, and which must not be there when appending."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

import msgspec
from msgspec.structs import force_setattr

from eventstore._core.checks import (
    check_count,
    checked_collection,
    checked_integer,
    checked_name,
    checked_names,
    checked_tenant,
    checked_time,
    shown,
)
from eventstore.checkpoint import Checkpoint
from eventstore.errors import InvalidQueryError

if TYPE_CHECKING:
    from eventstore.backend.draft import Draft
    from eventstore.event import Event, Name

_T = TypeVar("_T")

MAX_ALTERNATIVES: Final = 1_000
MAX_TAGS: Final = 100
MAX_EVENT_TYPES: Final = 1_000
MAX_VALUES: Final = 10_000
"""In all alternatives together. Engines take only so many parameters in a statement: SQLite
32,766, PostgreSQL 65,535."""

_MOST: Final = {"event_types": MAX_EVENT_TYPES, "tags": MAX_TAGS}
_VALUES: Final = (
    "entity_type",
    "entity_id",
    "workflow_id",
    "tenant_id",
    "from_sequence",
    "to_sequence",
    "from_timestamp",
    "to_timestamp",
    "from_recorded_at",
    "to_recorded_at",
)
_TIMES: Final = ("from_timestamp", "to_timestamp", "from_recorded_at", "to_recorded_at")
_FILTERS: Final = (*_VALUES, "event_types", "tags", "any_of")
_SHAPING_DEFAULTS: Final = {"limit": None, "offset": 0, "order_by": "sequence", "ascending": True}


class EventQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A filter over the log, with an order and a window. All given fields must match.

    **Mind the bounds**: ``from_sequence`` is *exclusive* ("after": pass the position that was
    processed, add nothing to it), while ``to_sequence`` and all times are *inclusive*.

    None means "not filtered". Names may be Enum members with text values, collections are
    whatever holds several (but no text) and are kept as tuples.

    ``entity_type``, ``entity_id``: what the event is about; ``entity_id`` alone finds entities
        of several types.
    ``workflow_id``: the run that it belongs to.
    ``tenant_id``: whose it is; the empty string asks for events without a tenant.
    ``event_types``: any of them; at most 1,000.
    ``tags``: all of them; at most 100.
    ``from_sequence``: EXCLUSIVE, events *after* it. Who adds 1 to the last sequence that was
        processed skips an event. A Checkpoint is verified when the query is asked
        (CheckpointError); a number beyond the head simply matches nothing.
    ``to_sequence``: inclusive.
    ``from_timestamp``, ``to_timestamp``: inclusive, of ``Event.timestamp``: when it happened.
    ``from_recorded_at``, ``to_recorded_at``: inclusive, of ``Event.recorded_at``: when it was
        stored. That never goes back along the log, so they cut a range of sequences out of it.
    ``any_of``: queries of which at least one must match, made of the fields above alone; at
        most 1,000, which compare with at most 10,000 values together.
    ``limit``: at most so many events.
    ``offset``: skip so many matches, in order, before the first.
    ``order_by``: "sequence", or "timestamp"; events of the same timestamp come in the order of
        their sequences (reversed, if ``ascending`` is false).
    ``ascending``: False begins with the last.

    Raises InvalidQueryError when it is made with a field of the wrong type, an empty collection
    or an empty name, so nothing but values ever reaches a database.
    """

    entity_type: str | None = None
    entity_id: str | None = None
    workflow_id: str | None = None
    tenant_id: str | None = None
    event_types: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    from_sequence: int | Checkpoint | None = None
    to_sequence: int | None = None
    from_timestamp: datetime | None = None
    to_timestamp: datetime | None = None
    from_recorded_at: datetime | None = None
    to_recorded_at: datetime | None = None
    any_of: tuple[EventQuery, ...] | None = None
    limit: int | None = None
    offset: int = 0
    order_by: Literal["sequence", "timestamp"] = "sequence"
    ascending: bool = True

    if TYPE_CHECKING:  # what is taken is wider than what is kept

        def __init__(
            self,
            *,
            entity_type: Name | None = None,
            entity_id: Name | None = None,
            workflow_id: Name | None = None,
            tenant_id: Name | None = None,
            event_types: Collection[Name] | None = None,
            tags: Collection[Name] | None = None,
            from_sequence: int | Checkpoint | None = None,
            to_sequence: int | None = None,
            from_timestamp: datetime | None = None,
            to_timestamp: datetime | None = None,
            from_recorded_at: datetime | None = None,
            to_recorded_at: datetime | None = None,
            any_of: Collection[EventQuery] | None = None,
            limit: int | None = None,
            offset: int = 0,
            order_by: Literal["sequence", "timestamp"] = "sequence",
            ascending: bool = True,
        ) -> None: ...

    def __post_init__(self) -> None:
        keep = force_setattr
        for field in ("entity_type", "entity_id", "workflow_id"):
            value = getattr(self, field)
            if value is not None:
                keep(self, field, checked_name(field, value, InvalidQueryError))
        if self.tenant_id is not None:
            keep(self, "tenant_id", checked_tenant(self.tenant_id, InvalidQueryError))
        for field, most in _MOST.items():
            value = getattr(self, field)
            if value is not None:
                names = checked_names(field, value, InvalidQueryError, most=most)
                keep(self, field, _not_empty(field, names))
        for field in ("from_sequence", "to_sequence", "limit"):
            value = getattr(self, field)
            if value is not None and not (
                field == "from_sequence" and type(value) is Checkpoint  # no subclass, it could lie
            ):
                checked_integer(field, value, InvalidQueryError)
        for field in _TIMES:
            value = getattr(self, field)
            if value is not None:
                keep(self, field, checked_time(field, value, InvalidQueryError))
        if self.any_of is not None:
            keep(self, "any_of", _checked_alternatives(self.any_of))
            if (values := sum(map(_values_in, self.any_of))) > MAX_VALUES:
                raise InvalidQueryError(
                    f"any_of: must hold at most {MAX_VALUES:,} values in all alternatives together,"
                    f" but holds {values:,}"
                )
        checked_integer("offset", self.offset, InvalidQueryError)
        order_by = self.order_by.value if isinstance(self.order_by, Enum) else self.order_by
        if type(order_by) is not str or order_by not in ("sequence", "timestamp"):
            raise InvalidQueryError(
                f"order_by: must be 'sequence' or 'timestamp', not {shown(self.order_by)}"
            )
        keep(self, "order_by", order_by)
        if type(self.ascending) is not bool:
            raise InvalidQueryError(f"ascending: must be a bool, not {shown(self.ascending)}")

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked like a new one."""
        return msgspec.structs.replace(self, **changes)

    @property
    def after(self) -> int:
        """The sequence that ``from_sequence`` stands for; 0 where it is not given."""
        position = self.from_sequence
        return position.sequence if isinstance(position, Checkpoint) else position or 0

    @property
    def has_checkpoint(self) -> bool:
        """Whether ``from_sequence``, its own or an alternative's, is one to be verified."""
        return isinstance(self.from_sequence, Checkpoint) or any(
            isinstance(each.from_sequence, Checkpoint) for each in self.any_of or ()
        )

    @property
    def has_recorded_bounds(self) -> bool:
        """Whether it, or an alternative, bounds ``recorded_at``."""
        return (
            self.from_recorded_at is not None
            or self.to_recorded_at is not None
            or (self.any_of is not None and any(each.has_recorded_bounds for each in self.any_of))
        )

    @property
    def filters_nothing(self) -> bool:
        """Whether every event matches."""
        return all(getattr(self, field) is None for field in _FILTERS)

    def shaped_by(self) -> str | None:
        """Return the first of limit, offset, order_by and ascending that is set, if any."""
        for field, default in _SHAPING_DEFAULTS.items():
            if getattr(self, field) != default:
                return field
        return None

    def matches(self, event: Event) -> bool:
        """Return whether the filter fields take ``event``; limit, offset and order are not
        looked at."""
        return self.takes(event, event.sequence)

    def takes(self, fact: Event | Draft, sequence: int) -> bool:
        """Return whether the filter fields take what stands, or will stand, at ``sequence``.

        This is the definition of every one of them. What is not recorded yet has no
        ``recorded_at``, and bounds of it take nothing.
        """
        return (
            (self.entity_type is None or fact.entity_type == self.entity_type)
            and (self.entity_id is None or fact.entity_id == self.entity_id)
            and (self.workflow_id is None or fact.workflow_id == self.workflow_id)
            and (self.tenant_id is None or fact.tenant_id == self.tenant_id)
            and (self.event_types is None or fact.event_type in self.event_types)
            and (self.tags is None or all(tag in fact.tags for tag in self.tags))
            and (self.from_sequence is None or sequence > self.after)
            and (self.to_sequence is None or sequence <= self.to_sequence)
            and (self.from_timestamp is None or fact.timestamp >= self.from_timestamp)
            and (self.to_timestamp is None or fact.timestamp <= self.to_timestamp)
            and (
                (self.from_recorded_at is None and self.to_recorded_at is None)
                or self._takes_recorded_at(getattr(fact, "recorded_at", None))
            )
            and (self.any_of is None or any(query.takes(fact, sequence) for query in self.any_of))
        )

    def _takes_recorded_at(self, time: datetime | None) -> bool:
        return (
            time is not None
            and (self.from_recorded_at is None or time >= self.from_recorded_at)
            and (self.to_recorded_at is None or time <= self.to_recorded_at)
        )


class AppendCondition(msgspec.Struct, frozen=True):
    """An append fails if a recorded event with a sequence above ``after`` matches ``query``.

    ``query``: what must not be there; a filter without limit, offset and order. Its bounds of
        ``recorded_at`` speak of what is recorded, up to the moment of the append; what an open
        transaction (``connection=``) itself appended counts as within those that the log has
        not passed yet.
    ``after``: a sequence, or a Checkpoint, which is verified first; None: the whole log counts.

    This is the "dynamic consistency boundary" of Sara Pellegrini (https://dcb.events).
    """

    query: EventQuery
    after: int | Checkpoint | None = None

    def __post_init__(self) -> None:
        if type(self.query) is not EventQuery:
            raise InvalidQueryError(
                f"condition.query: must be an EventQuery, not {type(self.query).__name__}"
            )
        refuse_shape("condition.query", self.query)
        if self.after is not None and type(self.after) is not Checkpoint:
            checked_integer("condition.after", self.after, InvalidQueryError)


def refuse_shape(what: str, query: EventQuery) -> None:
    """Raise InvalidQueryError if ``query`` has a limit, an offset or an order."""
    if (field := query.shaped_by()) is not None:
        raise InvalidQueryError(f"{what}: only filter fields have a meaning here, not {field}")


def _not_empty(field: str, value: tuple[_T, ...]) -> tuple[_T, ...]:
    if not value:
        raise InvalidQueryError(f"{field}: must not be empty; leave it out not to filter by it")
    return value


def _values_in(query: EventQuery) -> int:
    """Return how many values an alternative compares with."""
    return (
        sum(getattr(query, field) is not None for field in _VALUES)
        + len(query.event_types or ())
        + len(query.tags or ())
    )


def _checked_alternatives(value: object) -> tuple[EventQuery, ...]:
    alternatives = []
    given = checked_collection("any_of", value, InvalidQueryError)
    check_count("any_of", given, InvalidQueryError, most=MAX_ALTERNATIVES)
    for index, query in enumerate(given):
        field = f"any_of[{index}]"
        if type(query) is not EventQuery:
            raise InvalidQueryError(f"{field}: must be an EventQuery, not {type(query).__name__}")
        refuse_shape(field, query)
        if query.any_of is not None:
            raise InvalidQueryError(f"{field}: must not have an any_of of its own")
        alternatives.append(query)
    return _not_empty("any_of", tuple(alternatives))
