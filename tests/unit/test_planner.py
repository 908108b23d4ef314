"""The commit planner by itself: every rule, and the order of the rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from eventstore.backend import (
    Accepted,
    Batch,
    Condition,
    Identity,
    LogState,
    Outcome,
    Repeated,
    entities_of,
    keys_of,
    plan,
    twins_of,
)
from eventstore.backend.draft import draft_of
from eventstore.errors import (
    CheckpointError,
    ConditionFailedError,
    DuplicateEventError,
    VersionConflictError,
)
from eventstore.event import Entity, Event
from eventstore.query import AppendCondition, EventQuery
from eventstore.versions import ExpectedVersion

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def an_event(entity_id: str = "a", **fields: Any) -> Event:
    return Event(event_type="Happened", entity_type="thing", entity_id=entity_id, **fields)


def a_batch(
    *events: Event,
    expected: dict[str, int] | None = None,
    condition: Condition | None = None,
) -> Batch:
    return Batch(
        drafts=tuple(draft_of(event) for event in events),
        expected=tuple((Entity("thing", name), value) for name, value in (expected or {}).items()),
        condition=condition,
    )


def a_condition(after: int = 0, match: int = 0, **filters: Any) -> Condition:
    query = EventQuery(**filters)
    return Condition(
        asked=AppendCondition(query, after), query=query, after=after, checked_to=after, match=match
    )


def state(
    group: list[Batch],
    *,
    head: int = 0,
    versions: dict[str, int] | None = None,
    twins: dict[Identity, Event] | None = None,
    matches: list[int] | None = None,
    recorded_at: datetime | None = None,
) -> LogState:
    return LogState(
        head=head,
        recorded_at=recorded_at,
        now=NOW,
        versions={Entity("thing", name): value for name, value in (versions or {}).items()},
        twins=twins or {},
        matches=matches or [0] * len(group),
    )


def outcomes(group: list[Batch], **known: Any) -> list[Outcome]:
    return plan(group, state(group, **known)).outcomes


def recorded(event: Event, sequence: int, version: int = 1) -> dict[Identity, Event]:
    stands = draft_of(event).recorded(
        sequence=sequence, version=version, batch_sequence=sequence, recorded_at=NOW
    )
    return twins_of([stands])


def test_accepted_batches_follow_the_head_contiguously() -> None:
    first, second = outcomes(
        [a_batch(an_event("a"), an_event("b"), an_event("a")), a_batch(an_event("a"))],
        head=7,
        versions={"a": 2},
    )
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert (first.first_sequence, list(first.versions)) == (8, [3, 1, 4])
    assert (second.first_sequence, list(second.versions)) == (11, [5])
    assert [event.batch_sequence for event in first.events()] == [8, 8, 8]


def test_a_refused_batch_uses_up_no_sequence_and_no_version() -> None:
    refused, accepted = outcomes(
        [a_batch(an_event("a"), expected={"a": 9}), a_batch(an_event("a"))], head=3
    )
    assert isinstance(refused, VersionConflictError)
    assert isinstance(accepted, Accepted)
    assert (accepted.first_sequence, list(accepted.versions)) == (4, [1])


@pytest.mark.parametrize(
    ("expected", "actual", "holds"),
    [
        (ExpectedVersion.NO_STREAM, 0, True),
        (ExpectedVersion.NO_STREAM, 1, False),
        (ExpectedVersion.STREAM_EXISTS, 0, False),
        (ExpectedVersion.STREAM_EXISTS, 5, True),
        (3, 3, True),
        (3, 2, False),
        (3, 4, False),
    ],
)
def test_expectations(expected: int, actual: int, holds: bool) -> None:
    (outcome,) = outcomes([a_batch(an_event(), expected={"a": expected})], versions={"a": actual})
    assert isinstance(outcome, Accepted if holds else VersionConflictError)
    if isinstance(outcome, VersionConflictError):
        assert (outcome.entity_type, outcome.entity_id) == ("thing", "a")
        assert (outcome.expected_version, outcome.actual_version) == (expected, actual)


def test_of_racers_in_one_group_exactly_one_wins() -> None:
    racers = [a_batch(an_event("a"), expected={"a": 0}) for _ in range(5)]
    results = outcomes(racers)
    assert [isinstance(result, Accepted) for result in results] == [True] + [False] * 4


def test_an_expectation_may_name_an_entity_that_the_batch_does_not_write() -> None:
    batch = a_batch(an_event("a"), expected={"b": 4})
    assert entities_of([batch]) == {Entity("thing", "a"), Entity("thing", "b")}
    (outcome,) = outcomes([batch], versions={"b": 3})
    assert isinstance(outcome, VersionConflictError)


def test_a_condition_fails_on_a_match_in_the_log() -> None:
    condition = a_condition(event_types=["Happened"])
    (outcome,) = outcomes([a_batch(an_event(), condition=condition)], head=9, matches=[5])
    assert isinstance(outcome, ConditionFailedError)
    assert outcome.sequence == 5
    assert outcome.condition is condition.asked


def test_a_condition_fails_on_a_match_found_before_the_commit() -> None:
    (outcome,) = outcomes([a_batch(an_event(), condition=a_condition(match=2))], head=9)
    assert isinstance(outcome, ConditionFailedError)
    assert outcome.sequence == 2


def test_a_condition_fails_on_an_accepted_batch_before_it_but_never_on_its_own() -> None:
    condition = a_condition(entity_type="thing")
    group = [a_batch(an_event(), condition=condition), a_batch(an_event(), condition=condition)]
    first, second = outcomes(group, head=4)
    assert isinstance(first, Accepted)
    assert isinstance(second, ConditionFailedError)
    assert second.sequence == 5


def test_a_condition_beyond_the_head_tells_that_the_log_is_another() -> None:
    (outcome,) = outcomes([a_batch(an_event(), condition=a_condition(after=5))], head=4)
    assert isinstance(outcome, CheckpointError)


def test_a_repeat_wins_over_expectation_and_condition() -> None:
    event = an_event()
    batch = a_batch(event, expected={"a": 0}, condition=a_condition(after=99, match=1))
    (outcome,) = outcomes([batch], head=1, versions={"a": 1}, twins=recorded(event, 1))
    assert isinstance(outcome, Repeated)
    assert outcome.result().replayed
    assert outcome.result().sequences == (1,)


def test_a_repeat_within_the_group_returns_what_its_first_attempt_writes() -> None:
    event = an_event(data={"n": 1})
    first, again = outcomes([a_batch(event), a_batch(event)], head=4)
    assert isinstance(first, Accepted)
    assert isinstance(again, Repeated)
    assert again.result().events == first.result().events


@pytest.mark.parametrize(
    "changed",
    [
        {"event_type": "Other"},
        {"entity_id": "b"},
        {"workflow_id": "w"},
        {"tags": ("x",)},
        {"schema_version": 2},
        {"data": {"n": 1.0}},
        {"data": {"n": True}},
        {"data": {}},
    ],
)
def test_a_recorded_id_with_other_content_is_refused(changed: dict[str, Any]) -> None:
    event = an_event(data={"n": 1})
    (outcome,) = outcomes([a_batch(event.replace(**changed))], head=1, twins=recorded(event, 1))
    assert isinstance(outcome, DuplicateEventError)
    assert outcome.event_id == event.event_id


@pytest.mark.parametrize(
    "changed",
    [
        {"timestamp": NOW - timedelta(days=1)},
        {"metadata": {"attempt": 2}},
        {"tags": ("y", "x", "x")},
        {"data": {"b": {"d": 2, "c": 1}, "a": [1]}},
    ],
)
def test_what_is_not_content_may_differ_in_a_repeat(changed: dict[str, Any]) -> None:
    event = an_event(data={"a": [1], "b": {"c": 1, "d": 2}}, tags=("x", "y"))
    (outcome,) = outcomes([a_batch(event.replace(**changed))], head=1, twins=recorded(event, 1))
    assert isinstance(outcome, Repeated)


def test_a_batch_of_which_a_part_is_recorded_is_refused_whole() -> None:
    event = an_event()
    (outcome,) = outcomes([a_batch(an_event(), event)], head=1, twins=recorded(event, 1))
    assert isinstance(outcome, DuplicateEventError)


def test_a_repeat_in_another_order_is_refused() -> None:
    one, two = an_event(), an_event()
    twins = recorded(one, 1) | recorded(two, 2, version=2)
    assert isinstance(outcomes([a_batch(one, two)], head=2, twins=twins)[0], Repeated)
    assert isinstance(outcomes([a_batch(two, one)], head=2, twins=twins)[0], DuplicateEventError)


def test_the_same_id_in_another_tenant_is_another_event() -> None:
    event_id = UUID(int=1)
    batch = a_batch(
        an_event(event_id=event_id, tenant_id="x"), an_event(event_id=event_id, tenant_id="y")
    )
    assert keys_of([batch]) == [("x", event_id), ("y", event_id)]
    assert isinstance(outcomes([batch])[0], Accepted)


def test_the_logs_time_stands_still_while_the_clock_is_behind_it() -> None:
    ahead = NOW + timedelta(hours=1)
    (outcome,) = outcomes([a_batch(an_event())], head=1, recorded_at=ahead)
    assert isinstance(outcome, Accepted)
    assert outcome.recorded_at == ahead
