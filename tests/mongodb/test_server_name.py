"""The server is named as what it is, not as what it announces itself as."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import open_store
from eventstore_mongodb.connections import server_name
from tests.kit.servers.mongodb import MongoServer

MONGOD: dict[str, Any] = {
    "version": "8.2.1",
    "gitVersion": "3312bdcf28aa65f5930005e21c2cb130f648b8c3",
    "modules": [],
    "allocator": "tcmalloc-google",
    "storageEngines": ["devnull", "wiredTiger"],
}
NONE = "0" * 40


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (MONGOD, "MongoDB 8.2.1"),
        (
            {"version": "8.2.11", "secantusVersion": "0.5.3", "gitVersion": NONE},
            "SecantusDB 0.5.3, announced as MongoDB 8.2.11",
        ),
        ({"version": "7.0.0", "gitVersion": NONE}, "a server announced as MongoDB 7.0.0"),
        ({"version": "7.0.0"}, "a server announced as MongoDB 7.0.0"),
    ],
)
def test_a_server_is_named_by_what_only_it_says(build: dict[str, Any], name: str) -> None:
    assert server_name(build) == name


def test_an_open_store_names_the_server_that_was_started(server: MongoServer) -> None:
    with open_store(server.url, namespace="named") as store:
        assert str(store.info()["server"]).startswith(f"{server.name} ")
