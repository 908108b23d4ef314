"""Bounds of recorded_at: how many reads they cost, and what comes between a look and a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest

from eventstore import (
    AppendCondition,
    ConditionFailedError,
    CorruptLogError,
    Event,
    EventQuery,
    EventStore,
    open_store,
    registry,
)
from eventstore.backend import Batch, Outcome, PageRequest
from eventstore.backend.draft import draft_of
from eventstore.memory import MemoryBackend

PAST, FUTURE = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


class Watched(MemoryBackend):
    """A memory backend that counts its reads, hides events, and lets others come in first."""

    reads = 0
    hidden: frozenset[int] = frozenset()
    first: Callable[[], object] | None = None
    """Called by the next commit, before it begins."""

    def read(self, page: PageRequest) -> list[Event]:
        assert not page.query.has_recorded_bounds, "no backend is told of these"
        self.reads += 1
        return [event for event in super().read(page) if event.sequence not in self.hidden]

    def count(self, query: EventQuery) -> int:
        assert not query.has_recorded_bounds, "no backend is told of these"
        return super().count(query)

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        first, self.first = self.first, None
        if first is not None:
            first()
        return super().commit(group, timeout)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[EventStore]:
    monkeypatch.setattr(registry, "_load", lambda _: Watched)
    with open_store("memory://") as store:
        yield store


def watched(store: EventStore) -> Watched:
    backend = store._log.backend
    assert isinstance(backend, Watched)
    return backend


def an_event(entity_id: str = "a", tenant_id: str = "") -> Event:
    return Event(
        event_type="Happened", entity_type="thing", entity_id=entity_id, tenant_id=tenant_id
    )


def time_of(event: Event) -> datetime:
    assert event.recorded_at is not None
    return event.recorded_at


def test_a_bound_costs_as_many_reads_as_a_bisection(store: EventStore) -> None:
    for _ in range(100):
        store.append_batch([an_event() for _ in range(100)])
    middle = time_of(store.get_events_since(5_000, 1)[0])
    backend = watched(store)

    for query in (EventQuery(from_recorded_at=middle), EventQuery(to_recorded_at=middle)):
        backend.reads = 0
        assert 4_000 < store.count_events(query) < 6_000
        assert backend.reads <= 14, "10,000 < 2 ** 14"


def test_alternatives_with_the_same_bounds_share_their_reads(store: EventStore) -> None:
    for _ in range(100):
        store.append(an_event())
    middle = time_of(store.get_events_since(50, 1)[0])
    backend = watched(store)

    backend.reads = 0
    query = EventQuery(
        any_of=[EventQuery(entity_id=f"e-{n}", from_recorded_at=middle) for n in range(1_000)]
    )
    assert store.count_events(query) == 0
    assert backend.reads <= 7


def test_a_gap_that_a_bound_meets_is_told_but_not_to_a_view_where(store: EventStore) -> None:
    store.append_batch([an_event(tenant_id="acme") for _ in range(3)])
    watched(store).hidden = frozenset({2})
    query = EventQuery(from_recorded_at=PAST)

    with pytest.raises(CorruptLogError, match="the event at sequence 2 is missing"):
        store.count_events(query)
    with pytest.raises(CorruptLogError) as told:
        store.for_tenant("globex").count_events(query)
    assert not any(letter.isdigit() for letter in str(told.value))


@pytest.mark.parametrize(
    ("bounds", "fails"),
    [
        (EventQuery(to_recorded_at=FUTURE), True),
        (EventQuery(from_recorded_at=PAST), True),
        (EventQuery(from_recorded_at=PAST, to_recorded_at=FUTURE), True),
        (EventQuery(any_of=[EventQuery(to_recorded_at=FUTURE), EventQuery(entity_id="x")]), True),
        (EventQuery(from_recorded_at=FUTURE), False),
        (EventQuery(to_recorded_at=PAST), False),
        (EventQuery(from_recorded_at=FUTURE, to_recorded_at=FUTURE), False),
        (EventQuery(any_of=[EventQuery(from_recorded_at=FUTURE), EventQuery(tags=["x"])]), False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("before", [0, 1])
def test_what_comes_between_the_look_and_the_commit_is_judged_by_its_time(
    store: EventStore, bounds: EventQuery, before: int, fails: bool
) -> None:
    # Given: an event that is recorded after the condition was looked into
    backend = watched(store)
    condition = AppendCondition(bounds.replace(entity_type="thing"), after=before)
    store.append_batch([an_event()] * before)
    other = Batch(drafts=(draft_of(an_event("other")),))
    backend.first = lambda: MemoryBackend.commit(backend, [other], 1.0)

    # When, then
    if fails:
        with pytest.raises(ConditionFailedError) as caught:
            store.append(an_event(), condition=condition)
        assert caught.value.sequence == before + 1
    else:
        assert store.append(an_event(), condition=condition).sequence == before + 2


def test_a_bound_that_passes_between_the_look_and_the_commit_is_kept(store: EventStore) -> None:
    """The event that comes in between is recorded too late to count."""
    backend = watched(store)
    last = time_of(store.append(an_event("earlier")))
    condition = AppendCondition(EventQuery(entity_id="other", to_recorded_at=last))
    other = Batch(drafts=(draft_of(an_event("other")),))

    def come_later() -> None:
        while datetime.now(UTC) <= last:
            pass
        MemoryBackend.commit(backend, [other], 1.0)

    backend.first = come_later
    assert store.append(an_event(), condition=condition).sequence == 3


def test_what_is_not_recorded_lies_within_no_bounds() -> None:
    event = an_event()

    assert not EventQuery(from_recorded_at=PAST).matches(event)
    assert not EventQuery(to_recorded_at=FUTURE).matches(event)
    assert EventQuery().matches(event)
    assert not EventQuery(from_recorded_at=PAST).takes(draft_of(event), 1)


def test_times_are_compared_in_utc() -> None:
    there = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    query = EventQuery(from_recorded_at=there)

    assert query.from_recorded_at == datetime(2026, 1, 1, 7, tzinfo=UTC)
    assert query.has_recorded_bounds
    assert not query.filters_nothing
