"""What an append may expect of an entity's version."""

from __future__ import annotations

from enum import IntEnum

from eventstore._core.checks import MAX_INT64, shown
from eventstore.errors import InvalidEventError


class ExpectedVersion(IntEnum):
    """Expectations with a name; any number ≥ 0 is an exact version."""

    ANY = -1
    """No expectation."""
    NO_STREAM = 0
    """The entity has no events yet."""
    STREAM_EXISTS = -2
    """The entity has at least one event."""


def checked_expectation(value: object) -> int:
    """Return ``value`` as an expected version, or raise InvalidEventError."""
    if isinstance(value, ExpectedVersion):
        return int(value)
    if type(value) is int and -2 <= value <= MAX_INT64:
        return value
    raise InvalidEventError(
        f"expected_version: must be an ExpectedVersion or a whole number ≥ 0, not {shown(value)}"
    )


def expectation_holds(expected: int, actual: int) -> bool:
    """Return whether an entity at version ``actual`` meets the expectation."""
    if expected == ExpectedVersion.ANY:
        return True
    if expected == ExpectedVersion.STREAM_EXISTS:
        return actual > 0
    return expected == actual
