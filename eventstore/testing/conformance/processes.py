"""Work in other processes, which share nothing with the tests but a URL."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import Pool
from multiprocessing.process import BaseProcess
from typing import Any, Final, Self

_spawn: Final = multiprocessing.get_context("spawn")

START: Final = 60.0
"""Seconds within which a process has started and imported what it needs."""

_all_ready: threading.Barrier
"""In a worker process: where it waits for the others."""


def _keep(barrier: threading.Barrier) -> None:
    global _all_ready  # noqa: PLW0603 - how a pool hands a barrier to its workers
    _all_ready = barrier


def wait_for_all() -> None:
    """In a worker process: return when all workers have come to this."""
    _all_ready.wait(START)


def give_up() -> None:
    """In a worker process: let those fail that wait for all."""
    _all_ready.abort()


class Processes:
    """Worker processes, started when first used and kept, since starting takes longest."""

    SIZE: Final = 3

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._barrier = _spawn.Barrier(self.SIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()

    def start(self, work: Callable[..., Any], each: Sequence[Sequence[Any]]) -> Running:
        """Begin ``work(*arguments)`` in a process for each of ``each``, at most ``SIZE``."""
        assert len(each) <= self.SIZE
        if self._pool is None:
            self._pool = _spawn.Pool(self.SIZE, _keep, (self._barrier,))
        self._barrier.reset()
        return Running([self._pool.apply_async(work, arguments) for arguments in each])


class Running:
    """Work that has been begun."""

    def __init__(self, results: Sequence[Any]) -> None:
        self._results = results

    def wait(self, timeout: float = START) -> list[Any]:
        """Return the results in order, or raise what the first that failed raised."""
        deadline = time.monotonic() + timeout
        return [result.get(max(deadline - time.monotonic(), 0.001)) for result in self._results]


class FreshProcess:
    """One process for work that may end badly: it is killed, interrupted or forked."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        """``work`` is given a connection to talk to the test by, and ``arguments``."""
        self._ours, self._theirs = _spawn.Pipe()
        self.process: BaseProcess = _spawn.Process(
            target=work, args=(self._theirs, *arguments), daemon=True
        )

    def __enter__(self) -> Self:
        self.process.start()
        self._theirs.close()
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self._ours.close()

    def hear(self, timeout: float = START) -> Any:
        """Return what the process says next; AssertionError if it says nothing in time."""
        assert self._ours.poll(timeout), f"the process said nothing for {timeout} s"
        return self._ours.recv()

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self.process.kill()
        self.process.join()
