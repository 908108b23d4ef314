"""A claim, how it is measured, and what was found.

Every claim is a ratio to a reference that is measured in the same run, in turn with ours, so
that a machine which is busy, or slow, is so for both.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
    large: int
    """Events in a log that has grown, at most; some claims are made for less."""


FULL: Final = Effort(rounds=5, seconds=1.0, read=50_000, large=1_000_000)
QUICK: Final = Effort(rounds=3, seconds=0.15, read=10_000, large=20_000)

Kind = Literal["at least", "at most"]


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
    load: float = msgspec.field(default_factory=lambda: os.getloadavg()[0])
    """The machine's load average at the time."""

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


def growth(
    small: EventStore, large: EventStore, events: int, size: int, effort: Effort
) -> Comparison:
    """Compare batches of ``size`` into a log that has grown with those into a small one."""
    few, many = (Numbers(store.get_current_sequence()) for store in (small, large))
    for _ in workloads.fill(small, few, 10_000):
        pass
    for _ in workloads.fill(large, many, events):
        pass
    return in_turn(
        lambda: rate(lambda: workloads.batch(small, few, size), effort.seconds),
        lambda: rate(lambda: workloads.batch(large, many, size), effort.seconds),
        effort.rounds,
    )


def in_milliseconds(claim: Claim, measured: Sequence[Latencies]) -> Finding:
    """Return what latencies tell of a claim: their p50, in milliseconds."""
    worst = max(each.p99 for each in measured) * 1000
    return Finding(
        claim=msgspec.structs.replace(claim, kind="at most", unit="ms"),
        figure=Rates(tuple(each.p50 * 1000 for each in measured)),
        note=f"p99 at most {worst:.1f} ms",
    )


def entity_latency(
    claim: Callable[..., Claim], store: EventStore, events: int, mark: float, effort: Effort
) -> Finding:
    """Measure how long it takes to read one entity of 100 events among many."""
    numbers = Numbers()
    for _ in workloads.fill(store, numbers, events):
        pass
    return in_milliseconds(
        claim(what=f"one entity of 100 events among {events:,}, p50", against="", mark=mark),
        [
            latencies(workloads.one_entity(store, numbers) for _ in range(200))
            for _ in range(effort.rounds)
        ],
    )
