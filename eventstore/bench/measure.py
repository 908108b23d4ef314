"""How things are timed: rates in rounds, latencies as percentiles, two contestants in turn."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Final

import msgspec

MIN_ROUNDS: Final = 3

Step = Callable[[], int]
"""A piece of work that is timed; returns how many things it did."""


class Rates(msgspec.Struct, frozen=True):
    """Things a second, one figure a round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)

    @property
    def least(self) -> float:
        """The slowest round."""
        return min(self.rounds)

    @property
    def most(self) -> float:
        """The fastest round."""
        return max(self.rounds)


class Latencies(msgspec.Struct, frozen=True):
    """Seconds that single calls took."""

    p50: float
    p99: float
    calls: int


class Comparison(msgspec.Struct, frozen=True):
    """Two contestants measured in turn; the ratio of each round is of neighbours in time."""

    reference: Rates
    ours: Rates

    @property
    def ratios(self) -> Rates:
        """Ours divided by the reference, round by round."""
        pairs = zip(self.ours.rounds, self.reference.rounds, strict=True)
        return Rates(tuple(ours / reference for ours, reference in pairs))


def rate(prepare: Callable[[], Step], seconds: float) -> float:
    """Return things a second over at least ``seconds`` of work, what ``prepare`` does not
    counted: it returns the next piece of work each time it is called."""
    gc.collect()
    done, spent = 0, 0.0
    while spent < seconds:
        step = prepare()
        began = perf_counter()
        done += step()
        spent += perf_counter() - began
    return done / spent


def latencies(calls: Iterable[Callable[[], object]]) -> Latencies:
    """Return how long each of ``calls`` takes."""
    gc.collect()
    taken = []
    for call in calls:
        began = perf_counter()
        call()
        taken.append(perf_counter() - began)
    return percentiles(taken)


def percentiles(seconds: Sequence[float]) -> Latencies:
    """Return the percentiles of measured times; the nearest rank, so each was really seen."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return Latencies(
        p50=ordered[round(last * 0.50)], p99=ordered[round(last * 0.99)], calls=len(ordered)
    )


def in_turn(reference: Callable[[], float], ours: Callable[[], float], rounds: int) -> Comparison:
    """Return the rates of two contestants that take turns, after a warm-up of each."""
    reference()
    ours()
    pairs = [(reference(), ours()) for _ in range(rounds)]
    return Comparison(
        reference=Rates(tuple(first for first, _ in pairs)),
        ours=Rates(tuple(second for _, second in pairs)),
    )
