"""The workers of a round, from the side of the one who harms them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Final, Self

from msgspec.structs import replace

from .worker import ENDING, OPENING, Job, Order, work

_spawn: Final = multiprocessing.get_context("spawn")
_BETWEEN_LOOKS: Final = 0.002


class Worker:
    """One process, and the numbers of its threads."""

    def __init__(self, process: BaseProcess, orders: Connection, numbers: range) -> None:
        self.process = process
        self.orders = orders
        self.numbers = frozenset(numbers)
        self.started = time.monotonic_ns()

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def freeze(self) -> None:
        """Stop it; return when it has stopped."""
        self.signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.process.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] not in "TZ":
            time.sleep(_BETWEEN_LOOKS)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


class Crew:
    """Workers in a number of places; one that ends is replaced."""

    def __init__(self, job: Job, size: int) -> None:
        self._job = job
        self._acknowledged = _spawn.RawArray("q", size)
        self._numbers = count()
        self._workers: list[Worker] = []
        self._size = size
        self.hung: list[str] = []
        """Those that did not end, in words."""

    def __enter__(self) -> Self:
        self._workers = [self._start(place) for place in range(self._size)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
            worker.orders.close()
            worker.process.close()

    def _start(self, place: int) -> Worker:
        ours, theirs = _spawn.Pipe()
        threads = self._job.threads
        first = next(self._numbers) * threads
        numbers = range(first, first + threads)
        job = self._job
        if place % 2:  # tries nothing again, and so is told all the more often that it failed
            job = replace(job, options={**job.options, "retries": 0})
        arguments = (theirs, job, numbers, self._acknowledged, place)
        process = _spawn.Process(target=work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return Worker(process, ours, numbers)

    def next_number(self) -> int:
        """Return a number for a worker that nobody has."""
        return next(self._numbers) * self._job.threads

    def tend(self) -> None:
        """Replace workers that have ended; RuntimeError where one failed."""
        for place, worker in enumerate(self._workers):
            code = worker.process.exitcode
            if code is not None:
                self._judge_end(worker, code)
                worker.orders.close()
                worker.process.close()
                self._workers[place] = self._start(place)

    def _judge_end(self, worker: Worker, code: int) -> None:
        if code == 2:
            self.hung.append(f"worker {sorted(worker.numbers)}")
        elif code not in (0, -signal.SIGKILL):
            raise RuntimeError(f"a worker failed ({code}); see its own error")

    def any(self, random: Random) -> Worker:
        """Return one that is at work, if there is one, and not just starting."""
        alive = [worker for worker in self._workers if worker.process.exitcode is None]
        at_work = [
            worker
            for worker, last in zip(self._workers, self._acknowledged, strict=True)
            if worker in alive and last > worker.started
        ]
        return random.choice(at_work or alive)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop everybody for a while."""
        stopped = [worker for worker in self._workers if worker.process.exitcode is None]
        for worker in stopped:
            worker.freeze()
        try:
            yield
        finally:
            for worker in stopped:
                worker.thaw()

    def fork(self, random: Random, order: Order) -> tuple[Worker, int]:
        """Have a worker fork a child; return it, and when that was."""
        while True:
            worker = self.any(random)
            number = self.next_number()
            try:
                worker.orders.send((order, number))
                if not worker.orders.poll(OPENING + 2 * ENDING):
                    raise RuntimeError("a worker did not fork, nor say why")
                struck, code = worker.orders.recv()
            except (EOFError, ConnectionError):  # it was about to end: its log was replaced
                worker.process.join(ENDING)
                self.tend()
                continue
            if code is None:
                self.hung.append(f"worker {number}, forked from {sorted(worker.numbers)},")
            elif code:
                raise RuntimeError(f"a forked worker failed ({code}); see its own error")
            return worker, struck

    def close(self, worker: Worker) -> None:
        """Have a worker close its store under its threads, and end."""
        with suppress(ConnectionError):  # it has just ended by itself
            worker.orders.send((Order.CLOSE, 0))
        worker.process.join(2 * ENDING)
        if worker.process.exitcode is None:
            self.hung.append(f"worker {sorted(worker.numbers)}, told to close,")
            worker.kill()

    def wait_for_acknowledgement(self, since: int, seconds: float) -> bool:
        """Wait until an append was acknowledged after ``since``; return whether one was."""
        deadline = time.monotonic() + seconds
        while max(self._acknowledged) <= since:
            if time.monotonic() > deadline:
                return False
            self.tend()
            time.sleep(_BETWEEN_LOOKS)
        return True

    def end(self) -> None:
        """Have everybody end, and wait for that."""
        for worker in self._workers:
            with suppress(ConnectionError):  # it has ended by itself
                worker.orders.send((Order.END, 0))
        deadline = time.monotonic() + OPENING + 2 * ENDING
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            self._judge_end(
                worker, 2 if worker.process.exitcode is None else worker.process.exitcode
            )
