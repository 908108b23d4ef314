"""Many writers at once: threads of this process, or processes that share nothing but a URL."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any, Final, Self

from eventstore.bench.events import Numbers
from eventstore.errors import DurabilityWarning
from eventstore.registry import open_store

_spawn: Final = multiprocessing.get_context("spawn")

_SECONDS_TO_START: Final = 60.0
_SECONDS_TO_FINISH: Final = 60.0
_APART: Final = 100_000_000
"""Between the first event numbers of two processes, so that each writes entities of its own."""


def by_threads(threads: int, work: Callable[[], object], seconds: float) -> float:
    """Return how often a second ``threads`` together did ``work`` over ``seconds``."""
    ready = threading.Barrier(threads + 1)
    counts = [0] * threads
    faults: list[BaseException] = []

    def run(index: int) -> None:
        done = 0
        try:
            ready.wait()
            while perf_counter() < ends:
                work()
                done += 1
        except threading.BrokenBarrierError:
            pass  # interrupted before it began
        except BaseException as fault:  # noqa: BLE001 - raised again by the caller's thread
            faults.append(fault)
        counts[index] = done

    ends = float("inf")
    crew = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(threads)]
    try:
        for thread in crew:
            thread.start()
        began = perf_counter()
        ends = began + seconds
        ready.wait()
        for thread in crew:
            thread.join()
    finally:
        ends = 0.0
        ready.abort()
        for thread in crew:
            if thread.ident is not None:
                thread.join()
    if faults:
        raise faults[0]
    return sum(counts) / (perf_counter() - began)


class Processes:
    """Processes that each have a store of their own over the same log.

    They start when it is made, and are gone when ``with`` ends, whatever happens.
    """

    def __init__(self, size: int, work: Callable[..., Any], *arguments: Any) -> None:
        """Each process runs ``work(number, connection, *arguments)``; see ``appending``."""
        self._pipes: list[Connection] = []
        self._crew: list[BaseProcess] = []
        try:
            for number in range(size):
                ours, theirs = _spawn.Pipe()
                self._pipes.append(ours)
                process = _spawn.Process(
                    target=work, args=(number, theirs, *arguments), daemon=True
                )
                with _interrupts_held_back():
                    process.start()
                    self._crew.append(process)
                theirs.close()
        except BaseException:
            self._end(kill=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end(kill=kind is not None)

    def _end(self, *, kill: bool) -> None:
        for pipe in self._pipes:
            pipe.close()  # what a process that waits for its next turn ends by
        for process in self._crew:
            if kill:
                process.kill()
            process.join(_SECONDS_TO_FINISH)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()

    def turn(self, seconds: float, crew: int | None = None) -> list[float]:
        """Let all, or the first ``crew``, work for ``seconds``; return each one's rate."""
        pipes = self._pipes[:crew]
        for pipe in pipes:
            _hear(pipe, _SECONDS_TO_START)  # it is ready
        for pipe in pipes:
            pipe.send(seconds)
        answers = [_hear(pipe, seconds + _SECONDS_TO_FINISH) for pipe in pipes]
        first = min(began for _, began, _ in answers)
        last = max(ended for _, _, ended in answers)
        return [done / (last - first) for done, _, _ in answers]


def appending(number: int, connection: Connection, url: str, options: dict[str, Any]) -> None:
    """Append single events for as long as asked, turn by turn: the work of a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DurabilityWarning)  # told where the log was made
        store = open_store(url, **options)
    with store:
        numbers = Numbers((number + 1) * _APART)
        turns(connection, lambda: store.append(numbers.one()))


def turns(connection: Connection, work: Callable[[], object]) -> None:
    """Do ``work`` over and over in the turns that ``Processes.turn`` gives."""
    while True:
        try:
            connection.send("ready")
            seconds = connection.recv()
        except (EOFError, OSError):
            return  # the other end has closed: no more turns
        done = 0
        began = now = monotonic()
        while now < began + seconds:
            work()
            done += 1
            now = monotonic()
        connection.send((done, began, now))


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, not even while they import: its parent ends
    them. The signal mask is inherited, and theirs stays as it is."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hear(pipe: Connection, timeout: float) -> Any:
    if not pipe.poll(timeout):
        raise TimeoutError(f"a process of the benchmark said nothing for {timeout:g} s")
    return pipe.recv()


def fair_share(rates: Sequence[float]) -> float:
    """Return the slowest one's rate as a part of the mean."""
    return min(rates) * len(rates) / sum(rates)
