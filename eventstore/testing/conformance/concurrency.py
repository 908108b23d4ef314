"""Many writers at once: one winner, no gaps, no lost update (G2, G5, G6)."""

from __future__ import annotations

from typing import Any

from eventstore import (
    AppendCondition,
    ConcurrencyError,
    ConditionFailedError,
    EventQuery,
    EventStore,
    ExpectedVersion,
    VersionConflictError,
)
from eventstore.testing.conformance.base import (
    Conformance,
    assert_log_is_sound,
    note,
    notes,
    stored,
)
from eventstore.testing.conformance.crews import Crew

TURNS = 6


def race_for_version(store: EventStore, expected: int, racer: int) -> str:
    """Try to append at one version; return what became of it."""
    try:
        store.append_batch(notes(2, "prize", tags=(f"by-{racer}",)), expected_version=expected)
    except VersionConflictError as error:
        return f"lost at {error.actual_version}, not {error.expected_version}"
    return "won"


def race_for_condition(store: EventStore, turn: int, racer: int) -> str:
    """Try to take a name that nobody has taken; return what became of it."""
    taken = EventQuery(event_types=["Taken"], tags=[f"name-{turn}"])
    try:
        store.append(
            note(f"user-{racer}", event_type="Taken", tags=(f"name-{turn}",)),
            condition=AppendCondition(taken),
        )
    except ConditionFailedError as error:
        return f"lost to {error.sequence}"
    return "won"


def race_for_two(store: EventStore, turn: int, racer: int) -> str:
    """Try to write two entities, in whatever order, at the versions they had."""
    entities = [("note", "left"), ("note", "right")]
    expected = dict.fromkeys(entities[:: 1 if racer % 2 else -1], turn)
    try:
        store.append_batch([note("left"), note("right")], expected_version=expected)
    except VersionConflictError:
        return "lost"
    return "won"


def append_some(store: EventStore, worker: int) -> list[tuple[int, ...]]:
    """Append single events and batches to one's own and to a shared entity."""
    return [
        store.append_batch(
            [note(f"own-{worker}"), *notes(n % 4, "shared"), note(f"own-{worker}")]
        ).sequences
        for n in range(12)
    ]


def increment(store: EventStore, times: int) -> int:
    """Count up, as an optimistic writer does; return how often it had to try again."""
    conflicts = 0
    for _ in range(times):
        while True:
            events = store.get_events_for_entity("counter", "c")
            value = events[-1].data["value"] if events else 0
            try:
                store.append(
                    note("c", entity_type="counter", data={"value": value + 1}),
                    expected_version=len(events),
                )
                break
            except ConcurrencyError:
                conflicts += 1
    return conflicts


def withdraw(store: EventStore, times: int) -> int:
    """Take one at a time from a stock that must not go below zero; return how many one got."""
    stock = EventQuery(tags=["stock"])
    got = 0
    for _ in range(times):
        while True:
            events = list(store.get_events(stock))
            if sum(event.data["change"] for event in events) == 0:
                return got
            unchanged = AppendCondition(stock, after=events[-1].sequence)
            try:
                store.append(note(data={"change": -1}, tags=("stock",)), condition=unchanged)
                got += 1
                break
            except ConditionFailedError:
                continue
    return got


def mix(store: EventStore, worker: int) -> dict[str, int]:
    """Append in every way there is, colliding often; return how it went."""
    went = {"stored": 0, "conflict": 0}
    for n in range(15):
        keyword: dict[str, Any] = {}
        if n % 3 == 1:
            keyword["expected_version"] = (
                store.get_current_version("note", "shared") or ExpectedVersion.NO_STREAM
            )
        elif n % 3 == 2:
            keyword["condition"] = AppendCondition(
                EventQuery(entity_id="shared"), after=store.get_current_sequence()
            )
        try:
            went["stored"] += len(store.append_batch(notes(1 + n % 3, "shared"), **keyword))
        except ConcurrencyError:
            went["conflict"] += 1
    return went


class ConcurrencyTests(Conformance):
    def test_of_racers_for_a_version_one_wins(self, store: EventStore, crew: Crew) -> None:
        for turn in range(TURNS):
            results = crew.run(race_for_version, [(2 * turn, racer) for racer in range(crew.size)])
            lost = f"lost at {2 * turn + 2}, not {2 * turn}"
            assert sorted(results) == [lost] * (crew.size - 1) + ["won"]

        events = assert_log_is_sound(store)
        assert [event.version for event in events] == list(range(1, 2 * TURNS + 1))
        # Both events of a turn are the winner's.
        assert all(one.tags == two.tags for one, two in zip(events[::2], events[1::2], strict=True))

    def test_of_racers_for_a_condition_one_wins(self, store: EventStore, crew: Crew) -> None:
        for turn in range(TURNS):
            results = crew.run(race_for_condition, [(turn, racer) for racer in range(crew.size)])
            assert sorted(results) == [f"lost to {turn + 1}"] * (crew.size - 1) + ["won"]

        events = assert_log_is_sound(store)
        assert [event.tags for event in events] == [(f"name-{turn}",) for turn in range(TURNS)]

    def test_of_racers_for_two_entities_one_wins_both(self, store: EventStore, crew: Crew) -> None:
        for turn in range(TURNS):
            results = crew.run(race_for_two, [(turn, racer) for racer in range(crew.size)])
            assert sorted(results) == ["lost"] * (crew.size - 1) + ["won"]

        assert [event.entity_id for event in assert_log_is_sound(store)] == [
            "left",
            "right",
        ] * TURNS

    def test_of_racers_for_different_entities_all_win(self, store: EventStore, crew: Crew) -> None:
        batches = crew.run(append_some, [(worker,) for worker in range(crew.size)])

        for worker, own in enumerate(batches):
            for sequences in own:
                assert sequences == tuple(range(sequences[0], sequences[0] + len(sequences)))
            assert own == sorted(own), "one writer's appends stand in its own order"
            life = store.get_events_for_entity("note", f"own-{worker}")
            assert [event.version for event in life] == list(range(1, 25))
        taken = sorted(sequence for own in batches for batch in own for sequence in batch)
        assert taken == list(range(1, store.get_current_sequence() + 1))
        assert_log_is_sound(store)

    def test_no_update_is_lost(self, store: EventStore, crew: Crew) -> None:
        crew.run(increment, [(8,)] * crew.size)

        values = [event.data["value"] for event in assert_log_is_sound(store)]
        assert values == list(range(1, 8 * crew.size + 1))

    def test_a_rule_over_many_events_is_never_broken(self, store: EventStore, crew: Crew) -> None:
        store.append(note(data={"change": 10}, tags=("stock",)))

        taken = crew.run(withdraw, [(6,)] * crew.size)

        changes = [event.data["change"] for event in stored(store)]
        assert sum(taken) == 10
        assert changes == [10] + [-1] * 10

    def test_conflicts_leave_no_gaps(self, store: EventStore, crew: Crew) -> None:
        results = crew.run(mix, [(worker,) for worker in range(crew.size)])

        assert len(assert_log_is_sound(store)) == sum(result["stored"] for result in results)
        assert store.get_current_version("note", "shared") == store.get_current_sequence()
        assert all(result["stored"] > 0 for result in results)
