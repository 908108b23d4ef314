"""What is said of an append whose fate is not known, whatever the server answers next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pymongo
import pytest
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError, WriteConcernError

from eventstore import (
    ConfigurationError,
    Event,
    EventStore,
    StoreUnavailableError,
    drop_namespace,
    open_store,
)
from eventstore._core.appending import batch_of
from eventstore.backend import Accepted
from eventstore.testing.conformance.base import assert_log_is_sound, note, notes
from eventstore.versions import ExpectedVersion

REFUSALS = {
    134: "ReadConcernMajorityNotAvailableYet",
    11601: "Interrupted",
    14031: "OutOfDiskSpace",
    13: "Unauthorized",
    2: "BadValue",
}


class Answers:
    """A collection whose look-ups of a single document are answered with an error."""

    def __init__(self, collection: Any, error: PyMongoError, times: int) -> None:
        self._collection = collection
        self._error = error
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def find_one(self, *arguments: Any, **options: Any) -> Any:
        if self.left:
            self.left -= 1
            raise self._error
        return self._collection.find_one(*arguments, **options)


def lose_answer(store: EventStore, lost: PyMongoError, *, stored: bool = True) -> None:
    """Lose the answer to the next insert of ``store``."""
    appender: Any = store._log.backend._appender  # type: ignore[attr-defined]
    put: Callable[[Any], None] = appender._put

    def losing(documents: Any) -> None:
        appender._put = put
        if stored:
            put(documents)
        raise lost

    appender._put = losing


def refuse_looks(store: EventStore, code: int, times: int) -> Answers:
    """Answer the next look-ups of ``store``'s appends with an error of the server's."""
    appender: Any = store._log.backend._appender  # type: ignore[attr-defined]
    answers = Answers(appender._commits, OperationFailure(REFUSALS[code], code), times)
    appender._commits = answers
    return answers


@pytest.fixture
def store(url: str) -> Any:
    with open_store(url, namespace="doubt", timeout=1.0, retries=0) as store:
        store.append(note())
        yield store
    drop_namespace(url, namespace="doubt")


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("stored", [True, False])
def test_a_look_that_is_refused_leaves_it_open_whether_the_append_was_stored(
    store: EventStore, code: int, stored: bool
) -> None:
    # Given an insert whose answer is lost, and a server that refuses the look for it
    (event,) = notes(1)
    lose_answer(store, AutoReconnect("lost"), stored=stored)
    answers = refuse_looks(store, code, 10_000)

    # When it is appended, then the error says that it may be stored
    with pytest.raises(StoreUnavailableError) as lost:
        store.append(event)
    assert lost.value.may_have_written

    # And when the server answers again, the same append is what it was or is stored once
    answers.left = 0
    assert store.append_batch([event]).replayed == stored
    assert len(assert_log_is_sound(store)) == 2


@pytest.mark.parametrize("code", [134, 11601])
def test_a_look_that_is_refused_for_a_moment_is_tried_again(store: EventStore, code: int) -> None:
    lose_answer(store, AutoReconnect("lost"))
    answers = refuse_looks(store, code, 3)
    result = store.append_batch(notes(2))
    assert answers.left == 0
    assert result.sequences == (2, 3)
    assert len(assert_log_is_sound(store)) == 3


@pytest.mark.parametrize(
    "lost", [WriteConcernError("waiting", 64), OperationFailure("killed", 11601)]
)
def test_an_insert_that_was_killed_or_not_confirmed_is_looked_for(
    store: EventStore, lost: PyMongoError
) -> None:
    lose_answer(store, lost)
    assert store.append_batch(notes(2)).sequences == (2, 3)
    assert len(assert_log_is_sound(store)) == 3


@pytest.mark.parametrize("code", [14031, 2])
def test_an_insert_that_was_refused_was_surely_not_stored(store: EventStore, code: int) -> None:
    lose_answer(store, OperationFailure(REFUSALS[code], code), stored=False)
    with pytest.raises(StoreUnavailableError) as refused:
        store.append(note())
    assert not refused.value.may_have_written
    assert not refused.value.transient
    assert len(assert_log_is_sound(store)) == 1


def test_a_user_without_the_right_to_insert_is_told_so(store: EventStore) -> None:
    lose_answer(store, OperationFailure("not authorized", 13), stored=False)
    with pytest.raises(ConfigurationError, match="refuses this user"):
        store.append(note())


def test_the_second_half_of_a_divided_group_does_not_speak_for_the_first(store: EventStore) -> None:
    # Given a group that is too large for one document, and a server lost after its first half
    backend: Any = store._log.backend
    backend._appender._max_bytes = 200_000
    groups: list[list[Event]] = [[note(data={"text": "x" * 120_000})] for _ in range(2)]
    batches = [batch_of(events, ExpectedVersion.ANY, None) for events in groups]
    put: Callable[[Any], None] = backend._appender._put
    inserted: list[int] = []

    def losing(documents: Any) -> None:
        if inserted:
            raise pymongo.errors.ServerSelectionTimeoutError("no server")
        put(documents)
        inserted.append(documents[0]["_id"])

    backend._appender._put = losing

    # When both are committed together
    first, second = backend.commit([batch for batch in batches if batch], 0.3)

    # Then each is told what became of it
    assert isinstance(first, Accepted)
    assert isinstance(second, StoreUnavailableError)
    assert not second.may_have_written
    assert len(assert_log_is_sound(store)) == 2
