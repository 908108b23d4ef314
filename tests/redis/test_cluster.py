"""A real cluster of three nodes: the whole suite, and a log whose slot moves meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError

from eventstore import StoreUnavailableError, drop_namespace, open_store
from eventstore.testing.conformance import ConformanceSuite, Harness
from eventstore.testing.conformance.base import assert_log_is_sound
from tests.kit.fault_work import WAIT, assert_all_there, load, some_events, wait_for_growth
from tests.kit.ports import LOOPBACK
from tests.kit.servers.redis import RedisServer
from tests.kit.servers.redis_cluster import RedisCluster, start_redis_cluster


@pytest.fixture(scope="module")
def cluster(server: RedisServer) -> Iterator[RedisCluster]:  # no server: skipped or failed there
    with start_redis_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def harness(cluster: RedisCluster, pytestconfig: pytest.Config) -> Harness:
    return Harness(url=cluster.url, history_seconds=pytestconfig.getoption("--history-seconds"))


class TestConformance(ConformanceSuite):
    pass


def test_namespaces_spread_over_the_nodes(cluster: RedisCluster) -> None:
    names = [f"spread{number}" for number in range(12)]
    owners = {cluster.owner_of(cluster.slot_of(f"{{{name}}}:log")).port for name in names}
    assert len(owners) == len(cluster.nodes)
    for name in names:
        with open_store(cluster.url, namespace=name) as store:
            store.append_batch(some_events(name, 1, 3))
            assert len(assert_log_is_sound(store)) == 3
            assert [event.entity_id for event in store.get_events()] == [name] * 3
    for name in names:
        drop_namespace(cluster.url, namespace=name)
    assert [node.execute("DBSIZE") for node in cluster.nodes] == [0, 0, 0]


def test_appends_wait_while_the_slot_moves_and_nothing_is_torn_or_lost(
    cluster: RedisCluster,
) -> None:
    slot = cluster.slot_of("{moving}:log")
    with (
        open_store(cluster.url, namespace="moving", timeout=WAIT, retries=10_000) as store,
        load(cluster.url, namespace="moving") as end,
    ):
        head = wait_for_growth(store, 20)
        # When the slot goes around all nodes, with half-moved states in between
        for _ in range(3):
            owner = cluster.owner_of(slot)
            there = cluster.nodes[(cluster.nodes.index(owner) + 1) % len(cluster.nodes)]
            cluster.move_slot(slot, there)
            assert cluster.owner_of(slot) is there
            head = wait_for_growth(store, 20, since=head)
        # Then all that was acknowledged is there
        assert_all_there(store, end())
    drop_namespace(cluster.url, namespace="moving")


@pytest.mark.parametrize("sent", [True, False])
def test_an_append_lost_behind_a_redirect_may_be_stored_only_if_it_was_sent(
    cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch, *, sent: bool
) -> None:
    from eventstore_redis import connections

    with open_store(cluster.url, namespace="redirected", retries=0) as store:
        store.append_batch(some_events("w", 1, 1))
        owner = cluster.owner_of(cluster.slot_of("{redirected}:log"))
        exchange = connections._exchange
        calls = 0

        def redirected(pool: Any, commands: Any) -> list[Any]:
            nonlocal calls
            calls += 1
            if calls == 1:
                return [MovedError(f"1 {LOOPBACK}:{owner.port}")]
            if sent:
                exchange(pool, commands)
                raise RedisConnectionError("lost")
            raise StoreUnavailableError("not reached")

        monkeypatch.setattr(connections, "_exchange", redirected)
        with pytest.raises(StoreUnavailableError) as lost:
            store.append_batch(some_events("w", 2, 1))
        monkeypatch.undo()
        assert lost.value.may_have_written is sent
        assert store.get_current_sequence() == 1 + sent
    drop_namespace(cluster.url, namespace="redirected")


def test_a_cluster_node_killed_and_restarted_loses_nothing(cluster: RedisCluster) -> None:
    owner = cluster.owner_of(cluster.slot_of("{killed}:log"))
    with (
        open_store(cluster.url, namespace="killed", timeout=WAIT, retries=10_000) as store,
        load(cluster.url, namespace="killed") as end,
    ):
        head = wait_for_growth(store, 20)
        owner.kill()
        owner.start()
        cluster.wait_until_whole()
        wait_for_growth(store, 20, since=head)
        assert_all_there(store, end())
    drop_namespace(cluster.url, namespace="killed")
