"""The state machine passes the memory store, and catches a store that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from eventstore import Event, EventQuery, EventStore, open_store
from eventstore.testing.state_machine import state_machine_for

TestMemoryAgainstItself = state_machine_for(
    lambda: open_store("memory://"), examples=30, steps=25
).TestCase


def _reads_backwards(store: EventStore, real: Any, query: EventQuery) -> list[Event]:
    return list(real(query))[::-1]


def _forgets_the_limit(store: EventStore, real: Any, query: EventQuery) -> list[Event]:
    return list(real(query.replace(limit=None)))


def _ignores_conditions(store: EventStore, real: Any, events: Any, **how: Any) -> Any:
    return real(events, **{**how, "condition": None})


def _ignores_expectations(store: EventStore, real: Any, events: Any, **how: Any) -> Any:
    return real(events, **{**how, "expected_version": {}})


def _turns_floats_into_ints(store: EventStore, real: Any, query: EventQuery) -> list[Event]:
    return [
        event.replace(
            data={
                key: int(value) if type(value) is float and value == 1.0 else value
                for key, value in event.data.items()
            }
        )
        for event in real(query)
    ]


def _counts_one_more(store: EventStore, real: Any, query: EventQuery) -> int:
    return 1 + int(real(query))


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("get_events", _reads_backwards),
        ("get_events", _forgets_the_limit),
        ("get_events", _turns_floats_into_ints),
        ("count_events", _counts_one_more),
        ("append_batch", _ignores_conditions),
        ("append_batch", _ignores_expectations),
    ],
)
def test_a_wrong_store_is_caught(method: str, wrong: Callable[..., Any]) -> None:
    class Wrong(EventStore):
        """A store of which one method is wrong."""

    def replaced(self: EventStore, *arguments: Any, **named: Any) -> Any:
        def real(*args: Any, **kwargs: Any) -> Any:
            return getattr(EventStore, method)(self, *args, **kwargs)

        if method == "get_events" and not arguments:
            arguments = (EventQuery(),)
        return wrong(self, real, *arguments, **named)

    setattr(Wrong, method, replaced)

    @contextmanager
    def opened() -> Iterator[EventStore]:
        with open_store("memory://") as store:
            yield Wrong(store._log)

    machine = state_machine_for(opened)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=300,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )
