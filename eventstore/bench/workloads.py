"""What is done to a store: each function returns one figure, or the next piece of timed work."""

# ruff: noqa: S311 - chance picks the events to read, not secrets

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import count
from time import perf_counter, sleep
from typing import Final

from eventstore.bench.events import (
    APART,
    BEGINNING,
    CUSTOMERS,
    PER_ACCOUNT,
    PER_WORKFLOW,
    TYPES,
    Numbers,
)
from eventstore.bench.measure import Latencies, Step, percentiles
from eventstore.bench.writers import by_threads
from eventstore.errors import ConcurrencyError, StoreClosedError
from eventstore.query import EventQuery
from eventstore.store import EventStore

FEW: Final = 100
"""Events that a query is limited to, or matches."""
PAGE: Final = 1000
_PATIENCE: Final = 30.0
"""Seconds that a reader waits for one event."""


# --- Writing


def single(store: EventStore, numbers: Numbers) -> Step:
    """Append one event."""
    new = numbers.one()

    def step() -> int:
        store.append(new)
        return 1

    return step


def batch(store: EventStore, numbers: Numbers, size: int) -> Step:
    """Append a batch."""
    new = numbers.batch(size)

    def step() -> int:
        store.append_batch(new)
        return size

    return step


def fill(store: EventStore, numbers: Numbers, up_to: int) -> Iterator[int]:
    """Append batches until the events numbered below ``up_to`` are there, their entities scattered
    over all of them; yield how many are there, after each."""
    if numbers.next < up_to:
        numbers.begin_stretch(up_to - numbers.next)
    while numbers.next < up_to:
        store.append_batch(numbers.batch(min(PAGE, up_to - numbers.next)))
        yield numbers.next


def contention(store: EventStore, threads: int, seconds: float) -> tuple[float, float]:
    """Return successes and conflicts a second of threads that race for one entity's version."""
    numbers = Numbers()
    conflicts = [0]  # list: ``+= 1`` under the lock below
    lock = threading.Lock()

    def race() -> None:
        contested = numbers.one().replace(entity_type="contested", entity_id="one")
        while True:
            version = store.get_current_version("contested", "one")
            try:
                store.append(contested, expected_version=version)
            except ConcurrencyError:
                with lock:
                    conflicts[0] += 1
            else:
                return

    began = perf_counter()
    successes = by_threads(threads, race, seconds)
    return successes, conflicts[0] / (perf_counter() - began)


# --- Reading: a log that ``fill`` has made


def read_all(store: EventStore) -> Step:
    """Read the whole log, event by event."""
    return lambda: sum(1 for _ in store.get_events())


def catch_up(store: EventStore) -> Step:
    """Read the whole log as a consumer does, a page at a time."""

    def step() -> int:
        position = 0
        while page := store.get_events_since(position, PAGE):
            position = page[-1].sequence
        return position

    return step


def one_entity(store: EventStore, numbers: Numbers) -> Step:
    """Read an entity of 100 events, scattered over what was filled in last."""
    entity_type, entity_id, _ = numbers.stretch.any_account()
    return lambda: _all_there(store.get_events_for_entity(entity_type, entity_id), PER_ACCOUNT)


def one_workflow(store: EventStore, numbers: Numbers) -> Step:
    """Read a workflow of 20 events, scattered over what was filled in last."""
    workflow = numbers.stretch.any_workflow()
    return lambda: _all_there(store.get_events_for_workflow(workflow), PER_WORKFLOW)


def by_type(store: EventStore, numbers: Numbers) -> Step:
    """Read 100 events of a type, from somewhere in the log on."""
    after = random.randrange(max(numbers.next - FEW * len(TYPES), 1))
    query = EventQuery(event_types=(random.choice(TYPES),), from_sequence=after, limit=FEW)
    return lambda: _all_there(store.get_events(query), FEW)


def by_tag(store: EventStore, numbers: Numbers) -> Step:
    """Read the last events of a customer, by tag."""
    query = EventQuery(
        tags=(f"customer:{random.randrange(CUSTOMERS)}",), limit=FEW, ascending=False
    )
    wanted = min(FEW, numbers.next // CUSTOMERS)
    return lambda: _all_there(store.get_events(query), wanted)


def by_time(store: EventStore, numbers: Numbers) -> Step:
    """Read a window of time with 100 events."""
    start = BEGINNING + random.randrange(max(numbers.next - FEW, 1)) * APART
    query = EventQuery(
        from_timestamp=start, to_timestamp=start + FEW * APART - timedelta(microseconds=1)
    )
    return lambda: _all_there(store.get_events(query), FEW)


def count_by_tag(store: EventStore, numbers: Numbers) -> Step:
    """Count the events of a customer, by tag."""
    query = EventQuery(tags=(f"customer:{random.randrange(CUSTOMERS)}",))
    wanted = numbers.next // CUSTOMERS

    def call() -> int:
        found = store.count_events(query)
        if found < wanted:
            raise AssertionError(f"counted {found} events")
        return found

    return call


def _all_there(events: Iterable[object], wanted: int) -> int:
    found = sum(1 for _ in events)
    if found < wanted:
        raise AssertionError(f"found {found} of {wanted} events")
    return found


# --- Waiting


def wake_up(writer: EventStore, reader: EventStore, numbers: Numbers, samples: int) -> Latencies:
    """Return how long it takes from calling append to a waiting reader's return."""
    position = count(writer.get_current_sequence())

    def wait() -> bool:
        try:
            return reader.wait_for_events(next(position), timeout=_PATIENCE)
        except StoreClosedError:
            return False  # an interrupt: nobody waits for this thread

    return woken(lambda: single(writer, numbers), wait, samples)


def woken(prepare: Callable[[], Step], wait: Callable[[], bool], samples: int) -> Latencies:
    """Return how long it takes from a write to the end of the wait for it in another thread;
    ``wait`` returns False where there is nothing more to wait for."""
    ends: list[float] = []
    waiting = threading.Event()
    seen = threading.Event()

    def read() -> None:
        for _ in range(samples):
            waiting.set()
            if not wait():
                return
            ends.append(perf_counter())
            seen.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    began: list[float] = []
    for _ in range(samples):
        write = prepare()
        waiting.wait(_PATIENCE)
        waiting.clear()
        sleep(random.uniform(0.005, 0.05))  # readers wait for long, as a rule
        seen.clear()
        began.append(perf_counter())
        write()
        if not seen.wait(_PATIENCE):
            raise TimeoutError(f"a waiting reader did not wake up within {_PATIENCE:g} s")
    thread.join()
    return percentiles([end - start for start, end in zip(began, ends, strict=True)])
