"""Several workers at once on one log, told apart only by what they share.

``work`` is a function at the top of a module, called as ``work(store, *arguments)``.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Generic, TypeVar

from eventstore import EventStore, open_store
from eventstore.testing.conformance.harness import Harness
from eventstore.testing.conformance.processes import START, Processes, give_up, wait_for_all

_T = TypeVar("_T")


class Thread(Generic[_T]):
    """A daemon thread that runs a function and keeps what it returned or raised."""

    def __init__(self, work: Callable[..., _T], *arguments: Any) -> None:
        self._results: list[_T] = []
        self._error: BaseException | None = None

        def run() -> None:
            try:
                self._results.append(work(*arguments))
            except BaseException as error:  # noqa: BLE001 - raised again by result()
                self._error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        """The thread's identifier."""
        ident = self._thread.ident
        assert ident is not None
        return ident

    def is_running(self, after: float = 0.0) -> bool:
        """Return whether it still runs after ``after`` seconds."""
        self._thread.join(after)
        return self._thread.is_alive()

    def result(self, timeout: float = START) -> _T:
        """Return its result or raise its error; AssertionError if it does not end in time."""
        assert not self.is_running(timeout), f"a thread still runs after {timeout} s"
        if self._error is not None:
            raise self._error
        return self._results[0]


def in_threads(work: Callable[..., _T], each: Sequence[Sequence[Any]]) -> list[_T]:
    """Run ``work(*arguments)`` for each of ``each`` at the same time; return the results."""
    start = threading.Barrier(len(each))

    def run(*arguments: Any) -> _T:
        start.wait(START)
        return work(*arguments)

    threads = [Thread(run, *arguments) for arguments in each]
    return [thread.result() for thread in threads]


class Crew(ABC):
    """Workers that are put to work at the same time."""

    size = 6

    @abstractmethod
    def run(self, work: Callable[..., _T], each: Sequence[Sequence[Any]]) -> list[_T]:
        """Run ``work(store, *arguments)`` for each of ``each``, at most ``size`` at once;
        return the results in order."""


class ThreadCrew(Crew):
    """Threads that share a store."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    def run(self, work: Callable[..., _T], each: Sequence[Sequence[Any]]) -> list[_T]:
        return in_threads(work, [(self._store, *arguments) for arguments in each])


class StoreCrew(Crew):
    """Threads with a store each."""

    def __init__(self, harness: Harness, namespace: str) -> None:
        self._harness = harness
        self._namespace = namespace

    def run(self, work: Callable[..., _T], each: Sequence[Sequence[Any]]) -> list[_T]:
        with ExitStack() as stack:
            stores = [stack.enter_context(self._harness.open(self._namespace)) for _ in each]
            return in_threads(
                work, [(store, *arguments) for store, arguments in zip(stores, each, strict=True)]
            )


class ProcessCrew(Crew):
    """Processes with a store each."""

    size = Processes.SIZE

    def __init__(self, harness: Harness, namespace: str, processes: Processes) -> None:
        self._opening = (harness.url, harness.options_of(namespace))
        self._processes = processes

    def run(self, work: Callable[..., _T], each: Sequence[Sequence[Any]]) -> list[_T]:
        assert len(each) == self.size
        return self._processes.start(
            _work_together, [(*self._opening, work, arguments) for arguments in each]
        ).wait()


def work_in_process(
    url: str, options: dict[str, Any], work: Callable[..., _T], arguments: Sequence[Any]
) -> _T:
    """Open a store in this process and run ``work``."""
    with open_store(url, **options) as store:
        return work(store, *arguments)


def _work_together(
    url: str, options: dict[str, Any], work: Callable[..., _T], arguments: Sequence[Any]
) -> _T:
    """Run ``work`` in this process as soon as every worker has opened its store."""
    try:
        store = open_store(url, **options)
    except BaseException:
        give_up()
        raise
    with store:
        wait_for_all()
        return work(store, *arguments)
