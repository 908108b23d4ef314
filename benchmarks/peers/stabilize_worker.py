"""stabilize, at the event store within it. It checks no versions; they are only stored.

``BENCHMARK_CURSOR=committed`` reads by its cursor of committed transactions instead of by the
sequence.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

# Not in this project's environment: a peer's is its own.
from stabilize.events.base import (  # type: ignore[import-not-found]
    EntityType,
    Event,
    EventMetadata,
    EventType,
)
from stabilize.events.store.postgres import PostgresEventStore  # type: ignore[import-not-found]
from stabilize.events.store.sqlite import SqliteEventStore  # type: ignore[import-not-found]

from benchmarks.peers.protocol import New, Payload, Peer, serve


class Stabilize(Peer):
    distribution = "stabilize"

    def __init__(self) -> None:
        self._store: Any = None
        self._committed = os.environ.get("BENCHMARK_CURSOR") == "committed"

    async def open(self, url: str) -> None:
        if urlsplit(url).scheme == "sqlite":
            self._store = SqliteEventStore(url, create_tables=True)
        else:
            self._store = PostgresEventStore(url, create_tables=True)

    async def append(self, events: list[New]) -> None:
        self._store.append_batch(
            [
                Event(
                    event_type=EventType.CUSTOM,
                    entity_type=EntityType.WORKFLOW,
                    entity_id=_name(each.stream),
                    workflow_id=each.workflow,
                    version=each.version,
                    data=each.as_one(),
                    metadata=EventMetadata(correlation_id=each.workflow),
                )
                for each in events
            ]
        )

    async def read_stream(self, stream: UUID) -> list[Payload]:
        found = self._store.get_events_for_entity(EntityType.WORKFLOW, _name(stream))
        return [each.data["data"] for each in found]

    async def read_after(self, position: Any, limit: int) -> tuple[list[Payload], Any]:
        if self._committed:
            page, position = self._store.get_events_since_committed(position or "0", limit)
        else:
            page = self._store.get_events_since(position or 0, limit)
            position = page[-1].sequence if page else position
        return [each.data["data"] for each in page], position

    async def settings(self) -> str:
        if not isinstance(self._store, SqliteEventStore):
            return ""
        connection = self._store._get_connection()
        return ", ".join(
            f"{name}={connection.execute(f'PRAGMA {name}').fetchone()[0]}"
            for name in ("journal_mode", "synchronous")
        )

    async def close(self) -> None:
        pass


def _name(stream: UUID) -> str:
    return stream.hex[:26]  # as long as its columns


if __name__ == "__main__":
    serve(Stabilize())
