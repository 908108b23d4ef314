"""A worker of a campaign: a process whose threads do everything at random to one store, until
it is told to end, is killed, or finds its store closed or its log replaced."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import MutableSequence
from enum import Enum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec

from eventstore import EventStore, StoreUnavailableError, open_store
from eventstore.testing.history.calls import Calls
from eventstore.testing.history.recording import (
    Answer,
    Append,
    Failure,
    Lookup,
    Read,
    Recorder,
    Stored,
)
from eventstore.testing.history.workload import Workload

OPENING: Final = 60.0
"""Seconds within which a store can be opened, whatever fault strikes meanwhile."""
ENDING: Final = 30.0
"""Seconds within which threads and forked children end."""
_STEPS_OF_A_CHILD: Final = 12
_PR_SET_PDEATHSIG: Final = 1


class Job(msgspec.Struct, frozen=True):
    """What all workers of a round share."""

    url: str
    options: dict[str, Any]
    directory: Path
    """For the records."""
    run: str
    seed: str
    threads: int


class Order(Enum):
    """What a worker can be told."""

    FORK = "fork a child that goes on with the store it inherits"
    FORK_AND_OPEN = "fork a child that opens a store of its own"
    CLOSE = "close the store under the threads"
    END = "end"


def work(
    orders: Connection, job: Job, numbers: range, acknowledged: MutableSequence[int], place: int
) -> None:
    """Be a worker, whose threads have these numbers. ``acknowledged[place]`` is when an append
    of it was acknowledged last."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the campaign, which ends us
    logging.getLogger().addHandler(logging.NullHandler())  # that drivers complain is meant
    store = _opened(job)
    stop = threading.Event()

    def run(number: int) -> None:
        _do_steps(store, _Telling(job.directory, number, acknowledged, place), job, number, stop)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in numbers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if not orders.poll(0.05):
            continue
        try:
            order, number = orders.recv()
        except EOFError:
            os._exit(0)  # the campaign is gone
        if order is Order.END:
            stop.set()
            break
        if order is Order.CLOSE:
            store.close()
            break
        orders.send(_fork(store, order, job, number))
    deadline = time.monotonic() + ENDING
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            faulthandler.dump_traceback(all_threads=True)
            os._exit(2)
    store.close()


def _do_steps(
    store: EventStore, recorder: Recorder, job: Job, number: int, stop: threading.Event
) -> None:
    try:
        calls = Calls(store, recorder, number)
        workload = Workload(calls, job.run, f"{job.seed}:{number}")
        while not (stop.is_set() or calls.is_over):
            workload.step()
    except BaseException:  # noqa: BLE001  # the campaign must hear of it, and end
        traceback.print_exc()
        os._exit(1)


class _Telling(Recorder):
    """Tells the campaign, too, when an append was acknowledged."""

    def __init__(
        self, directory: Path, number: int, acknowledged: MutableSequence[int], place: int
    ) -> None:
        super().__init__(directory, number)
        self._acknowledged = acknowledged
        self._place = place

    def write(self, record: Append | Answer | Read | Lookup | Failure) -> None:
        super().write(record)
        if isinstance(record, Answer) and isinstance(record.outcome, Stored):
            self._acknowledged[self._place] = record.ended


def _opened(job: Job) -> EventStore:
    deadline = time.monotonic() + OPENING
    while True:
        try:
            return open_store(job.url, **job.options)
        except StoreUnavailableError:
            if time.monotonic() > deadline:
                raise


# --- Forks


def _fork(store: EventStore, order: Order, job: Job, number: int) -> tuple[int, int | None]:
    """Fork a child that does some steps as worker ``number``; return when that was, and the
    child's exit code, None if it did not end."""
    sys.stderr.flush()
    struck = time.monotonic_ns()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        pid = os.fork()
    if pid == 0:
        _be_child(store, order, job, number)
    deadline = time.monotonic() + ENDING
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return struck, os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return struck, None


def _be_child(store: EventStore, order: Order, job: Job, number: int) -> None:
    code = 1
    try:
        _end_with_parent()
        own = _opened(job) if order is Order.FORK_AND_OPEN else store
        calls = Calls(own, Recorder(job.directory, number), number)
        workload = Workload(calls, job.run, f"{job.seed}:{number}")
        for _ in range(_STEPS_OF_A_CHILD):
            if not calls.is_over:
                workload.step()
        own.close()
        code = 0
    except BaseException:  # noqa: BLE001  # a fork must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
