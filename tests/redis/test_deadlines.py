"""One deadline for a whole call, wherever in it the server falls silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from eventstore import Entity, Event, EventQuery, StoreUnavailableError, drop_namespace, open_store
from eventstore._core.appending import batch_of
from eventstore.backend import Backend, PageRequest, deadline
from eventstore_redis import RedisBackend
from tests.kit.ports import LOOPBACK
from tests.kit.proxy import Proxy
from tests.kit.servers.redis import RedisServer

PATIENT = 30.0
"""What a store may wait for each single thing; no test does."""
SOON = 10.0
"""By when all is over on a busy machine too, far below ``PATIENT``."""
LEFT = 0.2
"""What a call has left."""

EVENT = Event(event_type="A", entity_type="a", entity_id="1")


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with Proxy(LOOPBACK, server.port) as proxy:
        yield proxy


@pytest.fixture
def patient(server: RedisServer, namespace: str, proxy: Proxy) -> Iterator[RedisBackend]:
    url = server.url_at(proxy.host, proxy.port)
    with open_store(url, namespace=namespace, timeout=PATIENT, max_connections=2) as store:
        store.append(EVENT)
        assert isinstance(store._log.backend, RedisBackend)
        yield store._log.backend
        proxy.reset()


def commit(backend: Backend) -> None:
    batch = batch_of([EVENT.as_new()], -1, None)
    assert batch is not None
    backend.commit([batch], PATIENT)


CALLS: dict[str, Callable[[Backend], object]] = {
    "append": commit,
    "head": lambda backend: backend.head(),
    "page": lambda backend: backend.read(PageRequest(query=EventQuery(), limit=10)),
    "filtered page": lambda backend: backend.read(
        PageRequest(query=EventQuery(tags=["x"]), limit=10)
    ),
    "count": lambda backend: backend.count(EventQuery(tags=["x"])),
    "version": lambda backend: backend.version(Entity("a", "1")),
    "find": lambda backend: backend.find([("", EVENT.event_id)]),
    "entities": lambda backend: backend.list_entities(None, None, 10, 0),
    "wait": lambda backend: backend.wait(99, PATIENT, lambda _: None),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "must connect"])
def test_a_silent_server_is_given_up_when_the_call_is_over(
    patient: RedisBackend, proxy: Proxy, call: Callable[[Backend], object], *, connected: bool
) -> None:
    if not connected:
        proxy.reset()
    proxy.pause()
    began = monotonic()
    with deadline(LEFT), pytest.raises(StoreUnavailableError):
        call(patient)
    assert monotonic() - began < SOON
    proxy.resume()


def test_a_place_in_the_pool_is_waited_for_as_long_as_the_call_has_left(
    patient: RedisBackend,
) -> None:
    pool = patient.server.connected()._pool  # type: ignore[attr-defined]  # of a single server
    held = [pool.get_connection() for _ in range(2)]
    began = monotonic()
    with deadline(LEFT), pytest.raises(StoreUnavailableError) as refused:
        commit(patient)
    assert monotonic() - began < SOON
    assert not refused.value.may_have_written
    for connection in held:
        pool.release(connection)


def test_a_commit_takes_no_longer_than_it_is_told(patient: RedisBackend, proxy: Proxy) -> None:
    batch = batch_of([EVENT.as_new()], -1, None)
    assert batch is not None
    proxy.pause()
    began = monotonic()
    with pytest.raises(StoreUnavailableError) as lost:
        patient.commit([batch], LEFT)
    assert monotonic() - began < SOON
    assert lost.value.may_have_written
    proxy.resume()


def test_opening_and_dropping_end_when_the_call_is_over(server: RedisServer, proxy: Proxy) -> None:
    proxy.pause()
    url = server.url_at(proxy.host, proxy.port)
    for work in (open_store, drop_namespace):
        began = monotonic()
        with deadline(LEFT), pytest.raises(StoreUnavailableError):
            work(url, timeout=PATIENT)
        assert monotonic() - began < SOON


def test_closing_does_not_wait_for_a_silent_server(patient: RedisBackend, proxy: Proxy) -> None:
    connection = patient.server.connected()._pool.get_connection()  # type: ignore[attr-defined]
    patient.server.connected()._in_use += 1  # as if a read were in flight
    proxy.pause()
    began = monotonic()
    with deadline(LEFT):
        patient.close()
    assert monotonic() - began < 2.0  # what a read would be waited for without a deadline
    assert connection._sock is None
    proxy.resume()


def test_a_reply_later_than_socket_timeout_is_not_waited_for(
    server: RedisServer, namespace: str
) -> None:
    with open_store(f"{server.url}?socket_timeout=0.2", namespace=namespace) as store:
        store.append(EVENT)
        assert not store.wait_for_events(1, timeout=0.5)  # XREAD blocks for less
