"""Two installations of this package, compared slice by slice."""

from __future__ import annotations

import random
import sys

import pytest

import eventstore
from benchmarks import pairs
from benchmarks.pair_worker import WORKLOADS
from benchmarks.pairs import Pairs, interval, line, main

BEFORE = [100.0] * 30


def test_the_interval_leaves_out_what_chance_makes_of_thirty_pairs() -> None:
    # Given 30 ratios in order
    ordered = [float(number) for number in range(1, 31)]

    # When the bounds of their median are asked for
    # Then they are the tenth from either end, as tables of the sign test have it
    assert interval(ordered) == (10.0, 21.0)


def test_the_interval_of_a_few_pairs_is_all_of_them() -> None:
    for few in range(1, 6):
        ordered = [float(number) for number in range(few)]
        assert interval(ordered) == (0.0, few - 1.0)


def test_the_interval_has_the_median_in_it_nineteen_times_of_twenty() -> None:
    chance = random.Random(1)
    held = 0
    for _ in range(1000):
        least, most = interval(sorted(chance.lognormvariate(0, 0.3) for _ in range(30)))
        held += least <= 1.0 <= most
    assert 935 <= held <= 985


@pytest.mark.parametrize(
    ("after", "reached", "told"),
    [
        ([98.0] * 30, True, "yes"),
        ([96.0] * 30, False, "NO, surely"),
        ([96.0] * 16 + [98.0] * 14, False, "no, or chance"),
    ],
)
def test_a_release_is_held_to_the_median_of_its_ratios(
    after: list[float], reached: bool, told: str
) -> None:
    text, found = line("sqlite", "single", Pairs(before=BEFORE, after=after))
    assert found is reached
    assert told in text


def test_two_interpreters_do_each_workload_in_turn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a mark that chance cannot miss
    monkeypatch.setattr(pairs, "MARK", 0.0)

    # When this installation is compared with itself, on an engine with files and one without
    words = ["sqlite", "memory", "--before", sys.executable, "--pairs", "3", "--seconds", "0.01"]
    assert main(words) == 0

    # Then there is a line for each workload, under one that says what was compared
    before, after, _, *lines = capsys.readouterr().out.splitlines()
    package = eventstore.__path__[0]
    assert (before.split(), after.split()) == (["before:", package], ["after:", package])
    assert [told.split()[:2] for told in lines] == [
        [backend, workload] for backend in ("sqlite", "memory") for workload in WORKLOADS
    ]


def test_what_is_no_backend_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["oracle", "--before", sys.executable])
    assert "there is no 'oracle'; there are memory, sqlite" in capsys.readouterr().err
