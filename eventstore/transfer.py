"""Many events into a log and out of it: in order, batch by batch, as JSON lines or not.

The lines are described in docs/export-format.md. Memory stays flat whatever the size: what is
held is one batch, or a window of small ones.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from eventstore._core.appending import batch_of, result_of
from eventstore._core.log import Log
from eventstore.backend.planner import Batch, Identity, Repeated, judge_repeat, twins_of
from eventstore.errors import EventStoreError, InvalidEventError
from eventstore.event import Event, ExportedEvent
from eventstore.result import AppendResult
from eventstore.store import EventStore
from eventstore.versions import ExpectedVersion

_T = TypeVar("_T")
_Settled = AppendResult | EventStoreError

_WINDOW_BYTES: Final = 1_000_000
"""Batches share a commit up to this weight (``Batch.weight``), some 1,500 small events."""

MAX_LINE_BYTES: Final = 64_000_000
"""A line of an import may be so long."""

_PIECE_BYTES: Final = 1 << 16
"""Of a line that is read at once."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class LineReader(Protocol):
    """What lines are read from: a file opened in binary mode, for one."""

    def readline(self, size: int, /) -> bytes:
        """Return the rest of the line, or ``size`` bytes of it; nothing at the end."""


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
    store: EventStore, lines: LineReader | Iterable[bytes], *, new_ids: bool = False
) -> Iterator[ImportedLine]:
    """Append JSON lines in their order and yield what became of each that is not blank.

    ``lines`` is a file opened in binary mode, of which no more than ``MAX_LINE_BYTES`` of a line
    are held, or the lines themselves.

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


def parse_line(line: bytes | bytearray | str, *, new_ids: bool = False) -> list[Event]:
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
        raise InvalidEventError(_foreign(line) or _plain(error)) from error
    except RecursionError as error:
        raise InvalidEventError("is nested too deep") from error
    if not parsed:
        raise InvalidEventError("batch: must not be empty")
    return [_new_event(fields, new_ids=new_ids) for fields in parsed]


def _foreign(line: bytes | bytearray | str) -> str | None:
    """Return what a line is, where it is no text in UTF-8 at all."""
    if isinstance(line, str):
        return None
    if line.startswith(b"\x1f\x8b"):
        return "is compressed by gzip; decompress it first, or name the file *.gz"
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is text in UTF-16; it must be in UTF-8"
    begins_like_json = line.lstrip()[:1] in (b"{", b"[")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        if begins_like_json:
            return (
                f"is text in another encoding than UTF-8"
                f" (its byte {error.start + 1} is 0x{line[error.start]:02x})"
            )
        return "is binary data, not JSON"
    if "\0" in text and not begins_like_json:
        return "is binary data, not JSON"
    return None


def _plain(error: Exception) -> str:
    reason = str(error)
    if reason == "Input data was truncated":
        return "JSON ends too early, or a text in half a surrogate pair"
    return reason


def _new_event(fields: ExportedEvent, *, new_ids: bool) -> Event:
    """Return an event to be appended: what another log assigned is for readers."""
    if fields.event_id is msgspec.UNSET and not new_ids:
        raise InvalidEventError(
            "event_id: is missing; it tells a second run what is stored already"
        )
    given = fields.given()
    for assigned in ("sequence", "version", "batch_sequence", "recorded_at"):
        del given[assigned]
    return Event(**given)


def _line(events: Iterator[bytes]) -> Iterator[bytes]:
    first, second = next(events), next(events, None)
    if second is None:
        yield first + b"\n"
        return
    yield b'{"batch":[' + first + b"," + second
    for event in events:
        yield b"," + event
    yield b"]}\n"


class _LineBatch(msgspec.Struct, forbid_unknown_fields=True):
    batch: list[ExportedEvent]


class _Probe(msgspec.Struct):
    batch: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_probe = msgspec.json.Decoder(_Probe).decode
_decode_event = msgspec.json.Decoder(ExportedEvent).decode
_decode_batch = msgspec.json.Decoder(_LineBatch).decode


def _read(
    lines: LineReader | Iterable[bytes], new_ids: bool
) -> Iterator[tuple[int, Sequence[Event] | EventStoreError]]:
    """Yield each line's number, with its events or what is wrong with it."""
    for number, line in enumerate(_lines(lines), start=1):
        if isinstance(line, InvalidEventError):
            yield number, line
            continue
        if number == 1 and line.startswith(_BYTE_ORDER_MARK):
            line = line[len(_BYTE_ORDER_MARK) :]  # noqa: PLW2901 - the line without its mark
        if line.isspace() or not line:
            continue
        try:
            parsed = parse_line(line, new_ids=new_ids)
        except InvalidEventError as error:
            if line.endswith(b"\n") or isinstance(error.__cause__, msgspec.ValidationError):
                yield number, error
            else:
                yield (
                    number,
                    InvalidEventError(f"the input ends in the middle of this line ({error})"),
                )
            continue
        if isinstance(line, bytearray):
            line.clear()  # a long one: not to be held beside what was made of it
        yield number, parsed
        del parsed


def _lines(
    given: LineReader | Iterable[bytes],
) -> Iterator[bytes | bytearray | InvalidEventError]:
    """Yield the lines, and an error in place of each that is too long."""
    too_long = f"is longer than {MAX_LINE_BYTES // 1_000_000} MB; make smaller batches of it"
    if isinstance(given, Iterable) and not hasattr(given, "readline"):
        for line in given:
            yield line if len(line) <= MAX_LINE_BYTES else InvalidEventError(too_long)
        return
    readline = given.readline
    while line := readline(_PIECE_BYTES):
        if len(line) < _PIECE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        piece, whole = line, bytearray(line)  # it grows in place, where joined pieces need double
        while not piece.endswith(b"\n") and len(whole) <= MAX_LINE_BYTES:
            if not (piece := readline(_PIECE_BYTES)):
                break
            whole += piece
        if len(whole) <= MAX_LINE_BYTES:
            yield whole
            continue
        yield InvalidEventError(_foreign(whole[:1000]) or too_long)
        whole.clear()
        while piece and not piece.endswith(b"\n"):
            piece = readline(_PIECE_BYTES)


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
        del events  # what is encoded need not be held twice while it is written
        if isinstance(batch, Batch):
            weight += batch.weight
            if weight <= _WINDOW_BYTES and keys.isdisjoint(batch.identities):
                keys.update(batch.identities)
                window.append((label, batch))
                continue
        yield from _commit(log, window)
        window, keys, weight = [], set(), 0
        if not isinstance(batch, Batch):
            yield label, batch
        elif batch.weight > _WINDOW_BYTES:  # and gone before the next one is read
            yield from _commit(log, [(label, batch)])
        else:
            window, keys, weight = [(label, batch)], set(batch.identities), batch.weight
        del batch
    yield from _commit(log, window)


def _checked(store: EventStore, events: Sequence[Event] | EventStoreError) -> Batch | _Settled:
    if isinstance(events, EventStoreError):
        return events
    try:
        batch = batch_of(events, ExpectedVersion.ANY, store._tenant_id)
        return batch if batch.drafts else AppendResult()
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
