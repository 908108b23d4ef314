"""``python -m tests.campaign TARGET --faults N --seed S``: break things, prove the guarantees.

To be run in the repository's root, with several targets one after the other. It returns 1 if a
guarantee is broken, and 2 if too few faults struck while a commit was in flight.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import time
from collections.abc import Sequence

from eventstore.backend.settings import redacted
from eventstore.testing.history import report

from .grounds import PRIVATE
from .running import run_campaign


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign and print its report."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=main.__doc__)
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help=f"{', '.join(PRIVATE)}: a private one. Or the URL of a running engine: its server and"
        " its data are left alone, and the namespaces that are made there are removed",
    )
    parser.add_argument("--faults", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--seed", type=int, help="repeats the faults")
    parser.add_argument("--workers", type=int, default=3, help="processes (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads in each (default: 2)")
    parser.add_argument(
        "--timeout", type=float, default=3.0, help="of the stores, in seconds (default: 3)"
    )
    given = parser.parse_args(arguments)
    seed = secrets.randbits(32) if given.seed is None else given.seed
    return max(_run(target, given, seed) for target in given.targets)


def _run(target: str, given: argparse.Namespace, seed: int) -> int:
    shown = target if target in PRIVATE else redacted(target)
    print(f"{shown}: {given.faults} faults, seed {seed}", flush=True)
    began = time.monotonic()
    verdict = run_campaign(
        target,
        faults=given.faults,
        seed=seed,
        workers=given.workers,
        threads=given.threads,
        timeout=given.timeout,
        tell=lambda line: print(f"  {line}", flush=True),
    )
    print(report(verdict))
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    if verdict.violations:
        return 1
    return 0 if verdict.is_a_run else 2


def _end(*_: object) -> None:
    raise SystemExit(143)  # by way of everything that must be cleaned up


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
