"""What is kept of every call: who made it, what was asked, what came back, and when.

A worker writes one JSON line for each call into a file of its own, at once and unbuffered, so
that the record outlives a killed process; an append writes one before the call and one after
it. Times are nanoseconds of ``time.monotonic_ns``, which the processes of one machine share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from sys import intern
from typing import Any, Final
from uuid import UUID

import msgspec

from eventstore.checkpoint import Checkpoint
from eventstore.event import Entity, Event
from eventstore.query import AppendCondition, EventQuery

DIGEST_MASK: Final = 2**63 - 1
NOBODY: Final = -1
"""In place of a worker, where the whole log was read to check it."""
_NO_PAYLOAD: Final[dict[str, Any]] = {}


def digest_of(event: Event) -> int:
    """Return a number that stands for the whole recorded event."""
    return _digest(msgspec.json.encode(event, order="deterministic"))


def content_of(event: Event) -> int:
    """Return a number that stands for what G7 calls the content of an event."""
    content = (
        event.event_type,
        event.schema_version,
        event.entity,
        event.workflow_id,
        sorted(set(event.tags)),
        event.data,
    )
    return _digest(msgspec.json.encode(content, order="deterministic"))


def _digest(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=8).digest()) & DIGEST_MASK


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """An event as it was given to an append."""

    event_id: UUID
    entity: Entity
    content: int


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    """An event as it came back."""

    event_id: UUID
    sequence: int
    version: int
    batch_sequence: int
    digest: int

    @classmethod
    def of(cls, event: Event) -> Receipt:
        """Return the receipt for a recorded event."""
        return cls(
            event.event_id, event.sequence, event.version, event.batch_sequence, digest_of(event)
        )


class Stored(msgspec.Struct, frozen=True, tag=True):
    """An append returned."""

    receipts: list[Receipt]
    replayed: bool | None = False
    """None where the call does not tell (``append`` returns the event alone)."""


class Conflicted(msgspec.Struct, frozen=True, tag=True):
    """An append raised VersionConflictError."""

    entity: Entity
    expected: int
    actual: int


class ConditionFailed(msgspec.Struct, frozen=True, tag=True):
    """An append raised ConditionFailedError."""

    sequence: int


class Duplicate(msgspec.Struct, frozen=True, tag=True):
    """An append raised DuplicateEventError."""

    event_id: UUID


class BeyondHead(msgspec.Struct, frozen=True, tag=True):
    """An append raised CheckpointError, for the position in its condition."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An append raised InvalidEventError or InvalidQueryError."""

    reason: str


class Unavailable(msgspec.Struct, frozen=True, tag=True):
    """An append raised StoreUnavailableError."""

    may_have_written: bool


class Closed(msgspec.Struct, frozen=True, tag=True):
    """An append raised StoreClosedError."""


class Replaced(msgspec.Struct, frozen=True, tag=True):
    """An append raised LogReplacedError."""


class Unexpected(msgspec.Struct, frozen=True, tag=True):
    """An append raised what it must not."""

    error: str


Outcome = (
    Stored
    | Conflicted
    | ConditionFailed
    | Duplicate
    | BeyondHead
    | Refused
    | Unavailable
    | Closed
    | Replaced
    | Unexpected
)


class Append(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """An append was called. Its answer follows, unless the worker was killed."""

    worker: int
    number: int
    """Which append of this worker it is."""
    what: str
    """What the worker was about, for people."""
    began: int
    events: list[Asked]
    expected: list[tuple[Entity, int]] = []
    condition: AppendCondition | None = None
    invalid: bool = False
    """Wrong on purpose: it must be refused."""
    assigned: bool = False
    """Some of its events carry a sequence: it is a repeat, or to be refused."""
    ended: int | None = None
    outcome: Outcome | None = None
    """None: nobody knows, as with ``Unavailable(may_have_written=True)``."""

    @property
    def may_have_written(self) -> bool:
        """Whether its events may be in the log because of it."""
        return (
            self.outcome is None
            or isinstance(self.outcome, Stored)
            or (isinstance(self.outcome, Unavailable) and self.outcome.may_have_written)
        )


class Answer(msgspec.Struct, frozen=True, tag=True):
    """What an append returned or raised."""

    worker: int
    number: int
    ended: int
    outcome: Outcome


class Read(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A read of events, or of how many there are.

    A current version is the count of an entity's events, a head the count of all; waiting
    in vain is a read of nothing.
    """

    worker: int
    what: str
    began: int
    ended: int
    """When its snapshot was surely taken: an iteration's, after the first event came."""
    query: EventQuery
    count: int
    runs: list[tuple[int, int]] | None = None
    """The sequences in the order seen, as (first, how many ascending from there); None where
    only the count is known."""
    digest: int | None = None
    """The digests of the events seen, added up; None where they were not seen."""
    position: int | Checkpoint | None = None
    """Where it goes on from; None where it names no position, but filters at most."""


class Lookup(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A look for an event by its id."""

    worker: int
    what: str
    began: int
    ended: int
    event_id: UUID
    tenant_id: str = ""
    found: Receipt | None = None


class Reason(Enum):
    """Why a read raised."""

    UNAVAILABLE = "unavailable"
    """StoreUnavailableError, as it may be while an engine is down."""
    CLOSED = "closed"
    """StoreClosedError."""
    REPLACED = "replaced"
    """LogReplacedError."""
    POSITION = "position"
    """CheckpointError, for the position that it goes on from."""
    UNEXPECTED = "unexpected"


class Failure(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A read raised."""

    worker: int
    what: str
    began: int
    ended: int
    error: str
    reason: Reason
    position: int | Checkpoint | None = None
    """Where it was to go on from."""


class LogEntry(msgspec.Struct, frozen=True):
    """An event as the log held it in the end, its payload taken off."""

    event: Event
    content: int
    digest: int

    @classmethod
    def of(cls, event: Event) -> LogEntry:
        """Return the entry for a recorded event."""
        # A log has few names and many events: each name is kept once.
        bare = event.replace(
            data=_NO_PAYLOAD,
            metadata=_NO_PAYLOAD,
            event_type=intern(event.event_type),
            entity_type=intern(event.entity_type),
            entity_id=intern(event.entity_id),
            workflow_id=event.workflow_id and intern(event.workflow_id),
            tags=tuple(map(intern, event.tags)),
        )
        return cls(bare, content_of(event), digest_of(event))


Operation = Append | Read | Lookup | Failure


class History(msgspec.Struct, frozen=True):
    """Everything that was done to a log, and how it stood in the end."""

    operations: list[Operation]
    log: list[LogEntry]
    """The whole of it, as read in the end."""
    start: int = 0
    """The head before the first operation."""
    closed: frozenset[int] = frozenset()
    """Workers whose store was closed under them."""
    replaced: int | None = None
    """From when on a call may find that another log took the place of the one it opened."""


def added_up(digests: Iterable[int]) -> int:
    """Return what ``Read.digest`` is for events of these digests."""
    return sum(digests) & DIGEST_MASK


def runs_of(sequences: Iterable[int]) -> list[tuple[int, int]]:
    """Return sequences as (first, how many ascending from there)."""
    runs: list[tuple[int, int]] = []
    first = count = 0
    for sequence in sequences:
        if count and sequence == first + count:
            count += 1
            continue
        if count:
            runs.append((first, count))
        first, count = sequence, 1
    if count:
        runs.append((first, count))
    return runs


def sequences_of(runs: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Return the sequences that ``runs_of`` took together."""
    for first, count in runs:
        yield from range(first, first + count)


class Recorder:
    """Writes the record of one worker."""

    def __init__(self, directory: Path, worker: int) -> None:
        self._file = (directory / f"worker-{worker}.jsonl").open("ab", buffering=0)
        self._encode = msgspec.json.Encoder().encode

    def write(self, record: Append | Answer | Read | Lookup | Failure) -> None:
        """Write a line, to the operating system."""
        self._file.write(self._encode(record) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_decode: Final = msgspec.json.Decoder(Append | Answer | Read | Lookup | Failure).decode


def load_operations(directory: Path) -> list[Operation]:
    """Return what the recorders wrote into a directory, every append with its answer."""
    operations: list[Operation] = []
    for path in sorted(directory.glob("worker-*.jsonl")):
        pending: dict[tuple[int, int], Append] = {}
        with path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # the worker was killed while it wrote this
                record = _decode(line)
                if isinstance(record, Append):
                    pending[record.worker, record.number] = record
                elif isinstance(record, Answer):
                    append = pending.pop((record.worker, record.number))
                    operations.append(
                        msgspec.structs.replace(append, ended=record.ended, outcome=record.outcome)
                    )
                else:
                    operations.append(record)
        operations.extend(pending.values())
    return operations
