"""A server that is put back to an older copy in the middle of what a store does: nothing is judged
by what stood there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from eventstore import (
    AppendCondition,
    ConditionFailedError,
    Event,
    EventQuery,
    EventStore,
    StoreUnavailableError,
    open_store,
)
from eventstore._core.appending import batch_of, looked_into
from eventstore.backend import Accepted, AnotherPastError, Batch, PageRequest
from eventstore.testing.conformance.base import assert_log_is_sound
from eventstore_redis import RedisBackend
from eventstore_redis.server import APPEND, READ, Script
from tests.kit.fault_work import WAIT
from tests.kit.servers.redis import RedisServer

SEAT = EventQuery(tags=["seat"])


@pytest.fixture
def store(server: RedisServer, namespace: str) -> Iterator[EventStore]:
    with open_store(server.url, namespace=namespace, retries=0) as store:
        yield store


def note(number: int, *tags: str) -> Event:
    return Event(event_type="Noted", entity_type="note", entity_id=str(number), tags=tags)


def notes(count: int, seat_at: int | None = None) -> list[Event]:
    return [note(number, *(["seat"] if number == seat_at else [])) for number in range(count)]


def backend_of(store: EventStore) -> RedisBackend:
    backend = store._log.backend
    assert isinstance(backend, RedisBackend)
    return backend


def copy_of(server: RedisServer, namespace: str) -> Callable[[], None]:
    """Copy the log as it stands; return what puts the copy back."""
    keys = server.execute("KEYS", f"{{{namespace}}}*")
    assert isinstance(keys, list)
    copies = {key: server.execute("DUMP", key) for key in keys if isinstance(key, bytes)}

    def put_back() -> None:
        now = server.execute("KEYS", f"{{{namespace}}}*")
        assert isinstance(now, list)
        server.execute("UNLINK", *(key for key in now if isinstance(key, bytes)))
        for key, copy in copies.items():
            assert isinstance(copy, bytes)
            server.execute("RESTORE", key, "0", copy)

    return put_back


def after(store: EventStore, script: Script, nth: int, what: Callable[[], object]) -> None:
    """Have something happen as soon as the nth call of a script is answered."""
    connections = backend_of(store).server.connected()
    exchange = connections.exchange
    calls = 0

    def then(commands: Sequence[Sequence[Any]]) -> list[Any]:
        nonlocal calls
        replies = exchange(commands)
        if commands[0][1] in (script.digest, script.text):
            calls += 1
            if calls == nth:
                what()
        return replies

    connections.exchange = then  # type: ignore[method-assign]  # a moment that no proxy can time


def plain(number: int) -> Batch:
    batch = batch_of([note(number)], -1, None)
    assert batch is not None
    return batch


def conditional(store: EventStore, number: int) -> Batch:
    """A batch whose condition was looked into as the log stands."""
    looked = looked_into(store._log, AppendCondition(SEAT), None, joins=False)
    return msgspec.structs.replace(plain(number), condition=looked)


@pytest.mark.parametrize("moment", [(APPEND, 1), (READ, 1)], ids=["before", "behind"])
def test_a_second_look_into_another_past_is_not_trusted(
    server: RedisServer, namespace: str, store: EventStore, moment: tuple[Script, int]
) -> None:
    # Given a condition, then more news than the script looks through, and an older copy
    store.append_batch(notes(10))
    put_back = copy_of(server, namespace)
    batch = conditional(store, 1)
    store.append_batch(notes(700))

    # When the server is put back right before the second look or after it, and others go on: what
    # the condition forbids now stands below where it has been looked into
    def another_past() -> None:
        put_back()
        with open_store(server.url, namespace=namespace) as other:
            other.append_batch(notes(800, seat_at=20))

    assert store.count_events(EventQuery(tags=["x"])) == 0  # the script is known
    after(store, *moment, another_past)
    first, second, third = backend_of(store).commit([plain(2), batch, plain(3)], WAIT)

    # Then that batch alone is told so
    assert isinstance(second, AnotherPastError)
    assert isinstance(first, Accepted)
    assert isinstance(third, Accepted)


def test_a_second_look_into_the_same_past_is_trusted(store: EventStore) -> None:
    store.append_batch(notes(10))
    batch = conditional(store, 1)
    store.append_batch(notes(700))
    first, second = backend_of(store).commit([plain(2), batch], WAIT)
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert len(assert_log_is_sound(store)) == 712


def test_an_append_that_met_another_past_is_judged_by_what_is_there(
    server: RedisServer, namespace: str, store: EventStore
) -> None:
    store.append_batch(notes(10))
    put_back = copy_of(server, namespace)
    store.append_batch(notes(10))

    def another_past() -> None:
        put_back()
        with open_store(server.url, namespace=namespace) as other:
            other.append_batch(notes(10, seat_at=5))

    # When the server is put back between the look into the condition and the commit
    after(store, READ, 1, another_past)
    with pytest.raises(ConditionFailedError) as failed:
        store.append(note(1), condition=AppendCondition(SEAT))
    assert failed.value.sequence == 16
    assert len(assert_log_is_sound(store)) == 20


def test_a_repeat_that_is_gone_when_it_is_looked_up_may_be_tried_again(
    server: RedisServer, namespace: str, store: EventStore
) -> None:
    store.append(note(0))
    put_back = copy_of(server, namespace)
    event = note(1)
    store.append(event)
    assert store.event_exists(event.event_id)
    batch = batch_of([event], -1, None)
    assert batch is not None

    after(store, APPEND, 1, put_back)
    (outcome,) = backend_of(store).commit([batch], WAIT)

    assert isinstance(outcome, StoreUnavailableError)
    assert outcome.transient
    assert isinstance(backend_of(store).commit([batch], WAIT)[0], Accepted)
    assert len(assert_log_is_sound(store)) == 2


def test_a_page_is_not_made_of_two_pasts(
    server: RedisServer, namespace: str, store: EventStore
) -> None:
    # Given a page that takes several calls
    store.append_batch(notes(10))
    put_back = copy_of(server, namespace)
    store.append_batch(notes(5_000))
    query = EventQuery(event_types=["Noted"])
    whole = PageRequest(query=query, limit=6_000)
    assert len(backend_of(store).read(whole)) == 5_010

    # When the server is put back after the first
    after(store, READ, 1, put_back)
    with pytest.raises(StoreUnavailableError, match="put back to an older copy") as refused:
        backend_of(store).read(whole)
    assert refused.value.transient
    assert len(backend_of(store).read(whole)) == 10
