"""This project's store, told what to do as the peers are."""

from __future__ import annotations

import warnings
from typing import Any
from uuid import UUID

from benchmarks.peers.protocol import New, Payload, Peer, serve
from eventstore import DurabilityWarning, Event, EventStore, open_store


class EventStoreToolkit(Peer):
    distribution = "eventstore-toolkit"
    _store: EventStore

    async def open(self, url: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DurabilityWarning)  # ``settings`` tells it
            self._store = open_store(url)

    async def append(self, events: list[New]) -> None:
        expected: dict[tuple[str, str], int] = {}
        for each in events:
            expected.setdefault(("order", each.stream.hex), each.version - 1)
        new = [
            Event(
                event_type="OrderPlaced",
                entity_type="order",
                entity_id=each.stream.hex,
                data=each.payload,
                workflow_id=each.workflow,
                tags=tuple(each.tags),
                metadata=each.metadata,
            )
            for each in events
        ]
        if len(new) == 1:
            self._store.append(new[0], expected_version=events[0].version - 1)
        else:
            self._store.append_batch(new, expected_version=expected)

    async def read_stream(self, stream: UUID) -> list[Payload]:
        return [each.data for each in self._store.get_events_for_entity("order", stream.hex)]

    async def read_after(self, position: Any, limit: int) -> tuple[list[Payload], Any]:
        page = self._store.get_events_since(position or 0, limit)
        return [each.data for each in page], page[-1].sequence if page else position

    async def settings(self) -> str:
        return str(self._store.info().get("durability", ""))

    async def close(self) -> None:
        self._store.close()


if __name__ == "__main__":
    serve(EventStoreToolkit())
