"""Waiting for what others append: soon where the log grows, cheap where it has been idle."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from eventstore_sqlite.connections import Connections, Mark

_SOON: Final = 0.003
"""Seconds between two looks at a log that grows …"""
_LATEST: Final = 0.045
"""… and at one that has been idle for long; a look costs less than the nap after it."""
_BACKING_OFF: Final = 0.002
"""How much longer the nap is for every second of idleness."""


class Watch:
    """What the waits of one store remember of the log."""

    def __init__(self, connections: Connections, head: Callable[[], int]) -> None:
        self._connections = connections
        self._head = head
        self.seen: tuple[int, float, Mark | None] = 0, monotonic(), None
        """The head at the last look, since when it stands, and the write-ahead log's state before
        that look. (One value: several threads may wait.)"""

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        """Return when the head may be above ``after``; see ``Backend.wait``."""
        end = monotonic() + timeout
        while (left := end - (now := monotonic())) > 0:
            mark = self._connections.quiet_mark()  # before the look, so that nothing is missed
            seen, since, unchanged = self.seen
            if mark is None or mark != unchanged or seen > after:
                head = self._head()
                if head > after:
                    return
                since = since if head == seen else now
                self.seen = head, since, mark
            nap(min(_SOON + (now - since) * _BACKING_OFF, _LATEST, left))
