"""What the areas of the suite share: the fixtures, and short ways to say common things."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final
from uuid import uuid4

import pytest

from eventstore import Capability, Event, EventQuery, EventStore
from eventstore.testing.conformance.crews import Crew, ProcessCrew, StoreCrew, ThreadCrew
from eventstore.testing.conformance.harness import Harness
from eventstore.testing.conformance.processes import Processes

WAIT: Final = 30.0
"""Seconds within which whatever must happen has happened, on a busy machine too."""

OpenAnother = Callable[..., EventStore]


class Conformance:
    """The base of every area. A test module defines the fixture ``harness``."""

    @pytest.fixture
    def namespace(self, harness: Harness) -> Iterator[str]:
        """A log of this test's own, removed at its end."""
        name = f"t{uuid4().hex[:16]}"
        yield name
        harness.drop(name)

    @pytest.fixture
    def open_another(self, harness: Harness, namespace: str) -> Iterator[OpenAnother]:
        """Opens the test's log once more; all such stores are closed at its end."""
        with ExitStack() as stores:
            yield lambda **options: stores.enter_context(harness.open(namespace, **options))

    @pytest.fixture
    def store(self, open_another: OpenAnother) -> EventStore:
        """A store over an empty log."""
        return open_another()

    @pytest.fixture(scope="class")
    @classmethod
    def shared_store(cls, harness: Harness) -> Iterator[EventStore]:
        """A store over a log for tests that look at nothing but what they append there."""
        name = f"t{uuid4().hex[:16]}"
        try:
            with harness.open(name) as store:
                yield store
        finally:
            harness.drop(name)

    @pytest.fixture(scope="class")
    @classmethod
    def processes(cls) -> Iterator[Processes]:
        """A few worker processes, started when first used."""
        with Processes() as processes:
            yield processes

    @pytest.fixture(params=["threads", "stores", "processes"])
    def crew(
        self,
        request: pytest.FixtureRequest,
        harness: Harness,
        namespace: str,
        store: EventStore,
    ) -> Crew:
        """Several workers on the test's log: threads that share a store, threads with a store
        each, processes."""
        if request.param == "threads":
            return ThreadCrew(store)
        if request.param == "stores":
            return StoreCrew(harness, namespace)
        require(store, Capability.MULTI_PROCESS)
        processes: Processes = request.getfixturevalue("processes")
        return ProcessCrew(harness, namespace, processes)


def require(store: EventStore, capability: Capability) -> None:
    """Skip a test of what this backend says it cannot do."""
    if capability not in store.capabilities:
        pytest.skip(f"the backend does not claim {capability}")


def note(entity_id: str = "n-1", **fields: Any) -> Event:
    """Return a small event of entity type ``note``."""
    return Event(**{"event_type": "Noted", "entity_type": "note", "entity_id": entity_id, **fields})


def notes(count: int, entity_id: str = "n-1", **fields: Any) -> list[Event]:
    """Return several small events of one entity, numbered in ``data["n"]``."""
    return [note(entity_id, **{"data": {"n": n}, **fields}) for n in range(1, count + 1)]


def stored(store: EventStore, query: EventQuery | None = None) -> list[Event]:
    """Return what the log holds."""
    return list(store.get_events(query))


def read_back(store: EventStore, event: Event) -> Event:
    """Append an event, and return it as it is read."""
    recorded = store.append(event)
    (read,) = store.get_events_since(recorded.sequence - 1, limit=1)
    assert read == recorded
    return read


def ids(events: Any) -> list[Any]:
    """Return the ids of events, in order."""
    return [event.event_id for event in events]


def sequences(events: Any) -> list[int]:
    """Return the sequences of events, in order."""
    return [event.sequence for event in events]


def assert_log_is_sound(store: EventStore) -> list[Event]:
    """Assert what holds of every log (G1, G2, G5), and return its events."""
    events = stored(store)
    assert sequences(events) == list(range(1, len(events) + 1)), "sequences are 1…N"
    assert store.get_current_sequence() == len(events)
    assert len(set(zip([e.tenant_id for e in events], ids(events), strict=True))) == len(events)
    versions: dict[Any, int] = {}
    for event in events:
        versions[event.entity] = versions.get(event.entity, 0) + 1
        assert event.version == versions[event.entity], "versions are 1…n in sequence order"
    first = 0
    for event in events:
        if event.batch_sequence != first:
            assert event.batch_sequence == event.sequence, "a batch is contiguous"
            first = event.sequence
    times = [event.recorded_at for event in events]
    assert all(times)
    assert times == sorted(times, key=lambda time: time.timestamp() if time else 0.0)
    return events
