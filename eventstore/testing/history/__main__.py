"""``python -m eventstore.testing.history URL``: run a history on a log and check it."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from eventstore.testing.history.checker import check
from eventstore.testing.history.recording import Append, Failure, History
from eventstore.testing.history.running import run_history


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and check a history, print what happened; 1 if any guarantee is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m eventstore.testing.history", description=main.__doc__
    )
    parser.add_argument("url", help="of a log to write to; nothing in it is removed")
    parser.add_argument("--seconds", type=float, default=60, help="how long to run")
    parser.add_argument("--workers", type=int, default=6, help="processes")
    parser.add_argument("--threads", type=int, default=2, help="threads in each process")
    parser.add_argument("--seed", type=int, help="repeats the workers' choices")
    given = parser.parse_args(arguments)
    history = run_history(
        given.url,
        seconds=given.seconds,
        workers=given.workers,
        threads=given.threads,
        seed=given.seed,
    )
    began = time.monotonic()
    violations = check(history)
    print(summary(history))
    print(f"checked in {time.monotonic() - began:.1f} s, {len(violations)} violations")
    for violation in violations:
        print(violation)
    return 1 if violations else 0


def summary(history: History) -> str:
    """Return how many calls of each kind there were and how they ended, as a table."""
    calls: Counter[tuple[str, str]] = Counter()
    for operation in history.operations:
        if isinstance(operation, Append):
            outcome = operation.outcome
            repeated = getattr(outcome, "replayed", False)
            ending = "Repeated" if repeated else type(outcome).__name__
        else:
            ending = "Failed" if isinstance(operation, Failure) else "Answered"
        calls[operation.what, ending] += 1
    width = max((len(what) for what, _ in calls), default=0)
    lines = [f"{what:{width}}  {ending:16} {n:9,}" for (what, ending), n in sorted(calls.items())]
    lines.append(f"{len(history.operations):,} calls, {len(history.log) - history.start:,} events")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
