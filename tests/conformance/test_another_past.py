"""A database that is put back to an older copy between the look into an append condition and the
commit: what was looked at then is another past, though its sequences are taken again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from eventstore import (
    AppendCondition,
    ConditionFailedError,
    Event,
    EventQuery,
    EventStore,
    ExpectedVersion,
)
from eventstore._core.appending import batch_of, looked_into
from eventstore.backend import AnotherPastError, Condition
from eventstore.testing.conformance import Harness
from eventstore.testing.conformance.base import assert_log_is_sound, note, notes

TAKEN = EventQuery(tags=["seat"])


@pytest.fixture
def store(harness: Harness) -> Iterator[EventStore]:
    name = f"t{uuid4().hex[:16]}"
    with harness.open(name) as store:
        yield store
    harness.drop(name)


def of_another_past(store: EventStore, **changes: Any) -> Condition:
    """Return a condition that was looked into a log with another event at its head."""
    log = store._log
    looked = looked_into(log, AppendCondition(TAKEN), None, joins=False)
    return msgspec.structs.replace(looked, match=0, witness=("", uuid4()), **changes)


@pytest.mark.parametrize("size", [1, 2, 30])
@pytest.mark.parametrize("beyond", [0, 5])
def test_a_commit_looked_into_another_past_writes_nothing(
    store: EventStore, size: int, beyond: int
) -> None:
    store.append_batch([note(tags=("seat",)), *notes(2)])
    batch = batch_of(notes(size), ExpectedVersion.ANY, None)
    assert batch is not None
    conditional = msgspec.structs.replace(
        batch, condition=of_another_past(store, checked_to=3 + beyond)
    )

    (outcome,) = store._log.backend.commit([conditional], 30)

    assert isinstance(outcome, AnotherPastError)
    assert len(assert_log_is_sound(store)) == 3
    # Company is not harmed, nor is what was looked into the past that stands.
    plain = batch_of(notes(size), ExpectedVersion.ANY, None)
    looked = looked_into(store._log, AppendCondition(EventQuery(tags=["other"])), None, joins=False)
    other = batch_of([note("n-2")], ExpectedVersion.ANY, None)
    assert plain is not None
    assert other is not None
    group = [plain, conditional, msgspec.structs.replace(other, condition=looked)]
    first, second, third = store._log.backend.commit(group, 30)
    assert not isinstance(first, Exception)
    assert isinstance(second, AnotherPastError)
    assert not isinstance(third, Exception)
    assert len(assert_log_is_sound(store)) == 3 + size + 1


@pytest.mark.parametrize("matches", [True, False])
def test_an_append_that_looked_into_another_past_looks_again(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, matches: bool
) -> None:
    # Given a first look into what was there before the log was put back
    store.append_batch([note(tags=("seat",) if matches else ()), *notes(2)])
    page = store._log.page
    seen: list[Any] = []

    def before(request: Any) -> list[Event]:
        events = page(request)
        seen.append(request)
        if len(seen) == 1:
            return [event.replace(event_id=uuid4()) for event in events]
        return [] if len(seen) == 2 else events

    monkeypatch.setattr(store._log, "page", before)

    # When an append depends on it
    if matches:
        with pytest.raises(ConditionFailedError) as caught:
            store.append(note(tags=("seat",)), condition=AppendCondition(TAKEN))
        # Then it is judged by what is there now
        assert caught.value.sequence == 1
    else:
        assert store.append(note(), condition=AppendCondition(TAKEN)).sequence == 4
    assert len(seen) == 4
    monkeypatch.undo()
    assert len(assert_log_is_sound(store)) == (3 if matches else 4)
