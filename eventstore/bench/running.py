"""One store, from an empty namespace to its figures; the namespace is removed in any case."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from eventstore.backend import Capability
from eventstore.backend.settings import split_url
from eventstore.bench import workloads
from eventstore.bench.events import Numbers
from eventstore.bench.machine import describe_driver, with_load
from eventstore.bench.measure import (
    MIN_ROUNDS,
    Latencies,
    Rates,
    Step,
    latencies,
    rate,
)
from eventstore.bench.writers import Processes, appending, by_threads
from eventstore.errors import ConfigurationError, DurabilityWarning
from eventstore.registry import drop_namespace, open_store
from eventstore.store import EventStore

THREADS: Final = 16
RACERS: Final = 8
PROCESSES: Final = 4
BATCHES: Final = (10, 100, 1000)
_GROWTH_BATCH: Final = 100
_ELSEWHERE: Final = 1_000_000_000
"""Where the numbers of events begin that are no part of the log that is read."""


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How long to look, and how far a log grows."""

    seconds: float
    """Of work in a round."""
    calls: int
    """Of which the latency is taken, within ``seconds`` × rounds."""
    read: int
    """Events in the log that is read."""
    sizes: tuple[int, ...]
    """At which growth is looked at."""
    rounds: int = MIN_ROUNDS
    patience: float = 300.0
    """Seconds for filling a log up to the next size, at most."""


FULL: Final = Effort(
    seconds=1.5, calls=500, read=100_000, sizes=(10_000, 100_000, 1_000_000), rounds=5
)
QUICK: Final = Effort(seconds=0.3, calls=100, read=10_000, sizes=(10_000,), patience=20.0)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A figure: a rate, latencies, or a number by itself."""

    workload: str
    unit: str
    rates: Rates | None = None
    latencies: Latencies | None = None
    number: float | None = None
    events: int | None = None
    """Of a figure at a size of the log."""
    note: str = ""
    """Why there is no figure, or what to know of it."""
    busy: float | None = None
    """Which part of the processors other work kept busy; None where the system does not say."""


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about one store."""

    name: str
    url: str
    server: str
    durability: str
    driver: str
    results: list[Result]

    @property
    def shown(self) -> str:
        """What it is called beside others: with its server, where that is another product than
        its name says."""
        product = self.server.partition(" ")[0]
        if product == "none" or product[:5].lower() in self.name.lower():
            return self.name
        return f"{self.name} ({product})"


Tell = Callable[[str], None]
"""Is told what goes on."""


def report_on(url: str, name: str, effort: Effort, tell: Tell) -> StoreReport:
    """Run every workload against ``url`` and return the figures.

    Raises ConfigurationError where the namespace holds anything, and whatever the store raises.
    """
    with _own_namespace(url) as (store, namespace):
        facts = store.info()
        bench = _Bench(store, url, namespace, effort, tell)
        return StoreReport(
            name=name,
            url=store.url,
            server=str(facts.get("server", facts.get("backend", ""))),
            durability=str(facts.get("durability", "")),
            driver=describe_driver(url),
            results=[
                msgspec.structs.replace(result, busy=busy)
                if result.rates or result.latencies
                else result
                for result, busy in with_load(bench.results())
            ],
        )


@contextmanager
def _own_namespace(url: str, *, fresh: bool = False) -> Iterator[tuple[EventStore, str]]:
    """Open a log of its own, or that which the URL names if it is empty (``fresh``: one of its own
    in any case); remove it at the end."""
    given = None if fresh else dict(split_url(url)[2]).get("namespace")
    namespace = given or f"bench_{secrets.token_hex(4)}"
    new_file = _new_file(url)
    with warnings.catch_warnings():
        if fresh:
            warnings.simplefilter("ignore", DurabilityWarning)  # told at the first opening
        store = open_store(url, namespace=namespace)
    try:
        if store.get_current_sequence():
            raise ConfigurationError(
                f"namespace: {namespace!r} holds events; the benchmark removes what it writes to,"
                " so leave namespace out, or name one that is empty"
            )
    except BaseException:
        store.close()
        raise
    try:
        with store:
            yield store, namespace
    finally:
        drop_namespace(url, namespace=namespace)
        if new_file is not None:
            for suffix in ("", "-wal", "-shm"):
                new_file.with_name(new_file.name + suffix).unlink(missing_ok=True)


def _new_file(url: str) -> Path | None:
    """Return the database file that opening an SQLite store will create, if any."""
    scheme, location, _ = split_url(url)
    path = Path(unquote(location.removeprefix("/")))
    return path if scheme == "sqlite" and not path.exists() else None


def _beside(url: str) -> str:
    """Return the URL of a new file beside an SQLite file; any other as it is."""
    if split_url(url)[0] != "sqlite":
        return url
    address, mark, options = url.partition("?")
    return f"{address}.{secrets.token_hex(4)}{mark}{options}"


class _Bench:
    def __init__(
        self, store: EventStore, url: str, namespace: str, effort: Effort, tell: Tell
    ) -> None:
        self._store = store
        self._url = url
        self._namespace = namespace
        self._effort = effort
        self._tell = tell
        self._log = Numbers()
        """Of the log that is read and grows."""
        self._numbers = Numbers(_ELSEWHERE)

    def results(self) -> Iterator[Result]:
        """Yield figures: a log that grows to what is read, reads, writes, and what is left to
        grow."""
        sizes = list(self._effort.sizes)
        while sizes and sizes[0] <= self._effort.read:
            yield from self._growth(sizes.pop(0))
        if self._fill(self._effort.read):
            yield self._bytes()
            yield from self._reads()
        yield from self._writes()
        for size in sizes:
            yield from self._growth(size)

    # --- Parts

    def _writes(self) -> Iterator[Result]:
        store, numbers = self._store, self._numbers
        single = partial(workloads.single, store, numbers)
        yield self._rate("single append, 1 thread", single)
        yield self._latency("single append", single)
        yield self._rounds(
            f"single append, {THREADS} threads",
            lambda: by_threads(THREADS, lambda: store.append(numbers.one()), self._effort.seconds),
        )
        yield self._by_processes(f"single append, {PROCESSES} processes")
        for size in BATCHES:
            batch = partial(workloads.batch, store, numbers, size)
            yield self._rate(f"batches of {size:,}", batch)
        yield from self._contention()
        yield self._wake_up("from append to a waiting reader")

    def _reads(self) -> Iterator[Result]:
        store = self._store
        yield self._rate("read all", lambda: workloads.read_all(store))
        yield self._rate("catch up in pages of 1,000", lambda: workloads.catch_up(store))
        for name, workload in (
            ("one entity of 100 events", workloads.one_entity),
            ("one workflow of 20 events", workloads.one_workflow),
            ("100 events by type", workloads.by_type),
            ("100 events by tag", workloads.by_tag),
            ("100 events by time window", workloads.by_time),
            ("count by tag", workloads.count_by_tag),
        ):
            yield self._latency(name, partial(workload, store, self._log))

    def _growth(self, size: int) -> Iterator[Result]:
        append, read = "append in batches of 100", "one entity of 100 events"
        if not self._fill(size):
            note = f"not reached in {self._effort.patience:.0f} s"
            yield Result(workload=append, unit="events/s", events=size, note=note)
            return
        found = self._latency(read, partial(workloads.one_entity, self._store, self._log))
        # To old entities, all over the log; by their numbers no part of what is read.
        old = Numbers.beyond(self._log.stretch)
        batch = partial(workloads.batch, self._store, old, _GROWTH_BATCH)
        appended = self._rate(append, batch)
        yield msgspec.structs.replace(appended, events=size)
        yield msgspec.structs.replace(found, events=size)

    def _contention(self) -> Iterator[Result]:
        name = f"append by {RACERS} threads to one entity, expecting its version"
        self._tell(name)
        measured = [
            workloads.contention(self._store, RACERS, self._effort.seconds)
            for _ in range(self._effort.rounds)
        ]
        for what, rounds in zip(("stored", "conflicts"), zip(*measured, strict=True), strict=True):
            yield Result(workload=f"{name}: {what}", unit="1/s", rates=Rates(rounds))

    def _wake_up(self, name: str) -> Result:
        self._tell(name)
        samples = min(self._effort.calls, 200)
        if Capability.MULTI_PROCESS not in self._store.capabilities:
            found = workloads.wake_up(self._store, self._store, self._numbers, samples)
        else:
            with self._opened(self._url, self._namespace) as reader:
                found = workloads.wake_up(self._store, reader, self._numbers, samples)
        return Result(workload=name, unit="s", latencies=found)

    def _by_processes(self, name: str) -> Result:
        if Capability.MULTI_PROCESS not in self._store.capabilities:
            return Result(workload=name, unit="events/s", note="for one process alone")
        options = {"namespace": self._namespace, "create": False}
        self._tell(name)
        with Processes(PROCESSES, appending, self._url, options) as crew:
            return self._rounds(name, lambda: sum(crew.turn(self._effort.seconds)))

    def _bytes(self) -> Result:
        """Fill a place of its own, where nothing else was written, and look at it once it is
        closed: what is in a write-ahead log by then is in the file."""
        name = "bytes stored an event"
        if Capability.PERSISTENT not in self._store.capabilities:
            return Result(workload=name, unit="bytes", note="gone with the process")
        self._tell(name)
        url, events = _beside(self._url), self._effort.read
        with _own_namespace(url, fresh=True) as (store, namespace):
            for _ in workloads.fill(store, Numbers(), events):
                pass
            store.close()
            with self._opened(url, namespace) as again:
                size = again.info().get("size_bytes")
        if not isinstance(size, int):
            return Result(workload=name, unit="bytes", note="not known to the server")
        return Result(workload=name, unit="bytes", number=size / events)

    # --- Measuring

    def _rate(self, name: str, prepare: Callable[[], Step]) -> Result:
        return self._rounds(name, lambda: rate(prepare, self._effort.seconds))

    def _rounds(self, name: str, measure: Callable[[], float]) -> Result:
        self._tell(name)
        rounds = tuple(measure() for _ in range(self._effort.rounds))
        return Result(workload=name, unit="events/s", rates=Rates(rounds))

    def _latency(self, name: str, prepare: Callable[[], Step]) -> Result:
        self._tell(name)
        ends = monotonic() + self._effort.seconds * self._effort.rounds

        def calls() -> Iterator[Step]:
            for _ in range(self._effort.calls):
                yield prepare()
                if monotonic() > ends:
                    return

        return Result(workload=name, unit="s", latencies=latencies(calls()))

    def _fill(self, size: int) -> bool:
        """Grow the log that is read; return whether it got there in time."""
        ends = monotonic() + self._effort.patience
        for filled in workloads.fill(self._store, self._log, size):
            self._tell(f"filling the log: {filled:,} of {size:,} events")
            if monotonic() > ends:
                return filled >= size
        return True

    @staticmethod
    def _opened(url: str, namespace: str) -> EventStore:
        options: dict[str, Any] = {"namespace": namespace, "create": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DurabilityWarning)  # told at the first opening
            return open_store(url, **options)
