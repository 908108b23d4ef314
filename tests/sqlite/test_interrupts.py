"""Ctrl-C at any moment of a loan leaves every connection where it belongs."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

import pytest

from eventstore import EventStore, open_store
from eventstore.testing.builders import an_event
from eventstore_sqlite import SqliteBackend, connections


class Interrupts:
    """Raises KeyboardInterrupt at one moment of the work of ``connections``, where Python lets a
    signal's handler run: after a call."""

    def __init__(self, moment: int) -> None:
        self._left = moment
        self._after_calls: dict[CodeType, set[int]] = {}
        self.struck = False

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename != connections.__file__:
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        if event == "opcode" and not self.struck and frame.f_lasti in self._moments(frame.f_code):
            self._left -= 1
            if self._left < 0:
                self.struck = True
                raise KeyboardInterrupt
        return self._step

    def _moments(self, code: CodeType) -> set[int]:
        if code not in self._after_calls:
            steps = [each for each in dis.get_instructions(code) if each.opname != "CACHE"]
            self._after_calls[code] = {
                after.offset for call, after in pairwise(steps) if call.opname.startswith("CALL")
            }
        return self._after_calls[code]


@pytest.mark.parametrize("location", [":memory:", "file"])
@pytest.mark.parametrize("what", ["read", "append"])
def test_an_interrupt_at_any_moment_loses_and_shares_no_connection(
    path: Path, location: str, what: str
) -> None:
    # Given a store that is used already
    url = f"sqlite:///{path if location == 'file' else location}"
    with open_store(url, timeout=5) as store:
        store.append(an_event())
        assert store.get_current_sequence() == 1
        moments = 0
        # When each moment of a call in turn is interrupted
        while interrupted(store, what, moments):
            moments += 1
            assert moments < 1000  # far more than there are
            # Then nobody has a connection any more, and all that was there is there
            backend = store._log.backend
            assert isinstance(backend, SqliteBackend)
            pools = backend._connections
            assert not pools._loans
            assert len({*pools._readers, *pools._writers}) == len(pools._readers + pools._writers)
            head = store.get_current_sequence()
            assert [event.sequence for event in store.get_events()] == list(range(1, head + 1))
            assert store.append(an_event()).sequence == head + 1
    assert moments > 10


def interrupted(store: EventStore, what: str, moment: int) -> bool:
    """Return whether there was such a moment in a call."""
    backend = store._log.backend
    interrupts = Interrupts(moment)
    try:
        with interrupts:
            if what == "read":
                backend.head()
            else:
                store.append(an_event())
    except KeyboardInterrupt:
        pass
    return interrupts.struck
