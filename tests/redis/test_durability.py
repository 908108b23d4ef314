"""What a server may lose is told at opening; replicas confirm; a rewound log is noticed."""

from __future__ import annotations

import warnings

import pytest

from eventstore import (
    CheckpointError,
    ConfigurationError,
    DurabilityWarning,
    Event,
    StoreUnavailableError,
    open_store,
)
from tests.kit.fault_work import WAIT, StartServer
from tests.kit.ports import LOOPBACK
from tests.kit.servers.redis import RedisServer, start_redis_replica


def an_event(number: int = 1) -> Event:
    return Event(event_type="A", entity_type="a", entity_id=str(number))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"appendonly": "no"}, "set appendonly yes"),
        ({"appendfsync": "everysec"}, "appendfsync is everysec, set it to always"),
        ({"appendfsync": "no"}, "appendfsync is no, set it to always"),
        ({"no_appendfsync_on_rewrite": "yes"}, "set no-appendfsync-on-rewrite no"),
        ({"maxmemory_policy": "allkeys-lru"}, "allkeys-lru, set it to noeviction"),
    ],
)
def test_a_server_that_may_lose_events_is_told_refused_or_accepted(
    start: StartServer, options: dict[str, str], told: str
) -> None:
    server = start(**options)
    with pytest.warns(DurabilityWarning, match=told):
        open_store(server.url).close()
    with pytest.raises(ConfigurationError, match=told):
        open_store(server.url, durability="strict")
    open_store(server.url, durability="relaxed").close()  # a warning would be an error


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru"])
def test_a_durable_server_passes_strictly(start: StartServer, policy: str) -> None:
    server = start(maxmemory_policy=policy)
    open_store(server.url, durability="strict").close()


def test_a_server_that_forbids_to_ask_is_judged_by_what_it_tells(start: StartServer) -> None:
    server = start()
    _add_user(server, "asks", "+@all", "-config")
    with pytest.warns(DurabilityWarning, match="not told to this user"):
        open_store(_url_as(server, "asks")).close()
    _add_user(server, "told", "+@all", "-config")
    server.execute("CONFIG", "SET", "appendonly", "no")
    with pytest.warns(DurabilityWarning, match="set appendonly yes"):
        open_store(_url_as(server, "told")).close()


def test_a_user_that_may_neither_ask_nor_be_told_still_appends(start: StartServer) -> None:
    server = start()
    _add_user(server, "writes", "+@all", "-config", "-info")
    with open_store(_url_as(server, "writes"), durability="relaxed") as store:
        assert store.append(an_event()).sequence == 1


def test_a_user_without_a_needed_right_is_told(start: StartServer) -> None:
    server = start()
    _add_user(server, "reads", "+@all", "-@scripting")
    with pytest.raises(ConfigurationError, match="refuses this to its user"):
        open_store(_url_as(server, "reads"), durability="relaxed")


def test_an_append_returns_when_replicas_have_it(start: StartServer) -> None:
    server = start()
    with (
        start_redis_replica(server) as replica,
        open_store(server.url, replicas=1, timeout=WAIT) as store,
    ):
        event = store.append(an_event())
        assert replica.execute("XLEN", "{eventstore}:log") == 1
        assert store.append(event.replace(sequence=0, version=0, batch_sequence=0)) == event


@pytest.mark.parametrize("appendonly", ["yes", "no"])
def test_an_append_that_replicas_do_not_confirm_is_told(
    start: StartServer, appendonly: str
) -> None:
    server = start(appendonly=appendonly)
    url = f"{server.url}?replicas=1&durability=relaxed"
    with open_store(url, timeout=2, retries=0) as store:
        with pytest.raises(StoreUnavailableError, match="0 of 1") as unconfirmed:
            store.append(an_event())
        # When a replica comes, a repeat waits for it too
        with start_redis_replica(server), open_store(url, timeout=WAIT) as patient:
            (event,) = patient.get_events()
            assert patient.append_batch([event.as_new()]).sequences == (2,)

    assert unconfirmed.value.may_have_written
    assert unconfirmed.value.transient


def test_a_log_rewound_by_a_failover_is_noticed_although_it_grew_again(
    start: StartServer,
) -> None:
    # Given a consumer that saw events which a replica did not get
    server = start()
    with start_redis_replica(server) as replica:
        with open_store(server.url, replicas=1, timeout=WAIT) as store:
            shared = store.checkpoint(store.append_batch([an_event() for _ in range(3)])[-1])
        # An old server confirms what it has not flushed, while it writes its first file.
        replica.wait_until("persistence", "aof_rewrite_in_progress", "0")
        replica.kill()
        with open_store(server.url) as store:
            seen = store.checkpoint(store.append_batch([an_event() for _ in range(3)])[-1])
        # When that replica is promoted and goes on beyond where the consumer stands
        server.kill()
        replica.start()
        replica.execute("REPLICAOF", "NO", "ONE")
        with open_store(replica.url) as store:
            assert store.get_current_sequence() == 3
            with pytest.raises(CheckpointError):
                store.get_events_since(seen)
            store.append_batch([an_event() for _ in range(7)])
            # Then the consumer is told, and one that had seen less goes on
            with pytest.raises(CheckpointError):
                store.get_events_since(seen)
            assert [event.sequence for event in store.get_events_since(shared)] == [*range(4, 11)]


def test_a_replica_cannot_be_written(start: StartServer) -> None:
    server = start()
    with start_redis_replica(server) as replica, warnings.catch_warnings():
        open_store(server.url).close()
        replica.wait_until("replication", "master_link_status", "up")
        with pytest.raises(StoreUnavailableError, match="cannot answer now"):
            open_store(replica.url, namespace="other")


def _add_user(server: RedisServer, name: str, *rights: str) -> None:
    server.execute("ACL", "SETUSER", name, "on", "nopass", "~*", *rights)


def _url_as(server: RedisServer, name: str) -> str:
    return f"redis://{name}:any@{LOOPBACK}:{server.port}/0"
