"""logicblocks-event-store: asynchronous; its log, at INFO by default, is kept to warnings.

``BENCHMARK_LOCK=stream`` takes the lock on each stream that it offers instead of the one on the
whole log that is its default.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

# Not in this project's environment: a peer's is its own.
import structlog  # type: ignore[import-not-found]
from logicblocks.event.sources import constraints  # type: ignore[import-not-found]
from logicblocks.event.store import EventStore, conditions  # type: ignore[import-not-found]
from logicblocks.event.store.adapters import (  # type: ignore[import-not-found]
    EventSerialisationGuarantee,
    InMemoryEventStorageAdapter,
    PostgresEventStorageAdapter,
    PostgresQuerySettings,
)
from logicblocks.event.types import NewEvent  # type: ignore[import-not-found]
from psycopg_pool import AsyncConnectionPool

from benchmarks.peers.protocol import PAGE, New, Payload, Peer, serve

# It ships without its schema; these are the columns that it writes, and indexes for its reads.
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS events (
        id text PRIMARY KEY, name text NOT NULL, category text NOT NULL, stream text NOT NULL,
        position integer NOT NULL, payload jsonb NOT NULL, sequence_number bigserial NOT NULL,
        observed_at timestamptz NOT NULL, occurred_at timestamptz NOT NULL
    );
    CREATE INDEX IF NOT EXISTS by_sequence ON events (sequence_number);
    CREATE INDEX IF NOT EXISTS by_stream ON events (category, stream, position);
    CREATE INDEX IF NOT EXISTS by_category ON events (category, sequence_number);
"""


class Logicblocks(Peer):
    distribution = "logicblocks-event-store"
    threads = False
    scatters = False

    def __init__(self) -> None:
        self._pool: AsyncConnectionPool[Any] | None = None
        self._store: Any = None

    async def open(self, url: str) -> None:
        quiet = structlog.make_filtering_bound_logger(logging.WARNING)
        structlog.configure(wrapper_class=quiet)
        if urlsplit(url).scheme == "memory":
            self._store = EventStore(InMemoryEventStorageAdapter())
            return
        self._pool = AsyncConnectionPool(url, min_size=4, max_size=16, open=False)
        await self._pool.open()
        async with self._pool.connection() as connection:
            await connection.execute(_SCHEMA)
        by_stream = os.environ.get("BENCHMARK_LOCK") == "stream"
        guarantee = EventSerialisationGuarantee
        self._store = EventStore(
            PostgresEventStorageAdapter(
                connection_source=self._pool,
                serialisation_guarantee=guarantee.STREAM if by_stream else guarantee.LOG,
                query_settings=PostgresQuerySettings(scan_query_page_size=PAGE),
            )
        )

    async def append(self, events: list[New]) -> None:
        version = events[0].version - 1
        await self._stream(events[0].stream).publish(
            events=[NewEvent(name="order-placed", payload=each.as_one()) for each in events],
            condition=conditions.position_is(version - 1)
            if version
            else conditions.stream_is_empty(),
        )

    async def read_stream(self, stream: UUID) -> list[Payload]:
        return [each.payload["data"] async for each in self._stream(stream).iterate()]

    async def read_after(self, position: Any, limit: int) -> tuple[list[Payload], Any]:
        after = set() if position is None else {constraints.sequence_number_after(position)}
        found = []
        events = self._store.log().iterate(constraints=after)
        async for each in events:
            found.append(each.payload["data"])
            position = each.sequence_number
            if len(found) == limit:
                break
        await events.aclose()
        return found, position

    async def read_all(self) -> int:
        total = 0
        async for _ in self._store.log().iterate():
            total += 1
        return total

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    def _stream(self, stream: UUID) -> Any:
        return self._store.stream(category="order", stream=stream.hex)


if __name__ == "__main__":
    serve(Logicblocks())
