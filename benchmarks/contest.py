"""A claim, how it is measured, and what was found.

Every claim is a ratio to a reference that is measured in the same run, in turn with ours, so
that a machine which is busy, or slow, is so for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Final, Literal

import msgspec

from eventstore import EventStore
from eventstore.bench import workloads
from eventstore.bench.events import Numbers
from eventstore.bench.measure import (
    Comparison,
    Latencies,
    Rates,
    Step,
    in_turn,
    latencies,
    rate,
)


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How long to look."""

    rounds: int
    seconds: float
    """Of work in each round."""
    read: int
    """Events in the log that is read."""
    grown: int = 1_000_000
    """Events in a log in which one entity is read …"""
    largest: int = 3_000_000
    """… and to which it then grows, both for ``--growth`` alone."""


FULL: Final = Effort(rounds=5, seconds=1.0, read=50_000)
QUICK: Final = Effort(rounds=3, seconds=0.15, read=10_000, grown=20_000, largest=60_000)

Kind = Literal["at least", "at most"]


Reading = Callable[[EventStore, Numbers], Step]
"""A workload that reads what the numbers filled."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What we say of one engine."""

    engine: str
    what: str
    against: str
    """What the figure is a ratio to; empty where the figure stands by itself."""
    mark: float
    kind: Kind = "at least"
    unit: str = "×"
    obstacle: str = ""
    """What was measured to be in the way, told where the mark is missed."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured for a claim."""

    claim: Claim
    figure: Rates
    """The ratio, or the value, of each round."""
    ours: Rates | None = None
    reference: Rates | None = None
    note: str = ""
    applies: bool = True
    """False where the claim is made for other circumstances; ``note`` says which."""
    busy: float | None = None
    """Which part of the processors other work kept busy; None where the system does not say."""

    @property
    def met(self) -> bool:
        """Whether the median reaches the mark."""
        median = self.figure.median
        return (
            median >= self.claim.mark
            if self.claim.kind == "at least"
            else (median <= self.claim.mark)
        )


def ratio(claim: Claim, comparison: Comparison, note: str = "", *, applies: bool = True) -> Finding:
    """Return what a comparison tells of a claim."""
    return Finding(
        claim=claim,
        figure=comparison.ratios,
        ours=comparison.ours,
        reference=comparison.reference,
        note=note,
        applies=applies,
    )


class Raw(ABC):
    """The raw limit of an engine: its plain driver, doing the least that stores the same rows
    in the same tables, with the same indexes and durability."""

    def __init__(self) -> None:
        self.numbers = Numbers()

    @abstractmethod
    def single(self) -> Step:
        """Write one event."""

    @abstractmethod
    def batch(self, size: int) -> Step:
        """Write a batch."""

    @abstractmethod
    def read_all(self) -> Step:
        """Read all events, their JSON decoded, and return how many."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the engine."""


class Duel:
    """Our store against a raw writer, each with a log of its own on the same engine."""

    def __init__(self, store: EventStore, raw: Raw, effort: Effort) -> None:
        self.store = store
        self.raw = raw
        self.effort = effort
        self.numbers = Numbers()

    def single(self) -> Comparison:
        """Compare single appends by one thread."""
        return self.rates(self.raw.single, lambda: workloads.single(self.store, self.numbers))

    def batches(self, size: int) -> Comparison:
        """Compare batches."""
        return self.rates(
            lambda: self.raw.batch(size),
            lambda: workloads.batch(self.store, self.numbers, size),
        )

    def read_all(self) -> Comparison:
        """Compare reading all; both logs are brought to the same length before."""
        for _ in workloads.fill(self.store, self.numbers, self.effort.read):
            pass
        ours = self.store.get_current_sequence()
        theirs = self.raw.read_all()()
        while theirs < ours:
            theirs += self.raw.batch(1000)()
        return self.rates(self.raw.read_all, lambda: workloads.read_all(self.store))

    def rates(self, raw: Callable[[], Step], ours: Callable[[], Step]) -> Comparison:
        """Compare any two pieces of work."""
        seconds = self.effort.seconds
        return in_turn(lambda: rate(raw, seconds), lambda: rate(ours, seconds), self.effort.rounds)


def in_milliseconds(claim: Claim, measured: Sequence[Latencies]) -> Finding:
    """Return what latencies tell of a claim: their p50, in milliseconds."""
    worst = max(each.p99 for each in measured) * 1000
    return Finding(
        claim=msgspec.structs.replace(claim, kind="at most", unit="ms"),
        figure=Rates(tuple(each.p50 * 1000 for each in measured)),
        note=f"p99 at most {worst:.1f} ms",
    )


def reading_latency(
    claim: Claim, workload: Reading, store: EventStore, numbers: Numbers, effort: Effort
) -> Finding:
    """Measure how long a read takes of a log that ``numbers`` filled."""
    ends = effort.seconds * 2

    def calls() -> Iterator[Step]:
        began = perf_counter()
        for _ in range(200):
            yield workload(store, numbers)
            if perf_counter() > began + ends:
                return

    return in_milliseconds(claim, [latencies(calls()) for _ in range(effort.rounds)])
