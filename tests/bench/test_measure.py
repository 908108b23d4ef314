"""How things are timed."""

from __future__ import annotations

from time import sleep

import pytest

from eventstore.bench.measure import Comparison, Rates, in_turn, percentiles, rate


def test_preparing_is_not_timed() -> None:
    # Given work that is quick, and slow to prepare
    def prepare():  # type: ignore[no-untyped-def]  # a step is whatever returns a number
        sleep(0.01)

        def step() -> int:
            sleep(0.001)
            return 1

        return step

    # When it is measured, Then at least as many a second as the work alone allows by half
    assert rate(prepare, 0.01) > 200


def test_a_rate_is_told_by_its_middle_and_its_ends() -> None:
    rates = Rates((5.0, 1.0, 3.0))
    assert (rates.median, rates.least, rates.most) == (3.0, 1.0, 5.0)


def test_percentiles_are_times_that_were_seen() -> None:
    found = percentiles([number / 1000 for number in range(1, 101)])
    assert found.p50 == pytest.approx(0.050, abs=0.002)
    assert found.p99 == 0.099
    assert found.calls == 100


def test_contestants_take_turns_after_a_warm_up() -> None:
    # Given two that write down when it is their turn
    turns: list[str] = []

    def contestant(name: str, figures: list[float]) -> float:
        turns.append(name)
        return figures.pop(0)

    reference, ours = [9.0, 2.0, 4.0], [9.0, 3.0, 2.0]

    # When they are compared over two rounds
    found = in_turn(lambda: contestant("raw", reference), lambda: contestant("ours", ours), 2)

    # Then they took turns, and the warm-up does not count
    assert turns == ["raw", "ours"] * 3
    assert found == Comparison(reference=Rates((2.0, 4.0)), ours=Rates((3.0, 2.0)))
    assert found.ratios == Rates((1.5, 0.5))
