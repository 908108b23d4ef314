"""The events that are measured with: every field in use, what belongs together scattered."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pytest

from eventstore import Entity, Event
from eventstore.bench.events import CUSTOMERS, TYPES, Numbers

BATCH = 1000


def by_entity(events: list[Event]) -> dict[Entity, list[int]]:
    places: dict[Entity, list[int]] = defaultdict(list)
    for place, event in enumerate(events):
        places[event.entity].append(place)
    return places


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return Numbers(first=7000)


@pytest.fixture(scope="module")
def events(numbers: Numbers) -> list[Event]:
    numbers.begin_stretch(100_000)
    return numbers.batch(100_000)


def test_every_event_has_all_that_is_said_of_it(events: list[Event]) -> None:
    for event in events[:: BATCH - 1]:
        assert event.entity_id
        assert event.workflow_id
        assert len(event.tags) == 2
        assert event.metadata


def test_an_account_has_a_hundred_events_each_in_a_batch_of_its_own(
    numbers: Numbers, events: list[Event]
) -> None:
    found = by_entity(events)
    for _ in range(50):
        places = found[numbers.stretch.any_account()]
        assert len(places) == 100
        assert len({place // BATCH for place in places}) >= 99
        assert places[0] < 1000
        assert places[-1] >= 98_000


def test_no_two_neighbours_are_of_one_entity(events: list[Event]) -> None:
    assert all(one.entity != next_.entity for one, next_ in pairwise(events))


def test_a_workflow_has_twenty_events_over_the_whole_stretch(
    numbers: Numbers, events: list[Event]
) -> None:
    workflow = numbers.stretch.any_workflow()
    places = [place for place, event in enumerate(events) if event.workflow_id == workflow]
    assert len(places) in (20, 21)
    assert places[-1] - places[0] > 90_000


def test_types_and_customers_do_not_follow_the_entity(events: list[Event]) -> None:
    for entity, places in by_entity(events).items():
        if entity.entity_type == "account":
            assert {events[place].event_type for place in places} == set(TYPES)
            assert len({events[place].tags[0] for place in places}) >= CUSTOMERS / 10 - 1


def test_what_comes_after_a_stretch_goes_to_its_old_entities(
    numbers: Numbers, events: list[Event]
) -> None:
    old = by_entity(events)
    more = by_entity(numbers.batch(BATCH))
    assert len(more) == BATCH
    assert more.keys() <= old.keys()
    assert {entity.entity_type for entity in more} == {"order"}


def test_the_entities_of_two_stretches_are_others() -> None:
    numbers = Numbers()
    numbers.begin_stretch(2000)
    first = by_entity(numbers.batch(2000))
    numbers.begin_stretch(3000)
    assert first.keys().isdisjoint(by_entity(numbers.batch(3000)))
