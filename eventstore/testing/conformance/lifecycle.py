"""Opening and closing, namespaces, and what is left after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pytest

from eventstore import (
    AppendCondition,
    Capability,
    ConfigurationError,
    EventQuery,
    EventStore,
    EventStoreError,
    StoreClosedError,
)
from eventstore.testing.conformance.base import (
    WAIT,
    Conformance,
    OpenAnother,
    assert_log_is_sound,
    note,
    notes,
    require,
    stored,
)
from eventstore.testing.conformance.crews import Thread, in_threads, work_in_process
from eventstore.testing.conformance.harness import Harness
from eventstore.testing.conformance.processes import Processes

METHODS: dict[str, Callable[[EventStore], Any]] = {
    "append": lambda store: store.append(note()),
    "append_batch": lambda store: store.append_batch(notes(2)),
    "append_batch of nothing": lambda store: store.append_batch([]),
    "append with condition": lambda store: store.append(
        note(), condition=AppendCondition(EventQuery())
    ),
    "get_events": lambda store: list(store.get_events()),
    "get_events_for_entity": lambda store: store.get_events_for_entity("note", "n-1"),
    "get_events_for_workflow": lambda store: store.get_events_for_workflow("w"),
    "get_events_since": lambda store: store.get_events_since(0),
    "get_event_by_id": lambda store: store.get_event_by_id(uuid4()),
    "event_exists": lambda store: store.event_exists(uuid4()),
    "count_events": lambda store: store.count_events(),
    "get_current_sequence": lambda store: store.get_current_sequence(),
    "get_current_version": lambda store: store.get_current_version("note", "n-1"),
    "list_entities": lambda store: store.list_entities(),
    "wait_for_events": lambda store: store.wait_for_events(0, timeout=0),
    "checkpoint": lambda store: store.checkpoint(),
    "with": lambda store: store.__enter__(),
}


def log_id_of(store: EventStore) -> str:
    """What each of several openers finds."""
    return store.log_id


def write_and_tell(store: EventStore, worker: int) -> tuple[str, int]:
    """Append to a log that may just have been made."""
    return store.log_id, store.append(note(f"n-{worker}")).sequence


class LifecycleTests(Conformance):
    # --- Closing

    def test_a_store_is_a_context_manager(self, open_another: OpenAnother) -> None:
        other = open_another()
        with open_another() as store:
            assert isinstance(store, EventStore)
            store.append(note())

        with pytest.raises(StoreClosedError):
            store.append(note())
        assert other.get_current_sequence() == 1

    def test_an_error_in_the_block_closes_the_store_and_is_not_swallowed(
        self, open_another: OpenAnother
    ) -> None:
        with pytest.raises(KeyError), open_another() as store:
            raise KeyError("mine")

        with pytest.raises(StoreClosedError):
            store.count_events()

    def test_closing_again_does_nothing(self, store: EventStore) -> None:
        store.append(note())

        for _ in range(3):
            store.close()

    @pytest.mark.parametrize("method", sorted(METHODS))
    def test_use_after_close_raises(self, store: EventStore, method: str) -> None:
        store.close()

        with pytest.raises(StoreClosedError):
            METHODS[method](store)

    def test_closing_one_store_leaves_others_of_the_log_open(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        other = open_another()
        store.append(note())

        store.close()

        assert other.append(note()).sequence == 2

    def test_a_store_may_be_opened_and_closed_many_times(
        self, store: EventStore, harness: Harness, namespace: str
    ) -> None:
        for n in range(1, 26):
            with harness.open(namespace) as each:
                assert each.append(note()).sequence == n

        assert_log_is_sound(store)

    # --- Reopening

    def test_a_reopened_log_holds_all_it_held(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        require(store, Capability.PERSISTENT)
        batch = store.append_batch(
            [note("a", tags=("x",), workflow_id="w"), note("b", tenant_id="acme"), note("a")]
        )
        log_id = store.log_id
        store.close()

        again = open_another()

        assert again.log_id == log_id
        assert stored(again) == list(batch)
        assert again.get_current_version("note", "a") == 2
        assert stored(again, EventQuery(tags=["x"])) == [batch[0]]
        assert again.get_events_for_workflow("w") == [batch[0]]
        assert again.list_entities() == [batch[1].entity, batch[0].entity]
        recorded = again.append(note("a"), expected_version=2)
        assert (recorded.sequence, recorded.version) == (4, 3)

    def test_another_process_finds_the_log_exactly_where_that_is_claimed(
        self, store: EventStore, harness: Harness, namespace: str, processes: Processes
    ) -> None:
        opening = (harness.url, harness.options_of(namespace))

        def ask() -> str:
            (found,) = processes.start(work_in_process, [(*opening, log_id_of, ())]).wait()
            return str(found)

        if Capability.MULTI_PROCESS in store.capabilities:
            assert ask() == store.log_id
        else:
            try:
                found = ask()
            except EventStoreError:
                return
            assert found != store.log_id

    def test_many_threads_may_open_a_new_log_at_once(
        self, harness: Harness, namespace: str
    ) -> None:
        for _ in range(3):
            stores = in_threads(harness.open, [(namespace,)] * 6)

            self._assert_all_opened_the_same(stores)
            for store in stores:
                store.close()
            harness.drop(namespace)

    def test_many_processes_may_open_a_new_log_at_once(
        self, store: EventStore, harness: Harness, namespace: str, processes: Processes
    ) -> None:
        require(store, Capability.MULTI_PROCESS)
        opening = (harness.url, harness.options_of(namespace))
        store.close()
        for _ in range(3):
            harness.drop(namespace)

            told = processes.start(
                work_in_process,
                [(*opening, write_and_tell, (worker,)) for worker in range(processes.SIZE)],
            ).wait()

            assert len({log_id for log_id, _ in told}) == 1
            assert sorted(sequence for _, sequence in told) == list(range(1, processes.SIZE + 1))

    @staticmethod
    def _assert_all_opened_the_same(stores: Sequence[EventStore]) -> None:
        assert len({store.log_id for store in stores}) == 1
        for store in stores:
            store.append(note())
        for store in stores:
            assert len(assert_log_is_sound(store)) == len(stores)

    # --- Namespaces

    @pytest.fixture
    def other_namespace(self, harness: Harness, namespace: str) -> Any:
        """Another log in the same database."""
        name = f"{namespace}_other"
        yield name
        harness.drop(name)

    def test_namespaces_are_separate_logs(
        self, store: EventStore, harness: Harness, other_namespace: str
    ) -> None:
        with harness.open(other_namespace) as other:
            event = note(workflow_id="w", tags=("x",))
            mine = store.append(event)
            theirs = other.append(event.replace(data={"other": 1}), expected_version=0)

            assert store.log_id != other.log_id
            assert (mine.sequence, theirs.sequence) == (1, 1)
            assert (mine.version, theirs.version) == (1, 1)
            assert stored(store) == [mine]
            assert stored(other) == [theirs]
            assert other.get_event_by_id(event.event_id) == theirs
            nobody = AppendCondition(EventQuery(), after=1)
            assert store.append(note(), condition=nobody).sequence == 2
            assert other.wait_for_events(1, timeout=0.1) is False
            assert other.list_entities() == [theirs.entity]
            assert other.count_events() == 1

    def test_dropping_a_namespace_leaves_the_others(
        self, store: EventStore, harness: Harness, other_namespace: str
    ) -> None:
        recorded = store.append(note())
        with harness.open(other_namespace) as other:
            other.append(note())

        harness.drop(other_namespace)

        assert stored(store) == [recorded]
        assert store.append(note()).sequence == 2
        with harness.open(other_namespace) as other:
            assert stored(other) == []
            assert other.append(note()).sequence == 1

    def test_a_namespace_is_not_taken_for_one_whose_name_begins_alike(
        self, store: EventStore, harness: Harness, namespace: str
    ) -> None:
        recorded = store.append(note())
        for end in ("1", "_", "_events"):
            with harness.open(namespace + end) as other:
                assert other.get_current_sequence() == 0
                other.append(note("other"))
            harness.drop(namespace + end)

            assert stored(store) == [recorded]

    def test_dropping_a_namespace_spares_those_whose_names_begin_with_its_name(
        self, store: EventStore, harness: Harness, namespace: str, other_namespace: str
    ) -> None:
        with harness.open(other_namespace) as other:
            recorded = other.append(note())
            store.close()
            harness.drop(namespace)

            assert stored(other) == [recorded]
            assert other.append(note()).sequence == 2

    def test_dropping_what_is_not_there_is_no_error(self, harness: Harness) -> None:
        for _ in range(2):
            harness.drop("never_there")

    def test_a_log_that_is_not_there_is_not_made_against_the_wish(
        self, harness: Harness, namespace: str
    ) -> None:
        with pytest.raises(ConfigurationError, match="create"):
            harness.open(namespace, create=False)

        with pytest.raises(ConfigurationError, match="create"):
            harness.open(namespace, create=False)  # the attempt made nothing either

    def test_a_log_that_is_there_is_opened_without_making_it(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        recorded = store.append(note())

        assert stored(open_another(create=False)) == [recorded]

    # --- What a store says of itself

    def test_a_store_tells_its_url_without_the_password(
        self, store: EventStore, harness: Harness
    ) -> None:
        parts = urlsplit(harness.url)

        assert store.url.startswith(f"{parts.scheme}://")
        for text in (store.url, repr(store), repr(store.for_tenant("acme"))):
            if parts.password:
                assert parts.password not in text
                assert unquote(parts.password) not in text

    def test_capabilities_are_a_set_of_capability(self, store: EventStore) -> None:
        assert isinstance(store.capabilities, (set, frozenset))
        assert all(isinstance(capability, Capability) for capability in store.capabilities)

    def test_a_wait_of_many_ends_with_the_store(self, store: EventStore) -> None:
        waiting = [Thread(store.wait_for_events, 0, WAIT) for _ in range(5)]
        assert waiting[0].is_running(after=0.1)

        store.close()

        for each in waiting:
            with pytest.raises(StoreClosedError):
                each.result()
