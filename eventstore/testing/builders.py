"""Believable events: one at a time for a test, endless for a benchmark.

The generators tell of a shop: orders that are placed, paid, shipped and sometimes cancelled.
An order's run is a workflow that orders, payments and shipments share; events carry tags and
correlation metadata. A seed gives the same events every time, ids and times included.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from random import Random
from typing import Any, Final
from uuid import UUID

from eventstore.event import Event

_EPOCH: Final = datetime(2024, 1, 1, tzinfo=UTC)
_OPEN_ORDERS: Final = 50
"""Orders in progress at a time, whose events interleave."""
_REGIONS: Final = ("eu", "us", "apac")
_PRODUCTS: Final = {
    "espresso beans 1 kg": 1990,
    "filter papers": 450,
    "grinder": 12900,
    "kettle": 6900,
    "naïve decaf": 1750,
    "抹茶": 2400,
}
_CARRIERS: Final = ("DHL", "UPS", "La Poste")
_REASONS: Final = ("changed my mind", "too slow", "ordered twice")

_numbers = count(1)


def an_event(**fields: Any) -> Event:
    """Return a valid new event, of an entity of its own unless one is given."""
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "event_type": "OrderPlaced",
        "entity_type": "order",
        "entity_id": f"order-{number}",
        "data": {"number": number, "total": 42.5, "items": ["kettle"]},
    }
    return Event(**{**defaults, **fields})


def events_of(entity_id: str, how_many: int, **fields: Any) -> list[Event]:
    """Return several new events of one entity."""
    return [an_event(entity_id=entity_id, **fields) for _ in range(how_many)]


def generate_events(
    seed: int = 0, how_many: int | None = None, *, tenants: tuple[str, ...] = ("",)
) -> Iterator[Event]:
    """Yield a shop's events in the order in which they happen; endlessly, unless ``how_many``.

    Memory stays flat. Each event can follow those before it: an order is placed before it is
    paid, and paid before it is shipped. A store that holds them takes them as a repeat;
    ``as_new()`` gives an event a fresh id.
    """
    batches = generate_batches(seed, tenants=tenants)
    return islice((event for batch in batches for event in batch), how_many)


def generate_batches(
    seed: int = 0, how_many: int | None = None, *, tenants: tuple[str, ...] = ("",)
) -> Iterator[list[Event]]:
    """Yield the events of ``generate_events`` as they would be appended together: one to a
    few, of one or several entities, always of one tenant."""
    return islice(_Shop(seed, tenants).batches(), how_many)


class _Shop:
    def __init__(self, seed: int, tenants: tuple[str, ...]) -> None:
        self.random = Random(seed)
        self.time = _EPOCH
        self._tenants = tenants
        self._orders: deque[Iterator[list[Event]]] = deque()

    def batches(self) -> Iterator[list[Event]]:
        for number in count(1):
            self._orders.append(_Order(self, number, self.random.choice(self._tenants)).life())
            while len(self._orders) >= _OPEN_ORDERS:
                self._orders.rotate(self.random.randrange(len(self._orders)))
                batch = next(self._orders[0], None)
                if batch is None:
                    self._orders.popleft()
                else:
                    yield batch

    def new_id(self) -> UUID:
        """Return a UUIDv7 of the shop's time."""
        milliseconds = (self.time - _EPOCH) // timedelta(milliseconds=1) + 1_704_067_200_000
        bits = milliseconds << 80 | self.random.getrandbits(80)
        return UUID(int=bits & ~(0xF << 76) & ~(0x3 << 62) | 7 << 76 | 2 << 62)


class _Order:
    """An order from its first event to its last, with its payment and its shipment."""

    def __init__(self, shop: _Shop, number: int, tenant_id: str) -> None:
        self._shop = shop
        self._random = shop.random
        self._tenant_id = tenant_id
        self._order_id = f"order-{number:06}"
        self._payment_id = f"payment-{number:06}"
        self._shipment_id = f"shipment-{number:06}"
        self._customer = f"customer-{self._random.randint(1, 500)}"
        self._tags = (self._customer, f"region:{self._random.choice(_REGIONS)}")
        self._workflow_id = f"checkout-{number:06}"
        self._cause: UUID | None = None

    def life(self) -> Iterator[list[Event]]:
        lines = self._lines()
        total = sum(line["price"] * line["quantity"] for line in lines)
        placed = self._order("OrderPlaced", customer=self._customer, currency="EUR", total=total)
        yield [placed, *(self._order("OrderLineAdded", **line) for line in lines)]
        yield [self._payment("PaymentRequested", amount=total)]
        if self._random.random() < 0.1:
            yield [
                self._payment("PaymentDeclined", code=self._random.choice(("05", "51", "54"))),
                self._order("OrderCancelled", reason="payment declined", refunded=None),
            ]
            return
        authorization = f"{self._random.getrandbits(48):012x}"
        yield [
            self._payment("PaymentCaptured", amount=total, authorization=authorization),
            self._order("OrderPaid", payment_id=self._payment_id),
        ]
        if self._random.random() < 0.05:
            reason = self._random.choice(_REASONS)
            yield [
                self._order("OrderCancelled", reason=reason, refunded=total),
                self._payment("PaymentRefunded", amount=total),
            ]
            return
        yield from self._shipping()

    def _shipping(self) -> Iterator[list[Event]]:
        grams = self._random.randint(200, 9000)
        carrier = self._random.choice(_CARRIERS)
        yield [self._shipment("ShipmentPrepared", carrier=carrier, weight=grams / 1000)]
        yield [
            self._shipment("ShipmentDispatched", tracking=f"{self._random.getrandbits(40):013d}"),
            self._order("OrderShipped", shipment_id=self._shipment_id),
        ]
        for _ in range(self._random.randint(0, 3)):
            place = {"lat": self._random.uniform(36, 60), "lon": self._random.uniform(-9, 30)}
            yield [self._shipment("ShipmentScanned", place=place, delayed=False)]
        yield [
            self._shipment("ShipmentDelivered", signed_by=None),
            self._order("OrderCompleted"),
        ]

    def _lines(self) -> list[dict[str, Any]]:
        products = self._random.sample(sorted(_PRODUCTS), self._random.randint(1, 4))
        return [
            {
                "product": product,
                "price": _PRODUCTS[product],
                "quantity": self._random.randint(1, 3),
            }
            for product in products
        ]

    def _order(self, event_type: str, **data: Any) -> Event:
        return self._event(event_type, "order", self._order_id, data)

    def _payment(self, event_type: str, **data: Any) -> Event:
        return self._event(event_type, "payment", self._payment_id, data)

    def _shipment(self, event_type: str, **data: Any) -> Event:
        return self._event(event_type, "shipment", self._shipment_id, data)

    def _event(
        self, event_type: str, entity_type: str, entity_id: str, data: dict[str, Any]
    ) -> Event:
        shop = self._shop
        shop.time += timedelta(microseconds=self._random.randint(1, 20_000_000))
        event_id = shop.new_id()
        metadata = {"correlation_id": self._workflow_id, "actor_id": self._customer}
        if self._cause is not None:
            metadata["causation_id"] = str(self._cause)
        self._cause = event_id
        return Event(
            event_type=event_type,
            entity_type=entity_type,
            entity_id=entity_id,
            data=data,
            event_id=event_id,
            workflow_id=self._workflow_id,
            tenant_id=self._tenant_id,
            tags=self._tags,
            metadata=metadata,
            timestamp=shop.time,
        )
