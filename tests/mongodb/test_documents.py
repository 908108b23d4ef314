"""What stands in the database: readable by people, limited in size, and the same when read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import bson
import pymongo
import pytest
from bson import Decimal128, ObjectId, Timestamp
from bson.binary import UuidRepresentation
from bson.raw_bson import RawBSONDocument

from eventstore import (
    AppendResult,
    BatchTooLargeError,
    CorruptLogError,
    Event,
    EventQuery,
    EventStore,
    ExpectedVersion,
    StoreUnavailableError,
    open_store,
)
from eventstore._core.appending import batch_of
from eventstore.testing.conformance.base import assert_log_is_sound, note, notes, stored
from eventstore_mongodb.pieces import Piece
from eventstore_mongodb.records import RAW
from tests.kit.servers.mongodb import MongoServer

MEGABYTE = 1_000_000


def append_as_one_group(
    store: EventStore, batches: list[list[Event]]
) -> list[AppendResult | Exception]:
    """Append batches as several threads would whose batches travel together."""
    prepared = [batch_of(events, ExpectedVersion.ANY, None) for events in batches]
    answers = store._log.append([batch for batch in prepared if batch is not None])
    return [answer if isinstance(answer, Exception) else answer.result() for answer in answers]


@pytest.fixture
def store(server: MongoServer, namespace: str) -> Iterator[EventStore]:
    with open_store(server.url, namespace=namespace) as store:
        yield store


@pytest.fixture
def commits(server: MongoServer, namespace: str) -> Iterator[Any]:
    """The collection, as anyone may look at it."""
    with pymongo.MongoClient[Any](server.url, uuidRepresentation="standard") as client:
        yield client["eventstore"][f"{namespace}.commits"]


def test_people_can_query_what_is_stored(store: EventStore, commits: Any) -> None:
    event = note(
        "n-1",
        data={"total": 42, "lines": [{"sku": "a", "price": 1.5}]},
        metadata={"actor_id": "ada"},
        tags=("vip",),
        timestamp=datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC),
    )
    recorded = store.append(event)

    assert commits.database.client.options.codec_options[2] == UuidRepresentation.STANDARD
    for query in (
        {"events.id": event.event_id},
        {"events.data.total": {"$gt": 41}},
        {"events.data.lines.sku": "a"},
        {"events.timestamp": {"$gt": datetime(2024, 5, 6)}},  # noqa: DTZ001 - as it is stored
        {"keys": "entity:note/n-1"},
        {"keys": "tag:vip"},
    ):
        (commit,) = commits.find(query)
        assert (commit["_id"], commit["last"]) == (1, 1)
        (found,) = commit["events"]
        assert found["data"] == event.data
        assert found["metadata"] == event.metadata
        assert found["sequence"] == 1
        assert found["version"] == 1
    assert stored(store) == [recorded]
    assert recorded.timestamp == event.timestamp


@pytest.mark.parametrize(
    "data",
    [
        {"$ref": "c", "$id": 1},
        {"x": {"$ref": "c", "$id": 1, "$db": "d", "more": True}},
        {"x": [{"b": 1, "$id": 2, "$ref": "c"}]},
        {"$set": {"$inc": 1}, "%24set": 2, "%25": 3, "%": 4, "24": 5},
        {"%ref": {"$ref": "$ref"}},
        {"$": 1, "$$": 2, "a$b": 3, "a.b": {".": 4}, "": {"": 5}},
        {"n": 2**31 - 1, "m": 2**31, "o": -(2**63), "f": 2.0**40},
        {"deep": [[[2**40, {"$x": [2**41]}]]]},
        {"text": '"$ 1234567890 "% \0'},
    ],
)
def test_what_looks_special_to_a_driver_comes_back_as_it_was(
    store: EventStore, data: dict[str, Any]
) -> None:
    recorded = store.append_batch([note(data=data, metadata=data), note(data={"n": 1})])

    for found in (stored(store), stored(store, EventQuery(entity_id="n-1"))):
        assert repr(found) == repr(list(recorded))
    again = store.get_event_by_id(recorded[0].event_id)
    assert again is not None
    assert repr((again.data, again.metadata)) == repr((data, data))
    assert store.append_batch([event.as_new() for event in stored(store)]).last_sequence == 4


def test_what_others_added_to_a_commit_is_passed_over(store: EventStore, commits: Any) -> None:
    recorded = list(store.append_batch(notes(3)))
    added = {
        "a": ObjectId(),
        "b": Timestamp(1, 2),
        "c": Decimal128("1.5"),
        "d": [None, True, 2.5, 2**40, b"x", "events", {"events": []}],
    }
    commits.update_one({"_id": 1}, {"$set": added})

    assert assert_log_is_sound(store) == recorded
    assert stored(store, EventQuery(entity_id=recorded[0].entity_id))[0] == recorded[0]


def test_a_document_that_is_cut_off_is_told_as_corrupt() -> None:
    whole = bson.encode({"_id": 1, "last": 1, "token": b"x", "recorded_at": datetime.now(UTC)})
    assert Piece(RawBSONDocument(whole, RAW)).last == 1

    class Cut:
        """A document of which the driver looked at no more than the length."""

        def __init__(self, raw: bytes) -> None:
            self.raw = raw

    for length in range(len(whole) - 1):
        cut: Any = Cut(whole[:length])
        with pytest.raises(CorruptLogError):
            Piece(cut)


def test_a_batch_too_large_for_a_document_is_refused_before_anything_is_written(url: str) -> None:
    with open_store(url, namespace="large") as store:
        store.append(note())
        event = note(data={"text": "x" * (17 * MEGABYTE)})
        with pytest.raises(BatchTooLargeError, match="bytes"):
            store.append(event)
        with pytest.raises(BatchTooLargeError):
            store.append_batch([note(data={"text": "x" * 6 * MEGABYTE}) for _ in range(3)])

        assert store.append(note(data={"text": "x" * (16 * MEGABYTE)})).sequence == 2
        assert len(assert_log_is_sound(store)) == 2


def test_a_group_too_large_for_a_document_is_split_between_its_batches(url: str) -> None:
    """The store's own estimate of a batch's weight is what groups are made by; should that
    ever be too low, the size of the document counts."""
    with open_store(url, namespace="group") as store:
        batches = [
            [note(f"n-{n}", data={"text": "x" * (5 * MEGABYTE)}), note(f"n-{n}")] for n in range(5)
        ]
        batches.insert(3, [note("large", data={"text": "x" * (17 * MEGABYTE)})])
        results = append_as_one_group(store, batches)

        assert isinstance(results[3], BatchTooLargeError)
        del results[3]
        for n, result in enumerate(results):
            assert isinstance(result, AppendResult)
            assert list(result) == stored(store, EventQuery(entity_id=f"n-{n}"))
        assert len(assert_log_is_sound(store)) == 10


def test_one_document_is_one_commit_of_many_batches(store: EventStore, commits: Any) -> None:
    results = append_as_one_group(store, [notes(2, "a"), notes(3, "b"), notes(1, "a")])

    assert len(results) == 3
    (commit,) = commits.find()
    assert (commit["_id"], commit["last"]) == (1, 6)
    assert [event.batch_sequence for event in assert_log_is_sound(store)] == [1, 1, 3, 3, 3, 6]


def test_a_gap_is_never_left_where_the_log_was_rewound(
    server: MongoServer, store: EventStore, commits: Any
) -> None:
    store.append_batch(notes(3))
    store.append(note())
    commits.delete_many({"_id": {"$gt": 1}})  # as a restored copy would

    with open_store(server.url, namespace=commits.name.partition(".")[0]) as fresh:
        assert fresh.append(note()).sequence == 4
    assert store.get_current_sequence() == 4
    assert store.append(note()).sequence == 5
    assert_log_is_sound(store)


def test_a_new_primary_that_lags_is_waited_for(store: EventStore, commits: Any) -> None:
    store.append_batch(notes(2))
    backend: Any = store._log.backend
    head = backend._reader.head
    backend._reader.head = lambda: 0  # what a majority read of such a primary shows
    backend.confirmed_head = lambda: 2  # what a linearizable one does
    with pytest.raises(StoreUnavailableError, match="caught up"):
        backend.head()
    backend._reader.head = head
    assert store.get_current_sequence() == 2


def test_what_a_lagging_primary_shows_to_one_thread_is_passed_on_by_no_other(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a primary that shows none of two events that were seen
    store.append_batch(notes(2))
    backend: Any = store._log.backend
    find = backend._reader.find

    def lagging(query: Any, *projection: Any, **shape: Any) -> Any:
        return iter(()) if "last" in query else find(query, *projection, **shape)

    monkeypatch.setattr(backend._reader, "find", lagging)
    asked: list[str] = []

    def confirmed_head() -> int:
        # When another thread asks for the head while the first has it confirmed
        asked.append("confirmed")
        if len(asked) == 1:
            with pytest.raises(StoreUnavailableError, match="caught up"):
                backend.head()
        return 2

    monkeypatch.setattr(backend, "confirmed_head", confirmed_head)

    # Then neither takes the head to be lower
    with pytest.raises(StoreUnavailableError, match="caught up"):
        backend.head()
    assert len(asked) == 2
    monkeypatch.undo()
    assert store.get_current_sequence() == 2
