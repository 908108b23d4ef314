"""The server is known by what only it says, not by what it announces itself as.

None of the others can be run here: what they answer is put together from what could be found (the
replies of Azure Cosmos DB in its maker's samples, names of fields in sources and reports for
FerretDB and DocumentDB), and where they are is how MongoDB's drivers know them.
"""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.errors import OperationFailure

from eventstore import ConfigurationError, drop_namespace, open_store
from eventstore.testing.conformance.base import note
from eventstore_mongodb import backend, engine
from eventstore_mongodb.engine import heeds_concerns, server_name
from tests.kit.servers.mongodb import MongoServer

MONGOD: dict[str, Any] = {
    "version": "8.2.1",
    "gitVersion": "3312bdcf28aa65f5930005e21c2cb130f648b8c3",
    "modules": [],
    "allocator": "tcmalloc-google",
    "storageEngines": ["devnull", "wiredTiger"],
}
NONE = "0" * 40
SECANTUS = {"version": "8.2.11", "secantusVersion": "0.5.3", "gitVersion": NONE}
COSMOS = {
    "version": "4.0.0",
    "versionArray": [4, 0, 0, 0],
    "bits": 64,
    "maxBsonObjectSize": 16777216,
    "ok": 1,
}
FERRET = {
    "version": "7.0.42",
    "gitVersion": "6c1f1e3a60b2d4c9d7a3e5f8091b2c3d4e5f6071",
    "modules": [],
    "sysInfo": "deprecated",
    "ferretdbVersion": "v1.24.0",
}

KNOWN: list[tuple[dict[str, Any], str]] = [
    (MONGOD, "MongoDB 8.2.1"),
    (SECANTUS, "SecantusDB 0.5.3, announced as MongoDB 8.2.11"),
]
OTHERS: list[tuple[dict[str, Any], dict[str, Any], list[str], str]] = [
    (COSMOS, {}, [], "a server announced as MongoDB 4.0.0"),
    (COSMOS, {"setName": "globaldb"}, [], "Azure Cosmos DB, announced as MongoDB 4.0.0"),
    (MONGOD, {}, ["shop-eastus.mongo.cosmos.azure.com"], "Azure Cosmos DB, announced"),
    (FERRET, {}, [], "FerretDB, announced as MongoDB 7.0.42"),
    (
        {"version": "7.0.0"},
        {"msg": "isdbgrid", "internal": {"documentdb_versions": ["0.113-0", "0.113.0"]}},
        [],
        "DocumentDB (which Azure offers",
    ),
    ({"version": "5.0.0"}, {"internal": {"cosmos_versions": ["1"]}}, [], "DocumentDB"),
    ({"version": "5.0.0"}, {}, ["a.b", "shop.docdb.amazonaws.com"], "Amazon DocumentDB, announced"),
    ({"version": "7.0.0", "gitVersion": NONE}, {}, [], "a server announced as MongoDB 7.0.0"),
    ({"version": "7.0.0"}, {}, ["localhost"], "a server announced as MongoDB 7.0.0"),
]


@pytest.mark.parametrize(("build", "name"), KNOWN)
def test_those_that_keep_the_guarantees_are_known(build: dict[str, Any], name: str) -> None:
    assert server_name(build, {"setName": "rs0"}, ["localhost"]) == (name, True)


@pytest.mark.parametrize(("build", "hello", "hosts", "name"), OTHERS)
def test_others_are_named_and_not_known(
    build: dict[str, Any], hello: dict[str, Any], hosts: list[str], name: str
) -> None:
    said, is_known = server_name(build, hello, hosts)
    assert said.startswith(name)
    assert not is_known


def test_an_open_store_names_the_server_that_was_started(
    server: MongoServer, namespace: str
) -> None:
    with open_store(server.url, namespace=namespace) as store:
        assert str(store.info()["server"]).startswith(f"{server.name} ")


def test_another_engine_is_refused_by_name_unless_it_is_unchecked(
    server: MongoServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that answers as another does
    genuine = engine.described

    def answering_as_another(database: Any) -> Any:
        database.client.server_info = lambda: COSMOS
        return genuine(database)

    monkeypatch.setattr(backend, "described", answering_as_another)

    # When it is opened, then it is refused, and nothing is made
    with pytest.raises(ConfigurationError, match=r"announced as MongoDB 4.*engine=unchecked"):
        open_store(server.url, namespace=namespace)
    assert not drop_namespace(server.url, namespace=namespace)
    with open_store(f"{server.url}?engine=unchecked", namespace=namespace) as store:
        assert store.append(note()).sequence == 1


def test_a_server_that_takes_any_read_concern_is_refused(
    server: MongoServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "heeds_concerns", lambda *_: False)
    with pytest.raises(ConfigurationError, match="heeds no read concerns"):
        open_store(server.url, namespace=namespace)


class Answering:
    """A database that answers every command alike."""

    def __init__(self, error: OperationFailure | None) -> None:
        self._error = error

    def command(self, *_: Any, **__: Any) -> dict[str, int]:
        if self._error is not None:
            raise self._error
        return {"ok": 1}


def test_what_a_server_says_to_an_unknown_read_concern_tells_whether_it_heeds_them() -> None:
    refusing: Any = Answering(OperationFailure("no such level", 9))
    accepting: Any = Answering(None)
    busy: Any = Answering(OperationFailure("shutting down", 91))
    assert heeds_concerns(refusing, "c")
    assert not heeds_concerns(accepting, "c")
    with pytest.raises(OperationFailure, match="shutting down"):
        heeds_concerns(busy, "c")
