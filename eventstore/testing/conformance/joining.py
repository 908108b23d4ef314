"""``connection=``: an append inside the caller's own transaction, or a clear refusal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from eventstore import (
    AppendCondition,
    Capability,
    ConditionFailedError,
    ConfigurationError,
    DuplicateEventError,
    EventQuery,
    EventStore,
    StoreUnavailableError,
    TransactionConflictError,
    UnsupportedOperationError,
    VersionConflictError,
)
from eventstore.testing.conformance.base import (
    Conformance,
    OpenAnother,
    assert_log_is_sound,
    note,
    notes,
    require,
    sequences,
    stored,
)
from eventstore.testing.conformance.crews import Thread
from eventstore.testing.conformance.harness import Harness, Joins


class JoiningTests(Conformance):
    @pytest.fixture
    def joins(self, harness: Harness, store: EventStore) -> Joins:
        """How this backend's transactions are made."""
        require(store, Capability.JOIN_TRANSACTION)
        assert harness.joins is not None, "Capability.JOIN_TRANSACTION needs Harness.joins"
        return harness.joins

    @pytest.fixture
    def connection(self, joins: Joins, namespace: str) -> Iterator[Any]:
        """A connection of the caller's, without an open transaction."""
        with joins.connect(namespace) as connection:
            yield connection

    # --- Where it is not claimed

    def test_a_backend_that_cannot_join_says_so(self, store: EventStore, harness: Harness) -> None:
        if Capability.JOIN_TRANSACTION in store.capabilities:
            assert harness.joins is not None
            return

        with pytest.raises(UnsupportedOperationError, match="connection"):
            store.append(note(), connection=object())
        with pytest.raises(UnsupportedOperationError):
            store.append_batch(notes(2), connection=object())

        assert store.get_current_sequence() == 0
        assert store.append(note()).sequence == 1

    # --- Committed or rolled back

    def test_a_joined_append_is_visible_once_the_caller_commits(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        store.append(note())
        joins.begin(connection)
        recorded = store.append(note(data={"x": 1}), connection=connection)

        assert (recorded.sequence, recorded.version, recorded.batch_sequence) == (2, 2, 2)
        assert store.get_current_sequence() == 1
        assert len(stored(store)) == 1
        assert not store.event_exists(recorded.event_id)
        joins.commit(connection)

        assert stored(store)[1] == recorded
        assert store.get_current_sequence() == 2

    def test_a_rollback_leaves_nothing_and_uses_no_sequence_up(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        joins.begin(connection)
        lost = store.append_batch(notes(3), connection=connection)
        assert lost.sequences == (1, 2, 3)
        joins.rollback(connection)

        assert stored(store) == []
        assert store.get_current_version("note", "n-1") == 0
        recorded = store.append(note())
        assert (recorded.sequence, recorded.version) == (1, 1)

    def test_events_and_the_callers_own_records_share_one_fate(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        joins.begin(connection)
        joins.write_note(connection, "lost")
        store.append(note("lost"), connection=connection)
        joins.rollback(connection)
        joins.begin(connection)
        joins.write_note(connection, "before")
        store.append(note("kept"), connection=connection)
        joins.write_note(connection, "after")
        joins.commit(connection)

        assert sorted(joins.notes(connection)) == ["after", "before"]
        assert [event.entity_id for event in stored(store)] == ["kept"]

    def test_several_appends_may_join_one_transaction(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        joins.begin(connection)
        first = store.append(note("a"), connection=connection)
        joins.write_note(connection, "between")
        second = store.append_batch([note("a"), note("b")], connection=connection)
        third = store.append(note("a"), expected_version=2, connection=connection)
        joins.commit(connection)

        assert [first.sequence, *second.sequences, third.sequence] == [1, 2, 3, 4]
        events = assert_log_is_sound(store)
        assert events == [first, *second, third]
        assert [event.batch_sequence for event in events] == [1, 2, 2, 4]

    def test_one_connection_may_be_joined_again_and_again(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        for n in range(1, 6):
            joins.begin(connection)
            assert store.append(note(), connection=connection).sequence == n
            joins.commit(connection)
            assert store.get_current_sequence() == n

    def test_a_large_batch_may_join(self, store: EventStore, joins: Joins, connection: Any) -> None:
        joins.begin(connection)
        result = store.append_batch(notes(2000), connection=connection)
        joins.commit(connection)

        assert result.sequences == tuple(range(1, 2001))
        assert stored(store) == list(result)

    def test_every_field_is_kept(self, store: EventStore, joins: Joins, connection: Any) -> None:
        event = note(
            data={"n": 1e22, "s": "\0", "$ref": [-0.0, 2**63 - 1]},
            metadata={"actor_id": "ada"},
            tags=("b", "a"),
            workflow_id="w",
            tenant_id="acme",
            schema_version=4,
        )
        joins.begin(connection)
        recorded = store.append(event, connection=connection)
        joins.commit(connection)

        assert repr(stored(store)) == repr([recorded])
        assert recorded.replace(sequence=0, version=0, batch_sequence=0, recorded_at=None) == event

    def test_a_view_may_join(self, store: EventStore, joins: Joins, connection: Any) -> None:
        view = store.for_tenant("acme")
        joins.begin(connection)
        view.append(note(), connection=connection)
        joins.commit(connection)

        assert [event.tenant_id for event in stored(store)] == ["acme"]

    # --- Refused appends

    @pytest.mark.parametrize("refused", ["version", "condition", "duplicate"])
    def test_a_conflict_is_reported_and_spoils_nothing_but_itself(
        self, store: EventStore, joins: Joins, connection: Any, refused: str
    ) -> None:
        first = store.append(note("a"))
        joins.begin(connection)
        joins.write_note(connection, "kept")
        if joins.conflict_leaves_transaction_usable:
            store.append(note("b"), connection=connection)

        if refused == "version":
            with pytest.raises(VersionConflictError) as caught:
                store.append(note("a"), expected_version=0, connection=connection)
            assert caught.value.actual_version == 1
        elif refused == "condition":
            condition = AppendCondition(EventQuery(entity_id="a"))
            with pytest.raises(ConditionFailedError):
                store.append(note("c"), condition=condition, connection=connection)
        else:
            with pytest.raises(DuplicateEventError):
                store.append(first.replace(data={"x": 1}, sequence=0), connection=connection)

        if not joins.conflict_leaves_transaction_usable:
            joins.rollback(connection)
            assert stored(store) == [first]
            return
        store.append(note("d"), connection=connection)
        joins.commit(connection)
        assert [event.entity_id for event in assert_log_is_sound(store)] == ["a", "b", "d"]
        assert joins.notes(connection) == ["kept"]

    def test_versions_and_conditions_see_what_the_transaction_appended(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        if not joins.conflict_leaves_transaction_usable:
            pytest.skip("a conflict ends the transaction here")
        joins.begin(connection)
        store.append(note("a"), expected_version=0, connection=connection)

        with pytest.raises(VersionConflictError) as caught:
            store.append(note("a"), expected_version=0, connection=connection)
        assert caught.value.actual_version == 1
        condition = AppendCondition(EventQuery(entity_id="a"))
        with pytest.raises(ConditionFailedError) as failed:
            store.append(note("b"), condition=condition, connection=connection)
        assert failed.value.sequence == 1
        joins.commit(connection)

        assert store.get_current_sequence() == 1

    def test_a_repeat_joins_as_a_repeat(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        event, other = note("a"), note("b")
        recorded = store.append(event)
        joins.begin(connection)
        fresh = store.append(other, connection=connection)

        again = store.append_batch([event], connection=connection)
        within = store.append_batch([other], connection=connection)
        joins.commit(connection)

        assert (again.replayed, again.events) == (True, (recorded,))
        assert (within.replayed, within.events) == (True, (fresh,))
        assert store.get_current_sequence() == 2

    def test_an_event_rolled_back_can_be_appended_again(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        event = note()
        joins.begin(connection)
        store.append(event, connection=connection)
        joins.rollback(connection)

        result = store.append_batch([event])

        assert (result.replayed, result.sequences) == (False, (1,))

    def test_an_empty_batch_joins_nothing(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        joins.begin(connection)
        assert store.append_batch([], connection=connection).sequences == ()
        joins.rollback(connection)

        assert store.append(note()).sequence == 1

    # --- Other writers

    def test_other_writers_wait_and_then_succeed(
        self, store: EventStore, joins: Joins, connection: Any, open_another: OpenAnother
    ) -> None:
        other = open_another()
        joins.begin(connection)
        mine = store.append(note("mine"), connection=connection)
        same_store = Thread(store.append, note("theirs"))
        other_store = Thread(other.append, note("theirs"))
        assert same_store.is_running(after=0.2)
        assert other_store.is_running()
        assert store.count_events() == 0  # readers do not wait

        joins.commit(connection)

        theirs = [same_store.result(), other_store.result()]
        assert mine.sequence == 1
        assert sorted(sequences(theirs)) == [2, 3]
        assert_log_is_sound(store)

    def test_other_writers_take_the_sequences_of_what_was_rolled_back(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        joins.begin(connection)
        store.append_batch(notes(5, "mine"), connection=connection)
        waiting = Thread(store.append, note("theirs"))
        assert waiting.is_running(after=0.1)

        joins.rollback(connection)

        assert waiting.result().sequence == 1
        assert [event.entity_id for event in assert_log_is_sound(store)] == ["theirs"]

    def test_other_writers_give_up_after_the_timeout(
        self, store: EventStore, joins: Joins, connection: Any, open_another: OpenAnother
    ) -> None:
        hasty = open_another(timeout=0.5)
        event = note("theirs")
        joins.begin(connection)
        store.append(note("mine"), connection=connection)

        with pytest.raises(StoreUnavailableError):
            Thread(hasty.append, event).result()
        joins.commit(connection)

        assert hasty.append(event).entity_id == "theirs"
        assert [event.entity_id for event in assert_log_is_sound(store)] == ["mine", "theirs"]

    def test_a_plain_append_by_the_thread_that_holds_a_join_raises_at_once(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        joins.begin(connection)
        store.append(note("joined"), connection=connection)

        with pytest.raises(UnsupportedOperationError, match="transaction"):
            store.append(note("plain"))
        with pytest.raises(UnsupportedOperationError):
            store.for_tenant("acme").append(note("plain"))
        joins.commit(connection)

        assert store.append(note("plain")).sequence == 2

    def test_a_thread_may_append_plainly_once_its_join_was_rolled_back(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        joins.begin(connection)
        store.append(note(), connection=connection)
        joins.rollback(connection)

        assert store.append(note()).sequence == 1

    def test_a_transaction_that_sees_an_old_state_must_run_again(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        if not joins.begin_with_snapshot(connection):
            pytest.skip("transactions of this database see no old state")
        store.append(note())

        with pytest.raises(TransactionConflictError):
            store.append(note(), connection=connection)
        joins.rollback(connection)
        joins.begin(connection)
        recorded = store.append(note(), connection=connection)
        joins.commit(connection)

        assert recorded.sequence == 2
        assert_log_is_sound(store)

    def test_closing_the_store_leaves_the_callers_transaction_alone(
        self, store: EventStore, joins: Joins, connection: Any, open_another: OpenAnother
    ) -> None:
        other = open_another()
        joins.begin(connection)
        store.append(note(), connection=connection)

        store.close()
        joins.write_note(connection, "kept")
        joins.commit(connection)

        assert sequences(stored(other)) == [1]
        assert joins.notes(connection) == ["kept"]

    # --- What is no fit connection

    @pytest.mark.parametrize("connection", [object(), "sqlite://", 7, True], ids=repr)
    def test_what_is_no_connection_is_refused(
        self, store: EventStore, joins: Joins, connection: Any
    ) -> None:
        with pytest.raises(ConfigurationError, match="connection"):
            store.append(note(), connection=connection)

        assert store.get_current_sequence() == 0
        assert store.append(note()).sequence == 1

    def test_unsuitable_connections_are_refused(
        self, store: EventStore, joins: Joins, namespace: str
    ) -> None:
        for name, connect in joins.unsuitable(namespace).items():
            with connect() as connection, pytest.raises(ConfigurationError, match="connection"):
                store.append(note(name), connection=connection)

        assert store.get_current_sequence() == 0
        assert store.append(note()).sequence == 1
