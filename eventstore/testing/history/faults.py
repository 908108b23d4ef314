"""The record of a campaign: a history, and the faults that struck meanwhile.

Times are those of the history's own record: nanoseconds of ``time.monotonic_ns``.
"""

from __future__ import annotations

import msgspec

from eventstore.testing.history.recording import LogEntry, Operation


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something was broken on purpose, and mended."""

    kind: str
    """Its name, for people."""
    struck: int
    ended: int
    """From when on everything could work again."""
    workers: frozenset[int] | None = None
    """Those it struck; None where it was everybody."""
    kills: bool = False
    """No call of theirs that was under way went on."""
    closes: bool = False
    """Their store was closed under them."""
    outage: bool = False
    """The engine itself was away, and answered again at ``ended``."""


class Restore(Fault, frozen=True, kw_only=True):
    """The log was put back to a copy of it: what came after the copy is gone.

    The history has an *era* up to each restore, and one from there on.
    """

    copied: int
    """When the copying began: all acknowledged by then is in the copy."""
    log: list[LogEntry]
    """The whole log of the era that ended here."""
    head: int
    """That of the copy."""


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to a log, what was done to its engine, and how the log stood in the end."""

    operations: list[Operation]
    log: list[LogEntry]
    faults: list[Fault]
    """In the order in which they struck; one ended before the next began."""
    start: int = 0
    """The head before the first operation."""
    timeout: float
    """That of the stores, in seconds: no call may take longer."""
    hung: list[str] = []
    """Workers, in words, that had to be ended by force."""
