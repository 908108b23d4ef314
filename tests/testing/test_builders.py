"""The builders and generators make events that any store takes."""

from __future__ import annotations

from itertools import islice, pairwise
from uuid import RFC_4122

import pytest

from eventstore import ExpectedVersion, open_store
from eventstore.testing.builders import an_event, events_of, generate_batches, generate_events


def test_an_event_has_an_entity_of_its_own_unless_one_is_given() -> None:
    one, other = an_event(), an_event()
    assert one.entity != other.entity
    assert an_event(entity_id="o-1", tags=("red",)).tags == ("red",)


def test_events_of_an_entity_can_be_appended_together() -> None:
    with open_store("memory://") as store:
        result = store.append_batch(events_of("o-1", 3), expected_version=0)
        assert [event.version for event in result] == [1, 2, 3]


def test_a_seed_gives_the_same_events_ids_and_times() -> None:
    assert list(generate_events(7, 500)) == list(generate_events(7, 500))
    assert list(generate_events(7, 50)) != list(generate_events(8, 50))


def test_events_are_those_of_the_batches() -> None:
    batches = list(generate_batches(3, 200))
    events = [event for batch in batches for event in batch]
    assert list(generate_events(3, len(events))) == events
    assert {len(batch) for batch in batches} >= {1, 2, 3, 4, 5}


def test_times_and_ids_ascend_together() -> None:
    events = list(generate_events(1, 1000))
    assert all(one.timestamp < other.timestamp for one, other in pairwise(events))
    ordered = [event.event_id.int >> 80 for event in events]
    assert ordered == sorted(ordered)
    assert {(event.event_id.version, event.event_id.variant) for event in events} == {(7, RFC_4122)}
    assert len({event.event_id for event in events}) == 1000


@pytest.mark.parametrize("tenants", [("",), ("acme", "globex")])
def test_a_store_takes_the_batches_and_each_order_begins_with_its_placing(
    tenants: tuple[str, ...],
) -> None:
    with open_store("memory://") as store:
        for batch in generate_batches(5, 300, tenants=tenants):
            store.append_batch(batch)
            assert len({event.tenant_id for event in batch}) == 1
        for entity in store.list_entities("order", limit=10_000):
            life = store.get_events_for_entity(*entity[:2], tenant_id=entity.tenant_id)
            assert life[0].event_type == "OrderPlaced"
        assert {entity.tenant_id for entity in store.list_entities()} == set(tenants)


def test_the_endless_generator_interleaves_orders() -> None:
    orders = [event.workflow_id for event in islice(generate_events(2), 300)]
    assert len(set(orders)) > 20
    assert any(one != other for one, other in pairwise(orders))


def test_expectations_hold_when_each_order_is_created_once() -> None:
    with open_store("memory://") as store:
        for batch in generate_batches(9, 200):
            if batch[0].event_type == "OrderPlaced":
                store.append_batch(batch, expected_version=ExpectedVersion.NO_STREAM)
            else:
                store.append_batch(batch)
        assert store.get_current_sequence() == sum(len(b) for b in generate_batches(9, 200))
