"""How far a consumer has processed, in a form that notices another log."""

from __future__ import annotations

from typing import Self
from uuid import UUID

import msgspec

from eventstore._core.checks import checked_integer, checked_name, shown
from eventstore.errors import InvalidQueryError


class Checkpoint(msgspec.Struct, frozen=True):
    """The log's identity, a sequence, and the id of the event that stands there.

    ``Checkpoint(log_id, 0, None)`` is the start. ``str(checkpoint)`` is a text form for a
    file or a column, ``Checkpoint.parse(text)`` its inverse. Raises InvalidQueryError when
    made with a wrong field.
    """

    log_id: str
    sequence: int
    event_id: UUID | None

    def __post_init__(self) -> None:
        checked_name("checkpoint.log_id", self.log_id, InvalidQueryError)
        if "@" in self.log_id or ":" in self.log_id:
            raise InvalidQueryError(f"checkpoint.log_id: {self.log_id!r} is no log id")
        checked_integer("checkpoint.sequence", self.sequence, InvalidQueryError)
        if (self.sequence == 0) != (self.event_id is None):
            raise InvalidQueryError(
                "checkpoint.event_id: must be given, except at sequence 0 (the start)"
            )
        if self.event_id is not None and type(self.event_id) is not UUID:
            raise InvalidQueryError(
                f"checkpoint.event_id: must be a UUID, not {type(self.event_id).__name__}"
            )

    def __str__(self) -> str:
        return f"{self.sequence}:{self.event_id or '-'}@{self.log_id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the checkpoint that ``str(checkpoint)`` wrote; InvalidQueryError otherwise."""
        try:
            position, log_id = text.strip().split("@")
            sequence, event_id = position.split(":")
            if not (sequence.isascii() and sequence.isdigit()):
                raise ValueError(sequence)
            return cls(log_id, int(sequence), None if event_id == "-" else UUID(event_id))
        except (ValueError, AttributeError, TypeError) as error:
            raise InvalidQueryError(
                f"checkpoint: {shown(text)} is not the text form of a checkpoint"
                " (<sequence>:<event id>@<log id>)"
            ) from error
