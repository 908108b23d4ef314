"""eventsourcing, at its application recorder: the lowest public level that keeps events.

Its applications add a mapper and a domain model on top, which cost more. The payload is JSON
by the standard library, as its own transcoder makes it.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

# Not in this project's environment: a peer's is its own.
from eventsourcing.persistence import (  # type: ignore[import-not-found]
    InfrastructureFactory,
    StoredEvent,
)
from eventsourcing.utils import Environment  # type: ignore[import-not-found]

from benchmarks.peers.protocol import New, Payload, Peer, serve


class Eventsourcing(Peer):
    distribution = "eventsourcing"

    def __init__(self) -> None:
        self._factory: Any = None
        self._recorder: Any = None

    async def open(self, url: str) -> None:
        self._factory = InfrastructureFactory.construct(Environment(env=_environment(url)))
        self._recorder = self._factory.application_recorder()

    async def append(self, events: list[New]) -> None:
        self._recorder.insert_events(
            [
                StoredEvent(
                    originator_id=each.stream,
                    originator_version=each.version,
                    topic="orders:OrderPlaced",
                    state=json.dumps(each.as_one()).encode(),
                )
                for each in events
            ]
        )

    async def read_stream(self, stream: UUID) -> list[Payload]:
        return [_payload(each) for each in self._recorder.select_events(stream)]

    async def read_after(self, position: Any, limit: int) -> tuple[list[Payload], Any]:
        page = self._recorder.select_notifications(
            start=position or 0, limit=limit, inclusive_of_start=False
        )
        return [_payload(each) for each in page], page[-1].id if page else position

    async def settings(self) -> str:
        datastore: Any = getattr(self._recorder, "datastore", None)
        if type(datastore).__name__ != "SQLiteDatastore":
            return ""
        with datastore.transaction(commit=False) as cursor:
            found = []
            for name in ("journal_mode", "synchronous"):
                cursor.execute(f"PRAGMA {name}")
                found.append(f"{name}={cursor.fetchone()[0]}")
        return ", ".join(found)

    async def close(self) -> None:
        self._factory.close()


def _payload(event: Any) -> Payload:
    payload: Payload = json.loads(event.state)["data"]
    return payload


def _environment(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return {"PERSISTENCE_MODULE": "eventsourcing.popo"}
    if parts.scheme == "sqlite":
        return {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": unquote(parts.path[1:]),
            "SQLITE_LOCK_TIMEOUT": "60",
        }
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.removeprefix("/"),
        "POSTGRES_HOST": parts.hostname or "",
        "POSTGRES_PORT": str(parts.port or 5432),
        "POSTGRES_USER": unquote(parts.username or ""),
        "POSTGRES_PASSWORD": unquote(parts.password or ""),
        "POSTGRES_POOL_SIZE": "16",
    }


if __name__ == "__main__":
    serve(Eventsourcing())
