"""What is read equals what was appended (G9), for everything the payload model allows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore import Event, EventQuery, EventStore, InvalidEventError
from eventstore.testing.conformance.base import Conformance, OpenAnother, note, read_back, stored

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS | st.sampled_from(["$ref", "$id", "a.b", ""]), inner, max_size=4)
    ),
    max_leaves=20,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=6)

NUMBERS: list[Any] = [
    0,
    -1,
    2**31,
    2**53,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    1.0,
    100.0,
    -0.0,
    0.0,
    0.1,
    1e22,
    1e23,
    1e16,
    1e-7,
    5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    -1.7976931348623157e308,
    float(2**53),
    float(2**63),
    123456789.123456789,
]

TEXTS = [
    "",
    "\0",
    "a\0b\0",
    "\x00\x01\x1f\x7f\x80\x9f",
    "\u2028\u2029",
    "\ufeffbom",
    "\ufffe\uffff",
    "\U0010ffff",
    "e\u0301 is not \u00e9",
    "👩‍👩‍👧‍👦",
    "שלום עליכם",
    '"\\/\b\f\n\r\t',
    "</script><!--",
    "' OR 1=1 --",
    "line\r\nline",
]

KEY_NAMES = [
    "",
    " ",
    "$ref",
    "$id",
    "$ne",
    "$where",
    "a.b",
    ".",
    "..",
    "_id",
    "__proto__",
    "__class__",
    "\n",
    "ключ",
    "🔑",
    '"',
    "\\",
    "'",
    "%s",
    "0",
    "é",
    "e\u0301",
    "k" * 1000,
]


def nested(depth: int, kind: str) -> Any:
    """Return an object nested ``depth`` deep, itself counted."""
    value: Any = 1
    for level in range(depth, 1, -1):
        as_list = kind == "arrays" or (kind == "both" and level % 2)
        value = [value] if as_list else {"k": value}
    return {"k": value}


class FidelityTests(Conformance):
    # --- Payloads

    def test_any_payload_of_the_model_is_read_as_it_was_appended(
        self, shared_store: EventStore
    ) -> None:
        @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(st.tuples(OBJECTS, OBJECTS), min_size=1, max_size=6))
        def check(payloads: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
            batch = [note(data=data, metadata=metadata) for data, metadata in payloads]
            first = shared_store.append_batch(batch).first_sequence
            read = shared_store.get_events_since(first - 1, limit=len(batch))
            # repr tells 1 from 1.0 and True, 0.0 from -0.0, and one order of keys from another.
            assert repr([(event.data, event.metadata) for event in read]) == repr(payloads)

        check()

    def test_any_tags_and_names_are_read_as_they_were_appended(
        self, shared_store: EventStore
    ) -> None:
        names = st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
            min_size=1,
            max_size=63,
        )

        @settings(max_examples=60, deadline=None)
        @given(names, names, names, st.none() | names, st.lists(names, max_size=5))
        def check(
            event_type: str,
            entity_type: str,
            entity_id: str,
            workflow_id: str | None,
            tags: list[str],
        ) -> None:
            event = Event(
                event_type=event_type,
                entity_type=entity_type,
                entity_id=entity_id,
                workflow_id=workflow_id,
                tags=tuple(tags),
            )
            read = read_back(shared_store, event)
            assert (read.event_type, read.entity) == (event_type, event.entity)
            assert (read.workflow_id, read.tags) == (workflow_id, tuple(tags))

        check()

    @pytest.mark.parametrize("number", NUMBERS, ids=repr)
    def test_a_number_keeps_its_value_and_type(self, shared_store: EventStore, number: Any) -> None:
        read = read_back(
            shared_store, note(data={"n": number, "l": [number]}, metadata={"n": number})
        )

        for value in (read.data["n"], read.data["l"][0], read.metadata["n"]):
            assert type(value) is type(number)
            assert repr(value) == repr(number)

    @pytest.mark.parametrize("text", TEXTS, ids=ascii)
    def test_text_is_kept_code_point_by_code_point(
        self, shared_store: EventStore, text: str
    ) -> None:
        read = read_back(shared_store, note(data={"t": text}, metadata={"t": [text]}))

        assert read.data == {"t": text}
        assert read.metadata == {"t": [text]}

    @pytest.mark.parametrize("key", KEY_NAMES, ids=ascii)
    def test_any_text_but_nul_is_a_key(self, shared_store: EventStore, key: str) -> None:
        read = read_back(shared_store, note(data={key: {key: [1]}}, metadata={key: key}))

        assert read.data == {key: {key: [1]}}
        assert read.metadata == {key: key}

    @pytest.mark.parametrize(
        "value",
        [{}, [], [[]], [{}], {"a": {}}, {"a": []}, [None], None, True, False, [True, 1, 1.0]],
        ids=repr,
    )
    def test_empty_and_plain_values_are_kept_apart(
        self, shared_store: EventStore, value: Any
    ) -> None:
        read = read_back(shared_store, note(data={"v": value}))

        assert repr(read.data) == repr({"v": value})

    def test_keys_keep_their_order(self, shared_store: EventStore) -> None:
        keys = [f"k{n * 7919 % 101}" for n in range(101)]

        read = read_back(shared_store, note(data={key: n for n, key in enumerate(keys)}))

        assert list(read.data) == keys

    @pytest.mark.parametrize("kind", ["objects", "arrays", "both"])
    @pytest.mark.parametrize("field", ["data", "metadata"])
    def test_sixty_four_levels_are_kept_and_sixty_five_refused(
        self, store: EventStore, kind: str, field: str
    ) -> None:
        read = read_back(store, note(**{field: nested(64, kind)}))

        assert getattr(read, field) == nested(64, kind)
        with pytest.raises(InvalidEventError, match=f"^{field}"):
            store.append(note(**{field: nested(65, kind)}))
        assert store.get_current_sequence() == 1

    def test_wide_payloads_are_kept(self, shared_store: EventStore) -> None:
        data = {f"key-{n}": [n, str(n), n / 7] for n in range(5000)}

        assert repr(read_back(shared_store, note(data=data)).data) == repr(data)

    # --- Copies

    def test_changing_a_dict_after_appending_it_changes_nothing(self, store: EventStore) -> None:
        data: dict[str, Any] = {"list": [1], "object": {"a": 1}}
        metadata: dict[str, Any] = {"actor_id": "ada", "more": {}}
        event = note(data=data, metadata=metadata)
        result = store.append_batch([event])

        data["list"].append(2)
        data["new"] = True
        metadata["more"]["x"] = 1

        expected = {"list": [1], "object": {"a": 1}}
        assert stored(store)[0].data == result[0].data == expected
        assert stored(store)[0].metadata == {"actor_id": "ada", "more": {}}

    def test_changing_what_was_returned_changes_nothing_in_the_log(self, store: EventStore) -> None:
        recorded = store.append(note(data={"list": [1]}, metadata={"a": {}}))

        recorded.data["list"].append(2)
        recorded.metadata["a"]["b"] = 1

        (read,) = stored(store)
        assert (read.data, read.metadata) == ({"list": [1]}, {"a": {}})

    def test_changing_what_was_read_changes_nothing_in_the_log(self, store: EventStore) -> None:
        event = note(data={"list": [1]}, workflow_id="w")
        store.append(event)
        reads: list[Any] = [
            lambda: stored(store)[0],
            lambda: store.get_event_by_id(event.event_id),
            lambda: store.get_events_for_entity("note", "n-1")[0],
            lambda: store.get_events_for_workflow("w")[0],
            lambda: store.get_events_since(0)[0],
            lambda: store.append(event),
        ]

        for read in reads:
            read().data["list"].append(2)
            read().data["x"] = 1

        assert all(read().data == {"list": [1]} for read in reads)

    def test_a_list_of_tags_changed_after_the_append_changes_nothing(
        self, store: EventStore
    ) -> None:
        tags: Any = ["a"]
        store.append(note(tags=tags))

        tags.append("b")

        assert stored(store)[0].tags == ("a",)
        assert store.count_events(EventQuery(tags=["b"])) == 0

    def test_default_payloads_are_not_shared_between_events(self, store: EventStore) -> None:
        one, other = note(), note()

        one.data["x"] = 1

        assert other.data == {}
        assert read_back(store, other).data == {}

    # --- Every way to read

    def test_every_way_to_read_gives_the_same_event(
        self, store: EventStore, open_another: OpenAnother
    ) -> None:
        recorded = store.append(
            Event(
                event_type="T",
                entity_type="e",
                entity_id="i",
                workflow_id="w",
                tenant_id="acme",
                tags=("a", "b"),
                data={"n": 1e22, "z": "\0", "$ref": {"a.b": -0.0}},
                metadata={"m": [2**63 - 1]},
                schema_version=5,
                timestamp=datetime(1850, 1, 1, 0, 0, 0, 5, tzinfo=UTC),
            )
        )

        for each in (store, open_another()):
            for read in (
                stored(each)[0],
                stored(each, EventQuery(order_by="timestamp", ascending=False))[0],
                each.get_events_for_entity("e", "i", tenant_id="acme")[0],
                each.get_events_for_workflow("w")[0],
                each.get_events_since(0)[0],
                each.get_event_by_id(recorded.event_id, tenant_id="acme"),
                stored(each.for_tenant("acme"))[0],
            ):
                assert read == recorded
                assert repr(read) == repr(recorded)
