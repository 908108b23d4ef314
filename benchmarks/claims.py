"""What this project claims of each engine, and the measurement of each claim.

The marks are those that the stores were built to. Where one is missed, RESULTS.md says so.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec

from benchmarks import raw_postgres
from benchmarks.contest import (
    Claim,
    Duel,
    Effort,
    Finding,
    in_milliseconds,
    ratio,
    reading_latency,
)
from benchmarks.raw_mongodb import RawMongodb
from benchmarks.raw_postgres import RawPostgres
from benchmarks.raw_redis import RawRedis
from benchmarks.raw_sqlite import RawSqlite
from eventstore import DurabilityWarning, EventStore, drop_namespace, open_store
from eventstore.bench import workloads
from eventstore.bench.events import Numbers
from eventstore.bench.measure import Rates, Step, in_turn, rate
from eventstore.bench.writers import Processes, appending, by_threads, fair_share

Measure = Callable[[str, Effort], Iterator[Finding]]
"""Given the URL of a server (or a folder, for SQLite) and how long to look."""

_BOUND_BY_THE_INTERPRETER: Final = (
    "the disk flushes in 0.2 ms here, so one thread alone loses little by waiting for it; of a"
    " group's time 40 to 46 % is 16 threads taking turns in the interpreter (see README.md)"
)

_A_FLUSH: Final = 0.001
"""Seconds from which on a flush is worth sharing: what SQLite's claims on threads are for."""


@contextmanager
def _stores(url: str, *namespaces: str) -> Iterator[list[EventStore]]:
    """Open logs, each emptied before and removed afterwards; each has a file, where there are
    files, of its own."""
    stores: list[EventStore] = []
    places = [(_place(url, namespace), namespace) for namespace in namespaces]
    try:
        for place, namespace in places:
            drop_namespace(place, namespace=namespace)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DurabilityWarning)  # the report names the setting
                stores.append(open_store(place, namespace=namespace))
        yield stores
    finally:
        for store in stores:
            store.close()
        for place, namespace in places:
            drop_namespace(place, namespace=namespace)


def _place(url: str, namespace: str) -> str:
    return f"{url}.{namespace}" if url.startswith("sqlite:") else url


def _filled(store: EventStore, events: int, numbers: Numbers | None = None) -> Numbers:
    """Fill a log up to so many events, a batch of 1,000 at a time; return their numbers."""
    numbers = numbers or Numbers()
    for _ in workloads.fill(store, numbers, events):
        pass
    return numbers


# --- SQLite


def sqlite(url: str, effort: Effort) -> Iterator[Finding]:
    """Measure the claims on SQLite; the raw limit has a file beside that of ``url``."""
    claim = partial(Claim, engine="sqlite")
    directory = Path(url.partition("://")[2][1:]).parent
    with (
        _stores(url, "ours") as (store,),
        closing(RawSqlite(directory / "raw.db")) as raw,
        closing(RawSqlite(directory / "raw10.db", at_once=10)) as raw_of_ten,
    ):
        duel = Duel(store, raw, effort)
        yield ratio(claim(what="single append", against="INSERT", mark=0.85), duel.single())
        yield ratio(
            claim(what="batches of 1,000", against="executemany", mark=0.65), duel.batches(1000)
        )
        yield ratio(
            claim(what="batches of 1,000", against="statements of ten rows", mark=0.65),
            Duel(store, raw_of_ten, effort).batches(1000),
        )
        yield ratio(
            claim(what="reading all", against="SELECT, decoded to dicts", mark=0.50),
            duel.read_all(),
        )
        flush = _seconds_of_a_flush(directory)
        for threads, mark in ((8, 3.0), (16, 5.0)):
            finding = _threads_against_one(
                claim(
                    what=f"single appends by {threads} threads",
                    against="one thread, where a flush takes 1 ms",
                    mark=mark,
                ),
                store,
                threads,
                effort,
            )
            yield msgspec.structs.replace(
                finding, note=f"a flush took {flush * 1000:.1f} ms", applies=flush >= _A_FLUSH
            )


def _seconds_of_a_flush(directory: Path) -> float:
    """Return how long the disk takes for 4 KiB and a flush, as the median of many."""
    taken = []
    with (directory / "flush").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"\0" * 4096)
            began = perf_counter()
            os.fsync(file.fileno())
            taken.append(perf_counter() - began)
    return Rates(tuple(taken)).median


# --- PostgreSQL


def postgres(url: str, effort: Effort) -> Iterator[Finding]:
    """Measure the claims on PostgreSQL."""
    claim = partial(Claim, engine="postgres")
    drop_namespace(url, namespace=raw_postgres.NAMESPACE)
    with closing(RawPostgres(url)) as raw, _stores(url, "ours") as (store,):
        duel = Duel(store, raw, effort)
        yield ratio(
            claim(what="single append", against="INSERT in autocommit", mark=0.85),
            duel.single(),
        )
        for size in (100, 1000):
            yield ratio(
                claim(what=f"batches of {size:,}", against="binary COPY", mark=0.90),
                duel.batches(size),
            )
        yield ratio(
            claim(what="reading all", against="SELECT, decoded to dicts", mark=0.60),
            duel.read_all(),
        )
        yield _threads_against_one(
            claim(
                what="single appends by 16 threads",
                against="one thread",
                mark=4.0,
                obstacle=_BOUND_BY_THE_INTERPRETER,
            ),
            store,
            16,
            effort,
        )
        numbers = Numbers()
        yield ratio(
            claim(
                what="single appends by 16 threads",
                against="16 threads of INSERT in autocommit",
                mark=1.5,
            ),
            in_turn(
                lambda: by_threads(16, raw.append, effort.seconds),
                lambda: by_threads(16, lambda: store.append(numbers.one()), effort.seconds),
                effort.rounds,
            ),
        )
        yield _processes_against_raw(
            claim(
                what="single appends by 4 processes",
                against="4 processes of INSERT in autocommit",
                mark=0.30,
            ),
            url,
            effort,
        )


def _processes_against_raw(claim: Claim, url: str, effort: Effort) -> Finding:
    with (
        Processes(4, raw_postgres.inserting, url) as theirs,
        Processes(4, appending, url, {"namespace": "ours"}) as ours,
    ):
        return ratio(
            claim,
            in_turn(
                lambda: sum(theirs.turn(effort.seconds)),
                lambda: sum(ours.turn(effort.seconds)),
                effort.rounds,
            ),
        )


# --- Redis


def redis(url: str, effort: Effort) -> Iterator[Finding]:
    """Measure the claims on Redis."""
    claim = partial(Claim, engine="redis")
    with closing(RawRedis(url)) as raw:
        yield _memory(claim, url, raw)
        with _stores(url, "ours") as (store,):
            duel = Duel(store, raw, effort)
            yield ratio(claim(what="single append", against="XADD", mark=0.75), duel.single())
            for size, mark in ((100, 0.75), (1000, 0.80)):
                yield ratio(
                    claim(what=f"batches of {size:,}", against="pipelined XADD", mark=mark),
                    duel.batches(size),
                )
            yield ratio(
                claim(what="reading all", against="XRANGE in pages, JSON decoded", mark=0.50),
                duel.read_all(),
            )
            raw.clear()
            for size in (100, 1000):
                yield ratio(
                    claim(
                        what=f"batches of {size:,}",
                        against="a bare script that writes the same keys",
                        mark=0.80,
                    ),
                    duel.rates(
                        partial(raw.batch_by_script, size),
                        partial(workloads.batch, store, duel.numbers, size),
                    ),
                )
            yield _threads_against_one(
                claim(
                    what="single appends by 16 threads",
                    against="one thread",
                    mark=3.0,
                    obstacle=_BOUND_BY_THE_INTERPRETER,
                ),
                store,
                16,
                effort,
            )
            yield ratio(
                claim(what="single appends by 16 threads", against="16 threads of XADD", mark=1.0),
                in_turn(
                    lambda: by_threads(16, raw.append, effort.seconds),
                    lambda: by_threads(
                        16, lambda: store.append(duel.numbers.one()), effort.seconds
                    ),
                    effort.rounds,
                ),
            )
            yield from _wake_up(claim, url, raw, duel, effort)


def _wake_up(
    claim: partial[Claim], url: str, raw: RawRedis, duel: Duel, effort: Effort
) -> Iterator[Finding]:
    with closing(open_store(url, namespace="ours", durability="relaxed")) as reader:
        pairs = [
            (raw.wake_up(100), workloads.wake_up(duel.store, reader, duel.numbers, 100))
            for _ in range(effort.rounds)
        ]
    what = "from append to a waiting reader, p50"
    yield in_milliseconds(claim(what=what, against="", mark=2.0), [ours for _, ours in pairs])
    yield Finding(
        claim=claim(what=what, against="the time of XADD to XREAD", mark=1.3, kind="at most"),
        figure=Rates(tuple(ours.p50 / bare.p50 for bare, ours in pairs)),
    )


def _memory(claim: partial[Claim], url: str, raw: RawRedis) -> Finding:
    """Compare what events take with what they take in a stream alone."""
    events = 20_000
    empty = raw.used_memory()
    for _ in range(events // 1000):
        raw.batch(1000)()
    bare = raw.used_memory() - empty
    raw.clear()
    with _stores(url, "ours") as (store,):
        empty = raw.used_memory()
        for _ in workloads.fill(store, Numbers(), events):
            pass
        full = raw.used_memory() - empty
        kinds = raw.bytes_by_index("ours", events)
    listed = ", ".join(f"{kind} {size:.0f}" for kind, size in kinds.items() if size >= 0.5)
    return Finding(
        claim=claim(
            what="memory an event",
            against="the stream alone",
            mark=2.5,
            kind="at most",
        ),
        figure=Rates((full / bare,)),
        note=f"{full / events:.0f} bytes against {bare / events:.0f}; by key: {listed}",
    )


# --- MongoDB


def mongodb(url: str, effort: Effort) -> Iterator[Finding]:
    """Measure the claims on MongoDB."""
    claim = partial(Claim, engine="mongodb")
    with _stores(url, "ours") as (store,), closing(RawMongodb(url, "ours")) as raw:
        duel = Duel(store, raw, effort)
        yield ratio(claim(what="single append", against="insert_one", mark=0.60), duel.single())
        yield ratio(
            claim(what="batches of 1,000", against="insert_many", mark=1.20), duel.batches(1000)
        )
        yield _threads_against_one(
            claim(what="single appends by 16 threads", against="one thread", mark=4.0),
            store,
            16,
            effort,
        )
        yield from _racing_processes(claim, url, effort)
    with _stores(url, "read") as (store,):
        numbers = _filled(store, effort.read * 2)
        yield from _reads_of_commits(
            claim, store, numbers, effort, commits="commits of 1,000", marks=(30, 30, 15, 15)
        )
    with _stores(url, "ours") as (store,), closing(RawMongodb(url, "ours")) as raw:
        yield ratio(
            claim(what="reading all", against="find of the same documents", mark=0.60),
            Duel(store, raw, effort).read_all(),
        )


def _reads_of_commits(
    claim: partial[Claim],
    store: EventStore,
    numbers: Numbers,
    effort: Effort,
    *,
    commits: str,
    marks: Sequence[float],
) -> Iterator[Finding]:
    among = f"among {numbers.next:,} in {commits}, p50"
    for (what, workload), mark in zip(
        (
            ("one entity of 100 events", workloads.one_entity),
            ("100 events by tag", workloads.by_tag),
            ("100 events by time window", workloads.by_time),
            ("count by tag", workloads.count_by_tag),
        ),
        marks,
        strict=True,
    ):
        told = claim(what=f"{what} {among}", against="", mark=mark)
        yield reading_latency(told, workload, store, numbers, effort)


def _racing_processes(claim: partial[Claim], url: str, effort: Effort) -> Iterator[Finding]:
    shares: list[float] = []

    def race(crew: Processes) -> float:
        rates = crew.turn(effort.seconds)
        shares.append(fair_share(rates))
        return sum(rates)

    # A process alone is one that has nobody beside it: the others wait for their turn.
    with Processes(4, appending, url, {"namespace": "ours"}) as crew:
        comparison = in_turn(
            lambda: sum(crew.turn(effort.seconds, crew=1)), lambda: race(crew), effort.rounds
        )
    yield ratio(
        claim(what="4 racing processes together", against="one alone", mark=0.60), comparison
    )
    yield Finding(
        claim=claim(what="the slowest of 4 racing processes", against="its fair share", mark=1 / 3),
        figure=Rates(tuple(shares[1:])),  # the first was the warm-up
    )


# --- Several engines


def _threads_against_one(claim: Claim, store: EventStore, threads: int, effort: Effort) -> Finding:
    """Measure what group commit gains."""
    numbers = Numbers()
    return ratio(
        claim,
        in_turn(
            lambda: by_threads(1, lambda: store.append(numbers.one()), effort.seconds),
            lambda: by_threads(threads, lambda: store.append(numbers.one()), effort.seconds),
            effort.rounds,
        ),
    )


# --- Growth


def _grown(engine: str, entity: float | None, url: str, effort: Effort) -> Iterator[Finding]:
    """Measure reading in a log of a million events, with ``entity`` the mark in milliseconds where
    there is one, and appending to old entities all over one of three million."""
    claim = partial(Claim, engine=engine)
    with _stores(url, "small", "large") as (small, large):
        numbers = _filled(large, effort.grown)
        if entity is not None:
            told = claim(
                what=f"one entity of 100 events spread over {effort.grown:,}, p50",
                against="",
                mark=entity,
            )
            yield reading_latency(told, workloads.one_entity, large, numbers, effort)
        if engine == "postgres":
            yield _entity_against_raw(claim, url, large, numbers, effort)
        first = numbers.stretch
        _filled(large, effort.largest, numbers)
        few = _filled(small, 10_000)
        olds = cycle([Numbers.beyond(first), Numbers.beyond(numbers.stretch)])
        for size, what in ((1, "single appends"), (100, "batches of 100")):
            to_small = partial(workloads.batch, small, few, size)
            to_large = partial(_batch_for_any, large, olds, size)
            yield ratio(
                claim(
                    what=f"{what} to old entities",
                    against=f"{effort.largest:,} stored events against 10,000",
                    mark=0.90,
                ),
                in_turn(
                    partial(rate, to_small, effort.seconds),
                    partial(rate, to_large, effort.seconds),
                    effort.rounds,
                ),
            )
    if engine == "mongodb":
        yield from _reads_of_single_commits(claim, url, effort)


def _batch_for_any(store: EventStore, olds: Iterator[Numbers], size: int) -> Step:
    return workloads.batch(store, next(olds), size)


def _entity_against_raw(
    claim: partial[Claim], url: str, store: EventStore, numbers: Numbers, effort: Effort
) -> Finding:
    drop_namespace(url, namespace=raw_postgres.NAMESPACE)
    with closing(RawPostgres(url)) as raw:
        comparison = Duel(store, raw, effort).rates(
            lambda: raw.read_entity("large", numbers.stretch.any_account()),
            lambda: workloads.one_entity(store, numbers),
        )
    return Finding(
        claim=claim(
            what=f"one entity of 100 events spread over {numbers.next:,}",
            against="the time of the raw query",
            mark=1.5,
            kind="at most",
        ),
        figure=Rates(tuple(1 / each for each in comparison.ratios.rounds)),
        ours=comparison.ours,
        reference=comparison.reference,
    )


def _reads_of_single_commits(claim: partial[Claim], url: str, effort: Effort) -> Iterator[Finding]:
    with _stores(url, "single") as (store,):
        events = effort.grown // 10
        numbers = Numbers(stretch=events)
        while numbers.next < events:
            store.append(numbers.one())
        yield from _reads_of_commits(
            claim, store, numbers, effort, commits="single commits", marks=(10, 10, 30, 15)
        )


CLAIMS: Final[Mapping[str, Measure]] = {
    "sqlite": sqlite,
    "postgres": postgres,
    "redis": redis,
    "mongodb": mongodb,
}
"""By the name of the engine in the table of backends."""

GROWTH: Final[Mapping[str, Measure]] = {
    "sqlite": partial(_grown, "sqlite", 5.0),
    "postgres": partial(_grown, "postgres", None),
    "redis": partial(_grown, "redis", 1.5),
    "mongodb": partial(_grown, "mongodb", None),
}
"""What ``--growth`` measures, apart: logs of three million events take their time."""
