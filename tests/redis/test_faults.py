"""Nothing is lost, torn or stored twice, whatever happens to server, client and network."""

from __future__ import annotations

import pytest

from eventstore import Event, EventQuery, EventStore, StoreUnavailableError, open_store
from eventstore.testing.conformance.base import assert_log_is_sound
from eventstore.testing.conformance.processes import FreshProcess
from tests.kit.fault_work import (
    WAIT,
    StartServer,
    append_one_batch,
    assert_all_there,
    load,
    some_events,
    wait_for_growth,
)
from tests.kit.proxy import Proxy
from tests.kit.servers.redis import RedisServer


def test_what_was_acknowledged_survives_kills_of_the_server_under_load(start: StartServer) -> None:
    # Given a server that flushes every write, and processes that append
    server = start()
    with open_store(server.url, timeout=WAIT, retries=10_000) as store, load(server.url) as end:
        head = wait_for_growth(store, 30)
        # When the server is killed and comes back, again and again
        for _ in range(3):
            server.kill()
            server.start()
            head = wait_for_growth(store, 30, since=head)
        # Then every acknowledged batch is there, once, whole and in order
        assert_all_there(store, end())


def test_appends_go_on_while_the_server_forgets_its_scripts(
    server: RedisServer, namespace: str
) -> None:
    with (
        open_store(server.url, namespace=namespace) as store,
        load(server.url, namespace=namespace) as end,
    ):
        head = wait_for_growth(store, 10)
        for _ in range(50):
            server.execute("SCRIPT", "FLUSH")
            head = wait_for_growth(store, 1, since=head)
        assert_all_there(store, end())


@pytest.mark.parametrize("sent", [10_000, 1_000_000])
def test_a_client_killed_within_a_large_batch_leaves_nothing_of_it(
    server: RedisServer, namespace: str, sent: int
) -> None:
    size = 20_000  # some 4 MB
    with (
        open_store(server.url, namespace=namespace) as store,
        Proxy("127.0.0.1", server.port) as proxy,
    ):
        store.append(some_events("before", 1, 1)[0])
        url = server.url_at(proxy.host, proxy.port)
        with FreshProcess(append_one_batch, url, namespace, size) as client:
            assert client.hear() == "begins"
            proxy.refuse()  # nor can it try again
            assert proxy.cut_after(sent).wait(WAIT)
            client.kill()
        after = store.append(some_events("after", 1, 1)[0])

        assert after.sequence == 2
        assert len(assert_log_is_sound(store)) == 2


def test_a_client_killed_before_it_hears_leaves_its_batch_whole(
    server: RedisServer, namespace: str
) -> None:
    size = 5_000
    with (
        open_store(server.url, namespace=namespace) as store,
        Proxy("127.0.0.1", server.port) as proxy,
    ):
        url = server.url_at(proxy.host, proxy.port)
        with FreshProcess(append_one_batch, url, namespace, size) as client:
            assert client.hear() == "begins"
            cut = proxy.cut_before_answer(b"EVAL")
            proxy.refuse()
            assert cut.wait(WAIT)
            client.kill()

        assert len(assert_log_is_sound(store)) in (0, size)  # the script may have been unknown


def test_a_lost_answer_is_found_out_and_nothing_is_stored_twice(
    server: RedisServer, namespace: str
) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace) as store:
            store.append(some_events("first", 1, 1)[0])
            cut = proxy.cut_before_answer(b"lost answer")

            result = store.append_batch(some_events("lost answer", 1, 3))

            assert cut.wait(0)
            assert result.replayed
            assert result.sequences == (2, 3, 4)
            assert len(assert_log_is_sound(store)) == 4


def test_without_retries_a_lost_answer_says_that_it_may_be_written(
    server: RedisServer, namespace: str
) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace, retries=0) as store:
            (event,) = some_events("lost answer", 1, 1)
            store.append(some_events("first", 1, 1)[0])
            proxy.cut_before_answer(b"lost answer")
            with pytest.raises(StoreUnavailableError) as lost:
                store.append(event)
            proxy.refuse()
            proxy.reset()
            with pytest.raises(StoreUnavailableError) as unsent:
                store.append(event)

    assert lost.value.may_have_written
    assert not unsent.value.may_have_written


def test_a_silent_server_is_given_up_in_time(server: RedisServer, namespace: str) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace, timeout=0.5) as store:
            proxy.pause()
            with pytest.raises(StoreUnavailableError) as unheard:
                store.append(some_events("w", 1, 1)[0])
            with pytest.raises(StoreUnavailableError):
                store.get_current_sequence()
            proxy.resume()
            store.append(some_events("w", 2, 1)[0])

    assert unheard.value.may_have_written


def test_a_full_server_refuses_whole_batches_and_goes_on_when_there_is_room(
    start: StartServer,
) -> None:
    server: RedisServer = start(maxmemory="8mb", maxmemory_policy="noeviction")
    with open_store(server.url) as store:
        # When batches are appended until the memory is full
        with pytest.raises(StoreUnavailableError, match="maxmemory") as refused:
            _append_large(store, 100_000)
        stored = store.get_current_sequence()
        # Then the refusal is told at once and for what it is, and nothing of it was written
        assert not refused.value.transient
        assert not refused.value.may_have_written
        assert len(assert_log_is_sound(store)) == stored > 0
        assert stored % 50 == 0
        assert store.count_events(EventQuery(event_types=["Large"])) == stored
        # And with room again, all goes on
        server.execute("CONFIG", "SET", "maxmemory", "0")
        assert store.append(_large(stored)).sequence == stored + 1


def _append_large(store: EventStore, count: int) -> None:
    for first in range(0, count, 50):
        store.append_batch([_large(first + place) for place in range(50)])


def _large(number: int) -> Event:
    return Event(event_type="Large", entity_type="e", entity_id=str(number), data={"x": "x" * 500})
