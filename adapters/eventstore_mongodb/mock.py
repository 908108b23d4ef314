"""``mongomock://``: the same backend over a fake in memory, for tests without a server.

``mongomock://`` is new each time; ``mongomock://name`` is shared within the process. The fake
has no sessions, transactions, change streams, replication or limits; our own limit of a
document's size holds all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.database import Database

from eventstore.backend import Capability, Settings
from eventstore_mongodb.backend import MongoBackend
from eventstore_mongodb.connections import Clock, Server
from eventstore_mongodb.opening import Namespace
from eventstore_mongodb.reading import CommitReader, Commits
from eventstore_mongodb.records import OPTIONS, RAW

_named_clients: Final[dict[str, Any]] = {}
"""What ``mongomock://name`` shares within the process."""


def _raw(document: Mapping[str, Any]) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(document, codec_options=OPTIONS), RAW)


class MongomockBackend(MongoBackend):
    """A log in a fake collection."""

    trusted: ClassVar[float] = 0.0  # to look costs next to nothing

    _inserting: ClassVar = threading.Lock()
    """The fake looks for the ``_id`` and then inserts: what another thread inserts in between
    would be overwritten."""

    @classmethod
    def _connect(cls, settings: Settings) -> Any:
        from mongomock import MongoClient  # noqa: PLC0415 - a fake that only this scheme needs

        settings.refuse_driver_options()
        if not settings.path:
            return MongoClient()
        return _named_clients.setdefault(settings.path, MongoClient())

    @classmethod
    def _database(cls, client: Any, settings: Settings) -> Database[Any]:
        database: Database[Any] = client.get_database("eventstore")
        return database

    def _describe(self, client: Any) -> Server:
        return Server(version=client.server_info()["version"])

    def _check(self, namespace: Namespace) -> None:
        pass  # there are no views, capped collections or shards

    def _clock_of(self, client: Any) -> Clock:
        return Clock(lambda: datetime.now(UTC))

    def _reader_of(self, commits: Commits, **session: Any) -> CommitReader:
        return CommitReader(commits, _raw, log_format=self._log_format, **session)

    def _insert(
        self, commits: Commits, documents: Sequence[RawBSONDocument], **session: Any
    ) -> None:
        with MongomockBackend._inserting:
            for document in documents:
                commits.insert_one(bson.decode(bytes(document.raw)), **session)

    def close(self) -> None:
        pass

    def after_fork(self) -> None:
        MongomockBackend._inserting = threading.Lock()
        self._bind(self._client)
        self._begin()

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset()

    def durability_risks(self) -> Sequence[str]:
        return ()

    def info(self) -> Mapping[str, str | int]:
        return {
            "backend": "mongomock",
            "server": f"mongomock {self._server.version}",
            "durability": "none: gone with the process",
        }
