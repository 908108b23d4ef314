"""What a worker is, on the peer's side: one process, told by JSON lines what to do.

Standard library alone, for it runs in the peers' environments. A peer fills in the four or five
methods of ``Peer``; the loops around them, and the clock, are the same for all, ours included.
Every event carries a workflow, two tags and metadata, in a field of the peer's where it has one,
else within its payload; the events of a stream are scattered over the log and over batches.
The loops are coroutines: a peer that is synchronous just never awaits, and its writers are
threads with a loop each; the writers of one that is asynchronous are tasks of one loop.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from time import monotonic, perf_counter
from typing import Any, ClassVar
from uuid import UUID, uuid4

Payload = dict[str, Any]

PER_STREAM = 100
PAGE = 1000
_STREAMS = 100
"""To which a writer of single events appends in turn; for batches as many as events of the largest,
so that each is of another."""
_STREAMS_OF_BATCHES = 1000
_PIECE = 10
"""Events of a stream at a time in a log that is read, where an append takes but one stream."""
_CALLS_AT_LEAST = 20
_QUIET = 0.3
"""Seconds without news after which a tail reader ends, once the writers have."""


@dataclass(frozen=True, slots=True)
class New:
    """An event to append."""

    stream: UUID
    version: int
    """It gets: the stream has one less."""
    payload: Payload
    workflow: str
    tags: list[str]
    metadata: Payload

    def as_one(self) -> Payload:
        """Return all that it carries in one object, for a peer that keeps no more than that."""
        return {
            "data": self.payload,
            "workflow": self.workflow,
            "tags": self.tags,
            "metadata": self.metadata,
        }


class Peer(ABC):
    """An event store as its own documentation uses it."""

    distribution: ClassVar[str]
    """Its name on the package index."""
    threads: ClassVar[bool] = True
    """Whether its writers are threads; else tasks of one event loop."""
    scatters: ClassVar[bool] = True
    """Whether one append takes events of many streams; else a batch is of one."""

    @abstractmethod
    async def open(self, url: str) -> None:
        """Connect, creating the tables where they are not there."""

    @abstractmethod
    async def append(self, events: list[New]) -> None:
        """Append events, expecting each stream's version where the peer can."""

    @abstractmethod
    async def read_stream(self, stream: UUID) -> list[Payload]:
        """Return the payloads of a stream, decoded."""

    @abstractmethod
    async def read_after(self, position: Any, limit: int) -> tuple[list[Payload], Any]:
        """Return a page of the whole log after ``position`` (None: the beginning), decoded, and
        the position to go on from."""

    async def read_all(self) -> int:
        """Read the whole log as a consumer would, and return how many events it has."""
        total, position = 0, None
        while True:
            page, position = await self.read_after(position, PAGE)
            total += len(page)
            if len(page) < PAGE:
                return total

    async def settings(self) -> str:
        """Return what was found to matter for durability, for the report."""
        return ""

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything."""


class Rotation:
    """Hands out new events for streams in turn; new streams once each has 100."""

    def __init__(self, payload: Payload, streams: int, *, scattered: bool) -> None:
        self._payload = payload
        self._size = streams
        self._scattered = scattered
        self._begin()

    def _begin(self) -> None:
        self.streams = [uuid4() for _ in range(self._size)]
        self._versions = [0] * self._size
        self._turn = 0
        self._done = 0
        self._prefix = uuid4().hex[:12]

    def batch(self, size: int) -> list[New]:
        """Return new events: each of the next stream, or all of it."""
        if self._done >= self._size * PER_STREAM:
            self._begin()
        if self._scattered:
            return [self._event(self._next_stream()) for _ in range(size)]
        stream = self._next_stream()
        return [self._event(stream) for _ in range(size)]

    def _next_stream(self) -> int:
        self._turn += 1
        return self._turn % self._size

    def _event(self, stream: int) -> New:
        number = self._done = self._done + 1
        self._versions[stream] += 1
        workflow = f"checkout-{self._prefix}-{number % 50}"
        return New(
            stream=self.streams[stream],
            version=self._versions[stream],
            payload={**self._payload, "id": f"{self._prefix}-{number}"},
            workflow=workflow,
            tags=[f"customer:{number % 500}", "region:eu"],
            metadata={"correlation_id": workflow, "actor_id": "bench"},
        )


class Worker:
    """Does what it is told; each command is a method whose name begins with ``do_``."""

    def __init__(self, peer: Peer, payload: Payload) -> None:
        self.peer = peer
        self.payload = payload
        self.streams: list[UUID] = []

    def rotation(self, streams: int) -> Rotation:
        """Return what hands out events for so many new streams."""
        return Rotation(self.payload, streams, scattered=self.peer.scatters)

    async def do_open(self, url: str) -> dict[str, Any]:
        await self.peer.open(url)
        return {
            "version": version(self.peer.distribution),
            "python": sys.version.split()[0],
            "settings": await self.peer.settings(),
        }

    async def do_single(self, writers: int, seconds: float, batch: int = 1) -> dict[str, Any]:
        """Let writers append events, each to streams of its own, for a time."""
        gc.collect()
        began = monotonic()
        ends = began + seconds
        done = sum(await self._together(writers, lambda: self._write(ends, batch)))
        return {"done": done, "began": began, "ended": monotonic()}

    async def do_batches(self, size: int, seconds: float) -> dict[str, Any]:
        """Append batches; only the appends are timed."""
        gc.collect()
        rotation = self.rotation(_STREAMS_OF_BATCHES)
        done, spent = 0, 0.0
        while spent < seconds:
            events = rotation.batch(size)
            began = perf_counter()
            await self.peer.append(events)
            spent += perf_counter() - began
            done += size
        return {"done": done, "began": 0.0, "ended": spent}

    async def do_fill(self, events: int) -> dict[str, Any]:
        """Write streams of 100 events, each scattered over all that is written."""
        rotation = self.rotation(events // PER_STREAM)
        self.streams += rotation.streams
        size = PER_STREAM if self.peer.scatters else _PIECE
        for _ in range(0, events, size):
            await self.peer.append(rotation.batch(size))
        return {}

    async def do_read_all(self) -> dict[str, Any]:
        gc.collect()
        began = monotonic()
        done = await self.peer.read_all()
        return {"done": done, "began": began, "ended": monotonic()}

    async def do_streams(self, seconds: float) -> dict[str, Any]:
        """Read streams of 100 events, one after another."""
        gc.collect()
        began = now = monotonic()
        done = 0
        while now < began + seconds or done < _CALLS_AT_LEAST:
            found = await self.peer.read_stream(self.streams[done % len(self.streams)])
            if len(found) != PER_STREAM:
                raise AssertionError(f"read {len(found)} events of a stream of {PER_STREAM}")
            done += 1
            now = monotonic()
        return {"done": done, "began": began, "ended": now}

    async def do_tail(self, seconds: float) -> dict[str, Any]:
        """Follow the log from its beginning, remembering the last position alone."""
        seen: set[str] = set()
        position = None
        ends = news = monotonic() + seconds
        while monotonic() < max(ends, news + _QUIET):
            page, position = await self.peer.read_after(position, PAGE)
            if page:
                seen.update(payload["id"] for payload in page)
                news = monotonic()
            else:
                await asyncio.sleep(0.001)
        return {"seen": len(seen)}

    async def do_stored(self) -> dict[str, Any]:
        """Count the events that a new reader finds."""
        found: set[str] = set()
        position = None
        while True:
            page, position = await self.peer.read_after(position, PAGE)
            found.update(payload["id"] for payload in page)
            if len(page) < PAGE:
                return {"stored": len(found)}

    async def do_close(self) -> dict[str, Any]:
        await self.peer.close()
        return {}

    async def _write(self, ends: float, batch: int) -> int:
        done, rotation = 0, self.rotation(_STREAMS)
        while monotonic() < ends:
            await self.peer.append(rotation.batch(batch))
            done += batch
        return done

    async def _together(
        self, writers: int, write: Callable[[], Coroutine[Any, Any, int]]
    ) -> list[int]:
        if not self.peer.threads:
            return await asyncio.gather(*(write() for _ in range(writers)))
        if writers == 1:
            return [await write()]
        results: list[int | BaseException] = []

        def run() -> None:
            try:
                results.append(asyncio.run(write()))
            except BaseException as error:  # noqa: BLE001 - raised below
                results.append(error)

        crew = [threading.Thread(target=run) for _ in range(writers)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, int)]


def serve(peer: Peer) -> None:
    """Read commands from standard input and answer each, until it ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints must not get among the answers
    with asyncio.Runner() as runner:
        worker: Worker | None = None
        for line in sys.stdin:
            command = json.loads(line)
            if worker is None:
                worker = Worker(peer, command.pop("payload"))
            do = getattr(worker, f"do_{command.pop('do')}")
            answers.write(json.dumps(runner.run(do(**command))) + "\n")
