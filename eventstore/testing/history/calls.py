"""Calls to a store that are recorded: what was asked, what came back, and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

import msgspec

from eventstore.checkpoint import Checkpoint
from eventstore.errors import (
    BatchTooLargeError,
    CheckpointError,
    ConditionFailedError,
    DuplicateEventError,
    InvalidEventError,
    InvalidQueryError,
    LogReplacedError,
    StoreClosedError,
    StoreUnavailableError,
    VersionConflictError,
)
from eventstore.event import Entity, Event
from eventstore.query import AppendCondition, EventQuery
from eventstore.store import EventStore
from eventstore.testing.history.evidence import position_after
from eventstore.testing.history.recording import (
    Answer,
    Append,
    Asked,
    BeyondHead,
    Closed,
    ConditionFailed,
    Conflicted,
    Duplicate,
    Failure,
    Lookup,
    Outcome,
    Read,
    Reason,
    Receipt,
    Recorder,
    Refused,
    Replaced,
    Stored,
    Unavailable,
    Unexpected,
    added_up,
    content_of,
    digest_of,
    runs_of,
)

BREATH: Final = 0.02
"""Seconds between calls while the engine is away."""

_now = time.monotonic_ns


class AppendCall(msgspec.Struct, frozen=True):
    """The arguments of an append, so that it can be made again."""

    what: str
    events: Sequence[Event]
    expected: Mapping[Entity, int] = {}
    condition: AppendCondition | None = None
    alone: bool = False
    """Use ``append``, not ``append_batch``."""
    invalid: bool = False
    """Wrong on purpose."""


class Calls:
    """The calls of one worker."""

    def __init__(self, store: EventStore, recorder: Recorder, worker: int) -> None:
        self.store = store
        self.head = 0
        """The highest sequence that this worker has seen."""
        self.unsettled: list[AppendCall] = []
        """Appends of which nobody knows whether they were stored."""
        self.is_over = False
        """The store was closed, or its log replaced: no call can succeed any more."""
        self.lost_position = False
        """The log does not hold what this worker has seen: it was put back to an older state."""
        self._recorder = recorder
        self._worker = worker
        self._appends = 0

    def append(self, call: AppendCall) -> Sequence[Event] | None:
        """Append, and return the recorded events, or None if that was refused."""
        self._appends += 1
        intent = Append(
            worker=self._worker,
            number=self._appends,
            what=call.what,
            began=_now(),
            events=[
                Asked(event.event_id, event.entity, content_of(event)) for event in call.events
            ],
            expected=list(call.expected.items()),
            condition=call.condition,
            invalid=call.invalid,
            assigned=any(event.sequence for event in call.events),
        )
        self._recorder.write(intent)
        events, outcome = self._outcome(call)
        ended = _now()
        if isinstance(outcome, Stored):
            receipts = [Receipt.of(event) for event in events]
            outcome = Stored(receipts, outcome.replayed)
        self._recorder.write(Answer(self._worker, self._appends, ended, outcome))
        if isinstance(outcome, Unavailable):
            if outcome.may_have_written:
                self.unsettled.append(call)
            time.sleep(BREATH)
        self.is_over |= isinstance(outcome, (Closed, Replaced))
        if isinstance(outcome, BeyondHead):  # on purpose, where it was never near the head
            self.lost_position |= position_after(call.condition) <= self.head
        self._saw(events)
        return events or None

    def _outcome(self, call: AppendCall) -> tuple[Sequence[Event], Outcome]:
        try:
            if call.alone:
                event = self.store.append(
                    call.events[0], expected_version=call.expected, condition=call.condition
                )
                return [event], Stored([], None)
            result = self.store.append_batch(
                call.events, expected_version=call.expected, condition=call.condition
            )
            return result.events, Stored([], result.replayed)
        except VersionConflictError as error:
            entity = Entity(error.entity_type, error.entity_id, error.tenant_id)
            return (), Conflicted(entity, error.expected_version, error.actual_version)
        except ConditionFailedError as error:
            return (), ConditionFailed(error.sequence)
        except DuplicateEventError as error:
            return (), Duplicate(error.event_id)
        except LogReplacedError:
            return (), Replaced()
        except CheckpointError:
            return (), BeyondHead()
        except StoreClosedError:
            return (), Closed()
        except (InvalidEventError, InvalidQueryError, BatchTooLargeError) as error:
            return (), Refused(_text(error))
        except StoreUnavailableError as error:
            return (), Unavailable(error.may_have_written)
        except Exception as error:  # noqa: BLE001  # whatever it is, it goes into the record
            return (), Unexpected(_text(error))

    def read(
        self,
        what: str,
        query: EventQuery,
        call: Callable[[], Iterable[Event]],
        position: int | Checkpoint | None = None,
    ) -> list[Event]:
        """Read events, and return them; ``query`` says which they must be."""
        began = _now()
        try:
            stream = iter(call())
            events = [event for event in (next(stream, None),) if event is not None]
            ended = _now()
            events.extend(stream)
        except Exception as error:  # noqa: BLE001  # whatever it is, it goes into the record
            self._failed(what, began, error, position)
            return []
        sequences = [event.sequence for event in events]
        self._recorder.write(
            Read(
                worker=self._worker,
                what=what,
                began=began,
                ended=ended,
                query=query,
                count=len(events),
                runs=runs_of(sequences),
                digest=added_up(map(digest_of, events)),
                position=position,
            )
        )
        self._saw(events)
        return events

    def count(
        self,
        what: str,
        query: EventQuery,
        call: Callable[[], int],
        position: int | Checkpoint | None = None,
    ) -> int | None:
        """Ask how many events there are; ``query`` says of which."""
        began = _now()
        try:
            count = call()
        except Exception as error:  # noqa: BLE001  # whatever it is, it goes into the record
            self._failed(what, began, error, position)
            return None
        ended = _now()
        self._recorder.write(
            Read(
                worker=self._worker,
                what=what,
                began=began,
                ended=ended,
                query=query,
                count=count,
                position=position,
            )
        )
        return count

    def current_head(self) -> int:
        """Read the head; where that fails, return the highest sequence seen so far."""
        head = self.count("head", EventQuery(), self.store.get_current_sequence)
        self.head = max(self.head, head or 0)
        return self.head

    def find(self, what: str, event_id: UUID, tenant_id: str) -> None:
        """Look for an event by its id."""
        began = _now()
        try:
            event = self.store.get_event_by_id(event_id, tenant_id=tenant_id)
        except Exception as error:  # noqa: BLE001  # whatever it is, it goes into the record
            self._failed(what, began, error)
            return
        ended = _now()
        found = None if event is None else Receipt.of(event)
        self._recorder.write(Lookup(self._worker, what, began, ended, event_id, tenant_id, found))

    def _failed(
        self, what: str, began: int, error: Exception, position: int | Checkpoint | None = None
    ) -> None:
        reason = _reason_of(error, position)
        self._recorder.write(
            Failure(self._worker, what, began, _now(), _text(error), reason, position)
        )
        self.is_over |= reason in (Reason.CLOSED, Reason.REPLACED)
        self.lost_position |= reason is Reason.POSITION
        if reason is Reason.UNAVAILABLE:
            time.sleep(BREATH)

    def _saw(self, events: Sequence[Event]) -> None:
        self.head = max(self.head, max((event.sequence for event in events), default=0))


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _reason_of(error: Exception, position: int | Checkpoint | None) -> Reason:
    match error:
        case StoreUnavailableError():
            return Reason.UNAVAILABLE
        case StoreClosedError():
            return Reason.CLOSED
        case LogReplacedError():
            return Reason.REPLACED
        case CheckpointError() if position is not None:
            return Reason.POSITION
    return Reason.UNEXPECTED
