"""What other processes do in the Redis tests, and what their log must show in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event as Flag
from typing import Any, Final

from eventstore import Event, EventStore, open_store
from eventstore.testing.conformance.base import assert_log_is_sound
from eventstore.testing.conformance.processes import FreshProcess
from tests.kit.servers.redis import RedisServer

StartServer = Callable[..., RedisServer]
"""Starts a server, with options of redis.conf."""

WAIT: Final = 60.0
"""Seconds within which whatever must happen has happened, on a busy machine too."""


def some_events(worker: str, round_: int, size: int) -> list[Event]:
    """Return a batch that tells who wrote it and when."""
    return [
        Event(
            event_type="Worked",
            entity_type="worker",
            entity_id=worker,
            workflow_id=f"round {round_}",
            tags=("work", worker),
            data={"round": round_, "size": size, "place": place},
        )
        for place in range(size)
    ]


def append_until(
    connection: Connection, stop: Flag, url: str, options: Mapping[str, Any], worker: str
) -> None:
    """Append batch upon batch until told to stop; say when that has begun, and in the end how
    many were acknowledged."""
    with open_store(url, timeout=WAIT, retries=10_000, **options) as store:
        for round_ in count(1):
            store.append_batch(some_events(worker, round_, 1 + round_ % 3))
            if round_ == 1:
                connection.send("begun")
            if stop.is_set():
                connection.send(round_)
                return


def append_one_batch(connection: Connection, url: str, namespace: str, size: int) -> None:
    """Append one large batch, having said so."""
    with open_store(url, namespace=namespace, timeout=WAIT) as store:
        connection.send("begins")
        store.append_batch(some_events("large", 1, size))
        connection.send("done")


@contextmanager
def load(url: str, *, workers: int = 3, **options: Any) -> Iterator[Callable[[], dict[str, int]]]:
    """Have processes append; the function given ends that, and returns how many batches each
    worker was told are stored."""
    stop = get_context("spawn").Event()
    with ExitStack() as stack:
        crew = {
            name: stack.enter_context(FreshProcess(append_until, stop, url, options, name))
            for name in (f"w{number}" for number in range(workers))
        }

        for process in crew.values():
            assert process.hear() == "begun"

        def end() -> dict[str, int]:
            stop.set()
            return {name: process.hear(WAIT) for name, process in crew.items()}

        yield end


def wait_for_growth(store: EventStore, by: int, since: int | None = None) -> int:
    """Return the head once it has grown by so many events."""
    before = store.get_current_sequence() if since is None else since
    deadline = time.monotonic() + WAIT
    while (head := store.get_current_sequence()) < before + by:
        assert time.monotonic() < deadline, f"the head stays at {head}"
        time.sleep(0.005)
    return head


def assert_all_there(store: EventStore, acknowledged: Mapping[str, int]) -> None:
    """Assert that the log is sound and holds each acknowledged batch once, whole, in order."""
    rounds: dict[str, list[tuple[int, int]]] = {worker: [] for worker in acknowledged}
    for event in assert_log_is_sound(store):
        rounds[event.entity_id].append((event.data["round"], event.data["place"]))
    for worker, told in acknowledged.items():
        assert rounds[worker] == [
            (round_, place) for round_ in range(1, told + 1) for place in range(1 + round_ % 3)
        ]
        assert store.get_current_version("worker", worker) == len(rounds[worker])
    assert store.count_events() == sum(map(len, rounds.values()))
