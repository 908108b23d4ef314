"""Payloads as JSON text: what may enter the log, and how it comes back unchanged.

An encoder that accepts a value is no validation (many turn NaN into null and tuples into
lists), so a payload is walked by exact types first. See docs/payloads.md for the model.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, Final

import msgspec

from eventstore._core.checks import MAX_INT64, shown
from eventstore.errors import CorruptLogError, InvalidEventError

MAX_DEPTH: Final = 64
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_MIN_INT64: Final = -MAX_INT64 - 1
_TOO_DEEP: Final = f": is nested more than {MAX_DEPTH} deep; flatten it or keep it as text"

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_EMPTY_OBJECT: Final = b"{}"


def encode_object(field: str, value: object) -> bytes:
    """Return a JSON object as text in UTF-8, or raise InvalidEventError with the path."""
    if type(value) is not dict:
        raise InvalidEventError(f"{field}: must be a dict, not {type(value).__name__}")
    if not value:
        return _EMPTY_OBJECT
    if (fault := _fault_in_object(value, 1)) is not None:
        raise InvalidEventError(f"{field}{fault}")
    try:
        return _encode(value)
    except UnicodeEncodeError:
        raise InvalidEventError(
            f"{field}{_path_to_surrogate(value)}: text must not contain lone surrogates"
        ) from None


def decode_object(text: bytes | str) -> dict[str, Any]:
    """Return the JSON object that ``encode_object`` wrote; CorruptLogError if it is none."""
    if text == _EMPTY_OBJECT:
        return {}
    try:
        return _decode_object(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptLogError(f"a stored payload cannot be read: {error}") from error


def canonical(value: dict[str, Any]) -> bytes:
    """Return a form that is equal for payloads of the same content.

    1, 1.0 and True differ, the order of keys does not matter.
    """
    return _encode_sorted(value)


def to_microseconds(time: datetime) -> int:
    """Return the microseconds from the epoch to ``time`` (exact, unlike ``timestamp()``)."""
    since = time - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_microseconds(microseconds: int) -> datetime:
    """Return the time in UTC, ``microseconds`` after the epoch."""
    return EPOCH + timedelta(microseconds=microseconds)


# The walk runs once for every event appended, so what is right is passed over in the two loops,
# and a path is only put together once something is wrong.


def _fault_in_object(value: dict[Any, Any], depth: int) -> str | None:
    """Return the path to what is wrong and why, or None."""
    if depth > MAX_DEPTH:
        return _TOO_DEEP
    for key, item in value.items():
        if type(key) is not str:
            return f": keys must be text, but {shown(key)} is {type(key).__name__}"
        if "\0" in key:
            return f": keys must not contain NUL (U+0000), but {shown(key)} does"
        kind = type(item)
        if (
            kind is str
            or (kind is int and _MIN_INT64 <= item <= MAX_INT64)
            or (kind is float and -inf < item < inf)
            or kind is bool
            or item is None
        ):
            continue
        if kind is dict:
            fault = _fault_in_object(item, depth + 1)
        elif kind is list:
            fault = _fault_in_array(item, depth + 1)
        else:
            fault = _fault(item)
        if fault is not None:
            return f"[{shown(key)}]{fault}"
    return None


def _fault_in_array(value: list[Any], depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return _TOO_DEEP
    for index, item in enumerate(value):
        kind = type(item)
        if (
            kind is str
            or (kind is int and _MIN_INT64 <= item <= MAX_INT64)
            or (kind is float and -inf < item < inf)
            or kind is bool
            or item is None
        ):
            continue
        if kind is dict:
            fault = _fault_in_object(item, depth + 1)
        elif kind is list:
            fault = _fault_in_array(item, depth + 1)
        else:
            fault = _fault(item)
        if fault is not None:
            return f"[{index}]{fault}"
    return None


def _fault(item: Any) -> str:
    """Return why neither a container nor one of the loops above takes ``item``."""
    kind = type(item)
    if kind is float:
        return f": floats must be finite, not {item}; use None or text"
    if kind is int:
        # Python refuses to print integers of thousands of digits.
        number = item if item.bit_length() < 1000 else f"an integer of {item.bit_length()} bits"
        return f": integers must fit signed 64 bits, not {number}; keep larger ones as text"
    return (
        f": must be null, bool, int, float, str, list or dict exactly, not {kind.__name__}"
        f" {shown(item)}; convert it first"
    )


def _path_to_surrogate(value: Any) -> str:
    """Return the path to the first text, key or value, that UTF-8 cannot hold."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return ""
        return "-"
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        if isinstance(key, str) and _path_to_surrogate(key) == "":
            return f"[{shown(key)}]"
        if (path := _path_to_surrogate(item)) != "-":
            return f"[{shown(key)}]{path}"
    return "-"
