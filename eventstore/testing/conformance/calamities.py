"""What GroupCommitTests do to a store in a process of its own: interrupts, signals, forks.

Each function opens a store and returns a report, or raises.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final
from uuid import UUID

from eventstore import Event, EventStore, EventStoreError, StoreClosedError, open_store

GIVE_UP: Final = 50.0
"""Seconds after which such a process shows where it hangs, and ends."""

_PACE: Final = 0.003
"""Seconds between two signals."""

_INTERRUPTED_AT_MOST: Final = 5
"""Times that one append is interrupted: where an append takes longer than the time between two
signals, it would otherwise never get through."""


def _note(entity_id: str) -> Event:
    return Event(event_type="Noted", entity_type="note", entity_id=entity_id)


def _append_until(store: EventStore, stop: threading.Event, entity_id: str) -> list[UUID]:
    acknowledged = []
    while not stop.is_set():
        acknowledged.append(store.append(_note(entity_id)).event_id)
    return acknowledged


class _Others:
    """Threads that append beside the main one."""

    def __init__(self, store: EventStore, count: int) -> None:
        self._stop = threading.Event()
        self._acknowledged: list[UUID] = []
        self._errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                self._acknowledged += _append_until(store, self._stop, f"other-{number}")
            except BaseException as error:  # noqa: BLE001 - raised again by stop()
                self._errors.append(error)

        self._threads = [
            threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[UUID]:
        """Stop them and return what they appended; raise what went wrong in one."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "an appending thread hangs"
        for error in self._errors:
            raise error
        return self._acknowledged


class _Signals:
    """Sends the main thread a signal now and then, each when the last one has been handled."""

    def __init__(self, number: signal.Signals, handle: Callable[[], None]) -> None:
        self._number = number
        self._stop = threading.Event()
        self._handled = threading.Event()
        self._handled.set()

        def handler(*_: object) -> None:
            try:
                handle()
            finally:
                self._handled.set()

        signal.signal(number, handler)
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        # Uneven, so that they strike at all kinds of moments.
        count = 0
        while not self._stop.wait(_PACE * (0.3 + count * 0.37 % 1)):
            if self._handled.is_set():
                self._handled.clear()
                signal.pthread_kill(main, self._number)
                count += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        signal.signal(self._number, signal.SIG_IGN)


def interrupt_appends(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Let Ctrl-C strike the main thread's appends, alone and beside others."""
    armed = False
    interrupted = 0

    def interrupt() -> None:
        nonlocal armed
        if armed:  # only within the append, and once for each try
            armed = False
            raise KeyboardInterrupt

    expected: list[UUID] = []
    with open_store(url, **options) as store:
        for others in (0, 1, 4):
            beside = _Others(store, others)
            signals = _Signals(signal.SIGINT, interrupt)
            until = time.monotonic() + 1.2
            while time.monotonic() < until:
                event = _note("main")
                tries = 0
                done = False
                while not done:
                    try:
                        armed = tries < _INTERRUPTED_AT_MOST
                        store.append(event)
                        armed = False
                        done = True
                    except KeyboardInterrupt:
                        tries += 1
                interrupted += tries
                expected.append(event.event_id)
            signals.stop()
            expected += beside.stop()
        events = list(store.get_events())
        head = store.get_current_sequence()
    assert [event.sequence for event in events] == list(range(1, head + 1))
    found = Counter(event.event_id for event in events)
    return {
        "interrupted": interrupted,
        "missing": [each for each in expected if each not in found],
        "unexpected": list(set(found) - set(expected)),
        "stored twice": sum(found.values()) - len(found),
    }


def interrupt_wait(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Let Ctrl-C strike wait_for_events, and use the store afterwards."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.main_thread().ident
    assert main is not None
    with open_store(url, **options) as store:
        threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
        try:
            store.wait_for_events(0, timeout=GIVE_UP)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
        return {"interrupted": interrupted, "sequence": store.append(_note("after")).sequence}


def append_in_signal_handler(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Append in a signal handler that interrupts appends."""
    errors: set[str] = set()
    acknowledged = handled = 0

    with open_store(url, **options) as store:

        def handle() -> None:
            nonlocal acknowledged, handled
            handled += 1
            try:
                store.append(_note("handler"))
                acknowledged += 1
            except EventStoreError as error:
                errors.add(type(error).__name__)

        beside = _Others(store, 2)
        signals = _Signals(signal.SIGUSR1, handle)
        until = time.monotonic() + 1.2
        main = 0
        while time.monotonic() < until:
            store.append(_note("main"))
            main += 1
        signals.stop()
        theirs = len(beside.stop())
        stored = store.count_events()
    return {
        "handled": handled,
        "errors": sorted(errors),
        "acknowledged": acknowledged + main + theirs,
        "stored": stored,
    }


def _fork(child: Callable[[], None]) -> int:
    """Run ``child`` in a forked process; return its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        # A child would wait forever for the parent's watchdog, which the fork does not copy.
        faulthandler.cancel_dump_traceback_later()
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            faulthandler.dump_traceback_later(GIVE_UP / 3, exit=True)  # shows where it hangs
            child()
            code = 0
        except BaseException:  # noqa: BLE001 - shown
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    faulthandler.dump_traceback_later(GIVE_UP, exit=True)
    deadline = time.monotonic() + GIVE_UP / 2
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGKILL


def fork_while_appending(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Fork while other threads append, so that locks may be held and queues be full."""
    with open_store(url, **options) as store:
        beside = _Others(store, 3)

        def use(child: str) -> None:
            for version in range(1, 6):
                recorded = store.append(_note(child))
                assert recorded.version == version
                assert store.get_event_by_id(recorded.event_id) == recorded
            assert len(store.get_events_for_entity("note", child)) == 5
            sequences = [event.sequence for event in store.get_events()]
            assert sequences == list(range(1, len(sequences) + 1))
            store.close()

        codes = []
        for number in range(3):
            assert store.wait_for_events(store.get_current_sequence(), timeout=20)
            codes.append(_fork(partial(use, f"child-{number}")))
        before = store.get_current_sequence()
        went_on = store.wait_for_events(before, timeout=20)
        beside.stop()
        return {"exit codes": codes, "appended after": went_on}


def fork_and_close(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Close the store in a forked child, and go on in the parent."""
    with open_store(url, **options) as store:
        store.append(_note("parent"))

        def close() -> None:
            store.close()
            try:
                store.append(_note("child"))
            except StoreClosedError:
                return
            raise AssertionError("the store is closed, but takes appends")

        codes = [_fork(close)]
        return {"exit codes": codes, "sequence": store.append(_note("parent")).sequence}


def append_until_killed(connection: Connection, url: str, options: dict[str, Any]) -> None:
    """Append from several threads, and tell of every append that returned."""
    tell = threading.Lock()
    with open_store(url, **options) as store:

        def work(number: int) -> None:
            while True:
                recorded = store.append(_note(f"killed-{number}"))
                with tell:
                    connection.send(recorded.event_id)

        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
