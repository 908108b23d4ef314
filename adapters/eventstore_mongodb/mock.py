"""``mongomock://``: the same backend over a fake in memory, for tests without a server.

``mongomock://`` is new each time; ``mongomock://name`` is shared within the process. The fake
has no sessions, transactions, change streams, replication or limits; our own limit of a
document's size holds all the same. What it does otherwise than a server is put right by the
classes here, which stand between it and a backend that knows nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, ClassVar, Final, NoReturn

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.errors import InvalidOperation, OperationFailure

from eventstore.backend import Capability, Options, Settings
from eventstore_mongodb.backend import MongoBackend
from eventstore_mongodb.records import OPTIONS, RAW

_named_clients: Final[dict[str, FakeClient]] = {}
"""What ``mongomock://name`` shares within the process."""


class FakeClient:
    """A client of the fake, as far as the backend uses one of PyMongo's."""

    nodes = ()
    options = SimpleNamespace(direct_connection=False)

    def __init__(self) -> None:
        from mongomock import MongoClient  # noqa: PLC0415 - a fake that only this scheme needs

        self.fake: Any = MongoClient()
        self.inserting = threading.Lock()
        """The fake looks for the ``_id`` and then inserts: what another thread inserts in between
        would be overwritten."""

    @property
    def admin(self) -> FakeDatabase:
        return self.get_database("admin")

    def get_database(self, name: str, **_: Any) -> FakeDatabase:
        return FakeDatabase(self, name)

    def server_info(self) -> Mapping[str, Any]:
        return {**self.fake.server_info(), "mongomockVersion": version("mongomock")}

    def start_session(self) -> NoReturn:
        raise InvalidOperation("the fake has no sessions")

    def close(self) -> None:
        pass


class FakeDatabase:
    """One of its databases: on it no view, capped collection or collation is made."""

    def __init__(self, client: FakeClient, name: str) -> None:
        self.client = client
        self.name = name

    def __getitem__(self, name: str) -> FakeCollection:
        return FakeCollection(self.client, self.client.fake[self.name][name])

    def list_collections(self, **_: Any) -> Sequence[Mapping[str, Any]]:
        return ()

    def command(self, name: str, *_: Any, **__: Any) -> Mapping[str, Any]:
        if name != "hello":
            raise OperationFailure("the fake has no such command")
        return {"localTime": datetime.now(UTC), "maxBsonObjectSize": 16 * 1024 * 1024}


class FakeCollection:
    """A collection that takes raw documents, and gives them where it is told to."""

    def __init__(self, client: FakeClient, fake: Any, *, is_raw: bool = False) -> None:
        self._client = client
        self._fake = fake
        self._is_raw = is_raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name)

    def with_options(self, **options: Any) -> FakeCollection:
        is_raw = self._is_raw or options.get("codec_options") is RAW
        return FakeCollection(self._client, self._fake, is_raw=is_raw)

    def find(self, *query: Any, **options: Any) -> Any:
        found = self._fake.find(*query, **options)
        return (_raw(document) for document in found) if self._is_raw else found

    def insert_one(self, document: Any) -> None:
        with self._client.inserting:
            self._fake.insert_one(_plain(document))

    def insert_many(self, documents: Sequence[Any], *, ordered: bool = True) -> None:
        with self._client.inserting:
            self._fake.insert_many([*map(_plain, documents)], ordered=ordered)

    def drop(self) -> None:
        self._fake.drop()


def _raw(document: Mapping[str, Any]) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(document, codec_options=OPTIONS), RAW)


def _plain(document: Any) -> Mapping[str, Any]:
    return bson.decode(document.raw) if isinstance(document, RawBSONDocument) else document


class MongomockBackend(MongoBackend):
    """A log in a fake collection."""

    options: ClassVar[Options] = Options()
    name: ClassVar[str] = "mongomock"
    trusted: ClassVar[float] = 0.0  # to look costs next to nothing

    _client: FakeClient

    @classmethod
    def _connect(cls, settings: Settings) -> Any:
        if not settings.path:
            return FakeClient()
        return _named_clients.setdefault(settings.path, FakeClient())

    def after_fork(self) -> None:
        self._client.inserting = threading.Lock()
        self._begin()

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset()

    def info(self) -> Mapping[str, str | int]:
        return {**super().info(), "durability": "none: gone with the process"}
