"""What the conformance suite must be told of MongoDB, and of the fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from pymongo import MongoClient
from pymongo.client_session import ClientSession

from eventstore.registry import settings_of
from eventstore.testing.conformance import Joins
from eventstore_mongodb import MongoBackend, MongomockBackend


def set_formats(url: str, namespace: str, least_reader: int, least_writer: int) -> None:
    """Note in a log which formats it asks for."""
    formats = {"reader": least_reader, "writer": least_writer}
    settings = settings_of(url, namespace=namespace)
    kind = MongomockBackend if settings.scheme == "mongomock" else MongoBackend
    backend = kind.connect(settings)
    backend._namespace.meta.update_one({"_id": "log"}, {"$set": {"format": formats}})
    backend.close()


class MongoJoins(Joins):
    """Sessions, each of a client of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextmanager
    def connect(self, namespace: str) -> Iterator[ClientSession]:
        client: MongoClient[Any] = MongoClient(self._url, w="majority", journal=True)
        with client, client.start_session() as session:
            notes = self._notes(session)
            notes.drop()
            notes.database.create_collection(notes.name)
            yield session
            if session.in_transaction:
                session.abort_transaction()
            notes.drop()

    def begin(self, connection: ClientSession) -> None:
        connection.start_transaction()

    def begin_with_snapshot(self, connection: ClientSession) -> bool:
        connection.start_transaction()
        self._notes(connection).find_one({}, session=connection)
        return True

    def commit(self, connection: ClientSession) -> None:
        connection.commit_transaction()

    def rollback(self, connection: ClientSession) -> None:
        connection.abort_transaction()

    def write_note(self, connection: ClientSession, note: str) -> None:
        self._notes(connection).insert_one({"note": note}, session=connection)

    def notes(self, connection: ClientSession) -> list[str]:
        return [found["note"] for found in self._notes(connection).find()]

    def unsuitable(self, namespace: str) -> Mapping[str, Callable[[], AbstractContextManager[Any]]]:
        return {"outside a transaction": lambda: self.connect(namespace)}

    @staticmethod
    def _notes(session: ClientSession) -> Any:
        # A transaction may span databases; one test runs at a time.
        return session.client["eventstore_notes"]["notes"]
