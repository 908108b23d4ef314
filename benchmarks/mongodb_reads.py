"""Finding few events in a large log on MongoDB, and what appending costs for it.

``python -m benchmarks.mongodb_reads`` starts a private server (SecantusDB: WiredTiger behind
MongoDB's protocol, not MongoDB itself), or takes one of yours by ``--url``, and prints a table.
Every event is full (workflow, two tags, metadata, about 200 bytes of data), and what is looked
for is scattered over the whole log and over its batches: 100 events of one entity, or with one
tag, are one in each thousand. Beside the store, the driver alone: one document an event, the
same indexes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from time import perf_counter
from typing import Any, Final
from uuid import uuid4

import pymongo
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo.write_concern import WriteConcern

from eventstore import EventQuery, EventStore, drop_namespace, open_store
from eventstore.bench.events import APART, BEGINNING, TYPES, payload
from eventstore.event import Event
from tests.kit.servers.mongodb import start_mongodb

_LAPS: Final = 7
_APART: Final = 1000
"""Every so many events the same entity, and the same tag, comes again."""
_WARM_UP: Final = 3
_SINGLES: Final = 150
"""Single appends timed at once, store and driver in turn."""


def scattered(number: int) -> Event:
    """Return the event of this number; its entity and tag come again 1,000 events later."""
    return Event(
        event_type=TYPES[number % len(TYPES)],
        entity_type="order",
        entity_id=f"order-{number % _APART:08}",
        data=payload(number),
        workflow_id=f"checkout-{number // 20:08}",
        tags=(f"customer:{number * 7 % _APART}", "region:eu"),
        metadata={"correlation_id": f"checkout-{number // 20:08}", "actor_id": "bench"},
        timestamp=BEGINNING + number * APART,
    )


def reads(store: EventStore, events: int) -> Iterator[tuple[str, Callable[[], int]]]:
    """Yield what is looked for, with the way to, which returns how many were found."""
    start = BEGINNING + events // 2 * APART
    window = EventQuery(from_timestamp=start, to_timestamp=start + 99 * APART)
    tagged = EventQuery(tags=("customer:7",))
    yield "entity", lambda: len(store.get_events_for_entity("order", "order-00000005"))
    yield "by tag", lambda: sum(1 for _ in store.get_events(tagged))
    yield "time window", lambda: sum(1 for _ in store.get_events(window))
    yield "count by tag", lambda: store.count_events(tagged)


def milliseconds(call: Callable[[], int], expected: int) -> float:
    """Return how long a call takes, in the middle of several; all must find as many."""
    taken = []
    for _ in range(_LAPS):
        began = perf_counter()
        found = call()
        taken.append((perf_counter() - began) * 1000)
        if found != expected:
            raise AssertionError(f"found {found}, not {expected}")
    return statistics.median(taken)


class Driver:
    """The raw limit: one document an event, and as many indexes as the store's."""

    def __init__(self, url: str) -> None:
        options: CodecOptions[Any] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
        self._client: pymongo.MongoClient[Any] = pymongo.MongoClient(url, retryWrites=False)
        self._raw = self._client.get_default_database("eventstore").get_collection(
            f"raw{uuid4().hex[:8]}",
            codec_options=options,
            write_concern=WriteConcern("majority", j=True),
        )
        keys: tuple[Any, ...] = ("last", [("keys", 1), ("last", 1)], "id", "time_index")
        self._raw.create_indexes([pymongo.IndexModel(key) for key in keys])
        self._head = 0

    def append(self, events: list[Event]) -> None:
        documents = [self._document(event) for event in events]
        if len(documents) == 1:
            self._raw.insert_one(documents[0])
        else:
            self._raw.insert_many(documents)

    def close(self) -> None:
        self._raw.drop()
        self._client.close()

    def _document(self, event: Event) -> dict[str, Any]:
        self._head += 1
        return {
            "_id": self._head,
            "last": self._head,
            "time_index": (event.timestamp - BEGINNING) // timedelta(milliseconds=1),
            "recorded_at": event.timestamp,
            "keys": [
                f"entity:{event.entity_type}/{event.entity_id}",
                f"entity_type:{event.entity_type}",
                f"entity_id:{event.entity_id}",
                f"type:{event.event_type}",
                f"workflow:{event.workflow_id}",
                *(f"tag:{tag}" for tag in event.tags),
            ],
            "id": event.event_id,
            "type": event.event_type,
            "entity_type": event.entity_type,
            "entity_id": event.entity_id,
            "workflow_id": event.workflow_id,
            "tags": list(event.tags),
            "timestamp": event.timestamp,
            "data": event.data,
            "metadata": event.metadata,
        }


def filled(store: EventStore, driver: Driver, events: int, size: int) -> float:
    """Append the log in commits of ``size``, the same to the driver alone in turn; return the
    ratio of their rates, ours by the driver's, in the middle of the turns."""
    ratios = []
    turn = max(size, _SINGLES)
    for number, start in enumerate(range(0, events, turn)):
        end = min(start + turn, events)
        batches = [
            [scattered(each) for each in range(first, min(first + size, end))]
            for first in range(start, end, size)
        ]
        began = perf_counter()
        for batch in batches:
            store.append_batch(batch)
        ours = perf_counter() - began
        if size == 1 and number > 40:
            continue  # the driver's own log need not be as long
        began = perf_counter()
        for batch in batches:
            driver.append(batch)
        theirs = perf_counter() - began
        if number >= _WARM_UP:
            ratios.append(theirs / ours)
    return statistics.median(ratios)


def table(url: str, events: int, sizes: list[int]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield (
        "| commits of | append, by the driver's | "
        + " | ".join(f"{name}, ms" for name in ("entity", "by tag", "time window", "count by tag"))
        + " |"
    )
    yield "| --- " * 6 + "|"
    for size in sizes:
        with ExitStack() as stack:
            namespace = f"reads{uuid4().hex[:8]}"
            stack.callback(drop_namespace, url, namespace=namespace, timeout=60)
            store = stack.enter_context(open_store(url, namespace=namespace, timeout=60))
            driver = Driver(url)
            stack.callback(driver.close)
            ratio = filled(store, driver, events, size)
            figures = []
            for name, call in reads(store, events):
                expected = 100 if name == "time window" else events // _APART
                figures.append(f"{milliseconds(call, expected):.1f}")
            yield f"| {size} | {ratio:.2f} | " + " | ".join(figures) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a server of yours; logs are made and removed there")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 1])
    arguments = parser.parse_args()
    with ExitStack() as stack:
        url = arguments.url
        if url is None:
            server = stack.enter_context(start_mongodb())
            url = server.url
            print(f"{server.name} {server.version}, {arguments.events:,} events")
        for line in table(url, arguments.events, arguments.sizes):
            print(line, flush=True)


if __name__ == "__main__":
    main()
