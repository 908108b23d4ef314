"""One side of a pair (``pairs.py``): a process of one installation of this package, old or new.

    python -I pair_worker.py EVENTS URL NAMESPACE WORKLOAD

Only the public API is used, for an installation of long ago must run it; EVENTS is the file that
makes the events, the same for both sides. It says that it is ready, then reads seconds from
standard input, a slice of work each, and prints events a second; when the input ends, its log is
removed.
"""

from __future__ import annotations

import gc
import runpy
import sys
import warnings
from collections.abc import Callable
from itertools import islice
from threading import Thread
from time import perf_counter
from typing import Any

from eventstore import DurabilityWarning, EventStore, drop_namespace, open_store

THREADS = 16
READ = 20_000
"""Events in the log that is read."""
PAGE = 1000


def appending(store: EventStore, numbers: Any, size: int) -> Callable[[float], float]:
    """Append batches of a size; what is appended is made while the clock stands."""

    def work(seconds: float) -> float:
        done, spent = 0, 0.0
        while spent < seconds:
            events = numbers.batch(size)
            began = perf_counter()
            if size == 1:
                store.append(events[0])
            else:
                store.append_batch(events)
            spent += perf_counter() - began
            done += size
        return done / spent

    return work


def by_threads(store: EventStore, numbers: Any) -> Callable[[float], float]:
    """Append single events by many threads."""

    def work(seconds: float) -> float:
        counts: list[int] = []
        began = perf_counter()

        def run() -> None:
            done = 0
            while perf_counter() < began + seconds:
                store.append(numbers.one())
                done += 1
            counts.append(done)

        crew = [Thread(target=run) for _ in range(THREADS)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        if len(counts) < THREADS:
            raise SystemExit("a thread failed")
        return sum(counts) / (perf_counter() - began)

    return work


def reading(store: EventStore, numbers: Any) -> Callable[[float], float]:
    """Read the log from its beginning on, and again."""
    numbers.begin_stretch(READ)
    for _ in range(READ // PAGE):
        store.append_batch(numbers.batch(PAGE))
    events = store.get_events()

    def work(seconds: float) -> float:
        nonlocal events
        done, began = 0, perf_counter()
        while perf_counter() < began + seconds:
            found = sum(1 for _ in islice(events, PAGE))
            done += found
            if found < PAGE:
                events = store.get_events()
        return done / (perf_counter() - began)

    return work


WORKLOADS: dict[str, Callable[[EventStore, Any], Callable[[float], float]]] = {
    "single": lambda store, numbers: appending(store, numbers, 1),
    "x100": lambda store, numbers: appending(store, numbers, 100),
    "x1000": lambda store, numbers: appending(store, numbers, 1000),
    "threads16": by_threads,
    "read": reading,
}


def main(events: str, url: str, namespace: str, workload: str) -> None:
    """Work in slices until the input ends."""
    warnings.simplefilter("ignore", DurabilityWarning)
    numbers = runpy.run_path(events)["Numbers"]()
    with open_store(url, namespace=namespace) as store:
        work = WORKLOADS[workload](store, numbers)
        print("ready", flush=True)
        for seconds in sys.stdin:
            gc.collect()
            print(work(float(seconds)), flush=True)
    drop_namespace(url, namespace=namespace)


if __name__ == "__main__":
    main(*sys.argv[1:])
