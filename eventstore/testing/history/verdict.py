"""Judges a campaign: what is broken, what struck in the middle of a commit, how fast it recovered.

verdict = judge(campaign)
assert verdict.violations == [] and verdict.is_a_run, report(verdict)
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from statistics import median
from typing import Final

import msgspec

from eventstore.testing.history.checker import check, the_first_of_each
from eventstore.testing.history.eras import check_copies, deaths_of, end_of, eras_of
from eventstore.testing.history.evidence import name_of
from eventstore.testing.history.faults import Campaign, Fault, Restore
from eventstore.testing.history.recording import (
    NOBODY,
    Append,
    Failure,
    History,
    Operation,
    Stored,
    Unavailable,
)
from eventstore.testing.history.violations import Rule, Violation

LEAST_IN_FLIGHT: Final = 0.2
"""The share of the faults that must have struck while a commit was in flight: a campaign that
strikes between the commits proves nothing."""
RECOVERY: Final = 30.0
"""Seconds after a fault within which an append is acknowledged again."""
SLACK: Final = 10.0
"""Seconds that a call may take beyond the timeout of its store, on a busy machine: what takes
longer hangs."""
_SECOND: Final = 1_000_000_000


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a campaign showed, or several together."""

    violations: list[Violation]
    faults: Counter[str]
    """How many of each kind."""
    in_flight: Counter[str]
    """Those of them that struck while a commit was in flight."""
    recoveries: list[float]
    """Seconds from when the engine answered again to the first append acknowledged since."""
    denied: int
    """Appends that failed, with ``may_have_written`` False."""
    doubted: int
    """The same with True."""
    operations: int
    events: int
    longest: float
    """Seconds that the longest call took, of workers that were not frozen meanwhile."""

    @property
    def is_a_run(self) -> bool:
        """Whether enough faults struck while a commit was in flight."""
        return self.in_flight.total() >= LEAST_IN_FLIGHT * self.faults.total()

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            violations=self.violations + other.violations,
            faults=self.faults + other.faults,
            in_flight=self.in_flight + other.in_flight,
            recoveries=self.recoveries + other.recoveries,
            denied=self.denied + other.denied,
            doubted=self.doubted + other.doubted,
            operations=self.operations + other.operations,
            events=self.events + other.events,
            longest=max(self.longest, other.longest),
        )


def judge(campaign: Campaign) -> Verdict:
    """Return what a campaign showed."""
    eras = eras_of(campaign)
    # Against a log that cannot be read whole, everything looks wrong: that alone is said.
    violations = [violation for era in eras for violation in _unreadable(era)]
    if not violations:
        violations = [violation for era in eras for violation in check(era)]
        violations += the_first_of_each(check_copies(campaign, eras))
    acknowledgements = _acknowledgements(campaign)
    violations += the_first_of_each(_no_recoveries(campaign, acknowledgements))
    durations = list(_durations(campaign))
    violations += the_first_of_each(
        Violation(Rule.HUNG, f"{name_of(operation)} took {seconds:.1f} s")
        for operation, seconds in durations
        if seconds > campaign.timeout + SLACK
    )
    violations += [Violation(Rule.HUNG, f"{worker} did not end") for worker in campaign.hung]
    doubts = Counter(
        call.outcome.may_have_written
        for call in campaign.operations
        if isinstance(call, Append) and isinstance(call.outcome, Unavailable)
    )
    restored = sum(len(fault.log) for fault in campaign.faults if isinstance(fault, Restore))
    return Verdict(
        violations=violations,
        faults=Counter(fault.kind for fault in campaign.faults),
        in_flight=Counter(_kinds_in_flight(campaign)),
        recoveries=[
            seconds
            for fault in campaign.faults
            if fault.outage and (seconds := _recovery(fault, acknowledgements)) is not None
        ],
        denied=doubts[False],
        doubted=doubts[True],
        operations=len(campaign.operations),
        events=len(campaign.log) - campaign.start + restored,
        longest=max((seconds for _, seconds in durations), default=0.0),
    )


def _unreadable(era: History) -> Iterator[Violation]:
    for call in era.operations:
        if isinstance(call, Failure) and call.worker == NOBODY:
            yield Violation(Rule.UNREADABLE, f"after {len(era.log)} events: {call.error}")


def report(verdict: Verdict) -> str:
    """Return a verdict for people: a table of faults, the figures, every violation."""
    faults, in_flight = verdict.faults, verdict.in_flight
    width = max((len(kind) for kind in faults), default=0)
    lines = [
        f"{kind:{width}}  {count:4} struck, {in_flight[kind]:4} with a commit in flight"
        for kind, count in sorted(faults.items())
    ]
    share = in_flight.total() / max(1, faults.total())
    lines.append(f"{verdict.operations:,} calls, {verdict.events:,} events")
    lines.append(
        f"{verdict.doubted + verdict.denied} appends failed, {verdict.doubted} of them with"
        " may_have_written"
    )
    lines.append(f"{faults.total()} faults, {share:.0%} with a commit in flight")
    if verdict.recoveries:
        lines.append(
            "first acknowledged append after an outage:"
            f" median {median(verdict.recoveries):.3f} s, maximum {max(verdict.recoveries):.3f} s"
            f" ({len(verdict.recoveries)} outages)"
        )
    lines.append(f"longest call {verdict.longest:.1f} s")
    lines.append(f"{len(verdict.violations)} violations")
    lines.extend(map(str, verdict.violations))
    if not verdict.is_a_run:
        lines.append(f"no run: less than {LEAST_IN_FLIGHT:.0%} struck while a commit was in flight")
    return "\n".join(lines)


# --- In flight


def _kinds_in_flight(campaign: Campaign) -> Iterator[str]:
    """Yield the kind of each fault that struck while an append of a worker it struck was under
    way."""
    killed = deaths_of(campaign)
    appends = sorted(
        (op for op in campaign.operations if isinstance(op, Append) and not op.invalid),
        key=lambda append: append.began,
    )
    began = [append.began for append in appends]
    ends = [end_of(append, killed) for append in appends]
    latest = list(accumulate(ends, max))
    for fault in campaign.faults:
        at = bisect_left(began, fault.struck)
        while at and latest[at - 1] > fault.struck:  # else all that began before have ended
            at -= 1
            if ends[at] > fault.struck and _struck(fault, appends[at]):
                yield fault.kind
                break


def _struck(fault: Fault, operation: Operation) -> bool:
    return fault.workers is None or operation.worker in fault.workers


# --- Recovery


def _acknowledgements(campaign: Campaign) -> list[int]:
    """Return when appends were acknowledged."""
    return sorted(
        append.ended
        for append in campaign.operations
        if isinstance(append, Append)
        and isinstance(append.outcome, Stored)
        and append.ended is not None
    )


def _recovery(fault: Fault, acknowledgements: Sequence[int]) -> float | None:
    """Return how many seconds after a fault an append was acknowledged, None if none was."""
    at = bisect_left(acknowledgements, fault.ended)
    if at == len(acknowledgements):
        return None
    return (acknowledgements[at] - fault.ended) / _SECOND


def _no_recoveries(campaign: Campaign, acknowledgements: Sequence[int]) -> Iterator[Violation]:
    for fault in campaign.faults:
        seconds = _recovery(fault, acknowledgements)
        if seconds is None or seconds > RECOVERY:
            told = "no append" if seconds is None else f"only after {seconds:.1f} s an append"
            yield Violation(
                Rule.NO_RECOVERY, f"{fault.kind}, over at {fault.ended}: {told} was acknowledged"
            )


# --- Time


def _durations(campaign: Campaign) -> Iterator[tuple[Operation, float]]:
    """Yield every answered call with how long it took, without what its worker was frozen."""
    frozen = [fault for fault in campaign.faults if fault.workers is not None and not fault.kills]
    for operation in campaign.operations:
        if operation.ended is None:
            continue
        seconds = (operation.ended - operation.began) / _SECOND
        if seconds > campaign.timeout:  # few are
            seconds -= (
                sum(
                    max(0, min(fault.ended, operation.ended) - max(fault.struck, operation.began))
                    for fault in frozen
                    if _struck(fault, operation)
                )
                / _SECOND
            )
        yield operation, seconds
