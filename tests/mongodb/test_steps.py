"""A writer is held before each of its steps while another commits, and nothing goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import pytest

from eventstore import (
    AppendCondition,
    ConditionFailedError,
    DuplicateEventError,
    Event,
    EventQuery,
    EventStore,
    EventStoreError,
    VersionConflictError,
    drop_namespace,
    open_store,
)
from eventstore.testing.conformance.base import assert_log_is_sound, note

MOST_STEPS = 40


class Held:
    """A collection that calls ``before_step`` before everything it asks the server."""

    def __init__(self, collection: Any, before_step: Callable[[], None]) -> None:
        self._collection = collection
        self._before_step = before_step

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._collection, name)
        if name == "with_options":
            return lambda **options: Held(attribute(**options), self._before_step)
        if name not in ("find", "find_one"):
            return attribute

        def step(*arguments: Any, **options: Any) -> Any:
            self._before_step()
            return attribute(*arguments, **options)

        return step


@contextmanager
def held(store: EventStore, step: int, meanwhile: Callable[[], object]) -> Iterator[list[int]]:
    """Call ``meanwhile`` before the given step of ``store``, up to the insert that decides; give
    the list of its steps."""
    backend: Any = store._log.backend
    appender, reader = backend._appender, backend._reader
    commits, raw, put = appender._commits, reader.commits, appender._put
    steps: list[int] = []
    stored: list[Any] = []

    def before_step() -> None:
        if stored:
            return
        steps.append(len(steps))
        if steps[-1] == step:
            meanwhile()

    def held_put(documents: Any) -> None:
        before_step()
        put(documents)
        stored.append(documents)

    appender._commits, reader.commits = Held(commits, before_step), Held(raw, before_step)
    appender._put = held_put
    try:
        yield steps
    finally:
        appender._commits, reader.commits, appender._put = commits, raw, put


def outcome(append: Callable[[], object]) -> EventStoreError | None:
    """Return what an append raises."""
    try:
        append()
    except EventStoreError as error:
        return error
    return None


def at_each_step(
    url: str, *, warm: bool, scene: Callable[[EventStore, EventStore, int], list[int]]
) -> None:
    """Play ``scene`` with a writer and another on a new log, held at the first step, then at
    the second …, until the writer has no such step."""
    for step in range(MOST_STEPS):
        namespace = f"t{uuid4().hex[:12]}"
        with ExitStack() as stack:
            stack.callback(drop_namespace, url, namespace=namespace)
            writer = stack.enter_context(open_store(url, namespace=namespace))
            other = stack.enter_context(open_store(url, namespace=namespace))
            other.append(note("before"))
            if warm:
                writer.append(note("warm"))
            steps = scene(writer, other, step)
            assert_log_is_sound(other)
            if len(steps) <= step:
                assert step >= 2, "a writer reads and inserts"
                return
    pytest.fail(f"the writer takes more than {MOST_STEPS} steps")


@pytest.mark.parametrize("warm", [False, True])
def test_both_appends_stand_one_after_the_other(url: str, warm: bool) -> None:
    def scene(writer: EventStore, other: EventStore, step: int) -> list[int]:
        with held(writer, step, lambda: other.append_batch([note("a"), note("b")])) as steps:
            mine = writer.append_batch([note("a"), note("c")])
        assert not mine.replayed
        assert mine.last_sequence == mine.first_sequence + 1
        return steps

    at_each_step(url, warm=warm, scene=scene)


@pytest.mark.parametrize("warm", [False, True])
def test_of_two_with_one_expectation_one_wins(url: str, warm: bool) -> None:
    def scene(writer: EventStore, other: EventStore, step: int) -> list[int]:
        won: list[str] = []

        def meanwhile() -> None:
            if outcome(lambda: other.append(note("a"), expected_version=0)) is None:
                won.append("other")

        with held(writer, step, meanwhile) as steps:
            error = outcome(lambda: writer.append(note("a"), expected_version=0))
        if won:
            assert isinstance(error, VersionConflictError)
            assert error.actual_version == 1
        else:
            assert error is None
        assert other.get_current_version("note", "a") == 1
        return steps

    at_each_step(url, warm=warm, scene=scene)


@pytest.mark.parametrize("warm", [False, True])
def test_what_came_meanwhile_fails_a_condition(url: str, warm: bool) -> None:
    def scene(writer: EventStore, other: EventStore, step: int) -> list[int]:
        won: list[str] = []

        def meanwhile() -> None:
            other.append(note("theirs", tags=("taken",)))
            won.append("other")

        condition = AppendCondition(EventQuery(tags=["taken"]))
        with held(writer, step, meanwhile) as steps:
            mine = note("mine", tags=("taken",))
            error = outcome(lambda: writer.append(mine, condition=condition))
        if won:
            assert isinstance(error, ConditionFailedError)
            assert error.sequence == other.get_current_sequence()
        else:
            assert error is None
        return steps

    at_each_step(url, warm=warm, scene=scene)


@pytest.mark.parametrize("warm", [False, True])
def test_of_one_event_appended_twice_one_stands_and_the_other_is_a_repeat(
    url: str, warm: bool
) -> None:
    def scene(writer: EventStore, other: EventStore, step: int) -> list[int]:
        event = note("a")
        with held(writer, step, lambda: other.append_batch([event])) as steps:
            result = writer.append_batch([event])
        held_in_time = len(steps) > step
        assert result.replayed == held_in_time
        assert other.count_events(EventQuery(entity_id="a")) == 1
        return steps

    at_each_step(url, warm=warm, scene=scene)


def test_other_content_under_one_id_is_refused(url: str) -> None:
    def scene(writer: EventStore, other: EventStore, step: int) -> list[int]:
        event = note("a", data={"x": 1})
        changed = event.replace(data={"x": 2})
        won: list[Event] = []
        with held(writer, step, lambda: won.append(other.append(changed))) as steps:
            error = outcome(lambda: writer.append(event))
        assert isinstance(error, DuplicateEventError) == bool(won)
        found = other.get_event_by_id(event.event_id)
        assert found is not None
        assert found.data == {"x": 2 if won else 1}
        return steps

    at_each_step(url, warm=True, scene=scene)


def test_a_conflict_is_judged_by_the_newest_state(url: str) -> None:
    def scene(writer: EventStore, other: EventStore, step: int) -> list[int]:
        # Expected is what only the other's commit makes true.
        appended: list[Event] = []
        with held(writer, step, lambda: appended.append(other.append(note("a")))) as steps:
            error = outcome(lambda: writer.append(note("a"), expected_version=1))
        if appended:
            assert error is None
            assert other.get_current_version("note", "a") == 2
        else:
            assert isinstance(error, VersionConflictError)
            assert error.actual_version == 0
        return steps

    at_each_step(url, warm=True, scene=scene)
