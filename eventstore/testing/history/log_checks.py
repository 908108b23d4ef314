"""Checks of the final log: by itself, and against the appends that must account for it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from eventstore.event import Entity
from eventstore.testing.history.evidence import (
    Evidence,
    name_of,
    position_after,
    shown_entity,
)
from eventstore.testing.history.recording import Append, LogEntry, Stored
from eventstore.testing.history.violations import Rule, Violation
from eventstore.versions import expectation_holds

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


def check_log(evidence: Evidence) -> Iterator[Violation]:
    """Yield what is wrong with the log whatever anyone did to it."""
    versions: Counter[Entity] = Counter()
    ids: set[tuple[str, UUID]] = set()
    previous = 0
    latest = _LONG_AGO
    for entry in evidence.history.log:
        event = entry.event
        if event.sequence != previous + 1:
            yield Violation(Rule.GAP, f"after {previous} the log goes on with {event.sequence}")
        previous = event.sequence
        versions[event.entity] += 1
        if event.version != versions[event.entity]:
            yield Violation(
                Rule.WRONG_VERSION,
                f"the event at {event.sequence} is number {versions[event.entity]} of"
                f" {shown_entity(event.entity)} but has version {event.version}",
            )
        if (event.tenant_id, event.event_id) in ids:
            yield Violation(
                Rule.DUPLICATE_ID, f"{event.event_id} is stored again at {event.sequence}"
            )
        ids.add((event.tenant_id, event.event_id))
        if event.recorded_at is None or event.recorded_at < latest:
            yield Violation(
                Rule.TIME_WENT_BACK, f"recorded_at of {event.sequence} is {event.recorded_at}"
            )
        latest = event.recorded_at or latest


def check_batches_in_log(evidence: Evidence) -> Iterator[Violation]:
    """Yield what is wrong with a batch in the log: who wrote it, and was it to be accepted."""
    callers: defaultdict[tuple[str, UUID], list[Append]] = defaultdict(list)
    for append in evidence.appends:
        for asked in append.events:
            callers[asked.entity.tenant_id, asked.event_id].append(append)
    winners: dict[tuple[Entity, int], int] = {}
    for batch in _batches(evidence):
        first = batch[0].event
        if first.sequence <= evidence.history.start:
            continue
        if first.batch_sequence != first.sequence:
            yield Violation(
                Rule.TORN_BATCH,
                f"the event at {first.sequence} has batch_sequence {first.batch_sequence},"
                " but follows another batch",
            )
        named = callers[first.tenant_id, first.event_id]
        writers = [append for append in named if append.may_have_written]
        whole = [append for append in writers if _is_of(append, batch)]
        if not whole:
            yield _unexplained(batch, named, writers)
            continue
        certain = [append for append in whole if _wrote_for_sure(append)]
        if len(certain) > 1:
            yield Violation(
                Rule.WRONG_REPEAT,
                f"{name_of(certain[0])} and {name_of(certain[1])} both count as the first to"
                f" store {first.event_id}",
            )
        faults = [
            (a, list(_faults_of_place(evidence, a, first.sequence))) for a in certain or whole
        ]
        writer, found = min(faults, key=lambda fault: len(fault[1]))
        yield from found
        own = {asked.entity for asked in writer.events}
        for entity, expected in writer.expected:
            if entity not in own or expected < 0:
                continue
            other = winners.setdefault((entity, expected), first.sequence)
            if other != first.sequence:
                yield Violation(
                    Rule.TWO_WINNERS,
                    f"the appends at {other} and {first.sequence} both expected"
                    f" version {expected} of {shown_entity(entity)}",
                )


def _batches(evidence: Evidence) -> Iterator[list[LogEntry]]:
    batch: list[LogEntry] = []
    for entry in evidence.history.log:
        if batch and entry.event.batch_sequence != batch[0].event.batch_sequence:
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch


def _faults_of_place(evidence: Evidence, append: Append, first: int) -> Iterator[Violation]:
    """Yield why an append could not be accepted with ``first`` as its first sequence."""
    if (known := evidence.acknowledged.before(append.began)) >= first:
        yield Violation(
            Rule.OUT_OF_ORDER,
            f"{name_of(append)} stands at {first}, but {known} had been acknowledged before",
        )
    if (known := evidence.shown.before(append.began)) >= first:
        yield Violation(
            Rule.LATE_EVENT,
            f"{name_of(append)} stands at {first}, but {known} had been seen before it began",
        )
    for entity, expected in append.expected:
        actual = bisect_left(evidence.log.by_entity.get(entity, []), first)
        if not expectation_holds(expected, actual):
            yield Violation(
                Rule.EXPECTATION_IGNORED,
                f"{name_of(append)} expected version {expected} of {shown_entity(entity)},"
                f" but stands at {first}, where that is {actual}",
            )
    if append.condition is not None:
        matching = evidence.log.matching(append.condition.query)
        after = max(position_after(append.condition), append.condition.query.after)
        position = bisect_right(matching, after)
        if position < len(matching) and matching[position] < first:
            yield Violation(
                Rule.CONDITION_IGNORED,
                f"{name_of(append)} stands at {first}, but the event at {matching[position]}"
                " matches its condition",
            )


def _unexplained(batch: list[LogEntry], named: list[Append], writers: list[Append]) -> Violation:
    """Return what is wrong with a batch in the log that no append accounts for."""
    first, last = batch[0].event, batch[-1].event
    where = f"the batch at {first.sequence}…{last.sequence}"
    if writers:
        given = len(writers[0].events)
        return Violation(
            Rule.TORN_BATCH, f"{where} is not as {name_of(writers[0])} gave it, with {given} events"
        )
    if named:
        return Violation(
            Rule.REFUSED_BUT_STORED, f"{where} is of {name_of(named[0])}: {named[0].outcome}"
        )
    return Violation(Rule.UNKNOWN_EVENT, f"{where}, with {first.event_id}, was never appended")


def _is_of(append: Append, batch: list[LogEntry]) -> bool:
    return [(asked.entity.tenant_id, asked.event_id) for asked in append.events] == [
        (entry.event.tenant_id, entry.event.event_id) for entry in batch
    ]


def _wrote_for_sure(append: Append) -> bool:
    return isinstance(append.outcome, Stored) and append.outcome.replayed is False
