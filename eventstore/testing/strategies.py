"""Hypothesis strategies for all that the contract allows, odd corners first.

Needs Hypothesis, which the ``testing`` extra installs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from eventstore._core.checks import MAX_NAME_BYTES
from eventstore._core.payloads import MAX_DEPTH
from eventstore.backend import MAX_INT64
from eventstore.backend.draft import MAX_SCHEMA_VERSION
from eventstore.event import Event
from eventstore.query import AppendCondition, EventQuery

MIN_INT64: Final = -MAX_INT64 - 1

_EXTREME_INTEGERS: Final = (0, -1, MAX_INT64, MIN_INT64, 2**53, 2**53 + 1, -(2**53) - 1, 2**31)
_EXTREME_FLOATS: Final = (
    *(0.0, -0.0, 1.0, 100.0, 1e15, 1e16, 1e22, 1e23, 1e300, 0.1, -1.5),
    *(5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, float(2**53), float(2**63)),
)
_ODD_KEYS: Final = (
    *("", " ", "$ref", "$id", "$set", "_id", "a.b", ".", "$", "__class__", "__proto__", "type"),
    *("data", "NULL", "0", "-1", "ключ", "鍵", "🗝", "e\u0301", "é", "'", '"', "\\", "\n", "%s"),
)
_ODD_TEXTS: Final = (
    *(
        "",
        "\0",
        "a\0b",
        "\ufeff",
        "\uffff",
        "\u2028",
        "🙂",
        "👩‍👩‍👧",
        "e\u0301",
        "é",
        "null",
        "1e22",
        "true",
    ),
    *("'; --", "\\u0000", "\x7f", "\x1f", "\r\n", "%", "{}", "$", "NaN", "٣", "x" * 5000),
)
_ODD_NAMES: Final = (
    *(
        "a",
        "A",
        "a ",
        " a",
        "*",
        "%",
        "_",
        "?",
        "[a]",
        "a:b",
        "a/b",
        "a\\b",
        "'",
        '"',
        "$ne",
        "NULL",
    ),
    *(
        "é",
        "e\u0301",
        "ß",
        "ss",
        "İ",
        "i",
        "鍵",
        "🗝",
        "\n",
        "\x01",
        "0",
        "-",
        "a.b",
        "{a}",
        "\ufeff",
    ),
    *("x" * MAX_NAME_BYTES, "é" * (MAX_NAME_BYTES // 2)),
)

# Text that UTF-8 can hold: any character but lone surrogates.
_characters: Final = st.characters(codec="utf-8")
_name_characters: Final = st.characters(codec="utf-8", exclude_characters="\0")


def names() -> SearchStrategy[str]:
    """Names: non-empty, at most 255 bytes in UTF-8, without NUL."""
    return st.sampled_from(_ODD_NAMES) | st.text(_name_characters, min_size=1, max_size=60)


def tenants() -> SearchStrategy[str]:
    """Tenant ids: names, or the empty string."""
    return st.just("") | names()


def integers() -> SearchStrategy[int]:
    """Integers of signed 64 bits."""
    return st.sampled_from(_EXTREME_INTEGERS) | st.integers(MIN_INT64, MAX_INT64)


def floats() -> SearchStrategy[float]:
    """Finite floats, whole ones and -0.0 among them."""
    return st.sampled_from(_EXTREME_FLOATS) | st.floats(allow_nan=False, allow_infinity=False)


def texts() -> SearchStrategy[str]:
    """Text values: any Unicode but lone surrogates, NUL included."""
    return st.sampled_from(_ODD_TEXTS) | st.text(_characters)


def keys() -> SearchStrategy[str]:
    """Keys of a payload: any text without NUL or lone surrogates, the empty one included."""
    return st.sampled_from(_ODD_KEYS) | st.text(_name_characters)


def values() -> SearchStrategy[Any]:
    """Payload values."""
    scalars = st.none() | st.booleans() | integers() | floats() | texts()
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys(), inner, max_size=5),
        max_leaves=20,
    )


def payloads() -> SearchStrategy[dict[str, Any]]:
    """JSON objects by the payload model, some as deep as it allows."""
    flat = st.dictionaries(keys(), values(), max_size=6)
    return (
        flat
        | st.builds(
            _nested,
            values().filter(_is_shallow),
            st.lists(st.booleans(), min_size=1, max_size=MAX_DEPTH - 8),
        )
        | st.builds(
            _nested,
            st.none() | texts(),
            st.lists(st.booleans(), min_size=MAX_DEPTH - 1, max_size=MAX_DEPTH - 1),
        )
    )


def timestamps() -> SearchStrategy[datetime]:
    """Timezone-aware times to the microsecond, in any zone, within the years 1 to 9999."""
    zones = st.builds(timezone, st.integers(-14 * 60, 14 * 60).map(lambda m: timedelta(minutes=m)))
    ordinary = st.datetimes(
        min_value=datetime(1, 1, 2),  # noqa: DTZ001  # Hypothesis adds the zone
        max_value=datetime(9999, 12, 30),  # noqa: DTZ001  # Hypothesis adds the zone
        timezones=st.just(UTC) | zones,
    )
    extreme = (
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    )
    return st.sampled_from(extreme) | ordinary


def events(**fields: SearchStrategy[Any]) -> SearchStrategy[Event]:
    """New events; each field by a strategy of its own, or by the one given."""
    defaults: dict[str, SearchStrategy[Any]] = {
        "event_type": names(),
        "entity_type": names(),
        "entity_id": names(),
        "data": payloads(),
        "event_id": st.uuids(),
        "workflow_id": st.none() | names(),
        "tenant_id": tenants(),
        "tags": st.lists(names(), max_size=4).map(tuple),
        "metadata": payloads(),
        "schema_version": st.just(1) | st.integers(1, MAX_SCHEMA_VERSION),
        "timestamp": timestamps(),
    }
    return st.builds(Event, **{**defaults, **fields})


def batches(
    of: SearchStrategy[Event] | None = None, *, most: int = 10
) -> SearchStrategy[list[Event]]:
    """Batches of new events, no id twice."""
    return st.lists(events() if of is None else of, min_size=1, max_size=most, unique_by=_identity)


def filters(*, nested: bool = True, **fields: SearchStrategy[Any]) -> SearchStrategy[EventQuery]:
    """Queries of filter fields alone, from none of them to all; with ``any_of`` where
    ``nested``. Each field by a strategy of its own, or by the one given."""
    some_names = st.lists(names(), min_size=1, max_size=3).map(tuple)
    defaults: dict[str, SearchStrategy[Any]] = {
        "entity_type": names(),
        "entity_id": names(),
        "workflow_id": names(),
        "tenant_id": tenants(),
        "event_types": some_names,
        "tags": some_names,
        "from_sequence": st.integers(0, 50),
        "to_sequence": st.integers(0, 50),
        "from_timestamp": timestamps(),
        "to_timestamp": timestamps(),
    }
    chosen = {**defaults, **fields}
    if nested:
        alternatives = st.lists(filters(nested=False, **fields), min_size=1, max_size=3)
        chosen["any_of"] = alternatives.map(tuple)
    return _few_of(chosen).map(lambda given: EventQuery(**given))


def queries(
    of: SearchStrategy[EventQuery] | None = None, *, most: int = 60
) -> SearchStrategy[EventQuery]:
    """Queries with every field, order and window."""
    shapes = st.fixed_dictionaries(
        {},
        optional={
            "limit": st.integers(0, most),
            "offset": st.integers(0, most),
            "order_by": st.sampled_from(["sequence", "timestamp"]),
            "ascending": st.booleans(),
        },
    )
    return st.builds(
        lambda query, shape: query.replace(**shape), filters() if of is None else of, shapes
    )


def append_conditions(
    of: SearchStrategy[EventQuery] | None = None, *, after: SearchStrategy[int] | None = None
) -> SearchStrategy[AppendCondition]:
    """Append conditions over the whole log, or over what comes after a sequence."""
    position = st.integers(0, 50) if after is None else after
    return st.builds(AppendCondition, filters() if of is None else of, st.none() | position)


def _few_of(fields: dict[str, SearchStrategy[Any]]) -> SearchStrategy[dict[str, Any]]:
    """Some of the fields, few more often than many: with all of them nothing would match."""
    chosen = st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True) | st.lists(
        st.sampled_from(sorted(fields)), unique=True
    )
    return chosen.flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in names})
    )


def _nested(value: Any, levels: Sequence[bool]) -> dict[str, Any]:
    """Return ``value`` within so many arrays and objects, and the whole in an object."""
    for is_object in levels:
        value = {"inner": value} if is_object else [value]
    return {"outer": value}


def _is_shallow(value: Any) -> bool:
    return _depth(value) <= 6


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _identity(event: Event) -> tuple[str, Any]:
    return event.tenant_id, event.event_id
