"""Appends of many threads at once, when some of them fail, are interrupted, closed or forked."""

from __future__ import annotations

import faulthandler
import traceback
from multiprocessing.connection import Connection
from typing import Any
from uuid import UUID

import pytest

from eventstore import (
    AppendCondition,
    Capability,
    CheckpointError,
    ConditionFailedError,
    DuplicateEventError,
    Event,
    EventQuery,
    EventStore,
    EventStoreError,
    InvalidEventError,
    StoreClosedError,
    VersionConflictError,
)
from eventstore.testing.conformance import calamities
from eventstore.testing.conformance.base import (
    Conformance,
    OpenAnother,
    assert_log_is_sound,
    ids,
    note,
    notes,
    require,
    stored,
)
from eventstore.testing.conformance.crews import Thread, in_threads
from eventstore.testing.conformance.harness import Harness
from eventstore.testing.conformance.processes import FreshProcess


def outcome(store: EventStore, batch: list[Event], options: dict[str, Any]) -> Any:
    """Append; return the sequences or the error."""
    try:
        return store.append_batch(batch, **options).sequences
    except EventStoreError as error:
        return error


class GroupCommitTests(Conformance):
    # --- One that fails beside others

    def test_batches_that_fail_leave_the_others_alone(self, store: EventStore) -> None:
        """Whichever of them travel together: each gets its own answer."""
        known = store.append(note("known"))
        for turn in range(8):
            good = [notes(1 + n, f"good-{turn}-{n}") for n in range(4)]
            bad: list[tuple[list[Event], dict[str, Any], type[EventStoreError]]] = [
                (notes(2, "known"), {"expected_version": 99}, VersionConflictError),
                (
                    notes(2, "known"),
                    {"condition": AppendCondition(EventQuery(entity_id="known"))},
                    ConditionFailedError,
                ),
                ([known.replace(data={"x": 1}, sequence=0)], {}, DuplicateEventError),
                (
                    notes(1),
                    {"condition": AppendCondition(EventQuery(), after=10**6)},
                    CheckpointError,
                ),
                (notes(1, data={"x": float("nan")}), {}, InvalidEventError),
            ]
            calls: list[tuple[Any, ...]] = [(store, batch, {}) for batch in good]
            calls += [(store, batch, options) for batch, options, _ in bad]

            results = in_threads(outcome, calls)

            for batch, result in zip(good, results[:4], strict=True):
                assert len(result) == len(batch)
                assert result == tuple(range(result[0], result[0] + len(batch)))
            for (_, _, error), result in zip(bad, results[4:], strict=True):
                assert type(result) is error
            assert store.get_current_sequence() == 1 + 10 * (turn + 1)
        assert_log_is_sound(store)

    def test_every_thread_gets_the_error_of_its_own_batch(self, store: EventStore) -> None:
        calls = [(store, [note(f"n-{n}")], {"expected_version": n}) for n in range(1, 9)]

        results = in_threads(outcome, calls)

        assert [type(error) for error in results] == [VersionConflictError] * 8
        assert [(error.entity_id, error.expected_version) for error in results] == [
            (f"n-{n}", n) for n in range(1, 9)
        ]
        assert len({id(error) for error in results}) == 8
        assert store.get_current_sequence() == 0

    def test_what_one_thread_appends_is_judged_after_what_another_did(
        self, store: EventStore
    ) -> None:
        """Batches of one group are judged in order, as if each had come alone."""
        for turn in range(10):
            tag = f"turn-{turn}"
            unclaimed = AppendCondition(EventQuery(tags=[tag]))
            by_version = [(store, [note("v")], {"expected_version": turn}) for _ in range(4)]
            by_condition = [
                (store, [note(f"c-{n}", tags=(tag,))], {"condition": unclaimed}) for n in range(4)
            ]

            results = in_threads(outcome, [*by_version, *by_condition])

            for group, error in (
                (results[:4], VersionConflictError),
                (results[4:], ConditionFailedError),
            ):
                assert sum(isinstance(result, tuple) for result in group) == 1
                assert sum(type(result) is error for result in group) == 3
        assert_log_is_sound(store)
        assert store.get_current_version("note", "v") == 10

    def test_large_and_small_batches_may_be_appended_at_once(self, store: EventStore) -> None:
        sizes = [1500, 1, 1, 700, 1, 2, 1200, 1]
        batches = [notes(size, f"n-{n}") for n, size in enumerate(sizes)]

        results = in_threads(outcome, [(store, batch, {}) for batch in batches])

        assert [len(result) for result in results] == sizes
        assert len(assert_log_is_sound(store)) == sum(sizes)

    def test_heavy_batches_may_be_appended_at_once(self, store: EventStore) -> None:
        batches = [[note(f"n-{n}", data={"text": "x" * 700_000})] for n in range(10)]

        results = in_threads(outcome, [(store, batch, {}) for batch in batches])

        assert sorted(results) == [(n,) for n in range(1, 11)]
        assert {len(event.data["text"]) for event in stored(store)} == {700_000}

    def test_threads_that_wait_for_the_same_events_do_not_deadlock(self, store: EventStore) -> None:
        """Every thread appends to the entities of all, in another order."""
        names = [f"n-{n}" for n in range(8)]

        def work(shift: int) -> int:
            for _ in range(10):
                store.append_batch([note(name) for name in names[shift:] + names[:shift]])
            return shift

        assert in_threads(work, [(shift,) for shift in range(8)]) == list(range(8))
        assert len(assert_log_is_sound(store)) == 640

    # --- Closed meanwhile

    def test_close_lets_appends_in_flight_finish_and_refuses_the_rest(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        other = open_another()
        acknowledged: list[UUID] = []

        def work(worker: int) -> str:
            while True:
                event = note(f"n-{worker}")
                try:
                    acknowledged.append(store.append(event).event_id)
                except StoreClosedError:
                    return "closed"

        workers = [Thread(work, worker) for worker in range(6)]
        assert other.wait_for_events(0, timeout=30)
        assert other.wait_for_events(min(other.get_current_sequence(), 30), timeout=30)

        store.close()

        assert [worker.result() for worker in workers] == ["closed"] * 6
        assert set(ids(assert_log_is_sound(other))) == set(acknowledged)

    def test_close_may_be_called_by_many_threads(self, store: EventStore) -> None:
        store.append(note())

        assert in_threads(store.close, [()] * 6) == [None] * 6

        with pytest.raises(StoreClosedError):
            store.append(note())

    # --- Interrupted, forked, killed: in processes of their own

    def test_an_interrupted_append_can_be_repeated_and_harms_no_other(
        self, harness: Harness, namespace: str
    ) -> None:
        """Ctrl-C strikes the main thread while it leads a group and while it follows."""
        report = self._report(calamities.interrupt_appends, harness, namespace)

        assert report["interrupted"] > 20
        assert report["missing"] == []
        assert report["unexpected"] == []
        assert report["stored twice"] == 0

    def test_an_interrupt_ends_a_wait(self, harness: Harness, namespace: str) -> None:
        report = self._report(calamities.interrupt_wait, harness, namespace)

        assert report == {"interrupted": True, "sequence": 1}

    def test_a_signal_handler_that_appends_never_hangs(
        self, harness: Harness, namespace: str
    ) -> None:
        report = self._report(calamities.append_in_signal_handler, harness, namespace)

        assert report["handled"] > 20
        assert report["errors"] in ([], ["UnsupportedOperationError"])
        assert report["stored"] == report["acknowledged"]

    def test_a_forked_child_appends_and_reads_with_the_store_it_inherited(
        self, store: EventStore, harness: Harness, namespace: str
    ) -> None:
        report = self._report(calamities.fork_while_appending, harness, namespace)

        assert report["exit codes"] == [0, 0, 0]
        assert report["appended after"] is True
        if Capability.MULTI_PROCESS in store.capabilities:
            events = assert_log_is_sound(store)
            children = [event for event in events if event.entity_id.startswith("child")]
            assert len(children) == 3 * 5

    def test_a_forked_child_that_closes_the_store_leaves_its_parent_alone(
        self, harness: Harness, namespace: str
    ) -> None:
        report = self._report(calamities.fork_and_close, harness, namespace)

        assert report == {"exit codes": [0], "sequence": 2}

    def test_a_killed_process_leaves_a_sound_log_that_others_append_to(
        self, store: EventStore, harness: Harness, namespace: str
    ) -> None:
        require(store, Capability.MULTI_PROCESS)
        opening = (harness.url, harness.options_of(namespace))
        acknowledged: list[UUID] = []
        with FreshProcess(calamities.append_until_killed, *opening) as process:
            while len(acknowledged) < 40:
                acknowledged.append(process.hear())
            process.kill()

        recorded = store.append(note("after"))

        events = assert_log_is_sound(store)
        assert events[-1] == recorded
        assert set(acknowledged) <= set(ids(events))

    def _report(self, work: Any, harness: Harness, namespace: str) -> dict[str, Any]:
        opening = (harness.url, harness.options_of(namespace))
        with FreshProcess(_reporting, work, *opening) as process:
            kind, report = process.hear()
        assert kind == "done", report
        return dict(report)


def _reporting(connection: Connection, work: Any, url: str, options: dict[str, Any]) -> None:
    """Do ``work`` in this process and tell its report, or the traceback of what went wrong."""
    faulthandler.dump_traceback_later(calamities.GIVE_UP, exit=True)
    try:
        connection.send(("done", work(url, options)))
    except BaseException:  # noqa: BLE001 - told to the test
        connection.send(("failed", traceback.format_exc()))
    connection.close()
