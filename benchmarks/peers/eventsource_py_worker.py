"""eventsource-py: its stores are asynchronous, so its writers are tasks of one event loop."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

# Not in this project's environment: a peer's is its own.
from eventsource import (  # type: ignore[import-not-found]
    DomainEvent,
    ExpectedVersion,
    InMemoryEventStore,
    PostgreSQLEventStore,
    SQLiteEventStore,
    StreamId,
    register_event,
)
from eventsource.ports import FeedReadOptions  # type: ignore[import-not-found]
from sqlalchemy.ext.asyncio import create_async_engine  # type: ignore[import-not-found]

from benchmarks.peers.protocol import New, Payload, Peer, serve


@register_event
class OrderPlaced(DomainEvent):  # type: ignore[misc]  # the peer's
    aggregate_type: str = "order"
    order: dict[str, Any]
    workflow: str
    tags: list[str]
    details: dict[str, Any]


class EventsourcePy(Peer):
    distribution = "eventsource-py"
    threads = False
    scatters = False

    def __init__(self) -> None:
        self._store: Any = None

    async def open(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "memory":
            self._store = InMemoryEventStore()
        elif parts.scheme == "sqlite":
            self._store = SQLiteEventStore(unquote(parts.path[1:]), busy_timeout=60_000)
        else:
            address = parts._replace(scheme="postgresql+asyncpg").geturl()
            engine = create_async_engine(address, pool_size=16)
            self._store = PostgreSQLEventStore(engine, create_schema=True, owns_engine=True)
        await self._store.current_position()

    async def append(self, events: list[New]) -> None:
        stream = events[0].stream
        new = [
            OrderPlaced(
                aggregate_id=stream,
                aggregate_version=each.version,
                order=each.payload,
                workflow=each.workflow,
                tags=each.tags,
                details=each.metadata,
            )
            for each in events
        ]
        expected = ExpectedVersion.exact(events[0].version - 1)
        await self._store.append(_stream(stream), new, expected)

    async def read_stream(self, stream: UUID) -> list[Payload]:
        return [each.event.order async for each in self._store.read_stream(_stream(stream))]

    async def read_after(self, position: Any, limit: int) -> tuple[list[Payload], Any]:
        found = []
        async for each in self._store.read_all(position, FeedReadOptions(limit=limit)):
            found.append(each.event.order)
            position = each.position
        return found, position

    async def read_all(self) -> int:
        total = 0
        async for _ in self._store.read_all():
            total += 1
        return total

    async def settings(self) -> str:
        if not isinstance(self._store, SQLiteEventStore):
            return ""
        connection = await self._store._conn()
        found = []
        for name in ("journal_mode", "synchronous"):
            async with connection.execute(f"PRAGMA {name}") as cursor:
                found.append(f"{name}={(await cursor.fetchone())[0]}")
        return ", ".join(found)

    async def close(self) -> None:
        if hasattr(self._store, "close"):
            await self._store.close()


def _stream(stream: UUID) -> Any:
    return StreamId(aggregate_id=stream, category="order")


if __name__ == "__main__":
    serve(EventsourcePy())
