"""Random commands: one by one against the memory store, and all at once under the checker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from hypothesis.stateful import run_state_machine_as_test

from eventstore import EventStore
from eventstore.testing.conformance.base import Conformance
from eventstore.testing.conformance.harness import Harness
from eventstore.testing.history import check, run_history
from eventstore.testing.state_machine import state_machine_for


class RandomTests(Conformance):
    def test_random_commands_have_the_same_outcome_as_on_the_memory_store(
        self, harness: Harness
    ) -> None:
        @contextmanager
        def empty_store() -> Iterator[EventStore]:
            namespace = f"t{uuid4().hex[:16]}"
            try:
                with harness.open(namespace) as store:
                    yield store
            finally:
                harness.drop(namespace)

        machine = state_machine_for(empty_store, examples=25)

        run_state_machine_as_test(machine, settings=machine.TestCase.settings)

    def test_a_history_of_many_workers_keeps_every_guarantee(
        self, harness: Harness, namespace: str
    ) -> None:
        history = run_history(
            harness.url,
            seconds=harness.history_seconds,
            **harness.options_of(namespace),
        )

        assert check(history) == []
        assert history.log
