"""Bounds of recorded_at: a range of the log, in reads, counts, waits and conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest

from eventstore import (
    AppendCondition,
    ConditionFailedError,
    Event,
    EventQuery,
    EventStore,
)
from eventstore.testing.conformance.base import WAIT, Conformance, note, sequences, stored
from eventstore.testing.conformance.crews import Thread, in_threads
from eventstore.testing.conformance.harness import Harness

INSTANT = timedelta(microseconds=1)
LONG = timedelta(days=365)
PAST, FUTURE = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


def at_several_times(store: EventStore, several: int = 6) -> list[Event]:
    """Append batches and single events until they stand at so many times; return the log."""
    while True:
        log = stored(store)
        if len({event.recorded_at for event in log}) >= several:
            return log
        assert len(log) < 10_000, "the clock stands still"
        tenant = ("", "acme")[len(log) % 2]
        store.append_batch([note(each, tags=(each,), tenant_id=tenant) for each in ("a", "b", "a")])
        store.append(note("c", tenant_id=tenant))


def time_of(event: Event) -> datetime:
    assert event.recorded_at is not None
    return event.recorded_at


def bounds_of(log: Sequence[Event]) -> list[dict[str, Any]]:
    """Return bounds at, and a moment beside, the first, a middle and the last time of a log."""
    times = sorted({time_of(event) for event in log})
    few = {
        time + shift
        for time in (times[0], times[len(times) // 2], times[-1])
        for shift in (-INSTANT, timedelta(), INSTANT)
    }
    return [
        *({"from_recorded_at": time} for time in sorted(few)),
        *({"to_recorded_at": time} for time in sorted(few)),
        {"from_recorded_at": times[1], "to_recorded_at": times[-2]},
        {"from_recorded_at": times[2], "to_recorded_at": times[2]},
        {"from_recorded_at": times[-2], "to_recorded_at": times[1]},
        {"from_recorded_at": PAST, "to_recorded_at": FUTURE},
        {"from_recorded_at": FUTURE, "to_recorded_at": PAST},
    ]


class RecordedTimeTests(Conformance):
    @pytest.fixture(scope="class")
    @classmethod
    def timed_store(cls, harness: Harness) -> Iterator[EventStore]:
        """A store over a log whose events stand at several times, some of them together."""
        name = f"t{uuid4().hex[:16]}"
        try:
            with harness.open(name) as store:
                at_several_times(store)
                yield store
        finally:
            harness.drop(name)

    @pytest.fixture
    def timed(self, timed_store: EventStore) -> list[Event]:
        """What it holds."""
        return stored(timed_store)

    @pytest.mark.parametrize(
        "beside",
        [
            {},
            {"entity_id": "a"},
            {"tags": ["b"]},
            {"from_sequence": 3},
            {"to_sequence": 9},
            {"from_sequence": 2, "to_sequence": 12, "tenant_id": "acme"},
        ],
        ids=repr,
    )
    def test_what_lies_within_is_read_and_counted(
        self, timed_store: EventStore, timed: list[Event], beside: dict[str, Any]
    ) -> None:
        for bounds in bounds_of(timed):
            query = EventQuery(**bounds, **beside)
            expected = sequences(event for event in timed if query.matches(event))

            assert sequences(stored(timed_store, query)) == expected, query
            assert timed_store.count_events(query) == len(expected), query
            backwards = query.replace(ascending=False)
            assert sequences(stored(timed_store, backwards)) == expected[::-1], query
            window = query.replace(offset=1, limit=3)
            assert sequences(stored(timed_store, window)) == expected[1:4], query
            by_time = query.replace(order_by="timestamp")
            assert sorted(sequences(stored(timed_store, by_time))) == expected, query

    def test_alternatives_have_bounds_of_their_own(
        self, timed_store: EventStore, timed: list[Event]
    ) -> None:
        bounds = bounds_of(timed)
        for first, second in zip(bounds, reversed(bounds), strict=True):
            query = EventQuery(
                any_of=[
                    EventQuery(**first, entity_id="a"),
                    EventQuery(**second, tags=["b"]),
                    EventQuery(entity_id="c", to_sequence=8),
                ],
                from_recorded_at=time_of(timed[2]),
            )
            expected = sequences(event for event in timed if query.matches(event))

            assert sequences(stored(timed_store, query)) == expected, query
            assert timed_store.count_events(query) == len(expected), query

    def test_a_view_reads_its_own_within_the_same_bounds(
        self, timed_store: EventStore, timed: list[Event]
    ) -> None:
        view = timed_store.for_tenant("acme")
        for bounds in bounds_of(timed):
            query = EventQuery(**bounds)
            expected = sequences(
                event for event in timed if query.matches(event) and event.tenant_id == "acme"
            )

            assert sequences(stored(view, query)) == expected, query
            assert view.count_events(query) == len(expected), query

    def test_a_view_of_an_unknown_tenant_finds_nothing(
        self, timed_store: EventStore, timed: list[Event]
    ) -> None:
        view = timed_store.for_tenant("nobody")

        for bounds in bounds_of(timed):
            assert stored(view, EventQuery(**bounds)) == []
            assert view.count_events(EventQuery(**bounds)) == 0
            assert view.wait_for_events(0, timeout=0, query=EventQuery(**bounds)) is False

    def test_an_empty_log_holds_nothing_within(self, store: EventStore) -> None:
        for query in (EventQuery(from_recorded_at=PAST), EventQuery(to_recorded_at=FUTURE)):
            assert stored(store, query) == []
            assert store.count_events(query) == 0
            condition = AppendCondition(query)
            assert store.append_batch([], condition=condition).sequences == ()

    def test_a_timezone_is_only_another_way_to_say_a_time(
        self, timed_store: EventStore, timed: list[Event]
    ) -> None:
        there = time_of(timed[5]).astimezone(timezone(timedelta(hours=-9, minutes=-30)))

        assert stored(timed_store, EventQuery(to_recorded_at=there)) == stored(
            timed_store, EventQuery(to_recorded_at=time_of(timed[5]))
        )

    # --- Waiting

    def test_a_wait_is_for_what_lies_within(self, store: EventStore) -> None:
        log = at_several_times(store)
        last = time_of(log[-1])
        head = log[-1].sequence

        def waits(after: int, **bounds: Any) -> bool:
            return store.wait_for_events(after, timeout=0, query=EventQuery(**bounds))

        assert waits(head - 1, from_recorded_at=last) is True
        assert waits(0, from_recorded_at=last + INSTANT) is False
        assert waits(0, to_recorded_at=time_of(log[0])) is True
        assert waits(head - 1, to_recorded_at=last - INSTANT) is False
        assert waits(head, to_recorded_at=FUTURE) is False

        later = EventQuery(from_recorded_at=last + INSTANT)
        waiting = Thread(store.wait_for_events, 0, WAIT, later)
        assert waiting.is_running(after=0.1)
        store.append(note())
        assert waiting.result() is True

    # --- Conditions

    def test_a_condition_fails_by_what_lies_within_alone(self, store: EventStore) -> None:
        log = at_several_times(store)
        for bounds in bounds_of(log):
            for after in (None, 0, 2, log[-1].sequence):
                query = EventQuery(**bounds, entity_id="a")
                matches = [
                    event.sequence
                    for event in log
                    if query.matches(event) and event.sequence > (after or 0)
                ]
                condition = AppendCondition(query, after=after)
                if matches:
                    with pytest.raises(ConditionFailedError) as caught:
                        store.append(note(), condition=condition)
                    assert caught.value.condition == condition
                    assert caught.value.sequence == matches[0]
                else:
                    assert store.append_batch([], condition=condition).sequences == ()
        assert store.get_current_sequence() == log[-1].sequence

    def test_a_condition_of_a_view_fails_by_its_own_alone(self, store: EventStore) -> None:
        log = at_several_times(store)
        view = store.for_tenant("nobody")

        for bounds in bounds_of(log):
            condition = AppendCondition(EventQuery(**bounds))
            assert view.append_batch([], condition=condition).sequences == ()

    def test_of_racers_within_bounds_that_are_still_open_one_wins(self, store: EventStore) -> None:
        """Whatever comes between the look and the commit is within them, too."""
        store.append(note("other"))
        for n in range(5):
            for place, query in enumerate(
                (EventQuery(to_recorded_at=FUTURE), EventQuery(from_recorded_at=PAST))
            ):
                name = f"prize-{n}-{place}"
                claim = AppendCondition(query.replace(entity_id=name))

                def take(name: str = name, claim: AppendCondition = claim) -> bool:
                    try:
                        store.append(note(name), condition=claim)
                    except ConditionFailedError:
                        return False
                    return True

                assert sorted(in_threads(take, [()] * 4)) == [False, False, False, True]

    def test_what_is_recorded_before_the_bounds_never_fails_a_condition(
        self, store: EventStore
    ) -> None:
        """Also where it comes between the look and the commit."""
        later = AppendCondition(EventQuery(from_recorded_at=FUTURE))

        def write(condition: AppendCondition | None) -> int:
            for _ in range(20):
                store.append(note(), condition=condition)
            return 20

        assert sum(in_threads(write, [(None,), (later,), (later,)])) == 60
        assert store.get_current_sequence() == 60
