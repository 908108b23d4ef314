"""Checks of what appends returned or raised."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from eventstore.query import AppendCondition
from eventstore.testing.history.evidence import (
    Evidence,
    name_of,
    names_an_id_twice,
    position_after,
    shown_entity,
)
from eventstore.testing.history.recording import (
    Append,
    BeyondHead,
    Closed,
    ConditionFailed,
    Conflicted,
    Duplicate,
    Refused,
    Replaced,
    Stored,
    Unexpected,
)
from eventstore.testing.history.violations import Rule, Violation
from eventstore.versions import expectation_holds


def check_answer(evidence: Evidence, append: Append) -> Iterator[Violation]:
    """Yield what is wrong with the answer to an append."""
    outcome = append.outcome
    if isinstance(outcome, Stored):
        yield from _check_stored(evidence, append, outcome)
        return
    match outcome:
        case Unexpected(error=error):
            yield Violation(Rule.UNEXPECTED_ERROR, f"{name_of(append)} raised {error}")
        case Closed() if append.worker not in evidence.history.closed:
            yield Violation(Rule.UNEXPECTED_ERROR, f"{name_of(append)}: nobody closed its store")
        case Replaced() if not evidence.may_find_it_replaced(append.ended or append.began):
            yield Violation(Rule.UNEXPECTED_ERROR, f"{name_of(append)}: nobody replaced its log")
    if isinstance(outcome, (Refused, Conflicted, ConditionFailed, Duplicate, BeyondHead)):
        if _was_recorded_before(evidence, append) and not append.invalid:
            yield Violation(
                Rule.REPEAT_REFUSED,
                f"{name_of(append)} repeats what was recorded, but got {outcome}",
            )
        elif (reason := _why_unjustified(evidence, append)) is not None:
            yield Violation(reason[0], f"{name_of(append)}: {reason[1]}")


def _check_stored(evidence: Evidence, append: Append, stored: Stored) -> Iterator[Violation]:
    name = name_of(append)
    if append.invalid:
        yield Violation(Rule.BAD_INPUT_STORED, f"{name} is invalid, but was accepted")
    receipts = stored.receipts
    if [r.event_id for r in receipts] != [asked.event_id for asked in append.events]:
        yield Violation(
            Rule.TORN_BATCH, f"{name} returned other events than the {len(append.events)} given"
        )
        return
    changed = Rule.WRONG_REPEAT if stored.replayed else Rule.CHANGED_EVENT
    for asked, receipt in zip(append.events, receipts, strict=True):
        at = evidence.sequence_of(asked)
        entry = None if at is None else evidence.log.entries[at]
        where = f"{asked.event_id}, returned as {receipt.sequence} to {name},"
        if entry is None:
            yield Violation(Rule.LOST_EVENT, f"{where} is not in the log")
        elif entry.event.sequence != receipt.sequence:
            yield Violation(changed, f"{where} stands at {entry.event.sequence}")
        elif entry.event.version != receipt.version:
            yield Violation(
                Rule.WRONG_VERSION,
                f"{where} has version {entry.event.version}, not {receipt.version}",
            )
        elif entry.digest != receipt.digest or entry.content != asked.content:
            yield Violation(changed, f"{where} has other content in the log")
    if any(one.sequence >= other.sequence for one, other in pairwise(receipts)):
        yield Violation(changed, f"{name} returned sequences that do not ascend")
    if stored.replayed is False and any(
        receipt.sequence != receipts[0].sequence + index
        or receipt.batch_sequence != receipts[0].sequence
        for index, receipt in enumerate(receipts)
    ):
        yield Violation(Rule.TORN_BATCH, f"{name} returned a batch that is not contiguous")


def _was_recorded_before(evidence: Evidence, append: Append) -> bool:
    """Return whether an append is a plain repeat of what was known before it began."""
    at = [evidence.sequence_of(asked) for asked in append.events]
    found = [sequence for sequence in at if sequence is not None]
    if len(found) < len(at) or not _is_repeat(evidence, append, found):
        return False
    return found[-1] <= evidence.known_before(append.began)


def _is_repeat(evidence: Evidence, append: Append, at: list[int]) -> bool:
    return all(one < other for one, other in pairwise(at)) and all(
        evidence.log.entries[sequence].content == asked.content
        for sequence, asked in zip(at, append.events, strict=True)
    )


def _why_unjustified(evidence: Evidence, append: Append) -> tuple[Rule, str] | None:
    """Return why an error was not due, None if it was."""
    rule, reason = Rule.UNEXPECTED_ERROR, None
    match append.outcome:
        case Refused(reason=refusal) if not (append.invalid or append.assigned):
            reason = f"was refused: {refusal}"
        case Conflicted() as conflict:
            rule = Rule.UNJUSTIFIED_CONFLICT
            reason = _why_no_conflict(evidence, append, conflict)
        case ConditionFailed(sequence=sequence):
            rule = Rule.UNJUSTIFIED_CONDITION
            reason = _why_condition_holds(evidence, append.condition, sequence)
        case BeyondHead() if append.condition is None:
            reason = "has no position that could be beyond the head"
        case BeyondHead():
            after = position_after(append.condition)
            if after <= evidence.known_before(append.began):
                rule, reason = Rule.HEAD_WENT_BACK, f"{after} was known, but is said to be beyond"
        case Duplicate() as duplicate:
            rule = Rule.UNJUSTIFIED_DUPLICATE
            reason = _why_no_duplicate(evidence, append, duplicate)
    return None if reason is None else (rule, reason)


def _why_no_conflict(evidence: Evidence, append: Append, conflict: Conflicted) -> str | None:
    entity, expected, actual = conflict.entity, conflict.expected, conflict.actual
    of_entity = evidence.log.by_entity.get(entity, [])
    if (entity, expected) not in append.expected:
        return f"reports a conflict over {shown_entity(entity)}, version {expected}: not asked"
    if expectation_holds(expected, actual):
        return f"expects {expected} and is refused at version {actual}, where that holds"
    if actual > len(of_entity):
        return f"is refused at version {actual} of {shown_entity(entity)}: never reached"
    if actual < len(of_entity) and of_entity[actual] <= evidence.known_before(append.began):
        return f"is refused at version {actual} of {shown_entity(entity)}: outdated by then"
    return None


def _why_condition_holds(
    evidence: Evidence, condition: AppendCondition | None, sequence: int
) -> str | None:
    entry = evidence.log.entries.get(sequence)
    if condition is None:
        return "has no condition that could fail"
    if entry is None or not condition.query.matches(entry.event):
        return f"the event at {sequence} does not match the condition that failed over it"
    if sequence <= position_after(condition):
        return f"the event at {sequence} is not after {position_after(condition)}"
    return None


def _why_no_duplicate(evidence: Evidence, append: Append, duplicate: Duplicate) -> str | None:
    if names_an_id_twice(append):
        return None
    at = [evidence.sequence_of(asked) for asked in append.events]
    if not any(
        asked.event_id == duplicate.event_id and sequence is not None
        for asked, sequence in zip(append.events, at, strict=True)
    ):
        return f"{duplicate.event_id} is called a duplicate, but is not recorded"
    found = [sequence for sequence in at if sequence is not None]
    if (
        len(found) == len(at)
        and _is_repeat(evidence, append, found)
        and evidence.log.same_batch(found[0], found[-1])
    ):
        return f"{duplicate.event_id} is called a duplicate, but all is as recorded"
    return None
