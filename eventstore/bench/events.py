"""The events that are measured with: about 200 bytes of data, every field in use.

Each has a number, and everything else follows from it and from the stretch of the log it is in,
so that a reader knows what to ask for. What belongs together is **scattered**: the events of an
entity, of a workflow, of a customer lie evenly over the whole stretch, each in a batch of its
own where there are batches enough. A tenth of a stretch is of accounts with 100 events each, the
rest of orders with ten or so; a workflow has 20.
"""

# ruff: noqa: S311 - chance picks what to ask for, no secrets

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, Self

import msgspec

from eventstore import Entity, Event

PER_ACCOUNT: Final = 100
PER_ORDER: Final = 10
PER_WORKFLOW: Final = 20
CUSTOMERS: Final = 500
STRETCH: Final = 100_000
"""Events over which an entity's are scattered, unless said otherwise."""
TYPES: Final = ("OrderPlaced", "OrderPaid", "OrderPacked", "OrderShipped", "OrderCompleted")
BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
APART: Final = timedelta(milliseconds=50)
"""Between the timestamps of two events."""
HEADLINE: Final = (
    "every event has an entity, a workflow, two tags and metadata; the events of an entity are"
    " scattered over the log and over batches"
)
"""What is said of the events wherever figures stand."""

_FAR: Final = 1_000_000_000
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


def payload_bytes() -> int:
    """Return how long the data of an event is as JSON, as it is reported."""
    return len(msgspec.json.encode(payload(1000)))


class Stretch:
    """A part of a log over which entities are scattered: ``events`` from that numbered ``first``.

    Events beyond its end are of its orders too: appends to old entities all over the log.
    """

    def __init__(self, first: int, events: int) -> None:
        self.first = first
        self._accounts = _of_no_rhythm(events // 10 // PER_ACCOUNT)
        self._orders = _of_no_rhythm(events // PER_ORDER)
        self._workflows = _of_no_rhythm(events // PER_WORKFLOW)

    def event(self, number: int) -> Event:
        """Return a new event with this number."""
        place = number - self.first
        entity_type, entity_id, _ = self._entity(place)
        workflows = self._workflows
        # One of the stretch's; beyond those, new ones.
        within = place % workflows if place < workflows * PER_WORKFLOW else place // PER_WORKFLOW
        workflow = f"checkout-{self._name(within)}"
        return Event(
            event_type=TYPES[number % len(TYPES)],
            entity_type=entity_type,
            entity_id=entity_id,
            data=payload(number),
            workflow_id=workflow,
            tags=(f"customer:{number % CUSTOMERS}", "region:eu"),
            metadata={"correlation_id": workflow, "actor_id": "bench"},
            timestamp=BEGINNING + number * APART,
        )

    def any_account(self) -> Entity:
        """Return one of its entities that have 100 events, once all of it is there."""
        return self._account(random.randrange(self._accounts))

    def any_workflow(self) -> str:
        """Return one of its workflows, of 20 events or one more."""
        return f"checkout-{self._name(random.randrange(self._workflows))}"

    def _entity(self, place: int) -> Entity:
        # One event in ten is an account's: not always at the same place among the ten, or all of
        # an account's would be of one type.
        ten, within = divmod(place, 10)
        if within == ten % 10 and ten < self._accounts * PER_ACCOUNT:
            return self._account(ten % self._accounts)
        return Entity("order", f"order-{self._name(place % self._orders)}")

    def _account(self, index: int) -> Entity:
        return Entity("account", f"account-{self._name(index)}")

    def _name(self, index: int) -> str:
        """Return a part of a name: unique in the log, and neighbours are none by name, so that no
        index gets them in order."""
        return f"{(self.first + index) * 0x9E3779B1 % 2**32:08x}"


def _of_no_rhythm(most: int) -> int:
    """Return a number of things to go round, ``most`` or a little less, that has no divisor with
    ten: so that types and customers do not go round with it."""
    while most % 2 == 0 or most % 5 == 0:
        most -= 1
    return max(most, 1)


class Numbers:
    """Hands out new events; the numbers go on where the last ones ended."""

    def __init__(self, first: int = 0, stretch: int = STRETCH) -> None:
        self._count: Iterator[int] = count(first)
        self.next = first
        """The number of the next event; approximate while threads share the numbers."""
        self.stretch = Stretch(first, stretch)

    @classmethod
    def beyond(cls, stretch: Stretch) -> Self:
        """Return numbers far beyond a stretch: their events are of its old orders, all over it."""
        numbers = cls(stretch.first + _FAR)
        numbers.stretch = stretch
        return numbers

    def begin_stretch(self, events: int) -> None:
        """Scatter what comes next, so many events, over new entities."""
        self.stretch = Stretch(self.next, events)

    def one(self) -> Event:
        """Return the next event. Threads may share the numbers."""
        number = next(self._count)
        self.next = number + 1
        return self.stretch.event(number)

    def batch(self, size: int) -> list[Event]:
        """Return the next ``size`` events."""
        return [self.one() for _ in range(size)]
