"""Many events into a log and out of it: in order, batch by batch, as JSON lines or not.

The lines are described in docs/export-format.md. Memory stays flat whatever the size: what is
held is one batch, or a window of small ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from eventstore.appending import batch_of, result_of
from eventstore.commit import Batch, Identity, Repeated, judge_repeat, twins_of
from eventstore.errors import EventStoreError, InvalidEventError
from eventstore.event import Event
from eventstore.log import Log
from eventstore.result import AppendResult
from eventstore.store import EventStore
from eventstore.versions import ExpectedVersion

_T = TypeVar("_T")
_Settled = AppendResult | EventStoreError

_WINDOW_BYTES: Final = 1_000_000
"""Batches share a commit up to this weight (``Batch.weight``), some 1,500 small events."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class ImportedLine(NamedTuple):
    """What became of one line: the result of its append, or why it was refused."""

    number: int
    outcome: AppendResult | EventStoreError


def append_in_order(
    store: EventStore, batches: Iterable[Sequence[Event]]
) -> Iterator[AppendResult]:
    """Append many batches, each atomic by itself, in the order given; yield each one's result.

    Many batches share a commit, so this is far faster than one ``append_batch`` after another,
    and keeps their order, which threads would not. Whatever is stored already is not written
    again (``AppendResult.replayed``), so an interrupted run is simply run again. Batches are
    taken from the iterable as they are needed.

    Raises what ``append_batch`` raises, for the first batch that cannot be stored; all before
    it are.
    """
    for _, outcome in _settle(store, enumerate(batches)):
        if isinstance(outcome, EventStoreError):
            raise outcome
        yield outcome


def import_lines(
    store: EventStore, lines: Iterable[bytes], *, new_ids: bool = False
) -> Iterator[ImportedLine]:
    """Append JSON lines in their order and yield what became of each that is not blank.

    A line that is refused is told only after all before it are stored, and none after it is
    stored before the next result is asked for: whoever stops there has stored no more.
    ``new_ids`` gives events that have no ``event_id`` a new one; such lines are stored again
    when imported again. Raises StoreUnavailableError where the engine does not answer.
    """
    for number, outcome in _settle(store, _read(lines, new_ids)):
        yield ImportedLine(number, outcome)


def export_lines(events: Iterable[Event]) -> Iterator[bytes]:
    """Yield events, given in the order of their sequences, as pieces of JSON lines: a line for
    each batch."""
    encode = msgspec.json.Encoder().encode
    for _, batch in groupby(events, key=lambda event: event.batch_sequence):
        yield from _line(map(encode, batch))


def parse_line(line: bytes | str, *, new_ids: bool = False) -> list[Event]:
    """Return the events of one line, an event or ``{"batch": [...]}``.

    Raises InvalidEventError with the reason where it is neither. Names and payloads are
    checked when the events are appended.
    """
    try:
        if _decode_probe(line).batch is msgspec.UNSET:
            parsed = [_decode_event(line)]
        else:
            parsed = _decode_batch(line).batch
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error)
        if reason == "Input data was truncated":
            reason = "JSON ends too early, or a text in half a surrogate pair"
        raise InvalidEventError(reason) from error
    except RecursionError as error:
        raise InvalidEventError("is nested too deep") from error
    if not parsed:
        raise InvalidEventError("batch: must not be empty")
    return [event.as_event(new_ids=new_ids) for event in parsed]


def _line(events: Iterator[bytes]) -> Iterator[bytes]:
    first, second = next(events), next(events, None)
    if second is None:
        yield first + b"\n"
        return
    yield b'{"batch":[' + first + b"," + second
    for event in events:
        yield b"," + event
    yield b"]}\n"


class _LineEvent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An event as a line gives it."""

    event_type: str
    entity_type: str
    entity_id: str
    data: dict[str, Any] = {}
    event_id: UUID | None = None
    workflow_id: str | None = None
    tenant_id: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    schema_version: int = 1
    timestamp: datetime | None = None
    # For people who read an export; this log assigns its own.
    sequence: int = 0
    version: int = 0
    batch_sequence: int = 0
    recorded_at: datetime | None = None

    def as_event(self, *, new_ids: bool) -> Event:
        given: dict[str, Any] = {}
        if self.event_id is not None:
            given["event_id"] = self.event_id
        elif not new_ids:
            raise InvalidEventError(
                "event_id: is missing; it tells a second run what is stored already"
            )
        if self.timestamp is not None:
            given["timestamp"] = self.timestamp
        return Event(
            event_type=self.event_type,
            entity_type=self.entity_type,
            entity_id=self.entity_id,
            data=self.data,
            workflow_id=self.workflow_id,
            tenant_id=self.tenant_id,
            tags=self.tags,
            metadata=self.metadata,
            schema_version=self.schema_version,
            **given,
        )


class _LineBatch(msgspec.Struct, forbid_unknown_fields=True):
    batch: list[_LineEvent]


class _Probe(msgspec.Struct):
    batch: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_probe = msgspec.json.Decoder(_Probe).decode
_decode_event = msgspec.json.Decoder(_LineEvent).decode
_decode_batch = msgspec.json.Decoder(_LineBatch).decode


def _read(
    lines: Iterable[bytes], new_ids: bool
) -> Iterator[tuple[int, Sequence[Event] | EventStoreError]]:
    """Yield each line's number, with its events or what is wrong with it."""
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
        if text.isspace() or not text:
            continue
        try:
            yield number, parse_line(text, new_ids=new_ids)
        except InvalidEventError as error:
            if line.endswith(b"\n") or isinstance(error.__cause__, msgspec.ValidationError):
                yield number, error
            else:
                yield (
                    number,
                    InvalidEventError(f"the input ends in the middle of this line ({error})"),
                )


def _settle(
    store: EventStore, given: Iterable[tuple[_T, Sequence[Event] | EventStoreError]]
) -> Iterator[tuple[_T, _Settled]]:
    """Yield every label in order, with what became of its batch."""
    log = store._open_log()
    window: list[tuple[_T, Batch]] = []
    keys: set[Identity] = set()
    weight = 0
    for label, events in given:
        batch = _checked(store, events)
        if isinstance(batch, Batch):
            weight += batch.weight
            if weight <= _WINDOW_BYTES and keys.isdisjoint(batch.identities):
                keys.update(batch.identities)
                window.append((label, batch))
                continue
        yield from _commit(log, window)
        if isinstance(batch, Batch):
            window, keys, weight = [(label, batch)], set(batch.identities), batch.weight
        else:
            window, keys, weight = [], set(), 0
            yield label, batch
    yield from _commit(log, window)


def _checked(store: EventStore, events: Sequence[Event] | EventStoreError) -> Batch | _Settled:
    if isinstance(events, EventStoreError):
        return events
    try:
        return batch_of(events, ExpectedVersion.ANY, store._tenant_id) or AppendResult()
    except EventStoreError as error:
        return error


def _commit(log: Log, window: Sequence[tuple[_T, Batch]]) -> Iterator[tuple[_T, _Settled]]:
    """Write what is not recorded yet, and stop short of each batch that will be refused, so
    that none after it is written before its error is seen.

    No id is in the window twice. If another process records one of them in between, batches
    after that one are written too.
    """
    keys = [key for _, batch in window for key in batch.keys]
    if not keys:
        return
    found = log.read(lambda backend: backend.find(keys))
    twins = twins_of(found)
    ready: list[tuple[_T, Batch | Repeated]] = []
    for label, batch in window:
        verdict = judge_repeat(batch, twins)
        if isinstance(verdict, EventStoreError):
            yield from _write(log, ready)
            ready = []
            yield label, verdict
        else:
            ready.append((label, verdict or batch))
    yield from _write(log, ready)


def _write(log: Log, ready: Sequence[tuple[_T, Batch | Repeated]]) -> Iterator[tuple[_T, _Settled]]:
    fresh = [entry for _, entry in ready if isinstance(entry, Batch)]
    answers = iter(log.append(fresh) if fresh else ())
    for label, entry in ready:
        answer = next(answers) if isinstance(entry, Batch) else entry
        yield label, answer if isinstance(answer, EventStoreError) else result_of(answer)
