"""What is stored, or may be, is never reported as not stored, wherever the trouble comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from eventstore import (
    AppendCondition,
    CorruptLogError,
    Event,
    EventQuery,
    EventStore,
    StoreUnavailableError,
    open_store,
)
from eventstore._core.appending import batch_of
from eventstore.backend import Accepted, Batch, Condition, Repeated
from eventstore.testing.conformance.base import assert_log_is_sound
from eventstore_redis import RedisBackend
from eventstore_redis.server import APPEND, FIND, READ, Script
from tests.kit.fault_work import WAIT, StartServer
from tests.kit.ports import LOOPBACK
from tests.kit.proxy import Proxy
from tests.kit.servers.redis import RedisServer

Exchange = Callable[[Sequence[Sequence[Any]]], list[Any]]


@pytest.fixture
def store(server: RedisServer, namespace: str) -> Iterator[EventStore]:
    with open_store(server.url, namespace=namespace, retries=0) as store:
        yield store


def note(number: int, **fields: Any) -> Event:
    return Event(event_type="Noted", entity_type="note", entity_id=str(number), **fields)


def batch(*events: Event, stale: int | None = None) -> Batch:
    """A batch; with ``stale``, of a condition that was looked into up to there."""
    made = batch_of(events, -1, None)
    assert made is not None
    if stale is None:
        return made
    asked = AppendCondition(EventQuery(tags=["x"]))
    condition = Condition(asked=asked, query=asked.query, after=0, checked_to=stale)
    return msgspec.structs.replace(made, condition=condition)


def fail(
    store: EventStore, script: Script, nth: int, *, sent: bool, error: BaseException
) -> RedisBackend:
    """Have the nth call of a script fail, before or after the server has done it."""
    backend = store._log.backend
    assert isinstance(backend, RedisBackend)
    server = backend.server.connected()
    exchange: Exchange = server.exchange
    calls = 0

    def failing(commands: Sequence[Sequence[Any]]) -> list[Any]:
        nonlocal calls
        if commands[0][:2] != ("EVALSHA", script.digest):
            return exchange(commands)
        calls += 1
        replies = exchange(commands) if calls != nth or sent else []
        if calls == nth:
            raise error
        return replies

    server.exchange = failing  # type: ignore[method-assign]  # a fault that no proxy can time
    return backend


LOST = RedisConnectionError("lost")
UNSENT = StoreUnavailableError("not reached")


@pytest.mark.parametrize("error", [LOST, UNSENT])
def test_what_is_stored_beside_a_repeat_stands_though_that_cannot_be_looked_up(
    store: EventStore, error: Exception
) -> None:
    old = store.append(note(1)).as_new()
    store.append(old)
    backend = fail(store, FIND, 1, sent=False, error=error)

    accepted, repeat, also = backend.commit([batch(note(2)), batch(old), batch(note(3))], WAIT)

    assert isinstance(accepted, Accepted)
    assert isinstance(also, Accepted)
    assert isinstance(repeat, StoreUnavailableError)
    assert repeat.may_have_written
    assert len(assert_log_is_sound(store)) == 4


def test_the_network_fails_at_the_look_up_of_a_repeat(server: RedisServer, namespace: str) -> None:
    with Proxy(LOOPBACK, server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace, retries=0) as store:
            old = store.append(note(1)).as_new()
            store.append(old)
            assert store.event_exists(old.event_id)  # the script is known now
            cut = proxy.cut_before_answer(FIND.digest.encode())

            accepted, repeat = store._log.backend.commit([batch(note(2)), batch(old)], WAIT)

            assert cut.wait(WAIT)
            assert isinstance(accepted, Accepted)
            assert isinstance(repeat, StoreUnavailableError)
            assert repeat.may_have_written


def test_a_damaged_twin_fails_its_repeat_alone(
    server: RedisServer, namespace: str, store: EventStore
) -> None:
    old = store.append(note(1)).as_new()
    store.append(old)
    server.execute("HSET", f"{{{namespace}}}:ids:", old.event_id.bytes, "99")

    accepted, repeat = store._log.backend.commit([batch(note(3)), batch(old)], WAIT)

    assert isinstance(accepted, Accepted)
    assert isinstance(repeat, CorruptLogError)


@pytest.mark.parametrize(
    ("script", "nth", "sent", "error"),
    [
        (READ, 1, False, LOST),  # the second look into the condition
        (READ, 1, False, UNSENT),
        (APPEND, 2, False, UNSENT),  # and the second append after it
        (APPEND, 2, False, LOST),
        (APPEND, 2, True, LOST),
    ],
)
def test_what_was_stored_before_a_second_look_stands(
    store: EventStore, script: Script, nth: int, *, sent: bool, error: Exception
) -> None:
    # Given more news than a condition may look through in the script
    store.append_batch([note(number) for number in range(700)])
    store.append(note(1_000))  # the script is known
    assert store.count_events(EventQuery(tags=["x"])) == 0
    backend = fail(store, script, nth, sent=sent, error=error)

    # When the server is lost between the first append of a group and the end of the second
    group = [batch(note(1)), batch(note(2), stale=0), batch(note(3))]
    first, *others = backend.commit(group, WAIT)

    # Then the first is told that it is stored, and the others not that they are not
    assert isinstance(first, Accepted)
    for other in others:
        assert isinstance(other, StoreUnavailableError)
        assert other.may_have_written
    assert len(assert_log_is_sound(store)) == 702 + 2 * sent
    # And each, tried again alone as its caller would, ends up stored once
    for each in group:
        (outcome,) = backend.commit([each], WAIT)
        assert isinstance(outcome, Repeated | Accepted)
    assert len(assert_log_is_sound(store)) == 704


def test_an_interrupt_at_the_look_up_lets_others_find_what_is_stored(store: EventStore) -> None:
    old = store.append(note(1)).as_new()
    store.append(old)
    backend = fail(store, FIND, 1, sent=False, error=KeyboardInterrupt())
    new = batch(note(2))

    with pytest.raises(KeyboardInterrupt):
        backend.commit([new, batch(old)], WAIT)

    assert [type(outcome) for outcome in backend.commit([new], WAIT)] == [Repeated]
    assert len(assert_log_is_sound(store)) == 3


@pytest.mark.parametrize("right", ["-wait", "-waitaof"])
def test_a_user_that_may_not_wait_for_replicas_is_told_that_the_append_is_stored(
    start: StartServer, right: str
) -> None:
    server = start(appendonly="no" if right == "-wait" else "yes")
    server.execute("ACL", "SETUSER", "hasty", "on", "nopass", "~*", "+@all", right)
    url = f"redis://hasty:any@{LOOPBACK}:{server.port}/0"
    with open_store(url, replicas=1, durability="relaxed") as store:
        with pytest.raises(StoreUnavailableError, match=r"replicas: .* it is stored") as refused:
            store.append(note(1))
        assert store.get_current_sequence() == 1
    assert refused.value.may_have_written
    assert not refused.value.transient


@pytest.mark.parametrize("right", ["-hset", "-xadd", "-rpush", "-zadd"])
def test_a_user_that_may_do_half_of_an_append_does_nothing_of_it(
    start: StartServer, right: str
) -> None:
    server = start()
    with open_store(server.url) as owner:
        owner.append(note(1))
        server.execute("ACL", "SETUSER", "half", "on", "nopass", "~*", "+@all", right)
        with open_store(f"redis://half:any@{LOOPBACK}:{server.port}/0") as store:
            with pytest.raises(Exception, match="the server refuses") as refused:
                store.append(note(2))
            assert [event.sequence for event in store.get_events()] == [1]
        assert type(refused.value).__name__ == "ConfigurationError"
        assert owner.append(note(3)).sequence == 2
        assert len(assert_log_is_sound(owner)) == 2
