"""The raw limit of MongoDB: PyMongo, with one document an event and as many indexes as ours.

The driver encodes the payloads, so inside the clock. Reading is compared over the same documents,
those that the store wrote. ``insert_many`` is ordered, as a log is; unordered was no faster.
"""

from __future__ import annotations

from typing import Any, Final

import pymongo
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo.write_concern import WriteConcern

from benchmarks.contest import Raw
from eventstore.backend import to_microseconds
from eventstore.bench.measure import Step
from eventstore.event import Event

_DATABASE: Final = "eventstore"
_INDEXES: Final = ("last", (("keys", 1), ("last", 1)), "id", "time_index")
"""As the store's: of the head, of keys, of ids and of times."""


class RawMongodb(Raw):
    """See the module; ``namespace`` is that of the log of ours to read."""

    def __init__(self, url: str, namespace: str) -> None:
        super().__init__()
        options: CodecOptions[Any] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
        self._client: pymongo.MongoClient[Any] = pymongo.MongoClient(url, retryWrites=False)
        database = self._client.get_default_database(_DATABASE).with_options(
            codec_options=options, write_concern=WriteConcern("majority", j=True)
        )
        self._raw = database["raw"]
        self._raw.drop()
        self._raw.create_indexes(
            [pymongo.IndexModel(keys if isinstance(keys, str) else list(keys)) for keys in _INDEXES]
        )
        self._commits = database[f"{namespace}.commits"]
        self._head = 0

    def single(self) -> Step:
        (document,) = self._documents(1)

        def step() -> int:
            self._raw.insert_one(document)
            return 1

        return step

    def batch(self, size: int) -> Step:
        documents = self._documents(size)

        def step() -> int:
            self._raw.insert_many(documents)
            return size

        return step

    def read_all(self) -> Step:
        # A large commit's events stand in parts: documents too, whose _id is text. It has none
        # itself.
        return lambda: sum(
            len(document.get("events", ())) for document in self._commits.find().sort("_id")
        )

    def close(self) -> None:
        self._raw.drop()
        self._client.close()

    def _documents(self, size: int) -> list[dict[str, Any]]:
        return [self._document(event) for event in self.numbers.batch(size)]

    def _document(self, event: Event) -> dict[str, Any]:
        self._head += 1
        return {
            "_id": self._head,
            "last": self._head,
            "time_index": to_microseconds(event.timestamp),
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
