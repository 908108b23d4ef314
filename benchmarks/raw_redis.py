"""The raw limit of Redis: redis-py with XADD alone, and a bare script that writes all keys.

XADD of the same fields is the least that stores an event; the script writes the indexes too,
without checking anything. JSON is encoded inside the clock, as every user must. A pipeline without
MULTI is the fastest form of the driver.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from typing import Any, Final

import msgspec
import redis

from benchmarks.contest import Raw
from eventstore.backend import to_microseconds
from eventstore.bench.measure import Latencies, Step
from eventstore.bench.workloads import PAGE, woken
from eventstore.event import Entity, Event

_PREFIX: Final = "{raw}:"
_STREAM: Final = f"{_PREFIX}log"

_BARE: Final = """
local plan = cjson.decode(ARGV[1])
local stamps, ids = {}, {}
for place = 1, plan.events do
  local first = 2 + (place - 1) * plan.width
  local entry = {'XADD', KEYS[1], ARGV[first]}
  for index = 2, plan.width - 1 do
    entry[#entry + 1] = ARGV[first + index - 1]
  end
  redis.call(unpack(entry))
  ids[#ids + 1] = ARGV[first + 2]
  ids[#ids + 1] = plan.first + place - 1
  stamps[#stamps + 1] = 0
  stamps[#stamps + 1] = ARGV[first + plan.width - 1]
end
for start = 1, #ids, 1000 do
  redis.call('HSET', KEYS[2], unpack(ids, start, math.min(start + 999, #ids)))
  redis.call('ZADD', KEYS[3], unpack(stamps, start, math.min(start + 999, #stamps)))
end
for _, list in ipairs(plan.lists) do
  redis.call('RPUSH', KEYS[list[1]], unpack(list[2]))
end
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

Fields = dict[Any, Any]


class RawRedis(Raw):
    """See the module."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.client = redis.Redis.from_url(url)
        self._bare = self.client.register_script(_BARE)
        self._head = 0
        self._versions: dict[Entity, int] = defaultdict(int)
        self._lock = threading.Lock()

    def single(self) -> Step:
        ((_, fields),) = self._entries(1)
        sequence = self._head

        def step() -> int:
            self.client.xadd(_STREAM, _encoded(fields), id=f"{sequence}-0")
            return 1

        return step

    def batch(self, size: int) -> Step:
        first = self._head + 1
        entries = self._entries(size)

        def step() -> int:
            pipeline = self.client.pipeline(transaction=False)
            for sequence, (_, fields) in enumerate(entries, first):
                pipeline.xadd(_STREAM, _encoded(fields), id=f"{sequence}-0")
            pipeline.execute()
            return size

        return step

    def batch_by_script(self, size: int) -> Step:
        """Write a batch and its place in all indexes, by one call of a bare script."""
        first = self._head + 1
        keys = {_STREAM: 1, f"{_PREFIX}ids:": 2, f"{_PREFIX}times": 3}
        lists: dict[int, list[int]] = defaultdict(list)
        entries = self._entries(size)
        width = 2 * len(entries[0][1]) + 2
        for sequence, (event, fields) in enumerate(entries, first):
            for name in _lists_of(event, fields["version"]):
                lists[keys.setdefault(_PREFIX + name, len(keys) + 1)].append(sequence)
        plan = {"events": size, "first": first, "width": width, "lists": list(lists.items())}

        def step() -> int:
            texts: list[Any] = [_encode(plan)]
            for sequence, (_, fields) in enumerate(entries, first):
                entry = (part for pair in _encoded(fields).items() for part in pair)
                texts += [f"{sequence}-0", *entry, b"%s%016d" % (fields["time"], sequence)]
            self._bare(keys=list(keys), args=texts)
            return size

        return step

    def append(self) -> None:
        """Write one event; threads may share this, so the server numbers the entries."""
        with self._lock:
            ((_, fields),) = self._entries(1)
        self.client.xadd(f"{_PREFIX}threads", _encoded(fields))

    def wake_up(self, samples: int) -> Latencies:
        """Return how long it takes from XADD to the return of an XREAD that waits for it."""
        key = f"{_PREFIX}awaited"
        self.client.delete(key)
        last = "0-0"

        def prepare() -> Step:
            ((_, fields),) = self._entries(1)
            return lambda: len(self.client.xadd(key, _encoded(fields)))

        def wait() -> bool:
            nonlocal last
            found: Any = self.client.xread({key: last}, block=30_000)
            if found:
                last = found[0][1][-1][0]
            return bool(found)

        return woken(prepare, wait, samples)

    def read_all(self) -> Step:
        def step() -> int:
            last, total = "-", 0
            while page := self._page(last):
                found = [_decoded(fields) for _, fields in page]
                total += len(found)
                last = f"({page[-1][0].decode()}"
            return total

        return step

    def _page(self, first: str) -> list[Any]:
        page: Any = self.client.xrange(_STREAM, min=first, count=PAGE)
        return list(page)

    def used_memory(self) -> int:
        """Return how many bytes the server uses."""
        return int(self.client.info("memory")["used_memory"])

    def bytes_by_index(self, namespace: str, events: int) -> dict[str, float]:
        """Return what each kind of key of a log takes, in bytes an event."""
        sizes: dict[str, float] = defaultdict(float)
        for key in self.client.scan_iter(match=f"{{{namespace}}}:*", count=1000):
            kind = re.split(rb"[:\0]", key.partition(b"}:")[2])[0].decode()
            sizes[kind] += (self.client.memory_usage(key, samples=0) or 0) / events
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))

    def clear(self) -> None:
        """Remove what was written."""
        for key in self.client.scan_iter(match=f"{_PREFIX}*", count=1000):
            self.client.unlink(key)
        self._head = 0
        self._versions.clear()

    def close(self) -> None:
        self.clear()
        self.client.close()

    def _entries(self, size: int) -> list[tuple[Event, Fields]]:
        first = self._head + 1
        return [(event, self._fields(event, first)) for event in self.numbers.batch(size)]

    def _fields(self, event: Event, batch: int) -> Fields:
        self._head += 1
        self._versions[event.entity] += 1
        time = to_microseconds(event.timestamp) + 2 * 10**18
        return {
            "id": event.event_id.bytes,
            "tenant": event.tenant_id,
            "entity_type": event.entity_type,
            "entity_id": event.entity_id,
            "type": event.event_type,
            "workflow": event.workflow_id or "",
            "tags": "\0{}\0".format("\0".join(event.tags)),
            "time": b"%d" % time,
            "schema": 1,
            "data": event.data,
            "metadata": event.metadata,
            "version": self._versions[event.entity],
            "batch": batch,
            "recorded": b"%d" % to_microseconds(event.timestamp),
        }


def _lists_of(event: Event, version: int) -> list[str]:
    names = [
        f"entity:{event.tenant_id}\0{event.entity_type}\0{event.entity_id}",
        f"entity_type:{event.entity_type}",
        f"entity_id:{event.entity_id}",
        f"tenant:{event.tenant_id}",
        f"type:{event.event_type}",
        f"workflow:{event.workflow_id}",
        *(f"tag:{tag}" for tag in event.tags),
    ]
    return [*names, "firsts"] if version == 1 else names


def _encoded(fields: Fields) -> Fields:
    return {
        **fields,
        "data": _encode(fields["data"]),
        "metadata": _encode(fields["metadata"]),
    }


def _decoded(fields: Fields) -> Fields:
    return {
        **fields,
        b"data": _decode(fields[b"data"]),
        b"metadata": _decode(fields[b"metadata"]),
    }
