"""Checks of what reads saw."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from eventstore.checkpoint import Checkpoint
from eventstore.testing.history.evidence import Evidence, name_of
from eventstore.testing.history.recording import (
    Failure,
    Lookup,
    Read,
    Reason,
    added_up,
    sequences_of,
)
from eventstore.testing.history.violations import Rule, Violation


def check_read(evidence: Evidence, read: Read) -> Iterator[Violation]:
    """Yield what is wrong with what a read saw."""
    query, name = read.query, name_of(read)
    if (passed := _why_not_from(evidence, read)) is not None:
        yield Violation(Rule.POSITION_PASSED, f"{name} went on from {passed}")
        return
    matching = evidence.log.matching(query)
    start = evidence.first_position(query)
    reached = start + read.count
    if query.ascending:
        expected = matching[start:reached]
        cut = query.limit is not None and read.count >= query.limit
    else:
        reached = max(start, bisect_right(matching, evidence.highest_shown(read)))
        expected = matching[max(start, reached - (query.limit or reached)) : reached][::-1]
        cut = False
    if read.runs is None:
        if len(expected) < read.count:
            yield Violation(
                Rule.LOST_EVENT, f"{name} counted {read.count}, the log has {len(expected)}"
            )
    else:
        shown = list(sequences_of(read.runs))
        if shown != expected:
            yield _wrong_events(evidence, name, shown, expected, set(matching[start:]))
            return
        digest = added_up(evidence.log.entries[sequence].digest for sequence in shown)
        if read.digest is not None and read.digest != digest:
            yield Violation(
                Rule.CHANGED_EVENT, f"{name} saw other events at {read.runs} than the log has"
            )
    if cut or reached >= len(matching):
        return
    missing = matching[reached]
    yield from _missed(evidence, name, read.began, missing)
    if reached > start and evidence.log.same_batch(matching[reached - 1], missing):
        yield Violation(
            Rule.TORN_READ, f"{name} saw {matching[reached - 1]} but not {missing}, of one batch"
        )


def _why_not_from(evidence: Evidence, read: Read) -> str | None:
    """Return why the position of a read should have been refused, None if rightly taken."""
    match read.position:
        case Checkpoint() as position if not evidence.holds(position):
            return f"{position}, where the log holds another event or none"
        case int(position) if position > evidence.possible.before(read.ended):
            return f"{position}, which the head had not reached"
    return None


def check_failure(evidence: Evidence, failure: Failure) -> Iterator[Violation]:
    """Yield what is wrong with a read that raised."""
    name = f"{name_of(failure)} raised {failure.error}"
    match failure.reason:
        case Reason.POSITION if _was_held(evidence, failure):
            yield Violation(Rule.POSITION_REFUSED, f"{name}, but {failure.position} is held")
        case Reason.CLOSED if failure.worker not in evidence.history.closed:
            yield Violation(Rule.UNEXPECTED_ERROR, f"{name}, but nobody closed it")
        case Reason.REPLACED if not evidence.may_find_it_replaced(failure.ended):
            yield Violation(Rule.UNEXPECTED_ERROR, f"{name}, but nobody replaced it")
        case Reason.UNEXPECTED:
            yield Violation(Rule.UNEXPECTED_ERROR, name)


def _was_held(evidence: Evidence, failure: Failure) -> bool:
    """Return whether the log held a position before the read that refused it began."""
    known = evidence.known_before(failure.began)
    match failure.position:
        case Checkpoint(sequence=sequence) as position:
            return sequence <= known and evidence.holds(position)
        case int(sequence):
            return sequence <= known
    return False


def _wrong_events(
    evidence: Evidence, name: str, shown: list[int], expected: list[int], matching: set[int]
) -> Violation:
    gone = [sequence for sequence in shown if sequence not in evidence.log.entries]
    if gone:
        return Violation(Rule.LOST_EVENT, f"{name} saw {gone[0]}, which is not in the log")
    foreign = [sequence for sequence in shown if sequence not in matching]
    if foreign:
        return Violation(
            Rule.CHANGED_EVENT, f"{name} saw {foreign[0]}, which its query does not take"
        )
    late = set(expected) - set(shown)
    if late:
        return Violation(Rule.LATE_EVENT, f"{name} saw {max(shown)}, but not {min(late)} below it")
    return Violation(Rule.CHANGED_EVENT, f"{name} saw events in another order than the log's")


def check_lookup(evidence: Evidence, lookup: Lookup) -> Iterator[Violation]:
    """Yield what is wrong with what a look for an id found."""
    name = f"{name_of(lookup)} of {lookup.event_id}"
    at = evidence.log.sequence_of(lookup.tenant_id, lookup.event_id)
    found = lookup.found
    if found is None:
        if at is not None:
            yield from _missed(evidence, name, lookup.began, at)
    elif at is None:
        yield Violation(Rule.LOST_EVENT, f"{name} saw what is not in the log")
    elif (found.sequence, found.digest) != (at, evidence.log.entries[at].digest):
        yield Violation(Rule.CHANGED_EVENT, f"{name} saw it as {found.sequence}, not {at}")


def _missed(evidence: Evidence, name: str, began: int, missing: int) -> Iterator[Violation]:
    if missing <= evidence.acknowledged.before(began):
        yield Violation(Rule.STALE_READ, f"{name} missed {missing}, acknowledged before it began")
    elif missing <= evidence.shown.before(began):
        yield Violation(Rule.HEAD_WENT_BACK, f"{name} missed {missing}, seen before it began")
