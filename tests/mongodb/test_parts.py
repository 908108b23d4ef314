"""Commits that stand in parts: visible whole or not at all, read a part at a time, and tidied."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.errors import ServerSelectionTimeoutError

from eventstore import (
    AppendCondition,
    ConditionFailedError,
    CorruptLogError,
    Event,
    EventQuery,
    EventStore,
    StoreUnavailableError,
    drop_namespace,
    open_store,
)
from eventstore.testing.conformance.base import assert_log_is_sound, note, stored
from eventstore_mongodb.records import PART

MANY = 5 * PART + 3


def many(tenant_id: str = "") -> list[Event]:
    """Return a batch that needs parts: each event an entity, each third with a tag."""
    return [
        note(f"n-{n}", tags=("third",) if n % 3 == 0 else (), tenant_id=tenant_id)
        for n in range(MANY)
    ]


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    with open_store(url, namespace="parts", timeout=5, retries=0) as store:
        yield store
    drop_namespace(url, namespace="parts")


def commits_of(store: EventStore) -> Any:
    return store._log.backend._commits  # type: ignore[attr-defined]


def leave_orphans(store: EventStore, events: list[Event]) -> None:
    """Be a writer that is lost once its parts stand."""
    appender: Any = store._log.backend._appender  # type: ignore[attr-defined]
    put = appender._put

    def lost(documents: Any) -> None:
        if len(documents) == 1:
            raise ServerSelectionTimeoutError("lost")
        put(documents)

    appender._put = lost
    timeout = store._log.backend._timeout  # type: ignore[attr-defined]
    store._log.backend._timeout = 0.1  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailableError) as raised:
        store._log.backend.commit([_batch(events)], 0.1)
    assert not raised.value.may_have_written
    appender._put = put
    store._log.backend._timeout = timeout  # type: ignore[attr-defined]


def _batch(events: list[Event]) -> Any:
    from eventstore._core.appending import batch_of
    from eventstore.versions import ExpectedVersion

    return batch_of(events, ExpectedVersion.ANY, None)


def parts_in(store: EventStore) -> int:
    return int(commits_of(store).count_documents({"commit": {"$gt": 0}}))


def test_a_large_batch_is_read_as_any_other(store: EventStore) -> None:
    before = store.append(note("n-0"))
    result = list(store.append_batch(many()))
    after = store.append(note("n-1"))
    everything = [before, *result, after]

    assert assert_log_is_sound(store) == everything
    assert stored(store, EventQuery(ascending=False)) == everything[::-1]
    assert stored(store, EventQuery(ascending=False, limit=2)) == [after, result[-1]]
    assert store.get_events_since(PART // 2, limit=PART) == everything[PART // 2 :][:PART]
    middle = EventQuery(from_sequence=PART + 5, to_sequence=3 * PART)
    assert stored(store, middle) == everything[PART + 5 : 3 * PART]
    assert stored(store, middle.replace(ascending=False)) == everything[PART + 5 : 3 * PART][::-1]
    assert store.get_events_for_entity("note", "n-0") == [before, result[0]]
    tagged = [event for event in result if "third" in event.tags]
    assert stored(store, EventQuery(tags=("third",))) == tagged
    assert store.count_events(EventQuery(tags=("third",))) == len(tagged)
    by_time = stored(store, EventQuery(order_by="timestamp"))
    assert sorted(by_time, key=lambda event: event.sequence) == everything
    assert store.get_event_by_id(result[7].event_id) == result[7]
    assert store.get_current_version("note", "n-1") == 2
    assert len(store.list_entities(limit=1000)) == MANY
    assert {event.batch_sequence for event in result} == {2}
    assert store.append_batch([event.replace(sequence=0) for event in many()]).first_sequence > 0


@pytest.mark.parametrize("size", [1, 7, PART, MANY])
def test_a_count_is_that_of_the_events_whatever_field_it_is_by(
    store: EventStore, old: EventStore, size: int
) -> None:
    # Given events that share types, entities, tags (some given twice), workflows and tenants
    events = [
        Event(
            event_type=f"T{n % 3}",
            entity_type=("a", "b")[n % 2],
            entity_id=f"{n % 4}",
            workflow_id=None if n % 5 == 0 else f"w{n % 5}",
            tenant_id=("", "t", "u")[n // 4 % 3],
            tags=("x", "y", "x")[: n % 4],
        )
        for n in range(MANY)
    ]
    for log in (store, old):
        for start in range(0, MANY, size):
            log.append_batch(events[start : start + size])

    # Then every query counts what it finds
    queries = [
        EventQuery(entity_type="a"),
        EventQuery(entity_id="1"),
        EventQuery(entity_type="a", entity_id="2"),
        EventQuery(entity_type="a", entity_id="2", tenant_id=""),
        EventQuery(entity_type="a", entity_id="2", tenant_id="t"),
        EventQuery(entity_type="a", tenant_id="t"),
        EventQuery(entity_id="1", tenant_id="t"),
        EventQuery(workflow_id="w1"),
        EventQuery(tenant_id=""),
        EventQuery(tenant_id="t"),
        EventQuery(tags=("x",)),
        EventQuery(tags=("x", "x")),
        EventQuery(tags=("x", "y")),
        EventQuery(tags=("x",), workflow_id="w2"),
        EventQuery(tags=("x",), from_sequence=11, to_sequence=PART + 9),
        EventQuery(tags=("x",), to_timestamp=events[MANY // 2].timestamp),
        EventQuery(event_types=("T1",)),
        EventQuery(event_types=("T1", "T1")),
        EventQuery(event_types=("T1", "T2")),
        EventQuery(any_of=(EventQuery(tags=("x",)), EventQuery(workflow_id="w1"))),
    ]
    for log in (store, old):
        everything = stored(log)
        for query in queries:
            expected = sum(map(query.matches, everything))
            assert 0 < expected < MANY
            assert log.count_events(query) == expected, query


def test_a_repeat_of_a_large_batch_is_recognised(store: EventStore) -> None:
    events = many()
    first = store.append_batch(events)
    again = store.append_batch(events)
    assert again.replayed
    assert list(again) == list(first)


def test_parts_whose_writer_was_lost_are_nobodys_events(store: EventStore) -> None:
    # Given a writer that ended between its parts and its commit
    recorded = store.append(note("n-0", tags=("third",)))
    orphans = many()
    leave_orphans(store, orphans)
    assert parts_in(store) == 6

    # Then no read sees anything of them
    assert stored(store) == [recorded]
    assert store.get_current_sequence() == 1
    assert store.get_current_version("note", "n-5") == 0
    assert store.get_event_by_id(orphans[4].event_id) is None
    assert stored(store, EventQuery(tags=("third",))) == [recorded]
    assert stored(store, EventQuery(order_by="timestamp")) == [recorded]
    now = datetime.now(UTC)
    window = EventQuery(from_timestamp=recorded.timestamp, to_timestamp=now)
    assert stored(store, window) == [recorded]
    assert store.count_events(window) == 1
    assert store.count_events(EventQuery(tags=("third",))) == 1
    assert [entity.entity_id for entity in store.list_entities()] == ["n-0"]

    # And its place is taken by whoever comes, with the same events too
    condition = AppendCondition(EventQuery(entity_id="n-5"))
    result = store.append_batch(orphans, condition=condition, expected_version={})
    assert result.sequences == tuple(range(2, MANY + 2))
    with pytest.raises(ConditionFailedError):
        store.append(note(), condition=condition)
    assert len(assert_log_is_sound(store)) == MANY + 1
    assert store.count_events(EventQuery(entity_id="n-5")) == 1


def test_parts_that_count_for_nothing_hide_none_that_end_alike(store: EventStore) -> None:
    for count in range(1, 9):
        # Given a lost writer's parts at the place where another's commit then stands
        leave_orphans(store, [note("n-1") for _ in range(MANY)])
        store.append_batch([note("n-1") for _ in range(MANY)])

        # When the version is looked up, then it is that of the last event, whichever comes first
        assert store.get_current_version("note", "n-1") == count * MANY
    assert_log_is_sound(store)


@pytest.mark.parametrize("look", ["version", "events by id"])
def test_a_look_beside_a_writer_sees_all_parts_of_a_commit_or_none(
    url: str, store: EventStore, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    # Given a batch of one entity, of which another writer has written two parts
    store.append(note("n-1"))
    batch = [note("n-1") for _ in range(MANY)]
    looks = {
        "version": lambda: store.get_current_version("note", "n-1") - 1,
        "events by id": lambda: len(
            store._log.backend.find([("", event.event_id) for event in batch])
        ),
    }
    held_back: list[Any] = []
    with open_store(url, namespace="parts", timeout=5) as other:
        appender: Any = other._log.backend._appender  # type: ignore[attr-defined]
        put = appender._put

        def write_some(documents: Any) -> None:
            parts = documents[:2] if len(documents) > 1 else []
            held_back.append(documents[len(parts) :])
            if parts:
                put(parts)

        appender._put = write_some
        other.append_batch(batch)

        # When somebody's look finds these, and the commit stands before it asks whether it does
        reader: Any = store._log.backend._reader  # type: ignore[attr-defined]
        pieces_of = reader.pieces

        def found_then_complete(found: Any) -> Any:
            pieces = pieces_of(found)
            while held_back:
                put(held_back.pop(0))
            return pieces

        monkeypatch.setattr(reader, "pieces", found_then_complete)
        seen = looks[look]()

        # Then it sees all of the batch, or none of it
        assert not held_back
        assert seen in (0, MANY)
        assert looks[look]() == MANY


def test_orphans_go_when_a_store_is_opened_and_their_place_is_taken(
    url: str, store: EventStore
) -> None:
    store.append_batch(many())
    leave_orphans(store, many())
    for _ in range(2):  # their writer might still commit
        open_store(url, namespace="parts").close()
        assert parts_in(store) == 12
    store.append(note())
    open_store(url, namespace="parts").close()
    assert parts_in(store) == 6
    assert len(assert_log_is_sound(store)) == MANY + 1


def test_who_loses_a_race_takes_its_parts_along(url: str, store: EventStore) -> None:
    store.append(note())
    appender: Any = store._log.backend._appender  # type: ignore[attr-defined]
    put = appender._put
    with open_store(url, namespace="parts") as other:

        def beaten(documents: Any) -> None:
            put(documents)
            if len(documents) > 1:
                appender._put = put
                other.append_batch(many())

        appender._put = beaten
        assert store.append_batch(many()).first_sequence == MANY + 2
    assert parts_in(store) == 12
    assert len(assert_log_is_sound(store)) == 2 * MANY + 1


def test_a_missing_part_raises(store: EventStore) -> None:
    store.append_batch(many())
    commits = commits_of(store)
    commits.delete_one({"commit": 1, "first": PART + 1})
    with pytest.raises(CorruptLogError):
        stored(store)
    with pytest.raises(CorruptLogError):
        stored(store, EventQuery(ascending=False))


def test_the_entity_without_a_tenant_is_found_past_any_number_of_a_tenants(url: str) -> None:
    """Nobody without rights to an entity may make others walk through what he wrote."""
    with open_store(url, namespace="tenants") as store:
        store.append(Event(event_type="T", entity_type="order", entity_id="1"))
        backend: Any = store._log.backend
        asked: list[Any] = []
        find = backend._reader.find

        def counted(*arguments: Any, **shape: Any) -> Any:
            asked.append(arguments)
            return find(*arguments, **shape)

        for _ in range(600 // PART):
            batch = [
                Event(event_type="T", entity_type="order", entity_id="1", tenant_id="b")
                for _ in range(PART)
            ]
            store.append_batch(batch)
        for n in range(100):
            store.append(
                Event(event_type="T", entity_type="order", entity_id="1", tenant_id=f"b{n}")
            )
        backend._reader.find = counted
        assert store.get_current_version("order", "1") == 1
        assert len(asked) == 1
        assert store.get_current_version("order", "1", tenant_id="b") == 600 // PART * PART
        assert store.get_current_version("order", "1", tenant_id="b7") == 1
        assert store.count_events(EventQuery(entity_type="order", entity_id="1")) == 701
        assert store.count_events(EventQuery(entity_type="order", entity_id="1", tenant_id="")) == 1
    drop_namespace(url, namespace="tenants")


# --- Logs of the release before


@pytest.fixture
def old(url: str) -> Iterator[EventStore]:
    """A log of format 1, as the release before made it."""
    with open_store(url, namespace="old") as store:
        backend: Any = store._log.backend
        query = {"$set": {"format": {"reader": 1, "writer": 1}}}
        backend._namespace.meta.update_one({"_id": "log"}, query)
        backend._commits.create_index([("keys", 1), ("last", 1)])
    with open_store(url, namespace="old") as store:
        yield store
    drop_namespace(url, namespace="old")


def test_a_log_of_format_1_is_written_as_its_other_writers_do(old: EventStore) -> None:
    events = [*many(), *many("b")]
    recorded = list(old.append_batch(events))
    recorded.append(old.append(note("n-0")))

    first, second = commits_of(old).find().sort("_id", 1)
    assert set(first) == {
        *("_id", "last", "token", "recorded_at", "time_index", "keys", "versions", "events")
    }
    assert (first["last"], len(first["events"])) == (2 * MANY, 2 * MANY)
    assert {"entity:note/n-0", "entity:note/n-0/b"} <= set(first["keys"])
    assert "end" not in second
    assert not any(key.startswith("tenants:") for key in first["keys"])
    assert assert_log_is_sound(old) == recorded
    assert old.get_current_version("note", "n-0") == 2
    assert old.get_current_version("note", "n-0", tenant_id="b") == 1
    assert old.count_events(EventQuery(entity_type="note", entity_id="n-0")) == 3
    assert stored(old, EventQuery(tags=("third",), ascending=False))[0].tenant_id == "b"


def test_an_entity_that_only_tenants_have_is_at_version_0_in_a_log_of_format_1(
    old: EventStore,
) -> None:
    for _ in range(3):
        old.append(note("x", tenant_id="b"))
    assert old.get_current_version("note", "x") == 0
    assert old.append(note("x"), expected_version=0).version == 1
