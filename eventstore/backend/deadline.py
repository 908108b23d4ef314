"""One deadline for a whole call, wherever in it the time is spent.

A call of the store's begins one (``within``, or ``deadline`` for a block inside one); whoever
waits inside it, for a connection, a lock, an answer, asks how long it still may (``time_left``).
It belongs to the thread, so that it need not be handed through every function in between; the
idea is that of ``pymongo.timeout``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Final, Self, TypeVar

_T = TypeVar("_T")

INSTANT: Final = 0.001
"""The least time to give a step, in seconds: engines read 0 as "without a limit"."""


class _Call(threading.local):
    """What this thread is in the middle of."""

    end: float | None = None
    """When it must be over, by ``time.monotonic``; None outside of calls."""


this_call: Final = _Call()


def within(seconds: float, work: Callable[[float], _T]) -> _T:
    """Return ``work(end)``, which must be over by ``end`` (of ``time.monotonic``): so many
    seconds from now, or earlier where a call around it must be.

    What begins a thread's call is this, and no ``with`` block: Ctrl-C can strike as the latter
    is left, and every later call of the thread would be over before it began.
    """
    outer = this_call.end
    end = monotonic() + seconds
    if outer is not None and outer < end:
        end = outer
    this_call.end = end
    try:
        return work(end)
    finally:
        this_call.end = outer


class deadline:  # noqa: N801 - used as a function is
    """A block inside a call that may take so many seconds; less, where that ends earlier."""

    __slots__ = ("_outer", "end")

    def __init__(self, seconds: float) -> None:
        self.end = monotonic() + seconds

    def __enter__(self) -> Self:
        self._outer = outer = this_call.end
        if outer is not None and outer < self.end:
            self.end = outer
        this_call.end = self.end
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        this_call.end = self._outer


def time_left(at_most: float) -> float:
    """Return how many seconds this thread's call has left: at most ``at_most``, which is what
    counts outside of a call, and at least ``INSTANT``."""
    end = this_call.end
    return at_most if end is None else max(min(end - monotonic(), at_most), INSTANT)
