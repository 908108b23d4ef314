"""A log that is dropped, and perhaps made anew, under an open store: nothing of another log is
read or written, and a drop takes nothing but the log that it began with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from eventstore import (
    ConfigurationError,
    Event,
    EventQuery,
    EventStore,
    EventStoreError,
    LogReplacedError,
    drop_namespace,
    open_store,
)
from eventstore.backend import Settings, drop_log
from eventstore.testing.conformance.base import assert_log_is_sound
from eventstore_redis import RedisBackend
from tests.kit.fault_work import WAIT, StartServer
from tests.kit.ports import LOOPBACK
from tests.kit.servers.redis import RedisServer

EVENT = Event(event_type="A", entity_type="a", entity_id="1", tags=("x",), workflow_id="w")

CALLS: dict[str, Callable[[EventStore], object]] = {
    "append": lambda store: store.append(EVENT.as_new()),
    "repeat": lambda store: store.append(EVENT),
    "head": lambda store: store.get_current_sequence(),
    "events": lambda store: list(store.get_events()),
    "events since": lambda store: store.get_events_since(0),
    "filtered": lambda store: list(store.get_events(EventQuery(tags=["x"]))),
    "entity": lambda store: store.get_events_for_entity("a", "1"),
    "workflow": lambda store: store.get_events_for_workflow("w"),
    "by id": lambda store: store.get_event_by_id(EVENT.event_id),
    "count": lambda store: store.count_events(),
    "filtered count": lambda store: store.count_events(EventQuery(tags=["x"])),
    "version": lambda store: store.get_current_version("a", "1"),
    "entities": lambda store: store.list_entities(),
    "checkpoint": lambda store: store.checkpoint(),
    "wait": lambda store: store.wait_for_events(0, timeout=0),
}


@pytest.fixture
def store(server: RedisServer, namespace: str) -> Iterator[EventStore]:
    with open_store(server.url, namespace=namespace) as store:
        store.append(EVENT)
        yield store


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("anew", [True, False], ids=["made anew", "not there"])
def test_no_call_reaches_another_log(
    server: RedisServer,
    namespace: str,
    store: EventStore,
    call: Callable[[EventStore], object],
    *,
    anew: bool,
) -> None:
    drop_namespace(server.url, namespace=namespace)
    if anew:
        with open_store(server.url, namespace=namespace) as other:
            other.append(EVENT)
    with pytest.raises(LogReplacedError, match=f"'{namespace}' was removed or replaced"):
        call(store)
    if anew:
        with open_store(server.url, namespace=namespace) as other:
            assert len(assert_log_is_sound(other)) == 1


def test_a_log_that_is_being_dropped_is_gone(
    server: RedisServer, namespace: str, store: EventStore
) -> None:
    server.execute("HSET", f"{{{namespace}}}:meta", "dropping", "x")
    server.execute("HDEL", f"{{{namespace}}}:meta", "log_id")
    for call in CALLS.values():
        with pytest.raises(LogReplacedError):
            call(store)


def test_who_waits_is_told_that_the_log_is_gone(
    server: RedisServer, namespace: str, store: EventStore
) -> None:
    told: list[BaseException] = []

    def wait() -> None:
        try:
            store.wait_for_events(1)
        except EventStoreError as error:
            told.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while b"cmd=xread" not in server.execute("CLIENT", "LIST"):  # type: ignore[operator]
        pass
    drop_namespace(server.url, namespace=namespace)
    thread.join(WAIT)
    assert [type(error) for error in told] == [LogReplacedError]


def test_a_drop_tells_whether_there_was_a_log(server: RedisServer, namespace: str) -> None:
    settings = Settings.parse(server.url, {"namespace": namespace}, RedisBackend.options)
    assert not drop_log(RedisBackend, settings)
    open_store(server.url, namespace=namespace).close()
    assert drop_log(RedisBackend, settings)
    assert not drop_log(RedisBackend, settings)
    assert server.execute("KEYS", f"{{{namespace}}}*") == []


@pytest.mark.parametrize("right", ["-scan", "-unlink", "-hset", "-hdel", "-hmget", "resetkeys"])
def test_a_drop_that_is_refused_changes_nothing(start: StartServer, right: str) -> None:
    server = start()
    with open_store(server.url) as store:
        store.append(EVENT)
        server.execute("ACL", "SETUSER", "weak", "on", "nopass", "~*", "+@all", right)
        with pytest.raises(ConfigurationError, match="the server refuses"):
            drop_namespace(f"redis://weak:any@{LOOPBACK}:{server.port}/0")
        # Then the open store goes on, and new ones open
        assert store.append(EVENT.as_new()).sequence == 2
    with open_store(server.url) as again:
        assert again.append(EVENT.as_new()).sequence == 3
        assert len(assert_log_is_sound(again)) == 3


def test_a_drop_that_comes_late_leaves_the_next_log_alone(
    server: RedisServer, namespace: str
) -> None:
    # Given two that drop a log, and one of them has begun …
    settings = Settings.parse(server.url, {"namespace": namespace}, RedisBackend.options)
    with open_store(server.url, namespace=namespace) as store:
        store.append(EVENT)
        mark = store.log_id.encode()
    late = RedisBackend(settings)
    # … when the other ends, and the log is made anew
    assert drop_log(RedisBackend, settings)
    with open_store(server.url, namespace=namespace) as anew:
        anew.append(EVENT)
        late.place.remove_marked(mark)
        late.close()
        # Then the new one stands
        assert anew.append(EVENT.as_new()).sequence == 2
        assert len(assert_log_is_sound(anew)) == 2


def test_a_drop_that_crashed_is_taken_up_by_the_next(server: RedisServer, namespace: str) -> None:
    settings = Settings.parse(server.url, {"namespace": namespace}, RedisBackend.options)
    with open_store(server.url, namespace=namespace) as store:
        store.append(EVENT)
        crashed = RedisBackend(settings)
        crashed.place.begin_removal(store.log_id.encode())
        crashed.close()
    with pytest.raises(ConfigurationError, match="drop it again"):
        open_store(server.url, namespace=namespace)
    assert drop_log(RedisBackend, settings)
    assert server.execute("KEYS", f"{{{namespace}}}*") == []
