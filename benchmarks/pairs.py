"""``python -m benchmarks.pairs``: two installations of this package, slice by slice in turn.

    python -m benchmarks.pairs --before PYTHON [--after PYTHON] BACKEND … [--pairs 30]
        [--workloads single,x100,x1000,threads16,read]

PYTHON is the interpreter of an environment that has the package; ``--after`` is this one unless
said otherwise. Both run the same work on the same private server, each on a log of its own, in
short slices that alternate: before, after, after, before … What a machine does meanwhile is done
to both, and the ratio of two neighbours cancels it. See README.md.
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from math import comb
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Final, Self

import msgspec

from benchmarks.pair_worker import WORKLOADS
from eventstore.bench import events
from tests.kit.backends import BACKENDS

MARK: Final = 0.97
"""What the median is held to."""
_SECONDS: Final = 0.2
_WORKER: Final = Path(__file__).with_name("pair_worker.py")
_SECONDS_TO_END: Final = 30.0


class Side:
    """A process of one installation, with a log of its own."""

    def __init__(self, python: str, url: str, namespace: str, workload: str) -> None:
        # -I: neither PYTHONPATH nor the folder we are in may decide which package it imports.
        command = [python, "-I", str(_WORKER), str(events.__file__), url, namespace, workload]
        self._python = python
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._process.communicate(timeout=_SECONDS_TO_END)  # its input ends, so it does
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def answer(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._python} failed: what it printed says why")
        return line.strip()

    def work(self, seconds: float) -> float:
        """Let it work; return events a second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self.answer())


class Pairs(msgspec.Struct, frozen=True):
    """Events a second of both, pair by pair."""

    before: list[float]
    after: list[float]

    @property
    def ratios(self) -> list[float]:
        """After divided by before, in order of size."""
        return sorted(b / a for a, b in zip(self.before, self.after, strict=True))


def measure(sides: tuple[str, str], url: str, workload: str, pairs: int, seconds: float) -> Pairs:
    """Let two interpreters do a workload in turn; each has a log of its own at ``url``."""
    with ExitStack() as stack:
        before, after = (
            stack.enter_context(Side(python, *_own_log(url), workload)) for python in sides
        )
        for side in (before, after):
            side.answer()  # it is ready
        found = Pairs(before=[], after=[])
        turns = ((before, found.before), (after, found.after))
        for side, _ in turns:
            side.work(seconds)  # to warm up
        for number in range(pairs):
            for side, rates in turns if number % 2 == 0 else reversed(turns):
                rates.append(side.work(seconds))
    return found


def _own_log(url: str) -> tuple[str, str]:
    """Return URL and namespace of a new log: in a new file, where there are files, for a process
    must read its pages anew after another wrote to the same."""
    name = f"pairs_{secrets.token_hex(4)}"
    return f"{url}.{name}" if url.startswith("sqlite:") else url, name


def interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Return the bounds between which the median of all such pairs lies with 95 % certainty.

    Each pair is as likely above that median as below it, so how many are below is binomial; no
    shape of the distribution is assumed. Fewer than six pairs give no more than their range.
    """
    size, cut, beyond = len(ordered), 0, 0.0
    while (beyond := beyond + comb(size, cut) / 2**size) <= 0.025:
        cut += 1
    cut = max(cut - 1, 0)
    return ordered[cut], ordered[size - 1 - cut]


def package_of(python: str) -> str:
    """Return the folder of the package that an interpreter imports."""
    program = "import eventstore; print(eventstore.__path__[0])"
    command = [python, "-I", "-c", program]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def line(backend: str, workload: str, found: Pairs) -> tuple[str, bool]:
    """Return what is told of pairs, and whether the mark is reached."""
    ratios = found.ratios
    middle = median(ratios)
    least, most = interval(ratios)
    reached = middle >= MARK
    told = "yes" if reached else "NO, surely" if most < MARK else "no, or chance: more pairs tell"
    rates = f"{median(found.before):>10,.0f} {median(found.after):>10,.0f}"
    figure = f"{middle:.3f} ({least:.3f}–{most:.3f})"
    return f"{backend:<10} {workload:<10} {rates}  {figure}  {told}", reached


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 where a median is below the mark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pairs",
        description="Compare two installations of this package, slice by slice in turn.",
    )
    parser.add_argument("backends", nargs="+", metavar="BACKEND", help=", ".join(BACKENDS))
    parser.add_argument("--before", required=True, metavar="PYTHON")
    parser.add_argument("--after", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--pairs", type=int, default=30, metavar="N")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="of a slice")
    parser.add_argument(
        "--workloads", default=",".join(WORKLOADS), metavar="NAME,…", help="all unless given"
    )
    given = parser.parse_args(words)
    workloads = given.workloads.split(",")
    for name in {*given.backends} - BACKENDS.keys() | {*workloads} - WORKLOADS.keys():
        parser.error(f"there is no {name!r}; there are {', '.join((*BACKENDS, *WORKLOADS))}")
    if given.pairs < 1:
        parser.error("--pairs must be at least 1")
    sides = given.before, given.after
    for name, python in zip(("before", "after"), sides, strict=True):
        print(f"{name + ':':<7} {package_of(python)}")
    print(f"{'':<21} {'before/s':>10} {'after/s':>10}  after/before (95 %)   reaches {MARK}")
    missed = False
    for backend in given.backends:
        with BACKENDS[backend].base_url() as url:
            for workload in workloads:
                found = measure(sides, url, workload, given.pairs, given.seconds)
                told, reached = line(backend, workload, found)
                missed |= not reached
                print(told, flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
