"""``client=``: a store over the caller's own client."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from redis import BlockingConnectionPool, Redis
from redis.cache import CacheConfig
from redis.cluster import RedisCluster
from redis.sentinel import Sentinel

from eventstore import (
    AppendCondition,
    ConfigurationError,
    Event,
    EventQuery,
    EventStore,
    StoreUnavailableError,
    open_store,
)
from eventstore.backend import deadline
from eventstore.testing.conformance.base import assert_log_is_sound
from tests.kit.fault_work import WAIT
from tests.kit.ports import LOOPBACK
from tests.kit.proxy import Proxy
from tests.kit.servers.redis import RedisServer

EVENT = Event(event_type="A", entity_type="a", entity_id="1", tags=("x",))


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def client(server: RedisServer, request: pytest.FixtureRequest) -> Iterator[Redis]:
    with Redis(host=LOOPBACK, port=server.port, protocol=request.param) as client:
        yield client


@pytest.fixture
def store(client: Redis, namespace: str) -> Iterator[EventStore]:
    with open_store("redis://", client=client, namespace=namespace) as store:
        yield store


def test_a_store_works_over_the_callers_client_and_leaves_it_open(
    server: RedisServer, client: Redis, namespace: str
) -> None:
    with open_store("redis://", client=client, namespace=namespace) as store:
        store.append_batch([EVENT, EVENT.as_new()])
        assert store.append(EVENT).sequence == 1
        absent = AppendCondition(EventQuery(tags=["y"]))
        assert store.append(EVENT.as_new(), condition=absent).sequence == 3
        assert store.count_events(EventQuery(tags=["x"])) == 3
        assert not store.wait_for_events(3, timeout=0.05)
        assert len(assert_log_is_sound(store)) == 3
    assert client.ping()
    with open_store(server.url, namespace=namespace) as store:
        assert store.get_current_sequence() == 3


def test_what_a_server_may_lose_is_found_out_through_the_callers_client(
    server: RedisServer, client: Redis, store: EventStore
) -> None:
    assert store._log.backend.durability_risks() == ()
    server.execute("CONFIG", "SET", "appendfsync", "everysec")
    try:
        assert "appendfsync is everysec" in " ".join(store._log.backend.durability_risks())
    finally:
        server.execute("CONFIG", "SET", "appendfsync", "always")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"decode_responses": True}, "decode_responses"),
        ({"encoding": "latin-1"}, "encoding"),
        ({"encoding_errors": "ignore"}, "encoding"),
        ({"protocol": 3, "cache_config": CacheConfig()}, "cache_config"),
    ],
)
def test_a_client_that_would_void_a_guarantee_is_refused(
    server: RedisServer, options: dict[str, Any], told: str
) -> None:
    with (
        Redis(host=LOOPBACK, port=server.port, **options) as client,
        pytest.raises(ConfigurationError, match=f"client: .*{told}"),
    ):
        open_store("redis://", client=client)


def test_what_is_no_client_of_a_master_is_refused(server: RedisServer) -> None:
    sentinel: Any = Sentinel
    replica = sentinel([(LOOPBACK, server.port)]).slave_for("orders")
    for value in ("redis", RedisCluster, replica):
        with pytest.raises(ConfigurationError, match="client: must be"):
            open_store("redis://", client=value)
    with pytest.raises(ConfigurationError, match="client: must be a redis"):
        open_store("redis://?client=mine")


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("redis://localhost", {}, "url: must be redis:// alone"),
        ("rediss://", {}, "url: must be redis:// alone"),
        ("redis+cluster://", {}, "url: must be redis:// alone"),
        ("redis://", {"password": "x"}, "password: is a matter of the client"),
    ],
)
def test_a_url_that_names_another_server_is_refused(
    client: Redis, url: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        open_store(url, client=client, **options)


def test_a_forked_child_is_told_to_open_a_store_of_its_own(store: EventStore) -> None:
    store.append(EVENT)

    def child(answers: Any) -> None:
        try:
            store.append(EVENT.as_new())
            answers.put("appended")
        except ConfigurationError as error:
            answers.put(str(error))

    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    process = fork.Process(target=child, args=(answers,))
    process.start()
    process.join(WAIT)
    assert process.exitcode == 0
    assert answers.get().startswith("client: belongs to the parent process")
    assert store.append(EVENT.as_new()).sequence == 2


def test_a_silent_server_is_given_up_when_the_call_is_over(
    server: RedisServer, namespace: str
) -> None:
    with Proxy(LOOPBACK, server.port) as proxy:
        blocking: Any = BlockingConnectionPool
        pool = blocking(host=proxy.host, port=proxy.port, socket_timeout=30)
        with Redis(connection_pool=pool) as client:
            options: dict[str, Any] = {"timeout": 30.0, "retries": 0}
            with open_store("redis://", client=client, namespace=namespace, **options) as store:
                store.append(EVENT)
                proxy.pause()
                began = monotonic()
                with deadline(0.2), pytest.raises(StoreUnavailableError) as lost:
                    store.append(EVENT.as_new())
                assert monotonic() - began < 10
                assert lost.value.may_have_written
                proxy.resume()
            # Then the client waits as long as it did before
            assert client.ping()
            connection = pool.get_connection()
            assert connection._sock.gettimeout() == 30
            pool.release(connection)
