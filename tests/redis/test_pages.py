"""Pages and conditions over more events than one call of a script looks at."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest

from eventstore import (
    AppendCondition,
    BatchTooLargeError,
    ConditionFailedError,
    CorruptLogError,
    Entity,
    Event,
    EventQuery,
    EventStore,
    InvalidQueryError,
    StoreUnavailableError,
    open_store,
)
from eventstore._core.appending import batch_of
from eventstore.backend import (
    Accepted,
    Backend,
    Condition,
    PageRequest,
    Settings,
    deadline,
    drop_log,
    open_log,
)
from eventstore.memory import MemoryBackend
from eventstore_redis import RedisBackend
from tests.kit.fault_work import WAIT
from tests.kit.servers.redis import RedisServer

MANY = 6_000  # more than one call of read.lua looks at
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def many_events() -> list[Event]:
    """Events in which every field repeats in another rhythm, and times go to and fro."""
    chance = random.Random(6)
    return [
        Event(
            event_type=f"T{n % 3}",
            entity_type=f"e{n % 2}",
            entity_id=f"{n % 700}",
            tenant_id=("", "a", "b")[n % 3],
            workflow_id=f"w{n % 11}" if n % 5 else None,
            tags=tuple(f"t{k}" for k in range(4) if n % (k + 2) == 0),
            timestamp=EPOCH + timedelta(days=chance.randrange(-4_000, 4_000)),
            data={"n": n},
        )
        for n in range(MANY)
    ]


@pytest.fixture(scope="module")
def both(server: RedisServer) -> Iterator[tuple[Backend, Backend]]:
    """The same log on the server and in memory."""
    redis = Settings.parse(server.url, {"namespace": "pages"}, RedisBackend.options)
    memory = Settings.parse("memory://", {}, MemoryBackend.options)
    events = many_events()
    with open_store(server.url, namespace="pages") as store:
        store.append_batch(events)
    backends = open_log(RedisBackend, redis), open_log(MemoryBackend, memory)
    batch = batch_of(events, -1, None)
    assert batch is not None
    backends[1].commit([batch], WAIT)
    yield backends
    backends[0].close()
    drop_log(RedisBackend, redis)


DAY = timedelta(days=1)
QUERIES = {
    "everything": EventQuery(),
    "one field": EventQuery(event_types=["T1"]),
    "two types": EventQuery(event_types=["T1", "T2", "none"]),
    "an entity": EventQuery(entity_type="e0", entity_id="14", tenant_id="a"),
    "an entity id": EventQuery(entity_id="14"),
    "an entity of any tenant": EventQuery(entity_type="e1", entity_id="15"),
    "several fields": EventQuery(entity_type="e1", tenant_id="b", workflow_id="w7"),
    "tags": EventQuery(tags=["t0", "t1", "t3"]),
    "fields that never meet": EventQuery(event_types=["T1"], tenant_id="b"),
    "a value that is not there": EventQuery(workflow_id="nowhere"),
    "no tenant": EventQuery(tenant_id=""),
    "a short time": EventQuery(from_timestamp=EPOCH - 99 * DAY, to_timestamp=EPOCH + 99 * DAY),
    "a long time": EventQuery(from_timestamp=EPOCH - 999 * DAY),
    "an instant and a field": EventQuery(
        from_timestamp=EPOCH + 9 * DAY, to_timestamp=EPOCH + 9 * DAY, tenant_id="a"
    ),
    "alternatives": EventQuery(
        any_of=[
            EventQuery(entity_id="3", event_types=["T0"]),
            EventQuery(entity_id="3"),
            EventQuery(tags=["t3"], workflow_id="w2"),
        ]
    ),
    "alternatives within a field": EventQuery(
        tenant_id="a", any_of=[EventQuery(entity_id="22"), EventQuery(from_sequence=5_000)]
    ),
    "an alternative in time": EventQuery(
        any_of=[
            EventQuery(entity_id="5"),
            EventQuery(from_timestamp=EPOCH, to_timestamp=EPOCH + 50 * DAY, to_sequence=3_000),
        ]
    ),
    "sequences": EventQuery(from_sequence=4_990, to_sequence=5_020, event_types=["T0"]),
}
SHAPES: dict[str, dict[str, Any]] = {
    "all": {"limit": MANY},
    "a page": {"limit": 10},
    "a page further on": {"limit": 10, "offset": 7, "after": 100},
    "far off": {"limit": 5, "offset": 1_500},
    "a window": {"limit": 1_000, "after": 2_500, "up_to": 2_600},
    "beyond the end": {"limit": 10, "after": MANY},
    "a huge position": {"limit": 10, "after": 2**63 - 1},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_page_is_what_the_memory_backend_gives(
    both: tuple[Backend, Backend], query: EventQuery, shape: dict[str, Any]
) -> None:
    redis, memory = both
    for order_by in ("sequence", "timestamp"):
        for ascending in (True, False):
            page = PageRequest(query=query, order_by=order_by, ascending=ascending, **shape)
            expected = memory.read(page)
            assert _sequences(redis.read(page)) == _sequences(expected)
            if order_by == "timestamp" and expected:
                middle = expected[len(expected) // 2]
                page = msgspec.structs.replace(
                    page, offset=0, resume=(middle.timestamp, middle.sequence)
                )
                assert _sequences(redis.read(page)) == _sequences(memory.read(page))


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_count_is_what_the_memory_backend_gives(
    both: tuple[Backend, Backend], query: EventQuery
) -> None:
    redis, memory = both
    assert redis.count(query) == memory.count(query)


def test_entities_are_listed_as_the_memory_backend_does(both: tuple[Backend, Backend]) -> None:
    redis, memory = both
    for entity_type in (None, "e1", "none"):
        for tenant_id in (None, "", "b"):
            for limit, offset in ((5, 0), (2_000, 0), (10, 300)):
                asked = (entity_type, tenant_id, limit, offset)
                assert redis.list_entities(*asked) == memory.list_entities(*asked)


def test_an_entity_is_read_from_a_version_on(both: tuple[Backend, Backend]) -> None:
    redis, memory = both
    entity = Entity("e0", "14", "a")
    query = EventQuery(entity_type="e0", entity_id="14", tenant_id="a")
    assert redis.version(entity) == memory.version(entity) > 2
    for version in (0, 1, 2, 99):
        page = PageRequest(query=query, limit=10, above_version=version)
        expected = [(event.sequence, event.version) for event in memory.read(page)]
        assert [(event.sequence, event.version) for event in redis.read(page)] == expected


LARGE_QUERIES = {
    "alternatives that share their values": EventQuery(
        any_of=[
            EventQuery(event_types=[f"T{n % 4}"], tags=[f"t{n % 3}", f"t{n % 5}"], entity_id=f"{k}")
            for n, k in enumerate(range(0, 700, 2))
        ]
    ),
    "alternatives in every field": EventQuery(
        any_of=[
            each.replace(to_sequence=5_000)
            for n in range(100)
            for each in (
                EventQuery(entity_type="e1", entity_id=f"{n}", tenant_id="a", tags=["t2"]),
                EventQuery(workflow_id=f"w{n}", event_types=["T1", "T2"], tags=["t3"]),
                EventQuery(entity_id=f"{n}", from_timestamp=EPOCH),
                EventQuery(tags=["t0", "t1", "t2", "t3"], tenant_id="b"),
            )
        ]
    ),
    "alternatives, some without a value": EventQuery(
        event_types=["T0", "T1"],
        any_of=[
            *(EventQuery(tags=[f"t{n}"], workflow_id=f"w{n}") for n in range(200)),
            EventQuery(from_sequence=300, to_sequence=400),
            EventQuery(to_timestamp=EPOCH - 3_900 * DAY),
        ],
    ),
    "many alternatives": EventQuery(any_of=[EventQuery(entity_id=f"{n}") for n in range(150, 700)]),
    "many alternatives with many tags": EventQuery(
        tenant_id="a",
        any_of=[
            EventQuery(entity_id=f"{n}", tags=["t0", *(f"x{k}" for k in range(n % 4 and 20))])
            for n in range(400)
        ],
    ),
    "many types": EventQuery(
        event_types=["T1", *(f"x{n}" for n in range(900))],
        entity_type="e1",
        any_of=[EventQuery(event_types=["T1", *(f"y{n}" for n in range(900))])] * 2,
    ),
    "many types in alternatives": EventQuery(
        any_of=[
            EventQuery(event_types=["T2", *(f"x{n}" for n in range(900))], tenant_id=tenant_id)
            for tenant_id in ("a", "b", "c")
        ]
    ),
    "many windows of time": EventQuery(
        tenant_id="b",
        any_of=[
            EventQuery(from_timestamp=EPOCH + n * DAY, to_timestamp=EPOCH + n * DAY)
            for n in range(-300, 300, 2)
        ],
    ),
}


@pytest.mark.parametrize("query", LARGE_QUERIES.values(), ids=LARGE_QUERIES)
@pytest.mark.parametrize("order_by", ["sequence", "timestamp"])
@pytest.mark.parametrize("ascending", [True, False])
def test_a_large_query_takes_what_the_memory_backend_gives(
    both: tuple[Backend, Backend],
    query: EventQuery,
    order_by: Literal["sequence", "timestamp"],
    *,
    ascending: bool,
) -> None:
    redis, memory = both
    everything = PageRequest(query=query, limit=MANY, order_by=order_by, ascending=ascending)
    expected = _sequences(memory.read(everything))
    assert _sequences(redis.read(everything)) == expected
    page = msgspec.structs.replace(everything, limit=7, offset=5)
    assert _sequences(redis.read(page)) == expected[5:12]
    assert redis.count(query) == len(expected)


@pytest.fixture
def calls(both: tuple[Backend, Backend], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the server is sent, call by call."""
    redis, _ = both
    assert isinstance(redis, RedisBackend)
    server = redis.server.connected()
    sent: list[Any] = []
    exchange = server.exchange

    def counted(commands: Any) -> list[Any]:
        sent.append(commands)
        return exchange(commands)

    monkeypatch.setattr(server, "exchange", counted)
    return sent


def test_a_query_that_takes_much_work_is_cut_into_many_calls(
    both: tuple[Backend, Backend], calls: list[Any]
) -> None:
    def how_many(query: EventQuery) -> int:
        calls.clear()
        both[0].read(PageRequest(query=query, limit=MANY))
        return len(calls)

    one = EventQuery(tags=["t1"], tenant_id="b")
    few = how_many(one)
    many = how_many(EventQuery(any_of=[one.replace(to_sequence=n) for n in range(400)]))
    assert many > 10 * few


WIDE_QUERIES = {
    "tags": EventQuery(any_of=[EventQuery(tags=[f"t{n}"]) for n in range(1_000)]),
    "types": EventQuery(any_of=[EventQuery(event_types=[f"T{n}"]) for n in range(1_000)]),
    "entity ids": EventQuery(any_of=[EventQuery(entity_id=f"{n}") for n in range(1_000)]),
    "entities": EventQuery(
        any_of=[
            EventQuery(entity_type=f"e{n % 2}", entity_id=f"{n}", tenant_id=("", "a", "b")[n % 3])
            for n in range(1_000)
        ]
    ),
    "types and tags": EventQuery(
        any_of=[EventQuery(event_types=[f"T{n % 3}"], tags=[f"t{n}"]) for n in range(1_000)]
    ),
}


@pytest.mark.parametrize("query", WIDE_QUERIES.values(), ids=WIDE_QUERIES)
def test_an_event_is_not_tried_on_each_of_a_thousand_alternatives(
    both: tuple[Backend, Backend], calls: list[Any], query: EventQuery
) -> None:
    """A call that tries them all gets through some thirty events."""
    redis, memory = both
    most = MANY // 100
    expected = memory.read(PageRequest(query=query, limit=MANY))
    by_time = sorted(expected, key=lambda event: (event.timestamp, event.sequence))

    assert redis.count(query) == len(expected)
    assert len(calls) <= most
    in_order = PageRequest(query=query, limit=MANY)
    in_time = PageRequest(query=query, limit=MANY, order_by="timestamp")
    for each, ordered in ((in_order, expected), (in_time, by_time)):
        for ascending in (True, False):
            page = msgspec.structs.replace(each, ascending=ascending)
            calls.clear()
            found = redis.read(page)
            assert len(calls) <= most
            assert _sequences(found) == _sequences(ordered if ascending else ordered[::-1])


def test_large_events_are_fetched_and_found_in_parts(
    server: RedisServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(server.url, namespace=namespace) as store:
        payload = {"x": "x" * 500_000}
        for n in range(0, 60, 10):
            store.append_batch([note(n + k, data=payload, tags=("x",)) for k in range(10)])
        backend = store._log.backend
        assert isinstance(backend, RedisBackend)
        connected = backend.server.connected()
        replies: list[int] = []
        exchange = connected.exchange

        def weighed(commands: Any) -> list[Any]:
            answer = exchange(commands)
            if isinstance(answer[0], list) and isinstance(answer[0][-1], list):  # of a script
                replies.append(sum(len(text) for text in answer[0][-1]))
            return answer

        monkeypatch.setattr(connected, "exchange", weighed)
        query = EventQuery(tags=["x"])
        for order_by in ("sequence", "timestamp"):
            page = PageRequest(query=query, limit=100, order_by=order_by)
            assert sorted(_sequences(backend.read(page))) == [*range(1, 61)]
        found = backend.find([("", event.event_id) for event in store.get_events()])
        assert len(found) == 60
        assert max(replies) < 15_000_000


@pytest.mark.parametrize("match", [True, False])
def test_a_condition_too_large_for_the_script_is_judged_exactly(
    store: EventStore, match: bool
) -> None:
    """Its first tag alone matches what is new; all of its tags do so only where it is to fail."""
    tags = [f"t{n}" for n in range(20)]
    query = EventQuery(any_of=[EventQuery(tags=[*tags, f"only {n}"]) for n in range(150)])
    news = note(1, tags=(*tags, "only 7") if match else ("t0", "t1"))
    store.append(news)
    asked = AppendCondition(query)
    stale = Condition(asked=asked, query=query, after=0, checked_to=0)
    batch = batch_of([note(2)], -1, None)
    assert batch is not None

    (outcome,) = store._log.backend.commit([msgspec.structs.replace(batch, condition=stale)], WAIT)

    assert isinstance(outcome, ConditionFailedError if match else Accepted)


def test_large_conditions_of_a_group_are_judged_in_calls_of_their_own(store: EventStore) -> None:
    store.append(note(1))
    query = EventQuery(any_of=[EventQuery(tags=[f"x{n}"]) for n in range(800)])
    stale = Condition(asked=AppendCondition(query), query=query, after=0, checked_to=0)
    group = [batch_of([note(n, tags=(f"x{n}",) if n == 4 else ())], -1, None) for n in range(8)]
    conditional = [
        msgspec.structs.replace(batch, condition=stale) for batch in group if batch is not None
    ]

    outcomes = store._log.backend.commit(conditional, WAIT)

    # Each is judged against those before it: the fifth bears what the later ones forbid
    assert [type(outcome) for outcome in outcomes] == [Accepted] * 5 + [ConditionFailedError] * 3
    assert store.get_current_sequence() == 6


def test_a_query_is_given_up_when_its_call_is_over(both: tuple[Backend, Backend]) -> None:
    tags = [EventQuery(tags=["t0", *(f"x{k}" for k in range(8))]) for _ in range(1_000)]
    with deadline(0.05), pytest.raises(StoreUnavailableError):
        both[0].read(PageRequest(query=EventQuery(any_of=tags), limit=1))


@pytest.mark.parametrize(("limit", "offset"), [(2**31 - 1, 0), (1, 2**63 - 1), (5, 2**53)])
def test_entities_are_listed_within_any_bounds(store: EventStore, limit: int, offset: int) -> None:
    store.append_batch([note(n) for n in range(3)])
    listed = store.list_entities(limit=limit, offset=offset)
    assert [entity.entity_id for entity in listed] == ([] if offset else ["2", "1", "0"])
    for bad_limit, bad_offset in ((-1, 0), (2**31, 0), (1, -1), (1, 2**63)):
        with pytest.raises(InvalidQueryError):
            store.list_entities(limit=bad_limit, offset=bad_offset)


UNSELECTIVE = {"fields that never meet": QUERIES["fields that never meet"], **WIDE_QUERIES}


@pytest.mark.parametrize("query", UNSELECTIVE.values(), ids=UNSELECTIVE)
def test_an_unselective_query_does_not_hold_the_server_up(
    both: tuple[Backend, Backend], server: RedisServer, query: EventQuery
) -> None:
    """No call may take 50 ms on a quiet machine; this one may be busy."""
    server.execute("CONFIG", "SET", "slowlog-log-slower-than", "200000")  # 0.2 s
    server.execute("SLOWLOG", "RESET")
    both[0].count(query)
    both[0].read(PageRequest(query=query, limit=MANY, order_by="timestamp"))
    assert server.execute("SLOWLOG", "LEN") == 0


def _sequences(events: list[Event]) -> list[int]:
    return [event.sequence for event in events]


@pytest.fixture(params=["fakeredis", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[EventStore]:
    """An empty log, on the fake and on the server."""
    if request.param == "fakeredis":
        with open_store("fakeredis://") as store:
            yield store
        return
    server: RedisServer = request.getfixturevalue("server")
    with open_store(server.url, namespace=request.getfixturevalue("namespace")) as store:
        yield store


def note(number: int, **fields: Any) -> Event:
    return Event(event_type="Noted", entity_type="note", entity_id=str(number), **fields)


@pytest.mark.parametrize("match_at", [None, 3, 650])
def test_a_condition_with_much_news_is_looked_into_again(
    store: EventStore, match_at: int | None
) -> None:
    """More is new than the script looks through while all others wait."""
    store.append_batch([note(n, tags=("x",) if n == match_at else ()) for n in range(700)])
    asked = AppendCondition(EventQuery(tags=["x"]))
    stale = Condition(asked=asked, query=asked.query, after=0, checked_to=0)
    batches = [batch_of([note(1_000 + place)], -1, None) for place in range(3)]
    group = [batch for batch in batches if batch is not None]
    group[1] = msgspec.structs.replace(group[1], condition=stale)

    outcomes = store._log.backend.commit(group, WAIT)

    assert [type(outcome) for outcome in outcomes] == [
        Accepted,
        Accepted if match_at is None else ConditionFailedError,
        Accepted,
    ]
    if match_at is not None:
        assert isinstance(outcomes[1], ConditionFailedError)
        assert outcomes[1].sequence == match_at + 1


def test_a_condition_holds_while_others_append_all_the_time(store: EventStore) -> None:
    stop = threading.Event()

    def others() -> None:
        while not stop.is_set():
            store.append_batch([note(n) for n in range(50)])

    thread = threading.Thread(target=others)
    thread.start()
    try:
        for n in range(10):
            marked = note(n, tags=("once",))
            condition = AppendCondition(EventQuery(tags=["once"]))
            if n == 0:
                store.append(marked, condition=condition)
            else:
                with pytest.raises(ConditionFailedError):
                    store.append(marked, condition=condition)
    finally:
        stop.set()
        thread.join(WAIT)
    assert store.count_events(EventQuery(tags=["once"])) == 1


def test_a_batch_of_thousands_of_entities_tags_and_tenants_is_one_commit(
    store: EventStore,
) -> None:
    events = [note(n, tenant_id=f"t{n % 1_300}", tags=(f"tag{n}",)) for n in range(2_600)]
    result = store.append_batch(events)
    assert result.last_sequence == 2_600
    assert {event.batch_sequence for event in result} == {1}
    assert store.append_batch(events).replayed
    assert store.count_events() == 2_600
    assert [e.sequence for e in store.get_events(EventQuery(tags=["tag2599"]))] == [2_600]


@pytest.mark.parametrize("year", [1, 1969, 2255, 2256, 9999])
def test_times_of_all_years_are_kept_and_ordered_to_the_microsecond(
    store: EventStore, year: int
) -> None:
    """Beyond 2255, microseconds do not fit a double."""
    begin = datetime(year, 6, 1, tzinfo=UTC)
    times = [begin + timedelta(microseconds=step) for step in (2, 0, 3, 1, 2)]
    store.append_batch([note(n, timestamp=time) for n, time in enumerate(times)])
    by_time = [event.timestamp for event in store.get_events(EventQuery(order_by="timestamp"))]
    assert by_time == sorted(times)
    found = store.get_events(EventQuery(from_timestamp=times[0], to_timestamp=times[0]))
    assert [event.sequence for event in found] == [1, 5]


def test_a_missing_or_foreign_entry_is_told(server: RedisServer, namespace: str) -> None:
    with open_store(server.url, namespace=namespace) as store:
        events = store.append_batch([note(n, workflow_id="w") for n in range(3)])
        log = f"{{{namespace}}}:log"
        server.execute("XDEL", log, "2-0")
        for read in (
            lambda: list(store.get_events()),
            lambda: store.get_events_for_workflow("w"),
            lambda: store.get_event_by_id(events[1].event_id),
            lambda: store.append(note(4)),
        ):
            with pytest.raises(CorruptLogError):
                read()
        server.execute("XADD", log, "9-0", "what", "is this")
        with pytest.raises(CorruptLogError, match="9-0"):
            store.get_events_since(8)


def test_a_batch_beyond_one_command_is_refused_before_anything_is_written(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstore_redis.appending._MAX_ARGUMENTS", 1_000)
    with pytest.raises(BatchTooLargeError, match="append it in parts"):
        store.append_batch([note(n) for n in range(400)])
    assert store.get_current_sequence() == 0
    store.append_batch([note(n) for n in range(100)])
