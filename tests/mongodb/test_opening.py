"""What is wrong with a URL, a server or a database is told in one clear error."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pymongo
import pytest
from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
)

from eventstore import (
    Capability,
    ConfigurationError,
    CorruptLogError,
    DurabilityWarning,
    EventQuery,
    EventStoreError,
    InvalidQueryError,
    StoreUnavailableError,
    UnsupportedOperationError,
    drop_namespace,
    open_store,
)
from eventstore.testing.conformance.base import note, notes, stored
from eventstore_mongodb.opening import Namespace
from eventstore_mongodb.translation import bounded
from tests.kit.ports import free_port
from tests.kit.proxy import Proxy
from tests.kit.secrets_scan import a_password
from tests.kit.servers.mongodb import MongoServer, SecantusServer

SECRET = a_password()


@pytest.fixture
def database(server: MongoServer) -> Iterator[Any]:
    """A database of the test's own on the shared server."""
    name = f"d{uuid4().hex[:12]}"
    with pymongo.MongoClient[Any](server.url) as client:
        yield client[name]
        client.drop_database(name)


def url_of(server: MongoServer, database: Any) -> str:
    return f"mongodb://127.0.0.1:{server.port}/{database.name}"


# --- Reaching it


def test_no_server_is_told_in_time() -> None:
    with pytest.raises(StoreUnavailableError, match="did not answer"):
        open_store(f"mongodb://127.0.0.1:{free_port()}/", timeout=0.3)


def test_a_wrong_password_is_told_without_it_and_not_tried_again(
    start: Callable[..., MongoServer], server: MongoServer
) -> None:
    if not isinstance(server, SecantusServer):
        pytest.skip("how to make users differs; the same error code comes from MongoDB")
    closed = start(auth="")
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="check user, password") as refused:
        open_store(f"mongodb://nobody:{SECRET}@127.0.0.1:{closed.port}/", timeout=20)
    assert not refused.value.transient
    assert time.monotonic() - begun < 10
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_an_unknown_host_is_told_in_time_and_not_tried_again(scheme: str) -> None:
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"not found: .*nosuch\.invalid") as unknown:
        open_store(f"{scheme}://nosuch.invalid/shop", timeout=1.0)
    assert not unknown.value.transient
    assert "Topology" not in str(unknown.value)
    assert time.monotonic() - begun < 3.0


@pytest.mark.parametrize(
    ("error", "kind", "transient"),
    [
        (OperationFailure("bad auth : authentication failed", 8000), StoreUnavailableError, False),
        (OperationFailure("Authentication failed.", 18), StoreUnavailableError, False),
        (OperationFailure("user is not allowed to do action [find]", 8000), ConfigurationError, 0),
        (OperationFailure("not authorized on shop to execute", 13), ConfigurationError, 0),
        (OperationFailure("no space left", 14031), StoreUnavailableError, False),
        (NotPrimaryError("not primary", {"code": 10107}), StoreUnavailableError, True),
        (AutoReconnect("connection closed"), StoreUnavailableError, True),
        (
            ServerSelectionTimeoutError("a:1: [Errno -2] unknown,b:1: [Errno 111] refused"),
            StoreUnavailableError,
            True,
        ),
        (BSONError("cut off"), CorruptLogError, 0),
    ],
)
def test_what_the_driver_raises_means_the_same_as_on_other_engines(
    error: Exception, kind: type[EventStoreError], transient: bool
) -> None:
    with pytest.raises(kind) as translated, bounded(1):
        raise error
    assert translated.value.__cause__ is error
    if isinstance(translated.value, StoreUnavailableError):
        assert translated.value.transient == transient


@pytest.mark.parametrize(
    "location",
    [
        f"u:{SECRET}@h:99999/db",
        f"u:{SECRET}@@h/db",
        f"u:{SECRET}/@h/db",
        f"u:{SECRET}%zz@h/db",
        f"u:{SECRET}@/db",
        "h:port/db",
        "h/a.b",
        "",
    ],
)
def test_an_unreadable_url_is_refused_without_the_password(location: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        open_store(f"mongodb://{location}", timeout=0.5)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("option", "value"),
    [("maxPoolSize", "many"), ("tls", "perhaps"), ("compressors", "rar"), ("replicaSet", "other")],
)
def test_a_bad_value_of_an_option_is_told(server: MongoServer, option: str, value: Any) -> None:
    with pytest.raises((ConfigurationError, StoreUnavailableError), match=f"(?i){option}|replica"):
        open_store(server.url, **{option: value}, timeout=0.5)


def test_what_common_urls_carry_is_welcome(server: MongoServer, namespace: str) -> None:
    common = "retryWrites=true&w=majority&journal=true&readPreference=primary&appName=shop"
    with open_store(f"{server.url}?{common}", namespace=namespace) as store:
        assert store.append(note()).sequence == 1


@pytest.mark.parametrize("option", ["tlsCAFile", "tlsCertificateKeyFile", "tlsCRLFile"])
def test_a_missing_certificate_is_told(option: str) -> None:
    options: dict[str, Any] = {"tls": "true", option: "/nowhere/ca.pem"}
    with pytest.raises(ConfigurationError) as refused:
        open_store("mongodb://h/db", timeout=0.5, **options)
    assert "ca.pem" in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tlsCertificateKeyFilePassword", SECRET),
        ("authMechanismProperties", f"{SECRET}"),
        ("authMechanismProperties", f"AWS_SESSION_TOKEN:{SECRET},x"),
        ("authMechanism", "NO_SUCH"),
    ],
)
def test_what_the_driver_says_of_an_option_shows_no_password(option: str, value: Any) -> None:
    url = f"mongodb://u:{SECRET}@h/db?tls=true"
    with pytest.raises((ConfigurationError, StoreUnavailableError)) as refused:
        open_store(url, timeout=0.3, **{option: value})
    shown = "".join(traceback.format_exception(refused.value))
    assert SECRET not in shown
    assert f"u:{SECRET}" not in shown


# --- One deadline for a whole call


def test_opening_and_dropping_end_in_time_where_the_server_is_silent(server: MongoServer) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        proxy.pause()
        for call in (open_store, drop_namespace):
            begun = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                call(url, timeout=1.0)
            assert time.monotonic() - begun < 1.0 + 0.5


def test_closing_ends_in_time_where_the_server_is_silent(
    server: MongoServer, namespace: str
) -> None:
    threads = set(threading.enumerate())
    with Proxy("127.0.0.1", server.port) as proxy:
        store = open_store(server.url_at(proxy.host, proxy.port), namespace=namespace, timeout=1.0)
        store.append(note())
        assert store.get_current_sequence() == 1
        proxy.pause()
        begun = time.monotonic()
        store.close()
        assert time.monotonic() - begun < 1.0 + 0.5
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive()


def test_waiting_with_a_short_time_limit_is_no_outage(server: MongoServer, namespace: str) -> None:
    with open_store(server.url, namespace=namespace, timeout=0.4) as store:
        assert not store.wait_for_events(0, timeout=1.0)


# --- What is there


def test_the_database_is_named_by_the_path(server: MongoServer, database: Any) -> None:
    with open_store(url_of(server, database), namespace="shop") as store:
        store.append(note())
        assert sorted(database.list_collection_names()) == ["shop.commits", "shop.meta"]
        drop_namespace(url_of(server, database), namespace="shop")
    assert database.list_collection_names() == []


@pytest.mark.parametrize("collection", ["shop.commits", "shop.meta"])
@pytest.mark.parametrize("document", [{"_id": 1, "last": 1}, {"_id": "log"}, {"x": 1}])
def test_collections_that_are_not_ours_are_refused_and_left_alone(
    server: MongoServer, database: Any, collection: str, document: dict[str, Any]
) -> None:
    database[collection].insert_one(document)
    for call in (open_store, drop_namespace):
        with pytest.raises(ConfigurationError, match="something else than a log"):
            call(url_of(server, database), namespace="shop")
    assert list(database[collection].find()) == [document]


def test_a_view_is_refused(server: MongoServer, database: Any) -> None:
    database["things"].insert_one({})
    try:
        database.create_collection("shop.commits", viewOn="things", pipeline=[])
    except pymongo.errors.OperationFailure as error:
        pytest.skip(f"this server has no views: {error}")
    with pytest.raises(ConfigurationError, match="is a view"):
        open_store(url_of(server, database), namespace="shop")


def test_a_capped_collection_is_refused(server: MongoServer, database: Any) -> None:
    database.create_collection("shop.commits", capped=True, size=4096)
    with pytest.raises(ConfigurationError, match="is capped"):
        open_store(url_of(server, database), namespace="shop")


def test_a_collection_with_a_collation_is_refused(server: MongoServer, database: Any) -> None:
    database.create_collection("shop.commits", collation={"locale": "en", "strength": 2})
    with pytest.raises(ConfigurationError, match="has a collation"):
        open_store(url_of(server, database), namespace="shop")


@pytest.mark.parametrize("key", [{"keys": 1}, {"_id": 1, "x": 1}])
def test_a_collection_sharded_on_another_key_is_refused(key: dict[str, int]) -> None:
    from mongomock import MongoClient

    client: Any = MongoClient()  # in the place of a router's config database
    client["config"]["collections"].insert_one({"_id": "db.shop.commits", "key": key})
    client["config"]["collections"].insert_one({"_id": "db.good.commits", "key": {"_id": 1}})

    with pytest.raises(ConfigurationError, match="sharded on"):
        Namespace(client["db"], "shop").refuse_other_shard_key()
    Namespace(client["db"], "good").refuse_other_shard_key()
    Namespace(client["db"], "unsharded").refuse_other_shard_key()


def test_a_log_for_newer_writers_is_read_part_by_part(server: MongoServer, database: Any) -> None:
    url = url_of(server, database)
    with open_store(url) as store:
        recorded = list(store.append_batch(notes(50)))
    database["eventstore.meta"].update_one({"_id": "log"}, {"$set": {"format.writer": 3}})
    with open_store(url) as store:
        assert stored(store) == recorded
        of_one = [event for event in recorded if event.entity_id == recorded[0].entity_id]
        assert stored(store, EventQuery(entity_id=recorded[0].entity_id)) == of_one
        with pytest.raises(UnsupportedOperationError, match="format 3 or newer"):
            store.append(note())


@pytest.mark.parametrize("damage", ["last", "recorded_at", "events"])
def test_a_document_that_cannot_be_read_raises(
    server: MongoServer, database: Any, damage: str
) -> None:
    with open_store(url_of(server, database)) as store:
        for _ in range(3):
            store.append(note())
        database["eventstore.commits"].update_one({"_id": 2}, {"$unset": {damage: 1}})
        with pytest.raises(CorruptLogError):
            stored(store)


def test_a_missing_commit_raises(server: MongoServer, database: Any) -> None:
    with open_store(url_of(server, database)) as store:
        for _ in range(3):
            store.append(note())
        database["eventstore.commits"].delete_one({"_id": 2})
        with pytest.raises(CorruptLogError):
            stored(store)


def test_an_operator_cannot_enter_through_a_query() -> None:
    for operator in ({"$gt": ""}, {"$ne": None}, {"$where": "1"}):
        with pytest.raises(InvalidQueryError):
            EventQuery(entity_id=operator)  # type: ignore[arg-type]  # that is what is tested
    with open_store("mongomock://") as store:
        store.append(note("$ne"))
        assert [e.entity_id for e in stored(store, EventQuery(entity_id="$ne"))] == ["$ne"]
        assert stored(store, EventQuery(entity_id="^.*$")) == []


# --- Standalone servers and sessions


def test_a_standalone_server_works_without_transactions(
    start: Callable[..., MongoServer], server: MongoServer
) -> None:
    if not isinstance(server, SecantusServer):
        pytest.skip("the harness starts mongod as a replica set")
    alone = start(standalone="")
    with (
        open_store(alone.url) as store,
        pymongo.MongoClient[Any](alone.url) as client,
        client.start_session() as session,
    ):
        recorded = store.append(note())
        assert stored(store) == [recorded]
        assert store.wait_for_events(0, timeout=5)
        assert not store.wait_for_events(1, timeout=0.1)
        if Capability.JOIN_TRANSACTION not in store.capabilities:
            with pytest.raises(UnsupportedOperationError, match="connection"):
                store.append(note(), connection=session)


def test_a_session_of_another_server_is_refused(
    start: Callable[[], MongoServer], server: MongoServer, namespace: str
) -> None:
    other = start()
    with (
        open_store(server.url, namespace=namespace) as store,
        pymongo.MongoClient[Any](other.url) as client,
        client.start_session() as session,
        session.start_transaction(),
    ):
        with pytest.raises(ConfigurationError, match="another server"):
            store.append(note(), connection=session)
        session.abort_transaction()


def test_a_transaction_with_a_weak_write_concern_is_warned_of(
    server: MongoServer, namespace: str
) -> None:
    with (
        open_store(server.url, namespace=namespace) as store,
        pymongo.MongoClient[Any](server.url) as client,
        client.start_session() as session,
        session.start_transaction(write_concern=pymongo.WriteConcern(1)),
        pytest.warns(DurabilityWarning, match="write concern"),
    ):
        store.append(note(), connection=session)


def test_a_list_of_entities_may_begin_and_end_anywhere(url: str) -> None:
    with open_store(url, namespace="pages") as store:
        store.append(note("a"))
        end, many = 2**63 - 1, 2**31 - 1
        for offset, limit in ((0, many), (1, many), (end, many), (end, 1)):
            found = store.list_entities(offset=offset, limit=limit)
            assert [entity.entity_id for entity in found] == (["a"] if offset == 0 else [])
    drop_namespace(url, namespace="pages")


def test_a_log_that_is_not_to_be_made_is_told_with_the_way_to_make_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="has no log 'none'; make it with `eventstore in"):
        open_store(url, namespace="none", create=False)
