"""Waiting for events: in turns, so that closing, calling off and an older copy are noticed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import TIMEOUT_MAX
from threading import Event as Flag
from time import monotonic
from typing import Final

from eventstore._core.log import CalledOff, Log
from eventstore._core.positions import verified, verified_position
from eventstore._core.reading import in_sequences
from eventstore._core.retrying import logger
from eventstore.backend import Backend, PageRequest
from eventstore.backend.deadline import INSTANT
from eventstore.checkpoint import Checkpoint
from eventstore.errors import StoreUnavailableError
from eventstore.query import EventQuery

_WAIT_TURN: Final = 0.25
"""Seconds that a wait may spend in a driver before it looks whether the store was closed."""

_STOPPABLE_TURN: Final = 0.1
"""The same for one that can be called off: nobody tells the driver."""


def wait(
    open_log: Callable[[], Log],
    after: int | Checkpoint,
    timeout: float | None,
    query: EventQuery,
    tenant_id: str | None,
    *,
    stop: Flag | None,
) -> bool:
    """Return True once an event that matches stands after a position; False when time is up, or
    once ``stop`` is set.

    ``open_log`` returns the log or raises StoreClosedError; it is asked before every turn. A
    turn, the first with the look at the position, is one call for the engine's timeout; an
    outage ends a wait that has an end of its own, and is waited through by one that has none.
    """
    log = open_log()
    end = None if timeout is None else monotonic() + min(timeout, TIMEOUT_MAX)
    longest = min(_WAIT_TURN if stop is None else _STOPPABLE_TURN, log.settings.timeout / 2)
    nap = log.napper(stop)
    position = -1
    everything = False
    told = False

    def turn() -> bool | None:
        """Return what the wait returns, or None after a while."""
        nonlocal position, query, everything
        log = open_log()
        if position < 0:
            query = verified(log, query, tenant_id)
            everything = query.filters_nothing
            position = verified_position(log, after, "after", tenant_id)
        else:
            log.read(partial(_wait_a_turn, position, max(seconds_left(), INSTANT), nap))
        head = open_log().head()
        if head < position:  # the log was put back to an older copy: it may never get there
            position = verified_position(log, after, "after", tenant_id)
        elif head > position:
            if everything:
                return True
            asked = in_sequences(log, query, tenant_id, after=position, head=head)
            if log.page(PageRequest(query=asked, after=position, up_to=head, limit=1)):
                return True
            position = head
        return None if seconds_left() > 0 else False

    def seconds_left() -> float:
        return longest if end is None else min(longest, end - monotonic())

    answer: bool | None = None
    while answer is None:
        try:
            if told:
                nap(longest)
            answer = log.until(stop, turn)
            told = False
        except CalledOff:
            return False
        except StoreUnavailableError as error:
            if end is not None or not error.transient:
                raise
            if not told:
                logger.warning("%s; waiting for it to come back", error)
            told = True
            position = -1  # it may come back as an older copy: where this stands is verified anew
    return answer


def _wait_a_turn(
    after: int, seconds: float, nap: Callable[[float], None], backend: Backend
) -> None:
    backend.wait(after, seconds, nap)
