"""Tenant views: nothing of another tenant can be read, counted, awaited or conflicted with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import (
    AppendCondition,
    Checkpoint,
    CheckpointError,
    ConditionFailedError,
    Entity,
    EventQuery,
    EventStore,
    EventStoreError,
    InvalidEventError,
    InvalidQueryError,
    StoreClosedError,
    VersionConflictError,
)
from eventstore.testing.conformance.base import (
    WAIT,
    Conformance,
    OpenAnother,
    assert_log_is_sound,
    note,
    notes,
    sequences,
    stored,
)
from eventstore.testing.conformance.crews import Thread

FOREIGN: dict[str, Callable[[EventStore], Any]] = {
    "get_events": lambda view: view.get_events(EventQuery(tenant_id="globex")),
    "get_events any_of": lambda view: view.get_events(
        EventQuery(any_of=[EventQuery(), EventQuery(tenant_id="globex")])
    ),
    "get_events without tenant": lambda view: view.get_events(EventQuery(tenant_id="")),
    "get_events_for_entity": lambda view: view.get_events_for_entity(
        "note", "n-1", tenant_id="globex"
    ),
    "get_events_for_workflow": lambda view: view.get_events_for_workflow("w", tenant_id="globex"),
    "get_event_by_id": lambda view: view.get_event_by_id(uuid4(), tenant_id="globex"),
    "event_exists": lambda view: view.event_exists(uuid4(), tenant_id="globex"),
    "count_events": lambda view: view.count_events(EventQuery(tenant_id="globex")),
    "get_current_version": lambda view: view.get_current_version("note", "n-1", tenant_id="globex"),
    "list_entities": lambda view: view.list_entities(tenant_id="globex"),
    "wait_for_events": lambda view: view.wait_for_events(
        0, timeout=0, query=EventQuery(tenant_id="globex")
    ),
    "condition": lambda view: view.append(
        note(), condition=AppendCondition(EventQuery(tenant_id="globex"))
    ),
    "expected_version": lambda view: view.append(
        note(), expected_version={Entity("note", "n-1", "globex"): 0}
    ),
    "append": lambda view: view.append(note(tenant_id="globex")),
    "append_batch": lambda view: view.append_batch([note(), note(tenant_id="globex")]),
}


RESUME: dict[str, Callable[[EventStore, Any], Any]] = {
    "get_events_since": lambda view, position: view.get_events_since(position),
    "wait_for_events": lambda view, position: view.wait_for_events(position, timeout=0),
    "condition.after": lambda view, position: view.append(
        note(), condition=AppendCondition(EventQuery(entity_id="nobody"), after=position)
    ),
}
"""Where a position is passed."""


class TenantTests(Conformance):
    @pytest.fixture
    def acme(self, store: EventStore) -> EventStore:
        """A view of tenant acme on a log where others have appended already."""
        store.append_batch([note(workflow_id="w"), note(tenant_id="globex", workflow_id="w")])
        return store.for_tenant("acme")

    # --- Writing

    def test_a_view_stamps_every_append(self, store: EventStore, acme: EventStore) -> None:
        one = acme.append(note())
        batch = acme.append_batch([note("a"), note("b", tenant_id="acme")])

        assert [event.tenant_id for event in (one, *batch)] == ["acme"] * 3
        assert [event.tenant_id for event in stored(store)] == ["", "globex"] + ["acme"] * 3
        assert_log_is_sound(store)

    @pytest.mark.parametrize("what", sorted(FOREIGN))
    def test_naming_another_tenant_is_refused(
        self, store: EventStore, acme: EventStore, what: str
    ) -> None:
        with pytest.raises((InvalidEventError, InvalidQueryError), match="tenant"):
            FOREIGN[what](acme)

        assert store.get_current_sequence() == 2

    def test_naming_the_tenant_of_the_view_is_accepted(self, acme: EventStore) -> None:
        recorded = acme.append(note(tenant_id="acme", workflow_id="w"))

        assert stored(acme, EventQuery(tenant_id="acme")) == [recorded]
        assert acme.get_events_for_entity("note", "n-1", tenant_id="acme") == [recorded]
        assert acme.get_event_by_id(recorded.event_id, tenant_id="acme") == recorded
        assert acme.list_entities(tenant_id="acme") == [recorded.entity]
        assert acme.get_current_version("note", "n-1", tenant_id="acme") == 1

    def test_versions_are_those_of_the_tenants_own_entity(self, acme: EventStore) -> None:
        assert acme.append(note(), expected_version=0).version == 1
        assert acme.append(note(), expected_version={("note", "n-1"): 1}).version == 2

        with pytest.raises(VersionConflictError) as caught:
            acme.append(note(), expected_version={("note", "n-1"): 1})
        assert (caught.value.tenant_id, caught.value.actual_version) == ("acme", 2)

    def test_events_of_others_fail_no_condition(self, store: EventStore, acme: EventStore) -> None:
        condition = AppendCondition(EventQuery(event_types=["Noted"]))
        acme.append(note(), condition=condition)
        store.append(note(tenant_id="globex"))

        with pytest.raises(ConditionFailedError) as caught:
            acme.append(note(), condition=condition)

        assert caught.value.sequence == 3
        assert caught.value.condition == condition

    def test_ids_of_others_are_not_in_the_way(self, store: EventStore, acme: EventStore) -> None:
        theirs = stored(store)[0]

        own = acme.append(note(event_id=theirs.event_id, data={"other": 1}))

        assert (own.sequence, own.tenant_id) == (3, "acme")
        assert acme.get_event_by_id(theirs.event_id) == own

    def test_a_repeat_through_a_view_is_a_repeat(self, store: EventStore, acme: EventStore) -> None:
        event = note()
        recorded = acme.append(event)

        assert acme.append(event) == recorded
        assert store.append(event.replace(tenant_id="acme")) == recorded
        assert store.get_current_sequence() == 3

    # --- Reading

    def test_a_view_reads_its_own_events_only(self, store: EventStore, acme: EventStore) -> None:
        theirs = stored(store)
        own = [acme.append(note(workflow_id="w")), acme.append(note("a"))]
        store.append(note())

        assert stored(acme) == own
        assert stored(acme, EventQuery(ascending=False)) == own[::-1]
        assert acme.get_events_since(0) == own
        assert acme.get_events_since(2) == own
        assert sequences(acme.get_events_since(0, limit=1)) == [3]
        assert acme.get_events_for_entity("note", "n-1") == own[:1]
        assert acme.get_events_for_workflow("w") == own[:1]
        assert acme.list_entities() == [own[1].entity, own[0].entity]
        assert acme.count_events() == 2
        assert acme.count_events(EventQuery(workflow_id="w")) == 1
        assert acme.get_current_version("note", "n-1") == 1
        for event in theirs:
            assert acme.get_event_by_id(event.event_id) is None
            assert not acme.event_exists(event.event_id)

    def test_alternatives_are_narrowed_to_the_tenant(self, acme: EventStore) -> None:
        own = acme.append(note())

        query = EventQuery(any_of=[EventQuery(entity_id="n-1"), EventQuery(workflow_id="w")])

        assert stored(acme, query) == [own]
        assert acme.count_events(query) == 1

    def test_a_view_of_a_tenant_without_events_is_empty(
        self, store: EventStore, acme: EventStore
    ) -> None:
        assert stored(acme) == []
        assert acme.get_current_sequence() == 0
        assert acme.count_events() == 0
        assert acme.list_entities() == []
        assert acme.get_events_since(0) == []
        assert acme.checkpoint().sequence == 0

    def test_the_current_sequence_is_that_of_the_tenants_own_last_event(
        self, store: EventStore, acme: EventStore
    ) -> None:
        acme.append(note())
        store.append_batch(notes(5))

        assert acme.get_current_sequence() == 3
        assert store.get_current_sequence() == 8

    def test_a_checkpoint_of_a_view_stands_at_its_own_last_event(
        self, store: EventStore, acme: EventStore
    ) -> None:
        own = acme.append(note())
        store.append_batch(notes(3))

        checkpoint = acme.checkpoint()

        assert (checkpoint.sequence, checkpoint.event_id) == (3, own.event_id)
        assert checkpoint.log_id == store.log_id == acme.log_id
        assert acme.get_events_since(checkpoint) == []
        later = acme.append(note())
        assert acme.get_events_since(checkpoint) == [later]
        assert acme.get_events_since(acme.checkpoint(own)) == [later]

    def test_a_checkpoint_of_a_view_is_verified(self, acme: EventStore) -> None:
        own = acme.append(note())
        forged = type(acme.checkpoint())(acme.log_id, own.sequence, uuid4())

        with pytest.raises(CheckpointError):
            acme.get_events_since(forged)

    # --- Positions

    @pytest.mark.parametrize("how", sorted(RESUME))
    def test_a_position_is_judged_by_the_tenants_own_events(
        self, store: EventStore, acme: EventStore, how: str
    ) -> None:
        own = acme.append(note())
        store.append_batch(notes(5))

        for within in range(own.sequence + 1):
            RESUME[how](acme, within)
            own = acme.append(note())
        for beyond in (own.sequence + 1, store.get_current_sequence() + 10, 2**63 - 1):
            with pytest.raises(CheckpointError, match=f"{beyond} is beyond the head"):
                RESUME[how](acme, beyond)

    @pytest.mark.parametrize("how", sorted(RESUME))
    def test_a_checkpoint_of_another_tenants_event_is_refused_like_one_of_no_event(
        self, store: EventStore, acme: EventStore, how: str
    ) -> None:
        theirs = stored(store)[1]
        acme.append(note())
        told = []

        for event_id in (theirs.event_id, uuid4()):
            with pytest.raises(CheckpointError) as caught:
                RESUME[how](acme, Checkpoint(acme.log_id, theirs.sequence, event_id))
            told.append(str(caught.value).replace(str(event_id), "ID"))
        with pytest.raises(CheckpointError) as caught:
            RESUME[how](acme, Checkpoint(acme.log_id, 77, theirs.event_id))
        told.append(str(caught.value).replace(str(theirs.event_id), "ID").replace("77", "2"))

        assert len(set(told)) == 1
        RESUME[how](store, store.checkpoint(theirs))

    def test_facts_for_people_tell_nothing_of_others(self, acme: EventStore) -> None:
        assert {"backend", "server"} <= acme.info().keys() <= {"backend", "server", "durability"}

    def test_what_a_view_tells_follows_from_its_own_events_alone(
        self, store: EventStore, acme: EventStore
    ) -> None:
        """A log that grows at random; the model is the list of the tenant's own events."""
        everybody = stored(store)
        facts = acme.info()

        @settings(max_examples=40, deadline=None)
        @given(
            st.lists(st.sampled_from(["", "acme", "globex"]), max_size=5),
            st.integers(0, 12),
            st.integers(0, 1000),
        )
        def check(tenants: list[str], back: int, which: int) -> None:
            everybody.extend(store.append_batch([note(tenant_id=each) for each in tenants]))
            event = everybody[which % len(everybody)]
            for position in (
                max(len(everybody) + 2 - back, 0),
                Checkpoint(store.log_id, event.sequence, event.event_id),
            ):
                own = [each for each in everybody if each.tenant_id == "acme"]
                last = own[-1].sequence if own else 0
                assert acme.get_current_sequence() == acme.checkpoint().sequence == last
                assert acme.info() == facts
                unmet = AppendCondition(EventQuery(), after=position)
                if isinstance(position, int):
                    fits, after = position <= last, position
                else:
                    fits, after = event in own, event.sequence
                if not fits:
                    for resume in RESUME.values():
                        with pytest.raises(CheckpointError):
                            resume(acme, position)
                    continue
                later = [each for each in own if each.sequence > after]
                assert acme.get_events_since(position) == later
                assert acme.wait_for_events(position, timeout=0) == bool(later)
                if later:
                    with pytest.raises(ConditionFailedError) as caught:
                        acme.append(note(), condition=unmet)
                    assert caught.value.sequence in sequences(later)
                else:
                    everybody.append(acme.append(note(), condition=unmet))

        check()

    # --- Waiting

    def test_events_of_others_wake_no_view(self, store: EventStore, acme: EventStore) -> None:
        assert acme.wait_for_events(0, timeout=0) is False
        waiting = Thread(acme.wait_for_events, 0, WAIT)

        store.append_batch(notes(3))
        store.append(note(tenant_id="globex"))

        assert waiting.is_running(after=0.2)
        acme.append(note())
        assert waiting.result() is True

    def test_a_view_waits_for_its_own_matches(self, store: EventStore, acme: EventStore) -> None:
        query = EventQuery(tags=["hit"])
        store.append(note(tags=("hit",)))
        assert acme.wait_for_events(0, timeout=0, query=query) is False

        acme.append(note(tags=("hit",)))

        assert acme.wait_for_events(0, timeout=0, query=query) is True

    # --- Views as such

    def test_views_share_the_log(self, store: EventStore, open_another: OpenAnother) -> None:
        one, other = store.for_tenant("acme"), open_another().for_tenant("acme")

        recorded = one.append(note())

        assert stored(other) == [recorded]
        assert isinstance(one, EventStore)
        assert (one.log_id, one.capabilities, one.url) == (
            store.log_id,
            store.capabilities,
            store.url,
        )

    def test_a_view_of_a_view_cannot_leave_its_tenant(self, acme: EventStore) -> None:
        with pytest.raises(EventStoreError):
            acme.for_tenant("globex")

    def test_closing_the_store_closes_its_views(self, store: EventStore, acme: EventStore) -> None:
        store.close()

        with pytest.raises(StoreClosedError):
            acme.append(note())
        with pytest.raises(StoreClosedError):
            acme.count_events()
