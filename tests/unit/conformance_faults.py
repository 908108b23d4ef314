"""Stores that break one guarantee each. ``test_conformance_suite.py`` runs this file in a process
of its own, and expects the area named beside each fault to fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import timedelta
from threading import get_ident
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import hypothesis
import pytest
from msgspec.structs import replace

from eventstore import Event, EventQuery
from eventstore.backend import Backend, Draft, EventKey, PageRequest, planner
from eventstore.memory import MemoryBackend, _MemoryLog
from eventstore.testing.conformance import Harness, crews, tailing
from eventstore.testing.conformance.appending import AppendTests
from eventstore.testing.conformance.base import Conformance
from eventstore.testing.conformance.checkpoints import CheckpointTests
from eventstore.testing.conformance.concurrency import ConcurrencyTests
from eventstore.testing.conformance.conditions import ConditionTests
from eventstore.testing.conformance.empty_batches import EmptyBatchTests
from eventstore.testing.conformance.entities import EntityTests
from eventstore.testing.conformance.fidelity import FidelityTests
from eventstore.testing.conformance.group_commit import GroupCommitTests
from eventstore.testing.conformance.idempotence import IdempotenceTests
from eventstore.testing.conformance.iteration import IterationTests
from eventstore.testing.conformance.lifecycle import LifecycleTests
from eventstore.testing.conformance.names_and_times import NameAndTimeTests
from eventstore.testing.conformance.queries import QueryTests
from eventstore.testing.conformance.recorded_times import RecordedTimeTests
from eventstore.testing.conformance.tailing import TailTests
from eventstore.testing.conformance.tenants import TenantTests
from eventstore.testing.conformance.versions import VersionTests

# That it fails is enough; the smallest example is of no interest.
hypothesis.settings.register_profile("faults", phases=[hypothesis.Phase.generate])
hypothesis.settings.load_profile("faults")

read = MemoryBackend.read
commit = MemoryBackend.commit
takes = EventQuery.takes
recorded = Draft.recorded


def versions_unchecked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planner, "_unmet_expectation", lambda *_: None)


def conditions_unchecked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planner, "_unmet_condition", lambda *_: None)


def content_compared_like_python(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planner, "canonical", lambda data: data)  # 1 == 1.0 == True


def ids_unique_over_tenants(patch: pytest.MonkeyPatch) -> None:
    def find(self: MemoryBackend, keys: Sequence[EventKey]) -> list[Event]:
        wanted = {event_id for _, event_id in keys}
        return [record.event() for record in self._log.records if record.draft.event_id in wanted]

    patch.setattr(MemoryBackend, "find", find)


def a_race_between_check_and_write(patch: pytest.MonkeyPatch) -> None:
    plan_over = planner.plan_over

    def slowly(*arguments: Any) -> Any:
        planned = plan_over(*arguments)
        time.sleep(0.002)
        return planned

    patch.setattr("eventstore.memory.plan_over", slowly)
    patch.setattr(
        "eventstore.memory.threading", SimpleNamespace(Lock=nullcontext, get_ident=get_ident)
    )
    patch.setattr(crews.Thread.result, "__defaults__", (3.0,))  # what it breaks may never end


def events_appear_late(patch: pytest.MonkeyPatch) -> None:
    """The newest event but one shows up later than the newest."""

    def reading(self: MemoryBackend, page: PageRequest) -> list[Event]:
        hidden = {self.head() - 1} if time.monotonic() % 0.02 < 0.01 else set()
        return [event for event in read(self, page) if event.sequence not in hidden]

    patch.setattr(MemoryBackend, "read", reading)
    patch.setattr(tailing, "WAIT", 1.0)


def batches_are_visible_in_part(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryBackend, "head", lambda self: max(len(self._log.records) - 1, 0))
    patch.setattr(tailing, "WAIT", 1.0)


def no_snapshot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        MemoryBackend,
        "read",
        lambda self, page: read(self, replace(page, up_to=None)),
    )


def any_tag_will_do(patch: pytest.MonkeyPatch) -> None:
    def sloppily(self: EventQuery, fact: Any, sequence: int) -> bool:
        tags = self.tags
        return takes(self.replace(tags=None), fact, sequence) and (
            tags is None or any(tag in fact.tags for tag in tags)
        )

    patch.setattr(EventQuery, "takes", sloppily)


def names_regardless_of_case(patch: pytest.MonkeyPatch) -> None:
    def sloppily(self: EventQuery, fact: Any, sequence: int) -> bool:
        wanted = self.entity_id
        return takes(self.replace(entity_id=None), fact, sequence) and (
            wanted is None or fact.entity_id.lower() == wanted.lower()
        )

    patch.setattr(EventQuery, "takes", sloppily)


def milliseconds(patch: pytest.MonkeyPatch) -> None:
    def coarsely(self: Draft, **assigned: Any) -> Event:
        event = recorded(self, **assigned)
        time = event.timestamp
        return event.replace(timestamp=time.replace(microsecond=time.microsecond // 1000 * 1000))

    patch.setattr(Draft, "recorded", coarsely)


def whole_floats_become_integers(patch: pytest.MonkeyPatch) -> None:
    def mended(value: Any) -> Any:
        match value:
            case float() if value.is_integer():
                return int(value)
            case dict():
                return {key: mended(each) for key, each in value.items()}
            case list():
                return [mended(each) for each in value]
        return value

    def jsonb(self: Draft, **assigned: Any) -> Event:
        event = recorded(self, **assigned)
        return event.replace(data=mended(event.data))

    patch.setattr(Draft, "recorded", jsonb)


def events_are_shared_with_the_log(patch: pytest.MonkeyPatch) -> None:
    made: dict[Any, Event] = {}

    def cached(self: Draft, **assigned: Any) -> Event:
        return made.setdefault((id(self), assigned["sequence"]), recorded(self, **assigned))

    patch.setattr(Draft, "recorded", cached)


def oldest_entities_first(patch: pytest.MonkeyPatch) -> None:
    list_entities = MemoryBackend.list_entities
    patch.setattr(
        MemoryBackend, "list_entities", lambda *arguments: list_entities(*arguments)[::-1]
    )


def tenants_mixed_in_counts(patch: pytest.MonkeyPatch) -> None:
    count = MemoryBackend.count
    patch.setattr(
        MemoryBackend, "count", lambda self, query: count(self, query.replace(tenant_id=None))
    )


def one_log_for_all_namespaces(patch: pytest.MonkeyPatch) -> None:
    log = _MemoryLog()
    patch.setattr("eventstore.memory._named_logs", _Always(log))


class _Always(dict[Any, Any]):
    def __init__(self, value: Any) -> None:
        self._value = value

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: Any, default: Any = None) -> Any:
        return self._value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        return self._value

    def pop(self, key: Any, default: Any = None) -> Any:
        return None


def a_log_id_that_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryBackend, "log_id", "always-the-same")


def one_error_fails_the_group(patch: pytest.MonkeyPatch) -> None:
    def all_or_none(self: MemoryBackend, group: Any, timeout: float) -> Any:
        time.sleep(0.002)  # for company to come
        outcomes = commit(self, group, timeout)
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        return [errors[0]] * len(group) if errors else outcomes

    patch.setattr(MemoryBackend, "commit", all_or_none)
    patch.setattr(MemoryBackend, "max_group_bytes", Backend.max_group_bytes)


def a_time_of_recording_that_goes_back(patch: pytest.MonkeyPatch) -> None:
    def restless(self: Draft, **assigned: Any) -> Event:
        event = recorded(self, **assigned)
        assert event.recorded_at is not None
        back = timedelta(seconds=event.sequence % 3)
        return event.replace(recorded_at=event.recorded_at - back)

    patch.setattr(Draft, "recorded", restless)


def versions_unbounded_backwards(patch: pytest.MonkeyPatch) -> None:
    def reading(self: MemoryBackend, page: PageRequest) -> list[Event]:
        return read(self, page if page.ascending else replace(page, above_version=0))

    patch.setattr(MemoryBackend, "read", reading)


def ties_in_reverse(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "eventstore.memory._time_key",
        lambda record: (record.draft.timestamp, -record.sequence),
    )


FAULTS: list[tuple[type[Conformance], Callable[[pytest.MonkeyPatch], None]]] = [
    (VersionTests, versions_unchecked),
    (ConditionTests, conditions_unchecked),
    (EmptyBatchTests, versions_unchecked),
    (EmptyBatchTests, conditions_unchecked),
    (IdempotenceTests, content_compared_like_python),
    (IdempotenceTests, ids_unique_over_tenants),
    (ConcurrencyTests, a_race_between_check_and_write),
    (TailTests, events_appear_late),
    (TailTests, batches_are_visible_in_part),
    (IterationTests, no_snapshot),
    (QueryTests, any_tag_will_do),
    (QueryTests, ties_in_reverse),
    (RecordedTimeTests, a_time_of_recording_that_goes_back),
    (NameAndTimeTests, names_regardless_of_case),
    (NameAndTimeTests, milliseconds),
    (FidelityTests, whole_floats_become_integers),
    (FidelityTests, events_are_shared_with_the_log),
    (EntityTests, oldest_entities_first),
    (EntityTests, versions_unbounded_backwards),
    (TenantTests, tenants_mixed_in_counts),
    (LifecycleTests, one_log_for_all_namespaces),
    (CheckpointTests, a_log_id_that_stays),
    (GroupCommitTests, one_error_fails_the_group),
    (AppendTests, batches_are_visible_in_part),
]


def _with_fault(area: type[Conformance], fault: Callable[[pytest.MonkeyPatch], None]) -> type:
    class Faulty(area):  # type: ignore[misc,valid-type]  # made for each area
        @pytest.fixture(scope="class")
        @classmethod
        def harness(cls) -> Iterator[Harness]:
            with pytest.MonkeyPatch.context() as patch:
                fault(patch)
                yield Harness(url=f"memory://{uuid4().hex}")

    return Faulty


for area, fault in FAULTS:
    globals()[f"Test_{fault.__name__}_in_{area.__name__}"] = _with_fault(area, fault)
