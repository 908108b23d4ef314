"""The checks that events and queries share: names, numbers, times, collections.

Each returns the value in its one accepted form or raises ``error`` with a message that
begins with the field's name and says what it may be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from eventstore.errors import InvalidEventError, InvalidQueryError

MAX_INT64: Final = 2**63 - 1
MAX_NAME_BYTES: Final = 255

Refusal = type[InvalidEventError] | type[InvalidQueryError]


def shown(value: object) -> str:
    """Return a value as a message may show it: short, and whatever its ``repr`` does.

    Python refuses to print integers of thousands of digits and what is nested too deep, and
    a class of the caller's may raise anything; the refusal must still name the field.
    """
    try:
        return f"{value!r:.100}"
    except Exception:  # noqa: BLE001 - whatever a repr may raise
        return f"<{type(value).__name__}>"


def checked_name(field: str, value: object, error: Refusal) -> str:
    """Return a name: non-empty text of at most 255 bytes in UTF-8, without NUL."""
    # The common case first, in place: this runs some five times for every event appended.
    if (
        type(value) is str
        and 0 < len(value) <= MAX_NAME_BYTES
        and value.isascii()
        and "\0" not in value
    ):
        return value
    if isinstance(value, Enum):
        value = value.value  # once: it may be a member again, even the same
    if type(value) is not str:
        raise error(
            f"{field}: must be text (or an Enum member with a text value),"
            f" not {type(value).__name__} {shown(value)}"
        )
    if not value:
        raise error(f"{field}: must not be empty")
    if "\0" in value:
        raise error(f"{field}: must not contain NUL (U+0000), but is {shown(value)}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise error(f"{field}: must not contain lone surrogates, but is {shown(value)}") from None
    if size > MAX_NAME_BYTES:
        raise error(f"{field}: must be at most {MAX_NAME_BYTES} bytes in UTF-8, but has {size}")
    return value


def checked_tenant(value: object, error: Refusal) -> str:
    """Return a tenant id: a name, or the empty string for none."""
    return "" if type(value) is str and not value else checked_name("tenant_id", value, error)


def checked_names(
    field: str, value: object, error: Refusal, *, most: int | None = None
) -> tuple[str, ...]:
    """Return a collection of names, at most ``most``, as a tuple; a set in sorted order."""
    if most is not None:
        check_count(field, checked_collection(field, value, error), error, most=most)
    if type(value) is tuple:
        for name in value:  # the common case, in place again
            if not (
                type(name) is str
                and 0 < len(name) <= MAX_NAME_BYTES
                and name.isascii()
                and "\0" not in name
            ):
                break
        else:
            return value
    names = [
        checked_name(f"{field}[{index}]", item, error)
        for index, item in enumerate(checked_collection(field, value, error))
    ]
    return tuple(sorted(names) if isinstance(value, (set, frozenset)) else names)


def checked_collection(field: str, value: object, error: Refusal) -> Collection[object]:
    """Return ``value`` if it is a collection, but not text, bytes or a mapping."""
    if not isinstance(value, Collection) or isinstance(value, (str, bytes, bytearray, Mapping)):
        raise error(
            f"{field}: must be a collection such as a tuple or a list,"
            f" not {type(value).__name__} {shown(value)}"
        )
    return value


def check_count(field: str, value: Collection[object], error: Refusal, *, most: int) -> None:
    """Raise ``error`` if a collection has more than ``most`` items."""
    if len(value) > most:
        raise error(f"{field}: must be at most {most:,}, but are {len(value):,}")


def checked_integer(
    field: str, value: object, error: Refusal, *, least: int = 0, most: int = MAX_INT64
) -> int:
    """Return a whole number between ``least`` and ``most``."""
    if type(value) is not int or not least <= value <= most:
        raise error(
            f"{field}: must be a whole number from {least} to {most},"
            f" not {type(value).__name__} {shown(value)}"
        )
    return value


def checked_time(field: str, value: object, error: Refusal) -> datetime:
    """Return a timezone-aware time in UTC."""
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    if not isinstance(value, datetime):
        raise error(f"{field}: must be a datetime, not {type(value).__name__} {shown(value)}")
    try:
        if value.utcoffset() is None:
            raise error(
                f"{field}: must have a timezone, but {shown(value)} has none;"
                " say which one is meant, for example with .replace(tzinfo=UTC) or .astimezone()"
            )
        # A subclass may hold more than the log keeps, or compare in ways of its own.
        return datetime.combine(value.date(), value.time(), value.tzinfo).astimezone(UTC)
    except OverflowError:
        raise error(
            f"{field}: must lie in the years 1 to 9999 in UTC, not {shown(value)}"
        ) from None
    except (InvalidEventError, InvalidQueryError):
        raise
    except Exception as fault:
        raise error(f"{field}: its timezone does not work: {shown(fault)}") from fault
