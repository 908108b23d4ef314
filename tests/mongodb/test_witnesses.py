"""What was looked into before a commit began, and what the commit makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pymongo
import pytest

from eventstore import (
    AppendCondition,
    EventQuery,
    EventStore,
    TransactionConflictError,
    drop_namespace,
    open_store,
)
from eventstore._core.appending import batch_of, looked_into
from eventstore.backend import Accepted, Batch
from eventstore.testing.conformance.base import assert_log_is_sound, note, notes
from eventstore.versions import ExpectedVersion
from tests.kit.servers.mongodb import MongoServer

FREE = AppendCondition(EventQuery(tags=["seat"]))


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    with open_store(url, namespace="witness", timeout=20) as store:
        store.append_batch(notes(3))
        yield store
    drop_namespace(url, namespace="witness")


def conditional(store: EventStore) -> Batch:
    """Return a batch whose condition the core has looked into."""
    batch = batch_of([note("n-0")], ExpectedVersion.ANY, None)
    assert batch is not None
    return msgspec.structs.replace(
        batch, condition=looked_into(store._log, FREE, None, joins=False)
    )


def test_a_witness_is_looked_up_along_with_the_ids(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = store._log.backend
    looks: list[Any] = []
    with_ids = backend._reader.with_ids

    def counted(keys: Any, head: int | None = None) -> Any:
        looks.append(keys)
        return with_ids(keys, head)

    batch = conditional(store)
    monkeypatch.setattr(backend._reader, "with_ids", counted)
    (outcome,) = backend.commit([batch], 20)

    assert isinstance(outcome, Accepted)
    assert len(looks) == 1
    assert len(looks[0]) == 2


def test_a_writer_that_has_seen_less_than_the_core_looks_before_it_judges(
    store: EventStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a writer that trusts what it has seen, and events of others since
    backend: Any = store._log.backend
    monkeypatch.setattr(backend._appender, "_trusted", 1000.0)
    with open_store(url, namespace="witness", timeout=20) as other:
        other.append_batch(notes(30))
    batch = conditional(store)
    refused: list[Any] = []
    put = backend._appender._put

    def counted(documents: Any) -> None:
        refused.append(documents)
        put(documents)
        refused.pop()

    # When it commits what the core has looked into since, then no insert is in vain
    monkeypatch.setattr(backend._appender, "_put", counted)
    (outcome,) = backend.commit([batch], 20)
    assert isinstance(outcome, Accepted)
    assert outcome.first_sequence == 34
    assert not refused
    assert len(assert_log_is_sound(store)) == 34


def test_a_conditional_append_in_a_transaction_that_sees_an_old_state_must_run_again(
    server: MongoServer, namespace: str
) -> None:
    with (
        open_store(server.url, namespace=namespace, timeout=5) as store,
        pymongo.MongoClient[Any](server.url) as client,
        client.start_session() as session,
        session.start_transaction(),
    ):
        store.append(note())
        client["eventstore"]["any"].find_one({}, session=session)
        store.append(note())
        with pytest.raises(TransactionConflictError):
            store.append(note("mine"), condition=FREE, connection=session)
        session.abort_transaction()
        with session.start_transaction():
            joined = store.append(note("mine"), condition=FREE, connection=session)
        assert joined.sequence == 3
        assert len(assert_log_is_sound(store)) == 3
