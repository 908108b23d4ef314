"""A client of the caller's: used as the guarantees need it, whatever it is set to, and never
closed."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from pymongo.monitoring import CommandListener, CommandStartedEvent

from eventstore import (
    Capability,
    ConfigurationError,
    EventStore,
    StoreUnavailableError,
    drop_namespace,
    open_store,
)
from eventstore.testing.conformance.base import assert_log_is_sound, note, notes
from tests.kit.ports import free_port
from tests.kit.proxy import Proxy
from tests.kit.servers.mongodb import MongoServer


class Listener(CommandListener):
    """Keeps what is sent to a collection."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append({"name": event.command_name, **event.command})

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def client(server: MongoServer, listener: Listener) -> Iterator[pymongo.MongoClient[Any]]:
    """A client that is set to all that would void a guarantee."""
    with pymongo.MongoClient[Any](
        server.url,
        w=1,
        journal=False,
        readPreference="secondaryPreferred",
        readConcernLevel="local",
        tz_aware=True,
        uuidRepresentation="pythonLegacy",
        event_listeners=[listener],
    ) as client:
        yield client


@pytest.fixture
def store(client: pymongo.MongoClient[Any], namespace: str) -> Iterator[EventStore]:
    with open_store("mongodb://", client=client, namespace=namespace) as store:
        yield store


def test_it_is_asked_for_what_the_guarantees_need(
    store: EventStore, listener: Listener, client: pymongo.MongoClient[Any]
) -> None:
    listener.sent.clear()
    recorded = list(store.append_batch(notes(30)))

    assert assert_log_is_sound(store) == recorded
    inserts = [sent for sent in listener.sent if sent["name"] == "insert"]
    finds = [sent for sent in listener.sent if sent["name"] == "find"]
    assert inserts
    assert all(sent["writeConcern"] == {"w": "majority", "j": True} for sent in inserts)
    assert finds
    assert {sent["readConcern"]["level"] for sent in finds} <= {"majority", "linearizable"}
    assert all(
        sent.get("$readPreference", {}).get("mode") != "secondaryPreferred" for sent in finds
    )
    assert Capability.JOIN_TRANSACTION in store.capabilities
    with (
        client.start_session() as session,
        session.start_transaction(
            read_preference=pymongo.ReadPreference.PRIMARY,
            write_concern=pymongo.WriteConcern("majority"),
        ),
    ):
        assert store.append(note(), connection=session).sequence == 31


def test_it_is_never_closed(
    client: pymongo.MongoClient[Any], namespace: str, server: MongoServer
) -> None:
    with open_store("mongodb:///", client=client, namespace=namespace) as store:
        store.append(note())
    with pytest.raises(ConfigurationError):
        open_store("mongodb:///", client=client, namespace=namespace, timeout=-1.0)
    assert client.admin.command("ping")["ok"]
    assert drop_namespace("mongodb://", client=client, namespace=namespace)
    assert client.admin.command("ping")["ok"]


def test_the_path_names_the_database(client: pymongo.MongoClient[Any], namespace: str) -> None:
    with open_store("mongodb:///elsewhere", client=client, namespace=namespace) as store:
        store.append(note())
        assert f"{namespace}.commits" in client["elsewhere"].list_collection_names()
    assert drop_namespace("mongodb:///elsewhere", client=client, namespace=namespace)


@pytest.mark.parametrize("url", ["mongodb://h/db", "mongodb://u:p@h", "mongodb:///db?tls=true"])
def test_hosts_and_options_beside_it_are_refused(
    client: pymongo.MongoClient[Any], url: str
) -> None:
    with pytest.raises(ConfigurationError, match="client: it has its hosts and options"):
        open_store(url, client=client)


def test_its_own_long_timeouts_do_not_count(server: MongoServer, namespace: str) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with (
            pymongo.MongoClient[Any](url) as client,
            open_store("mongodb://", client=client, namespace=namespace, timeout=1.0) as store,
        ):
            store.append(note())
            proxy.pause()
            begun = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                store.append(note())
            assert time.monotonic() - begun < 2.0
            proxy.resume()
    with (
        pymongo.MongoClient[Any](port=free_port()) as lost,
        pytest.raises(StoreUnavailableError, match="did not answer"),
    ):
        open_store("mongodb://", client=lost, timeout=0.3)


def test_after_a_fork_the_child_is_told_to_open_one_of_its_own(store: EventStore) -> None:
    store.append(note())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        child = os.fork()
    if child == 0:
        code = 1
        try:
            store.append(note())
        except ConfigurationError as error:
            code = 0 if "client: it was made in another process" in str(error) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert store.append(note()).sequence == 2
