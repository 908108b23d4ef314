"""Nothing is lost, torn or stored twice, whatever happens to server, client and network."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from eventstore import Event, StoreUnavailableError, open_store
from eventstore.testing.conformance.base import assert_log_is_sound, note
from tests.kit.fault_work import WAIT, assert_all_there, load, some_events, wait_for_growth
from tests.kit.proxy import Proxy
from tests.kit.servers.mongodb import MongoServer


def marked(count: int = 1) -> list[Event]:
    """Return events whose data tells an insert from the look-ups before it."""
    return [note(data={"mark": "in the insert alone", "n": n}) for n in range(count)]


def test_what_was_acknowledged_survives_kills_of_the_server_under_load(
    start: Callable[[], MongoServer],
) -> None:
    # Given a server, and processes that append
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


def test_a_lost_answer_is_found_out_and_nothing_is_stored_twice(
    server: MongoServer, namespace: str
) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace) as store:
            store.append(note())
            cut = proxy.cut_before_answer(b"in the insert alone")

            result = store.append_batch(marked(3))

            assert cut.wait(0)
            assert result.sequences == (2, 3, 4)
            assert len(assert_log_is_sound(store)) == 4


def test_a_request_that_was_lost_is_sent_again(server: MongoServer, namespace: str) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace) as store:
            appended = [store.append(note())]
            for bytes_sent in (0, 100, 500, 1000, 2000):
                cut = proxy.cut_after(bytes_sent)
                while not cut.wait(0):
                    appended += store.append_batch(marked(3))
            assert assert_log_is_sound(store) == appended


def test_a_lost_answer_that_stays_lost_may_have_been_written(
    server: MongoServer, namespace: str
) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace, retries=0, timeout=1.0) as store:
            (event,) = marked()
            store.append(note())
            cut = proxy.cut_before_answer(b"in the insert alone")
            proxy.refuse()
            with pytest.raises(StoreUnavailableError) as lost:
                store.append(event)
            assert cut.wait(0)
            with pytest.raises(StoreUnavailableError) as unsent:
                store.append(event)
            proxy.resume()
            recorded = store.append_batch([event])

    assert lost.value.may_have_written
    assert not unsent.value.may_have_written
    assert (recorded.replayed, recorded.sequences) == (True, (2,))


def test_a_silent_server_is_given_up_in_time(server: MongoServer, namespace: str) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        with open_store(url, namespace=namespace, timeout=1.0) as store:
            store.append(some_events("w", 1, 1)[0])
            proxy.pause()
            begun = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                store.append(some_events("w", 2, 1)[0])
            with pytest.raises(StoreUnavailableError):
                store.get_current_sequence()
            with pytest.raises(StoreUnavailableError):
                store.wait_for_events(1, timeout=10)
            assert time.monotonic() - begun < 3 * 1.0 + 2.0
            proxy.resume()
            store.append(some_events("w", 3, 1)[0])
            assert_log_is_sound(store)


def test_a_stopped_server_is_told_in_time_and_found_again(
    start: Callable[[], MongoServer],
) -> None:
    server = start()
    with open_store(server.url, timeout=1.5) as store:
        store.append(some_events("w", 1, 1)[0])
        server.stop()
        for call in (
            lambda: store.append(some_events("w", 2, 1)[0]),
            store.get_current_sequence,
            lambda: list(store.get_events()),
            lambda: open_store(server.url, timeout=1.5),
        ):
            begun = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="did not answer"):
                call()
            assert time.monotonic() - begun < 1.5 + 1.0
        server.start()
        store.append(some_events("w", 3, 1)[0])
        assert len(assert_log_is_sound(store)) == 2
