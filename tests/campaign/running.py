"""Runs a campaign, round after round, each on a log of its own, and judges it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from msgspec.structs import replace

from eventstore import drop_namespace, open_store
from eventstore.testing.history import Campaign, Fault, Restore, Verdict, judge
from eventstore.testing.history.recording import load_operations
from eventstore.testing.history.verdict import RECOVERY

from .crew import Crew
from .grounds import Ground, ground_of
from .kinds import KINDS, Field, schedule
from .worker import OPENING, Job

ROUND: Final = 50
"""Faults in a round: few enough for its log to be checked in seconds."""
_BREATH: Final = 0.3
"""Seconds between two faults at most."""


def run_campaign(
    target: str,
    *,
    faults: int,
    seed: int,
    workers: int = 3,
    threads: int = 2,
    timeout: float = 3.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Have workers work on ``target`` (see ``ground_of``) while faults strike; return what
    that showed. ``tell`` is told of the progress."""
    verdict = None
    with ground_of(target) as ground:
        drawn = schedule(ground, faults, seed)
        for first in range(0, faults, ROUND):
            began = time.monotonic()
            campaign = run_round(
                ground,
                drawn[first : first + ROUND],
                seed=f"{seed}:{first}",
                workers=workers,
                threads=threads,
                timeout=timeout,
            )
            ran = time.monotonic()
            shown = judge(campaign)
            tell(
                f"{first + len(campaign.faults)} faults: {ran - began:.1f} s,"
                f" checked in {time.monotonic() - ran:.1f} s,"
                f" {shown.events:,} events, {len(shown.violations)} violations"
            )
            verdict = verdict + shown if verdict else shown
    if verdict is None:
        raise ValueError("faults: must be at least 1")
    return verdict


def run_round(
    ground: Ground,
    faults: Sequence[tuple[str, int]],
    *,
    seed: str,
    workers: int,
    threads: int,
    timeout: float,
) -> Campaign:
    """Have the faults strike on a new log of its own; return the record."""
    namespace = f"campaign_{secrets.token_hex(4)}"
    options = {"namespace": namespace, "timeout": timeout}
    with TemporaryDirectory(prefix="eventstore-campaign-") as records:
        job = Job(ground.url, options, Path(records), secrets.token_hex(4), seed, threads)
        open_store(ground.direct, namespace=namespace).close()
        try:
            with Crew(job, workers) as crew:
                field = Field(ground, crew, namespace, timeout)
                struck = _strike(field, faults, Random(seed))
                crew.end()
            log = field.log_at(ground.direct)
            struck = [_with_its_log(field, fault) for fault in struck]
        finally:
            drop_namespace(ground.direct, namespace=namespace)
        return Campaign(
            operations=[*load_operations(job.directory), *field.failures],
            log=log,
            faults=struck,
            timeout=timeout,
            hung=crew.hung,
        )


def _strike(field: Field, faults: Sequence[tuple[str, int]], random: Random) -> list[Fault]:
    """Let the faults strike one after the other, each when the last one is got over."""
    struck: list[Fault] = []
    if not field.crew.wait_for_acknowledgement(0, OPENING):
        raise RuntimeError("no append was acknowledged before the first fault")
    for name, seed in faults:
        time.sleep(random.uniform(0, _BREATH))
        field.crew.tend()
        struck.append(KINDS[name].strike(field, Random(seed)))
        if not field.crew.wait_for_acknowledgement(struck[-1].ended, RECOVERY):
            break  # the verdict says so
    return struck


def _with_its_log(field: Field, fault: Fault) -> Fault:
    """Return a fault with the log of a file that was replaced, which has come to rest by now."""
    if isinstance(fault, Restore) and fault.ended in field.old_files:
        return replace(fault, log=field.log_at(field.old_files[fault.ended]))
    return fault
