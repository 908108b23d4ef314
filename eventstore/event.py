"""The values of the log: events and what they are about."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from eventstore.errors import InvalidEventError

Name: TypeAlias = str | Enum
"""Non-empty text of at most 255 bytes in UTF-8, or an Enum member with such a value."""


class Entity(NamedTuple):
    """What an event is about (elsewhere "aggregate" or "stream"): the kind of thing, which one,
    and whose; the empty string where there are no tenants."""

    entity_type: str
    entity_id: str
    tenant_id: str = ""


def _now() -> datetime:
    return datetime.now(UTC)


# gc=False: reading creates millions of these, and a value refers to nothing that refers back.
class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An immutable fact. A value: not assigned to, equal by value, hashed by its id.

    It is checked when it is appended (an event that was read needs no check), and whatever
    is wrong with it raises InvalidEventError there, naming the field. Names may be Enum members
    with text values; what is read holds their text.

    ``event_type``: what happened, for example ``OrderPlaced``.
    ``entity_type``: the kind of thing it happened to, for example ``order``.
    ``entity_id``: which one.
    ``data``: what happened in detail: a JSON object (see docs/payloads.md). An ordinary dict, a
        copy of what the log holds.
    ``event_id``: unique within the tenant; a new UUIDv7 unless given. Appending it again is a
        repeat.
    ``workflow_id``: the run that events of several entities belong to (elsewhere
        "correlation"); None where there is none.
    ``tenant_id``: whose it is; the empty string where there are no tenants.
    ``tags``: labels, for queries and conditions that cross entities: any collection but text. A
        tuple when it is read; a set comes back sorted.
    ``metadata``: about the event rather than of it, a JSON object too: ``correlation_id``,
        ``causation_id``, ``actor_id`` …
    ``schema_version``: the version of the shape of ``data``, from 1, for those who change it.
    ``timestamp``: when it happened, now unless given: timezone-aware, kept to the microsecond,
        returned in UTC.

    Assigned by the store, so that a new event leaves them out:

    ``sequence``: its place in the log, from 1; 0 until it is recorded.
    ``version``: its place within its entity, from 1; 0 until it is recorded.
    ``batch_sequence``: the sequence of the first event of its batch; 0 until it is recorded.
    ``recorded_at``: when it was stored, by the server's clock where there is one; it never goes
        back along the log. None until it is recorded.
    """

    event_type: str
    entity_type: str
    entity_id: str
    data: dict[str, Any] = {}
    event_id: UUID = msgspec.field(default_factory=uuid7)
    workflow_id: str | None = None
    tenant_id: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    schema_version: int = 1
    timestamp: datetime = msgspec.field(default_factory=_now)
    sequence: int = 0
    version: int = 0
    batch_sequence: int = 0
    recorded_at: datetime | None = None

    if TYPE_CHECKING:  # what is taken is wider than what is read

        def __init__(
            self,
            *,
            event_type: Name,
            entity_type: Name,
            entity_id: Name,
            data: dict[str, Any] = ...,
            event_id: UUID = ...,
            workflow_id: Name | None = None,
            tenant_id: Name = "",
            tags: Collection[Name] = (),
            metadata: dict[str, Any] = ...,
            schema_version: int = 1,
            timestamp: datetime = ...,
            sequence: int = 0,
            version: int = 0,
            batch_sequence: int = 0,
            recorded_at: datetime | None = None,
        ) -> None: ...

    def __hash__(self) -> int:
        event_id = self.event_id
        # By its bytes: a UUID hashes as its number does, so that ids can be made to collide.
        return hash(event_id.bytes if isinstance(event_id, UUID) else event_id)

    @property
    def entity(self) -> Entity:
        """The entity this event is about."""
        return Entity(self.entity_type, self.entity_id, self.tenant_id)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; TypeError for a field that does not exist."""
        return msgspec.structs.replace(self, **changes)

    def as_new(self) -> Self:
        """Return a copy to be appended as another event: a fresh id, nothing assigned."""
        return self.replace(
            event_id=uuid7(), sequence=0, version=0, batch_sequence=0, recorded_at=None
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the event in the form of an export (docs/export-format.md), every field of it.

        It is made of what JSON is made of: the id and the times are text, ``tags`` is a list,
        ``data`` and ``metadata`` are copies.
        """
        fields: dict[str, Any] = msgspec.to_builtins(self)
        fields["tags"] = list(self.tags)
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Return the event that ``to_dict`` gave, or that a line of an export holds.

        What is left out is as it is in a new event, with an id of its own. A sequence is kept, so
        an event that was recorded is a repeat where it is appended again (``as_new`` makes another
        of it). Names and payloads are checked when it is appended. Raises InvalidEventError for a
        field that is missing, unknown or of the wrong type.
        """
        if not isinstance(fields, dict):
            raise InvalidEventError(f"event: must be a dict, not {type(fields).__name__}")
        try:
            return cls(**msgspec.convert(fields, ExportedEvent).given())
        except msgspec.ValidationError as error:
            raise InvalidEventError(f"event: {error}") from error
        except RecursionError as error:
            raise InvalidEventError("event: is nested too deep") from error


class ExportedEvent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of an event as an export has them; what may be left out has a default."""

    event_type: str
    entity_type: str
    entity_id: str
    data: dict[str, Any] = {}
    event_id: UUID | msgspec.UnsetType = msgspec.UNSET
    workflow_id: str | None = None
    tenant_id: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    schema_version: int = 1
    timestamp: datetime | msgspec.UnsetType = msgspec.UNSET
    sequence: int = 0
    version: int = 0
    batch_sequence: int = 0
    recorded_at: datetime | None = None

    def given(self) -> dict[str, Any]:
        """Return the fields by name, without those that an event makes for itself."""
        fields = msgspec.structs.asdict(self)
        return {name: value for name, value in fields.items() if value is not msgspec.UNSET}
