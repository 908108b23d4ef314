"""The events that are measured with: about 200 bytes of data, every field in use.

Each has a number from 0 on, and everything else follows from it, so that a reader knows what
to ask for: in every thousand, 100 events of one account and ten of each of 90 orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

import msgspec

from eventstore.event import Event

PER_ACCOUNT: Final = 100
PER_ORDER: Final = 10
PER_WORKFLOW: Final = 20
CYCLE: Final = 1000
CUSTOMERS: Final = 500
TYPES: Final = ("OrderPlaced", "OrderPaid", "OrderPacked", "OrderShipped", "OrderCompleted")
BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
APART: Final = timedelta(milliseconds=50)
"""Between the timestamps of two events."""

_ADDRESS: Final = "12 Rue des Écoles, 75005 Paris, France"


def payload(number: int) -> dict[str, Any]:
    """Return the data of an event: about 200 bytes as JSON."""
    return {
        "number": number,
        "customer": f"customer-{number % CUSTOMERS}",
        "lines": [
            {"product": "espresso beans 1 kg", "quantity": 2, "price": 19.9},
            {"product": "grinder", "quantity": 1, "price": 129.0},
        ],
        "address": _ADDRESS,
        "express": number % 2 == 0,
    }


def event(number: int) -> Event:
    """Return a new event with this number."""
    block, place = divmod(number, CYCLE)
    if place < PER_ACCOUNT:
        entity_type, entity_id = "account", f"account-{block:06}"
    else:
        entity_type, entity_id = "order", f"order-{number // PER_ORDER:08}"
    return Event(
        event_type=TYPES[number % len(TYPES)],
        entity_type=entity_type,
        entity_id=entity_id,
        data=payload(number),
        workflow_id=f"checkout-{number // PER_WORKFLOW:08}",
        tags=(f"customer:{number % CUSTOMERS}", "region:eu"),
        metadata={"correlation_id": f"checkout-{number // PER_WORKFLOW:08}", "actor_id": "bench"},
        timestamp=BEGINNING + number * APART,
    )


def payload_bytes() -> int:
    """Return how long the data of an event is as JSON, as it is reported."""
    return len(msgspec.json.encode(payload(1000)))


class Numbers:
    """Hands out new events; the numbers go on where the last ones ended."""

    def __init__(self, first: int = 0) -> None:
        self._count: Iterator[int] = count(first)
        self.next = first
        """The number of the next event; approximate while threads share the numbers."""

    def one(self) -> Event:
        """Return the next event. Threads may share the numbers."""
        number = next(self._count)
        self.next = number + 1
        return event(number)

    def batch(self, size: int) -> list[Event]:
        """Return the next ``size`` events."""
        return [self.one() for _ in range(size)]
