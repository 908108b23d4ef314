"""Runs workers, in processes of their own where the backend allows, and collects what they
recorded."""

from __future__ import annotations

import multiprocessing
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from eventstore.backend import Capability
from eventstore.errors import CorruptLogError
from eventstore.registry import open_store
from eventstore.store import EventStore
from eventstore.testing.history.calls import Calls
from eventstore.testing.history.recording import (
    NOBODY,
    Failure,
    History,
    LogEntry,
    Reason,
    Recorder,
    load_operations,
)
from eventstore.testing.history.workload import Workload

START: Final = 60.0
"""Seconds within which every worker has opened the store."""
GRACE: Final = 30.0
"""Seconds within which every worker ends its last call."""

# A forked worker would inherit this process's threads' locks in whatever state they are.
_spawn: Final = multiprocessing.get_context("spawn")

Workers = Sequence[BaseProcess]


class _Job(msgspec.Struct, frozen=True):
    """What all workers of a history share."""

    url: str
    options: dict[str, Any]
    directory: Path
    run: str
    seed: int
    seconds: float
    threads: int


def run_history(
    url: str,
    *,
    seconds: float,
    workers: int = 6,
    threads: int = 2,
    seed: int | None = None,
    disturb: Callable[[Workers], None] | None = None,
    **options: Any,
) -> History:
    """Work on the log at ``url`` from ``workers`` processes of ``threads`` threads each, for
    ``seconds``, and return what happened. ``options`` are those of ``open_store``.

    Where the backend cannot be shared by processes, the threads share one store. ``disturb``
    is called meanwhile with the processes: it may kill some of them, or the engine, if that
    works again when it returns. Processes are spawned: a script calls this beneath
    ``if __name__ == "__main__":``. ``seed`` repeats each worker's choices, though never their
    interleaving. Raises RuntimeError if a worker fails or does not end.
    """
    seed = secrets.randbits(32) if seed is None else seed
    with TemporaryDirectory(prefix="eventstore-history-") as directory:
        job = _Job(
            url, options, Path(directory), secrets.token_hex(4), seed, seconds, max(1, threads)
        )
        store = open_store(url, **options)
        try:
            start = store.get_current_sequence()
            if Capability.MULTI_PROCESS in store.capabilities:
                _run_processes(job, workers, disturb)
            else:
                _run_threads(job, store, range(workers * job.threads), disturb)
            log, failure = read_log(store)
        finally:
            store.close()
        return History([*load_operations(job.directory), *failure], log, start)


def read_log(store: EventStore) -> tuple[list[LogEntry], list[Failure]]:
    """Return the whole log, as far as it can be read, and what stands against the rest."""
    log: list[LogEntry] = []
    began = time.monotonic_ns()
    try:
        log.extend(map(LogEntry.of, store.get_events()))
    except CorruptLogError as error:
        ended = time.monotonic_ns()
        return log, [
            Failure(NOBODY, "a read of the whole log", began, ended, str(error), Reason.UNEXPECTED)
        ]
    return log, []


def _run_processes(job: _Job, workers: int, disturb: Callable[[Workers], None] | None) -> None:
    opened, begin = _spawn.Semaphore(0), _spawn.Event()
    processes = [
        _spawn.Process(target=_process, args=(job, number, opened, begin), daemon=True)
        for number in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        _await_opened(opened, processes)
        begin.set()
        if disturb is not None:
            disturb(processes)
        deadline = time.monotonic() + job.seconds + 2 * GRACE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                raise RuntimeError(f"worker {process.name} did not end in time")
            if process.exitcode and not (disturb is not None and process.exitcode < 0):
                raise RuntimeError(f"worker {process.name} ended with {process.exitcode}")
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()
            process.close()


def _await_opened(opened: Semaphore, processes: Workers) -> None:
    deadline = time.monotonic() + START
    for _ in processes:
        while not opened.acquire(timeout=0.1):
            for process in processes:
                if process.exitcode is not None:
                    raise RuntimeError(f"worker {process.name} could not start; see its own error")
            if time.monotonic() > deadline:
                raise RuntimeError("not every worker could start in time")


def _process(job: _Job, number: int, opened: Semaphore, begin: Event) -> None:
    with open_store(job.url, **job.options) as store:
        opened.release()
        if not begin.wait(START):
            raise RuntimeError("the other workers could not start in time")
        workers = range(number * job.threads, (number + 1) * job.threads)
        _run_threads(job, store, workers, None)


def _run_threads(
    job: _Job, store: EventStore, workers: range, disturb: Callable[[Workers], None] | None
) -> None:
    errors: list[BaseException] = []
    threads = [
        threading.Thread(target=_work, args=(job, store, worker, errors), daemon=True)
        for worker in workers
    ]
    for thread in threads:
        thread.start()
    if disturb is not None:
        disturb(())
    deadline = time.monotonic() + job.seconds + GRACE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            raise RuntimeError("a worker did not end in time")
    if errors:
        raise RuntimeError("a worker failed") from errors[0]


def _work(job: _Job, store: EventStore, worker: int, errors: list[BaseException]) -> None:
    try:
        recorder = Recorder(job.directory, worker)
        try:
            workload = Workload(Calls(store, recorder, worker), job.run, f"{job.seed}:{worker}")
            deadline = time.monotonic() + job.seconds
            while time.monotonic() < deadline:
                workload.step()
        finally:
            recorder.close()
    except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits
        errors.append(error)
