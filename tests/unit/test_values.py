"""Odd arguments are refused by field, and values survive being copied and sent elsewhere."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from eventstore import (
    AppendCondition,
    Checkpoint,
    ConditionFailedError,
    ConfigurationError,
    Event,
    EventQuery,
    EventStore,
    EventStoreError,
    InvalidEventError,
    InvalidQueryError,
    StoreUnavailableError,
    VersionConflictError,
    open_store,
)


@pytest.fixture
def store() -> Iterator[EventStore]:
    with open_store("memory://") as store:
        yield store


def event_with(**fields: Any) -> Event:
    return Event(**{"event_type": "Placed", "entity_type": "order", "entity_id": "o-1"} | fields)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


HUGE = 10**5000
"""Python refuses to print it."""

UNSHOWABLE = [pytest.param(HUGE, id="huge"), pytest.param(Unprintable(), id="unprintable")]

USES: dict[str, Callable[[EventStore, Any], object]] = {
    "expected_version": lambda store, value: store.append(event_with(), expected_version=value),
    "a mapping's key": lambda store, value: store.append(event_with(), expected_version={value: 1}),
    "entity_id": lambda store, value: store.append(event_with(entity_id=value)),
    "tags": lambda store, value: store.append(event_with(tags=[value])),
    "timestamp": lambda store, value: store.append(event_with(timestamp=value)),
    "data": lambda store, value: store.append(event_with(data={"a": (value,)})),
    "a key of data": lambda store, value: store.append(event_with(data={value: 1})),
    "limit": lambda _, value: EventQuery(limit=value),
    "order_by": lambda _, value: EventQuery(order_by=value),
    "ascending": lambda _, value: EventQuery(ascending=value),
    "position": lambda store, value: store.get_events_since(value),
    "checkpoint": lambda _, value: Checkpoint("log", value, None),
    "checkpoint's event": lambda store, value: store.checkpoint(event_with(sequence=value)),
    "tenant_id": lambda store, value: store.for_tenant(value),
    "namespace": lambda _, value: open_store("memory://", namespace=value),
    "timeout": lambda _, value: open_store("memory://", timeout=value),
    "retries": lambda _, value: open_store("memory://", retries=value),
    "create": lambda _, value: open_store("memory://", create=value),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("value", UNSHOWABLE)
def test_what_cannot_be_shown_is_refused_like_anything_else(
    store: EventStore, value: object, use: Callable[[EventStore, Any], object]
) -> None:
    with pytest.raises((InvalidEventError, InvalidQueryError, ConfigurationError)):
        use(store, value)


def test_what_is_nested_beyond_printing_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidEventError, match=r"data\['a'\]: must be null"):
        store.append(event_with(data={"a": (nested(100_000),)}))


def test_a_wait_may_be_longer_than_any_clock(store: EventStore) -> None:
    store.append(event_with())
    assert store.wait_for_events(0, timeout=10**400)


class Broken(tzinfo):
    def tzname(self, _: datetime | None) -> str:
        return "broken"

    def dst(self, _: datetime | None) -> None:
        return None

    def utcoffset(self, _: datetime | None) -> timedelta:
        raise RuntimeError("no offset")


def test_a_timezone_that_raises_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidEventError, match=r"timestamp: its timezone .*no offset"):
        store.append(event_with(timestamp=datetime(2024, 1, 1, tzinfo=Broken())))


class Moment(datetime):
    """A datetime of another library's."""


@pytest.mark.parametrize("hours", [0, 2])
def test_a_timestamp_of_a_subclass_is_kept_as_a_plain_one(store: EventStore, hours: int) -> None:
    given = Moment(2024, 1, 1, 12, microsecond=7, tzinfo=UTC) - timedelta(hours=hours)
    recorded = store.append(event_with(timestamp=given))
    assert type(recorded.timestamp) is datetime
    assert recorded.timestamp == given


def test_a_view_makes_no_checkpoint_of_another_tenants_event(store: EventStore) -> None:
    foreign = store.append(event_with(tenant_id="b"))
    with pytest.raises(InvalidEventError, match="it is of the tenant 'b'"):
        store.for_tenant("a").checkpoint(foreign)
    assert store.for_tenant("b").checkpoint(foreign) == store.checkpoint(foreign)


def travelled(value: Any) -> list[Any]:
    return [pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)]


def test_values_survive_being_copied_and_sent_elsewhere(store: EventStore) -> None:
    event = store.append(event_with(tags=("a",), data={"x": [1, {"y": 2.0}]}))
    query = EventQuery(tags=["a"], any_of=[EventQuery(entity_id="o-1")])
    condition = AppendCondition(query, after=store.checkpoint())
    written, replayed = store.append_batch([event.as_new()]), store.append_batch([event])
    for value in (event, event.entity, query, condition, store.checkpoint(), written, replayed):
        assert travelled(value) == [value] * 3


def test_errors_survive_being_copied_and_sent_elsewhere(store: EventStore) -> None:
    store.append(event_with())
    errors: list[EventStoreError] = [
        StoreUnavailableError("gone", may_have_written=True, transient=False)
    ]
    with pytest.raises(VersionConflictError) as conflict:
        store.append(event_with(), expected_version=9)
    with pytest.raises(ConditionFailedError) as failed:
        store.append(event_with(), condition=AppendCondition(EventQuery()))
    for error in (*errors, conflict.value, failed.value):
        for other in travelled(error):
            assert type(other) is type(error)
            assert (str(other), vars(other)) == (str(error), vars(error))


class Endless(Enum):
    ITSELF = "endless"

    @property
    def value(self) -> Endless:  # type: ignore[override]  # no text, on purpose
        return self


@pytest.mark.parametrize(
    "use", [use for name, use in USES.items() if name in ("entity_id", "tags", "tenant_id")]
)
def test_an_enum_member_whose_value_is_itself_is_refused(
    store: EventStore, use: Callable[[EventStore, Any], object]
) -> None:
    with pytest.raises((InvalidEventError, InvalidQueryError), match="must be text"):
        use(store, Endless.ITSELF)


class SubEvent(Event, frozen=True, kw_only=True):
    """One that could say another thing each time it is asked."""


def test_a_subclass_of_an_event_is_refused(store: EventStore) -> None:
    event = SubEvent(event_type="T", entity_type="t", entity_id="e", sequence=1)
    with pytest.raises(InvalidEventError, match="must be an Event, not SubEvent"):
        store.append(event)
    with pytest.raises(InvalidEventError, match="must be a recorded event"):
        store.checkpoint(event)


class SubCheckpoint(Checkpoint, frozen=True):
    """One that could say another thing each time it is asked."""


class SubCondition(AppendCondition, frozen=True):
    """One that could say another thing each time it is asked."""


def test_a_subclass_of_a_position_or_a_condition_is_refused(store: EventStore) -> None:
    start = SubCheckpoint(store.log_id, 0, None)
    with pytest.raises(InvalidQueryError, match="position"):
        store.get_events_since(start)
    with pytest.raises(InvalidQueryError, match="after"):
        store.wait_for_events(start, timeout=0)
    with pytest.raises(InvalidQueryError, match="after"):
        AppendCondition(EventQuery(), after=start)
    with pytest.raises(InvalidQueryError, match="condition"):
        store.append(event_with(), condition=SubCondition(EventQuery()))


def test_events_of_ids_that_hash_alike_do_not_hash_alike() -> None:
    chosen = [event_with(event_id=UUID(int=7 + n * (2**61 - 1))) for n in range(100)]
    assert len({hash(event.event_id) for event in chosen}) == 1
    assert len({hash(event) for event in chosen}) > 90
    assert hash(chosen[0]) == hash(chosen[0].replace())
