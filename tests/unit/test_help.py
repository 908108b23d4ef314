"""What ``help`` teaches, and what the types take: names and collections as widely as they run."""

from __future__ import annotations

import pydoc
from collections import deque
from collections.abc import Collection, Iterator
from enum import Enum
from importlib.metadata import entry_points
from typing import Any

import pytest

import eventstore
from eventstore import (
    ConfigurationError,
    Entity,
    Event,
    EventQuery,
    EventStore,
    InvalidEventError,
    append_in_order,
    drop_namespace,
    open_store,
    schema_ddl,
)
from eventstore.backend import Durability
from eventstore.backend.settings import Settings
from eventstore.registry import GROUP


class Kind(Enum):
    ORDER = "order"
    PLACED = "Placed"
    VIP = "vip"
    ACME = "acme"
    FIRST = "o-1"


class TextKind(str, Enum):  # noqa: UP042 - as it is still written
    ORDER = "order"


@pytest.fixture
def store() -> Iterator[EventStore]:
    with open_store("memory://") as store:
        yield store


def shown_help(thing: object) -> str:
    return pydoc.plain(pydoc.render_doc(thing))


# --- Help


@pytest.mark.parametrize("kind", [Event, EventQuery])
def test_help_tells_the_meaning_of_every_field(kind: Any) -> None:
    lines = map(str.strip, (kind.__doc__ or "").splitlines())
    told = [line.partition(":") for line in lines if line.startswith("``")]
    for field in kind.__struct_fields__:
        (meaning,) = [text for names, _, text in told if f"``{field}``" in names]
        assert len(meaning) > 10, field
        assert f"``{field}``" in shown_help(kind)


@pytest.mark.parametrize("function", [open_store, drop_namespace])
def test_help_shows_the_options_of_every_store(function: Any) -> None:
    signature = shown_help(function).splitlines()[2]
    core = [
        name
        for name in Settings.__struct_fields__
        if name not in ("scheme", "location", "own_options", "driver_options", "given")
    ]
    for name in core:
        assert f"{name}: " in signature
        assert f"``{name}``" in (open_store.__doc__ or "")


def test_help_lists_every_scheme_and_an_example() -> None:
    told = shown_help(open_store)
    for scheme in entry_points(group=GROUP).names:
        if scheme not in ("toy", "postgres"):  # of a test's own; another way to write one
            assert f"{scheme}://" in told
    assert 'with open_store("sqlite:///' in told


def test_what_is_public_is_at_the_top() -> None:
    for name in eventstore.__all__:
        assert getattr(eventstore, name) is not None
    assert {"append_in_order", "schema_ddl"} <= set(eventstore.__all__)
    assert "CREATE TABLE" in schema_ddl("postgresql://localhost/orders")


# --- Options


def test_options_given_win_over_the_url_and_others_leave_it_alone() -> None:
    with open_store("memory://?timeout=3&retries=2&namespace=mine&durability=strict") as store:
        settings = store._log.settings
        assert (settings.timeout, settings.retries, settings.namespace) == (3.0, 2, "mine")
        assert (settings.durability, settings.create) == (Durability.STRICT, True)
    with open_store("memory://?timeout=3&namespace=mine", timeout=4, retries=0) as store:
        settings = store._log.settings
        assert (settings.timeout, settings.retries, settings.namespace) == (4.0, 0, "mine")


@pytest.mark.parametrize(
    "option", ["namespace", "create", "durability", "timeout", "retries", "engine"]
)
def test_none_is_not_quietly_the_default(option: str) -> None:
    options: dict[str, Any] = {option: None}
    with pytest.raises(ConfigurationError, match=f"^{option}"):
        open_store("memory://", **options)
    with pytest.raises(ConfigurationError, match=f"^{option}"):
        drop_namespace("memory://x", **options)


# --- Types


@pytest.mark.parametrize(
    "tags",
    [
        ("vip", "new"),
        ["vip", "new"],
        deque(["vip", "new"]),
        {"new": 1, "vip": 2}.keys(),
        [Kind.VIP, "new"],
        (Kind.VIP, "new"),
    ],
    ids=repr,
)
def test_tags_may_be_any_collection_of_names(
    store: EventStore, tags: Collection[str | Enum]
) -> None:
    recorded = store.append(
        Event(event_type="Placed", entity_type="order", entity_id="o-1", tags=tags)
    )

    assert type(recorded.tags) is tuple
    assert sorted(recorded.tags) == ["new", "vip"]
    assert list(store.get_events(EventQuery(tags=tags))) == [recorded]


def test_a_set_of_tags_comes_back_sorted(store: EventStore) -> None:
    event = Event(
        event_type="Placed", entity_type="order", entity_id="o-1", tags={Kind.VIP, "a", "z"}
    )
    assert store.append(event).tags == ("a", "vip", "z")


def test_names_may_be_members_of_an_enum(store: EventStore) -> None:
    event = Event(
        event_type=Kind.PLACED,
        entity_type=TextKind.ORDER,
        entity_id=Kind.FIRST,
        workflow_id=Kind.VIP,
        tenant_id=Kind.ACME,
        tags=[Kind.VIP],
    )
    recorded = store.append(event)

    assert recorded.entity == Entity("order", "o-1", "acme")
    assert type(recorded.entity_type) is str
    query = EventQuery(
        entity_type=Kind.ORDER,
        entity_id=Kind.FIRST,
        event_types={Kind.PLACED},
        workflow_id=Kind.VIP,
        tenant_id=Kind.ACME,
        tags=[Kind.VIP],
    )
    assert query.event_types == ("Placed",)
    assert list(store.get_events(query)) == [recorded]
    assert store.get_events_for_entity(Kind.ORDER, Kind.FIRST, tenant_id=Kind.ACME) == [recorded]
    assert list(store.iterate_entity(Kind.ORDER, "o-1", tenant_id=Kind.ACME)) == [recorded]
    assert store.get_current_version(Kind.ORDER, Kind.FIRST, tenant_id=Kind.ACME) == 1
    assert store.get_events_for_workflow(Kind.VIP, tenant_id=Kind.ACME) == [recorded]
    assert store.get_event_by_id(event.event_id, tenant_id=Kind.ACME) == recorded
    assert store.list_entities(Kind.ORDER, tenant_id=Kind.ACME) == [recorded.entity]
    assert list(store.for_tenant(Kind.ACME).get_events()) == [recorded]


@pytest.mark.parametrize("tags", ["vip", b"vip", {"vip": 1}, iter(["vip"]), 7, None])
def test_what_holds_no_names_is_no_tags(store: EventStore, tags: Any) -> None:
    with pytest.raises(InvalidEventError, match=r"^tags"):
        store.append(Event(event_type="Placed", entity_type="order", entity_id="o-1", tags=tags))


def test_batches_are_appended_in_order_from_the_top_of_the_package(store: EventStore) -> None:
    event = Event(event_type="Placed", entity_type="order", entity_id="o-1")
    results = list(append_in_order(store, [[event, event.as_new()], [], [event.as_new()]]))

    assert [result.sequences for result in results] == [(1, 2), (), (3,)]
