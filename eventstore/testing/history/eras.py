"""Cuts a campaign at its restores into histories, each with a log of its own.

A restore takes back what was acknowledged after its copy, and by G12 whoever passed that point
must be told; apart from this every guarantee holds on both sides of it. So:

- A call that ended before the restore began belongs to the era before, one that began after it
  to the era after; each era is checked as a history of its own.
- An append under way across the restore may have been stored by both logs. An acknowledged one
  must be in one of them as it was told; what was told surely not to be written is in neither.
- A read under way across it may have seen either, or some of both, and proves nothing.
- A store may go on with what was put back, or say by LogReplacedError that this is another log;
  either way a position that the log does not hold is refused.
- The copy is the beginning of the log it was taken from, and holds all that was acknowledged
  before the copying began.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf

from msgspec.structs import replace

from eventstore.testing.history.faults import Campaign, Restore
from eventstore.testing.history.recording import (
    NOBODY,
    Append,
    Closed,
    History,
    LogEntry,
    Operation,
    Receipt,
    Refused,
    Replaced,
    Stored,
    Unavailable,
)
from eventstore.testing.history.violations import Rule, Violation


def eras_of(campaign: Campaign) -> list[History]:
    """Return the histories between the restores, in order; one, where there was none."""
    restores = restores_of(campaign)
    logs = [*(restore.log for restore in restores), campaign.log]
    held = [{entry.event.sequence: entry for entry in log} for log in logs]
    operations: list[list[Operation]] = [[] for _ in logs]
    killed = deaths_of(campaign)
    for operation in campaign.operations:
        ended = end_of(operation, killed)
        first = sum(restore.ended <= operation.began for restore in restores)
        last = sum(restore.struck < ended for restore in restores)
        if first == last or operation.worker == NOBODY:
            operations[first].append(operation)
        elif isinstance(operation, Append):
            for era, append in _across(operation, held, range(first, last + 1)):
                operations[era].append(append)
    closed = frozenset(
        worker for fault in campaign.faults if fault.closes for worker in fault.workers or ()
    )
    replaced = min((restore.struck for restore in restores), default=None)
    starts = [campaign.start, *(restore.head for restore in restores)]
    return [
        History(done, log, start, closed, replaced)
        for done, log, start in zip(operations, logs, starts, strict=True)
    ]


def _across(
    append: Append, held: list[dict[int, LogEntry]], eras: range
) -> Iterator[tuple[int, Append]]:
    """Yield what an append across restores is to each of the eras that it touches."""
    unknown = replace(append, ended=None, outcome=None)
    match append.outcome:
        case Refused() if not append.invalid:
            pass  # the other log may hold what it repeats; of neither is anything told
        case Unavailable(may_have_written=False) | Refused() | Closed() | Replaced():
            yield from ((era, append) for era in eras)
        case Stored(receipts=receipts):
            fits = [era for era in eras if all(_is_held(held[era], each) for each in receipts)]
            own = fits[-1] if fits else eras[-1]
            yield from ((era, append if era == own else unknown) for era in eras)
        case _:
            yield from ((era, unknown) for era in eras)


def _is_held(log: Mapping[int, LogEntry], receipt: Receipt) -> bool:
    entry = log.get(receipt.sequence)
    return entry is not None and entry.digest == receipt.digest


def check_copies(campaign: Campaign, eras: Sequence[History]) -> Iterator[Violation]:
    """Yield what is wrong with the logs that were put back."""
    for restore, (before, after) in zip(restores_of(campaign), pairwise(eras), strict=True):
        acknowledged = max(
            (
                receipt.sequence
                for call in before.operations
                if isinstance(call, Append)
                and isinstance(call.outcome, Stored)
                and call.ended is not None
                and call.ended < restore.copied
                for receipt in call.outcome.receipts
            ),
            default=0,
        )
        if acknowledged > restore.head:
            yield Violation(
                Rule.LOST_EVENT,
                f"a copy begun at {restore.copied} ends with {restore.head}, though"
                f" {acknowledged} had been acknowledged",
            )
        if _first(before.log, restore.head) != _first(after.log, restore.head):
            yield Violation(
                Rule.CHANGED_EVENT,
                f"the log that was put back at {restore.ended} does not begin with the first"
                f" {restore.head} events of the one that was copied",
            )


def _first(log: Sequence[LogEntry], count: int) -> list[int]:
    return [entry.digest for entry in log[:count]]


def restores_of(campaign: Campaign) -> list[Restore]:
    """Return the restores, in order."""
    return [fault for fault in campaign.faults if isinstance(fault, Restore)]


def deaths_of(campaign: Campaign) -> dict[int, int]:
    """Return when workers were killed."""
    deaths: dict[int, int] = {}
    for fault in campaign.faults:
        if fault.kills:
            for worker in fault.workers or ():
                deaths.setdefault(worker, fault.ended)
    return deaths


def end_of(operation: Operation, killed: Mapping[int, int]) -> float:
    """Return when a call ended, be it with its worker."""
    if operation.ended is not None:
        return operation.ended
    return killed.get(operation.worker, inf)
