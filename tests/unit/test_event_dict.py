"""``Event.to_dict`` and ``from_dict``: the form of an export."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from eventstore import Event, InvalidEventError, open_store
from eventstore.transfer import export_lines

FIELDS: dict[str, Any] = {"event_type": "E", "entity_type": "t", "entity_id": "1"}


def recorded() -> Event:
    with open_store("memory://") as store:
        return store.append(
            Event(
                event_type="OrderPlaced",
                entity_type="order",
                entity_id="ö-1",
                data={"total": 1e22, "n": 1, "list": [None, {"x": -0.0}]},
                metadata={"actor_id": "me"},
                tags=("b", "a"),
                workflow_id="w",
                tenant_id="acme",
                schema_version=2,
                timestamp=datetime(2026, 1, 1, 12, 0, 0, 1, UTC),
            )
        )


@pytest.mark.parametrize("event", [recorded(), Event(**FIELDS)], ids=["recorded", "new"])
def test_what_one_gives_the_other_takes(event: Event) -> None:
    assert repr(Event.from_dict(event.to_dict())) == repr(event)


def test_it_is_what_an_export_holds_and_json_can_hold() -> None:
    event = recorded()

    (line,) = export_lines([event])

    assert event.to_dict() == json.loads(line)
    assert list(event.to_dict()) == list(Event.__struct_fields__)
    assert Event.from_dict(json.loads(line)) == event


def test_it_is_a_copy() -> None:
    event = recorded()

    event.to_dict()["data"]["list"].append(7)

    assert event.data["list"] == [None, {"x": -0.0}]


def test_what_is_left_out_is_as_in_a_new_event() -> None:
    first, second = Event.from_dict(FIELDS), Event.from_dict(FIELDS)

    assert first.event_id != second.event_id
    assert first.replace(event_id=UUID(int=1), timestamp=second.timestamp) == second.replace(
        event_id=UUID(int=1)
    )
    assert first.timestamp.tzinfo is UTC


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "event_type"),
        (FIELDS | {"entity_id": 7}, "entity_id"),
        (FIELDS | {"sequenze": 7}, "sequenze"),
        (FIELDS | {"event_id": "7"}, "event_id"),
        (FIELDS | {"timestamp": "soon"}, "timestamp"),
        (FIELDS | {"data": []}, "data"),
        (FIELDS | {"data": {1: 2}}, "data"),
        (FIELDS | {"tags": "vip"}, "tags"),
        ([FIELDS], "must be a dict, not list"),
        (None, "must be a dict, not NoneType"),
    ],
)
def test_a_field_that_is_wrong_is_named(fields: Any, reason: str) -> None:
    with pytest.raises(InvalidEventError, match=reason) as caught:
        Event.from_dict(fields)

    assert "\n" not in str(caught.value)
