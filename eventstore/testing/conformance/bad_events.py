"""Bad events and expectations: a clear error that names the field, and nothing stored (G11)."""

from __future__ import annotations

import re
from collections import OrderedDict, UserDict, defaultdict
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from eventstore import Entity, EventQuery, EventStore, ExpectedVersion, InvalidEventError
from eventstore.testing.conformance.bad_values import KEYS, NAMES, VALUES, Number, cases, show
from eventstore.testing.conformance.base import Conformance, note

NAMED = ["event_type", "entity_type", "entity_id", "workflow_id", "tenant_id"]

ABSENT: dict[str, Any] = {"workflow_id": None, "tenant_id": ""}
"""What stands for no name, where there may be none."""

NO_OBJECTS: list[Any] = [
    None,
    [],
    [1],
    "text",
    1,
    (),
    OrderedDict(),
    defaultdict(int),
    UserDict(),
]

FIELDS: dict[str, list[Any]] = {
    "event_id": ["text", "018bcfe5-6800-7abc-8def-0123456789ab", 1, None, b"x" * 16],
    "tags": [
        *("tag", b"tag", None, 1, {"a": 1}, iter(["a"])),
        *([name] for name in NAMES),
    ],
    "schema_version": [0, -1, 2**31, True, 1.0, "1", None],
    "timestamp": [
        datetime(2024, 1, 1),  # noqa: DTZ001 - naive on purpose
        date(2024, 1, 1),
        "2024-01-01T00:00:00Z",
        1_700_000_000,
        None,
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
    ],
    "data": NO_OBJECTS,
    "metadata": NO_OBJECTS,
}
"""What each field of an event may not be."""

EXPECTATIONS: list[Any] = [
    -3,
    2**63,
    1.0,
    "1",
    None,
    True,
    False,
    [1],
    b"1",
    Number.ONE,
    {"note": 1},
    {("note",): 1},
    {("note", "n-1", "acme", "x"): 1},
    {("note", 1): 1},
    {("", "n-1"): 1},
    {5: 1},
    {("note", "n-1"): -3},
    {("note", "n-1"): "1"},
    {("note", "n-1"): None},
    {("note", "n-1"): True},
    {Entity("note", "n-1", "\0"): 0},
    [(("note", "n-1"), 1)],
]


class BadEventTests(Conformance):
    def _assert_refused(self, store: EventStore, event: Any, names: str) -> str:
        """Assert that an event is refused, alone and among others, by an error that begins with
        ``names``, and that nothing is stored."""
        head = store.get_current_sequence()
        for events in ([event], [note("good"), event, note("good")]):
            # A batch may be told which of its events it is.
            with pytest.raises(InvalidEventError, match=rf"^(events\[\d\]\.?)?{names}"):
                store.append_batch(events)
        with pytest.raises(InvalidEventError, match=f"^{names}") as caught:
            store.append(event)
        assert isinstance(caught.value, ValueError)
        assert store.get_current_sequence() == head
        assert store.append(note()).sequence == head + 1
        return str(caught.value)

    # --- Payloads

    @pytest.mark.parametrize("value", VALUES, ids=show)
    @pytest.mark.parametrize("field", ["data", "metadata"])
    def test_what_no_payload_may_hold_is_refused_with_its_path(
        self, shared_store: EventStore, field: str, value: Any
    ) -> None:
        payload: Any = {"fine": 1, "outer": [0, {"inner": value}]}

        message = self._assert_refused(shared_store, note(**{field: payload}), field)

        assert "outer" in message
        assert "inner" in message

    @pytest.mark.parametrize("key", KEYS, ids=show)
    @pytest.mark.parametrize("field", ["data", "metadata"])
    def test_what_may_not_be_a_key_is_refused(
        self, shared_store: EventStore, field: str, key: Any
    ) -> None:
        payload: Any = {"outer": {key: 1}}

        self._assert_refused(shared_store, note(**{field: payload}), field)

    @pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
    def test_a_number_past_64_bits_is_named_with_its_path_and_a_way_out(
        self, shared_store: EventStore, number: int
    ) -> None:
        message = self._assert_refused(shared_store, note(data={"a": [1, {"b": number}]}), "data")

        assert str(number) in message
        assert re.search(r"a.*1.*b", message)
        assert "text" in message

    # --- Fields of events

    @pytest.mark.parametrize("name", NAMES, ids=show)
    @pytest.mark.parametrize("field", NAMED)
    def test_what_is_no_name_is_refused(
        self, shared_store: EventStore, field: str, name: Any
    ) -> None:
        if field in ABSENT and name == ABSENT[field]:
            assert getattr(shared_store.append(note(**{field: name})), field) == name
        else:
            self._assert_refused(shared_store, note(**{field: name}), field)

    @pytest.mark.parametrize(("field", "value"), cases(FIELDS), ids=show)
    def test_a_field_of_the_wrong_kind_is_refused(
        self, shared_store: EventStore, field: str, value: Any
    ) -> None:
        self._assert_refused(shared_store, note(**{field: value}), field)

    @pytest.mark.parametrize(
        "event", [None, "event", 1, {}, {"event_type": "x"}, object()], ids=show
    )
    def test_what_is_no_event_is_refused(self, shared_store: EventStore, event: Any) -> None:
        self._assert_refused(shared_store, event, "event")

    @pytest.mark.parametrize("events", [None, "events", b"events", 1, {"a": 1}, note()], ids=show)
    def test_what_is_no_collection_of_events_is_refused(
        self, shared_store: EventStore, events: Any
    ) -> None:
        head = shared_store.get_current_sequence()

        with pytest.raises(InvalidEventError, match="event"):
            shared_store.append_batch(events)

        assert shared_store.get_current_sequence() == head

    def test_a_field_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(TypeError):
            note(surprise=1)
        with pytest.raises(TypeError):
            note().replace(surprise=1)
        with pytest.raises(TypeError):
            EventQuery().replace(surprise=1)

    def test_bad_events_are_refused_by_views_too(self, store: EventStore) -> None:
        view = store.for_tenant("acme")

        for event in (note(data={"x": float("nan")}), note(tags=("",)), note(entity_id="\0")):
            with pytest.raises(InvalidEventError):
                view.append(event)

        assert store.get_current_sequence() == 0

    # --- What an append expects

    @pytest.mark.parametrize("expected", EXPECTATIONS, ids=show)
    def test_what_is_no_expectation_is_refused(
        self, shared_store: EventStore, expected: Any
    ) -> None:
        head = shared_store.get_current_sequence()

        with pytest.raises(InvalidEventError, match=r"expected_version|tenant_id"):
            shared_store.append(note(), expected_version=expected)

        assert shared_store.get_current_sequence() == head

    @pytest.mark.parametrize("expected", [0, 1, ExpectedVersion.STREAM_EXISTS])
    def test_a_number_is_refused_for_a_batch_of_several_entities(
        self, store: EventStore, expected: int
    ) -> None:
        for batch in ([note("a"), note("b")], [note("a"), note("a", tenant_id="acme")]):
            with pytest.raises(InvalidEventError, match="expected_version"):
                store.append_batch(batch, expected_version=expected)

        assert store.get_current_sequence() == 0

    def test_any_is_accepted_for_a_batch_of_several_entities(self, store: EventStore) -> None:
        result = store.append_batch([note("a"), note("b")], expected_version=ExpectedVersion.ANY)

        assert result.sequences == (1, 2)
