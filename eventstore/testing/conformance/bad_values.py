"""Values that must be refused, each for one reason."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any
from uuid import UUID


class Color(Enum):
    RED = "red"
    ONE = 1


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class List(list[Any]):
    pass


CYCLE: list[Any] = []
CYCLE.append(CYCLE)

VALUES: list[Any] = [
    float("nan"),
    float("inf"),
    float("-inf"),
    2**63,
    -(2**63) - 1,
    2**70,
    10**5000,
    "\ud800",
    "ok \udfff",
    b"bytes",
    bytearray(b"bytes"),
    memoryview(b"bytes"),
    (1, 2),
    {1, 2},
    frozenset(),
    datetime(2024, 1, 1, tzinfo=UTC),
    date(2024, 1, 1),
    timedelta(1),
    UUID(int=1),
    Decimal(1),
    Fraction(1, 2),
    1j,
    Color.RED,
    Number.ONE,
    Text("text"),
    Whole(1),
    Real(1.0),
    List(),
    OrderedDict(a=1),
    defaultdict(int),
    UserDict(),
    range(3),
    iter(()),
    object(),
    Ellipsis,
    print,
    CYCLE,
]
"""What no payload may hold."""

KEYS: list[Any] = [
    1,
    1.5,
    None,
    True,
    ("a",),
    b"a",
    Color.RED,
    Text("a"),
    "nul\0",
    "\0",
    "\ud800",
]
"""What may not be a key."""

NAMES: list[Any] = [
    "",
    "nul\0",
    "\0",
    "\ud800",
    "x" * 256,
    "é" * 128,
    1,
    1.0,
    None,
    True,
    b"name",
    ["a"],
    ("a",),
    {"$ne": 1},
    Text("text"),
    Color.ONE,
    Number.ONE,
    Color,
    object(),
    UUID(int=1),
]
"""What is no name."""


def cases(table: Mapping[str, Iterable[Any]]) -> list[tuple[str, Any]]:
    """Return each field with each of its bad values."""
    return [(field, value) for field, values in table.items() for value in values]


def show(value: object) -> str:
    """Name a value in a test's id, alike in every run."""
    kind = type(value).__name__
    if isinstance(value, (str, bytes, int, float, type(None))):
        plain = isinstance(value, int) and abs(value) > 2**80
        return kind if plain else f"{kind} {value!a:.20}"
    if isinstance(value, (list, tuple, dict, set)) and value is not CYCLE:
        return f"{kind} of {len(value)}"
    return kind
