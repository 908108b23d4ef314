"""The Hypothesis strategies make what the contract allows, and reach its corners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from eventstore import AppendCondition, Event, EventQuery, open_store
from eventstore.testing import strategies

few = settings(max_examples=60, deadline=None, database=None)


@few
@given(strategies.batches())
def test_a_store_takes_every_batch_and_gives_it_back(batch: list[Event]) -> None:
    with open_store("memory://") as store:
        store.append_batch(batch)
        found = list(store.get_events())
    assert [repr(event.data) for event in found] == [repr(event.data) for event in batch]
    assert [event.timestamp for event in found] == [event.timestamp for event in batch]


@few
@given(strategies.queries(), strategies.append_conditions())
def test_a_store_takes_every_query_and_condition(
    query: EventQuery, condition: AppendCondition
) -> None:
    with open_store("memory://") as store:
        assert list(store.get_events(query)) == []
        assert store.count_events(condition.query) == 0


@pytest.mark.parametrize(
    "corner",
    [
        lambda data: _depth(data) == 64,
        lambda data: "" in _keys(data),
        lambda data: "$ref" in _keys(data),
        lambda data: "a.b" in _keys(data),
        lambda data: any(type(value) is str and "\0" in value for value in _scalars(data)),
        lambda data: any(type(value) is float and value == 1e22 for value in _scalars(data)),
        lambda data: any(repr(value) == "-0.0" for value in _scalars(data)),
        lambda data: any(value == 2**63 - 1 for value in _scalars(data)),
        lambda data: any(
            type(value) is str and max(value, default="") > "\uffff" for value in _scalars(data)
        ),
        lambda data: any(type(value) is str and len(value) > 1000 for value in _scalars(data)),
    ],
    ids=["depth", "empty", "ref", "dot", "NUL", "1e22", "-0.0", "int64", "astral", "long"],
)
def test_payloads_reach_the_corners(corner: Callable[[dict[str, Any]], bool]) -> None:
    phases = [Phase.generate]
    thorough = settings(max_examples=3000, deadline=None, database=None, phases=phases)
    assert corner(find(strategies.payloads(), corner, settings=thorough))


@few
@given(strategies.payloads())
def test_payloads_are_at_most_64_deep(data: dict[str, Any]) -> None:
    assert _depth(data) <= 64


@few
@given(st.data())
def test_every_field_of_a_query_can_be_chosen(data: st.DataObject) -> None:
    only = data.draw(strategies.filters(entity_type=st.just("cart"), nested=False))
    assert only.entity_type in (None, "cart")
    assert only.any_of is None


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _keys(item)


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _scalars(item)
    else:
        yield value
