"""The fixture of ``eventstore.testing.fixtures``."""

from __future__ import annotations

import pytest

from eventstore import ConfigurationError, Event, EventStore, open_store
from eventstore.testing.fixtures import eventstore_memory

__all__ = ["eventstore_memory"]

seen: list[str] = []


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_log_of_its_own(eventstore_memory: EventStore, turn: int) -> None:
    # Given
    assert eventstore_memory.get_current_sequence() == 0

    # When: code under test opens it by itself
    with open_store(eventstore_memory.url) as same:
        same.append(Event(event_type="E", entity_type="t", entity_id="1"))

    # Then
    assert eventstore_memory.get_current_sequence() == 1
    seen.append(eventstore_memory.url)


def test_the_logs_of_other_tests_are_gone() -> None:
    assert len(set(seen)) == len(seen)
    for url in seen:
        with pytest.raises(ConfigurationError, match="has no log"):
            open_store(url, create=False)
