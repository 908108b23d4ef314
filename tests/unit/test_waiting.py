"""Waits through an outage, and waits that are called off, over a backend that a test takes away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from eventstore import (
    CheckpointError,
    Event,
    EventQuery,
    EventStore,
    StoreClosedError,
    StoreUnavailableError,
)
from eventstore._core.log import Log
from eventstore.backend import Settings, open_log
from eventstore.memory import MemoryBackend, _MemoryLog
from eventstore.testing.conformance.crews import Thread

WAIT = 30.0


class Away(MemoryBackend):
    """A memory backend whose head cannot be read while it is away."""

    transient = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.is_away = threading.Event()
        self.asked = threading.Semaphore(0)
        """Released by each question that it did not answer."""

    def head(self) -> int:
        if self.is_away.is_set():
            self.asked.release()
            raise StoreUnavailableError("gone", transient=self.transient)
        return super().head()

    def is_asked(self, times: int) -> None:
        for _ in range(times):
            assert self.asked.acquire(timeout=WAIT)


@pytest.fixture
def away() -> Away:
    return open_log(Away, Settings.parse("memory://", {}, Away.options))


Opener = Callable[..., EventStore]


@pytest.fixture
def opened(away: Away) -> Iterator[Opener]:
    stores: list[EventStore] = []

    def open_it(**options: Any) -> EventStore:
        settings = Settings.parse("memory://", {"timeout": 0.2, **options}, Away.options)
        stores.append(EventStore(Log(away, settings)))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


def an_event() -> Event:
    return Event(event_type="Happened", entity_type="thing", entity_id="a")


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("retries", [0, 1_000_000])
@pytest.mark.parametrize("begins", ["before", "amid"])
def test_an_outage_is_waited_through_and_told_once(
    away: Away, opened: Opener, caplog: pytest.LogCaptureFixture, begins: str, retries: int
) -> None:
    # Given: a wait without an end, and an outage of several of the store's timeouts
    store = opened(retries=retries)
    if begins == "before":
        away.is_away.set()
    waiting = Thread(store.wait_for_events, 0)
    if begins == "amid":
        assert waiting.is_running(after=0.1)
        away.is_away.set()
    away.is_asked(4)
    assert waiting.is_running(after=1.0)

    # When: it ends, and something comes
    away.is_away.clear()
    store.append(an_event())

    # Then
    assert waiting.result() is True
    assert warnings_in(caplog) == ["gone; waiting for it to come back"]


def test_each_outage_is_told(away: Away, opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(retries=0)
    waiting = Thread(store.wait_for_events, 0)
    for outage in (1, 2):
        away.is_away.set()
        away.is_asked(3)
        assert len(warnings_in(caplog)) == outage
        away.is_away.clear()
        assert waiting.is_running(after=0.6)
    store.append(an_event())
    assert waiting.result() is True


@pytest.mark.parametrize("timeout", [0, 0.05, None])
@pytest.mark.parametrize("looks", [1, 3])
def test_a_log_that_is_put_back_while_it_is_waited_for_is_told(
    away: Away,
    opened: Opener,
    monkeypatch: pytest.MonkeyPatch,
    timeout: float | None,
    looks: int,
) -> None:
    # Given: a position that is verified, and looked at, before the log is put back below it
    store = opened()
    for _ in range(3):
        store.append(an_event())
    heads = iter([3] * looks)
    monkeypatch.setattr(away, "head", lambda: next(heads, 1))
    # Then it is never passed silently, nor waited for for ever (G12)
    if timeout == 0 and looks == 3:
        assert store.wait_for_events(3, timeout) is False
    with pytest.raises(CheckpointError, match="beyond the head"):
        store.wait_for_events(3, timeout)


def test_a_log_that_comes_back_as_an_older_copy_is_told(away: Away, opened: Opener) -> None:
    store = opened(retries=0)
    for _ in range(3):
        store.append(an_event())
    waiting = Thread(store.wait_for_events, 3)
    away.is_away.set()
    away.is_asked(3)
    away._log = _MemoryLog()
    away.is_away.clear()
    with pytest.raises(CheckpointError, match="beyond the head"):
        waiting.result()


@pytest.mark.parametrize("timeout", [0, WAIT])
def test_a_wait_with_an_end_raises_in_an_outage(
    away: Away, opened: Opener, timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    away.is_away.set()

    with pytest.raises(StoreUnavailableError):
        store.wait_for_events(0, timeout)
    assert warnings_in(caplog) == []


def test_what_must_be_mended_is_not_waited_for(away: Away, opened: Opener) -> None:
    store = opened()
    away.transient = False
    away.is_away.set()

    with pytest.raises(StoreUnavailableError):
        store.wait_for_events(0)


@pytest.mark.parametrize("retries", [0, 1_000_000])
def test_closing_ends_a_wait_within_an_outage(away: Away, opened: Opener, retries: int) -> None:
    store = opened(timeout=60, retries=retries)
    waiting = Thread(store.wait_for_events, 0)
    away.is_away.set()
    away.is_asked(2)

    store.close()

    with pytest.raises(StoreClosedError):
        waiting.result()


@pytest.mark.parametrize("retries", [0, 1_000_000])
@pytest.mark.parametrize("timeout", [None, 600.0])
def test_a_wait_within_an_outage_can_be_called_off(
    away: Away, opened: Opener, timeout: float | None, retries: int
) -> None:
    # Given: one that would try again for a minute
    store = opened(timeout=60, retries=retries or 1_000_000 if timeout else retries)
    stop = threading.Event()
    waiting = Thread(partial(store.wait_for_events, 0, timeout, stop=stop))
    away.is_away.set()
    away.is_asked(4)

    # When
    stop.set()

    # Then
    assert waiting.result(timeout=10) is False


def test_calling_a_wait_off_leaves_no_trace_in_its_thread(away: Away, opened: Opener) -> None:
    store = opened(timeout=2)
    stop = threading.Event()
    stop.set()

    assert store.wait_for_events(0, stop=stop) is False
    away.is_away.set()
    with pytest.raises(StoreUnavailableError):
        store.get_current_sequence()


def test_a_wait_for_a_query_goes_on_from_where_it_was_after_an_outage(
    away: Away, opened: Opener
) -> None:
    store = opened()
    store.append(an_event())
    wanted = EventQuery(entity_id="wanted")
    waiting = Thread(store.wait_for_events, 1, None, wanted)
    away.is_away.set()
    away.is_asked(3)

    away.is_away.clear()
    store.append(an_event())
    assert waiting.is_running(after=0.3)
    store.append(an_event().replace(entity_id="wanted"))

    assert waiting.result() is True
