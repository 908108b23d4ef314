"""The same work for ours and each peer, in turn; and what a reader of the tail misses."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg import sql

from benchmarks.contest import Claim, Effort, Finding, ratio
from benchmarks.peers.contenders import OURS, PEERS, Contender
from benchmarks.peers.environments import UnavailableError, Worker, make_environment
from eventstore import drop_namespace
from eventstore.bench.machine import with_load
from eventstore.bench.measure import Comparison, Rates

_PROCESSES: Final = 4
_TAIL_WRITERS: Final = ({"writers": 2, "batch": 1}, {"writers": 2, "batch": 50}) * 2
"""What each writing process does: as many small appends as large ones."""

Tell = Callable[[str], None]

_RIVALS: Final[Mapping[str, tuple[str, ...]]] = {"memory": ("eventsourcing",)}
"""Whom a claim on an engine is measured against, where not all: the other peers' stores in
memory hand out the very objects that were stored."""
_RIVAL: Final = "eventsourcing"
_MARKS: Final[Mapping[tuple[str, str], float]] = {
    ("memory", "single appends, 1 writer"): 0.7,
    ("memory", "batches of 100"): 1.1,
    ("memory", "batches of 1,000"): 1.1,
    ("sqlite", "single appends, 1 writer"): 0.95,
    ("sqlite", "single appends, 8 writers"): 3.0,
    ("sqlite", "single appends, 4 processes"): 0.95,
    ("sqlite", "batches of 100"): 1.0,
    ("sqlite", "batches of 1,000"): 1.0,
    ("postgres", "single appends, 16 writers"): 10.0,
    ("postgres", "batches of 100"): 2.0,
    ("postgres", "batches of 1,000"): 2.0,
    ("postgres", "reading all"): 2.0,
}
"""What is claimed against eventsourcing, the peer with as strong a guarantee; against the best
peer it is to be ahead."""
_FEWER_COLUMNS: Final = (
    "eventsourcing writes 4 columns and 1 index an event and checks nothing; ours 16 columns, with"
    " an index for every field that can be asked for"
)
_CHECKED_AND_COPIED: Final = (
    "72 % of our time is checking and encoding what is appended, so that nothing bad gets in and"
    " no caller can change the log; eventsourcing keeps the objects it is given"
)
_OBSTACLES: Final[Mapping[tuple[str, str], str]] = {
    ("sqlite", "single appends, 8 writers"): (
        "a flush takes 0.2 ms here, so the interpreter, not the disk, is what is shared: of each"
        " append in a group 60 µs are work and waking of its thread (see README.md)"
    ),
    ("sqlite", "batches of 100"): _FEWER_COLUMNS,
    ("sqlite", "batches of 1,000"): _FEWER_COLUMNS,
    ("memory", "batches of 100"): _CHECKED_AND_COPIED,
    ("memory", "batches of 1,000"): _CHECKED_AND_COPIED,
}
"""What a profile found in the way."""
_CLAIMED: Final = (
    "single appends, 8 writers",
    "batches of 100",
    "batches of 1,000",
    "reading all",
    "streams of 100 events",
)
_CLAIMED_IN_MEMORY: Final = ("batches of 100", "batches of 1,000", "reading all")


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one workload on one engine."""

    workload: str
    unit: str
    rates: dict[str, Rates]
    """By contender."""
    busy: float | None = None
    """Which part of the processors other work kept busy."""


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader saw who remembers its last position, while others wrote."""

    contender: str
    stored: int
    """Events whose append returned."""
    missed: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What took part."""

    contender: Contender
    version: str
    python: str
    settings: str


class Gathering(msgspec.Struct, kw_only=True):
    """All that came of the peers on one engine."""

    engine: str
    facts: list[Facts]
    matches: list[Match]
    tails: list[Tail]
    absent: dict[str, str]
    """Who could not take part, and why."""

    def leaking(self) -> set[str]:
        """Return the contenders whose tail readers missed events."""
        return {tail.contender for tail in self.tails if tail.missed}


def meet(engine: str, url: str, effort: Effort, tell: Tell, *, with_matches: bool) -> Gathering:
    """Let ours and the peers meet on one engine."""
    gathering = Gathering(engine=engine, facts=[], matches=[], tails=[], absent={})
    present = []
    for contender in (OURS, *PEERS):
        if engine not in contender.engines:
            continue
        try:
            tell(f"installing {contender.name}")
            make_environment(contender)
            present.append(contender)
        except UnavailableError as error:
            gathering.absent[contender.name] = str(error)
    if with_matches:
        _match(gathering, url, [each for each in present if not each.tail_only], effort, tell)
    if engine != "memory":
        for contender in present:
            tell(f"{contender.name}: reading the tail")
            with _database(engine, url) as own:
                gathering.tails.append(_tail(contender, own, effort))
    return gathering


def findings(gathering: Gathering) -> Iterator[Finding]:
    """Yield what the matches tell of the claims: ours against the best of the others."""
    engine = gathering.engine
    claimed = _CLAIMED_IN_MEMORY if engine == "memory" else _CLAIMED
    for match in gathering.matches:
        others = {
            name: rates
            for name, rates in match.rates.items()
            if name != OURS.name and name in _RIVALS.get(engine, (name,))
        }
        marks = {}
        if others and match.workload in claimed:
            marks[max(others, key=lambda name: others[name].median)] = 1.0
        best = dict.fromkeys(marks, "the best peer, ")
        if _RIVAL in others and (engine, match.workload) in _MARKS:
            marks[_RIVAL] = _MARKS[engine, match.workload]
        for name, mark in marks.items():
            claim = Claim(
                engine=engine,
                what=match.workload,
                against=f"{best.get(name, '')}{name}",
                mark=mark,
                obstacle=_OBSTACLES.get((engine, match.workload), ""),
            )
            leaks = name in gathering.leaking()
            found = ratio(
                claim,
                Comparison(reference=others[name], ours=match.rates[OURS.name]),
                note=f"{name} lets readers of its tail miss events: a weaker guarantee"
                if leaks
                else "",
            )
            yield msgspec.structs.replace(found, busy=match.busy)


def _match(
    gathering: Gathering, url: str, contenders: Sequence[Contender], effort: Effort, tell: Tell
) -> None:
    with ExitStack() as stack:
        crews: dict[str, list[Worker]] = {}
        for contender in contenders:
            own = stack.enter_context(_database(gathering.engine, url))
            tell(f"starting {contender.name}")
            size = 1 if gathering.engine == "memory" else _PROCESSES
            crew = [stack.enter_context(Worker(contender)) for _ in range(size)]
            try:
                facts = [worker.open(own) for worker in crew]  # in turn: the first makes tables
            except UnavailableError as error:
                gathering.absent[contender.name] = str(error)
                continue
            crews[contender.name] = crew
            gathering.facts.append(Facts(contender=contender, **facts[0]))
        measured = _measured(gathering.engine, crews, effort, tell)
        for match, busy in with_load(measured):
            gathering.matches.append(msgspec.structs.replace(match, busy=busy))


def _measured(
    engine: str, crews: Mapping[str, Sequence[Worker]], effort: Effort, tell: Tell
) -> Iterator[Match]:
    for workload, unit, measure in _workloads(engine, effort):
        tell(workload)
        rounds: dict[str, list[float]] = {name: [] for name in crews}
        for _ in range(effort.rounds):
            for name, crew in crews.items():
                rounds[name].append(measure(crew))
        rates = {name: Rates(tuple(each)) for name, each in rounds.items()}
        yield Match(workload=workload, unit=unit, rates=rates)


Measure = Callable[[Sequence[Worker]], float]


def _workloads(engine: str, effort: Effort) -> Iterator[tuple[str, str, Measure]]:
    seconds = effort.seconds
    for writers in (1, 8, 16):
        name = "1 writer" if writers == 1 else f"{writers} writers"
        yield f"single appends, {name}", "events/s", partial(_one, "single", writers, seconds)
    if engine != "memory":
        yield f"single appends, {_PROCESSES} processes", "events/s", partial(_all, seconds)
    for size in (100, 1000):
        work = partial(_ask, "batches", size=size, seconds=seconds)
        yield f"batches of {size:,}", "events/s", work
    filled: set[int] = set()

    def prepared(measure: Measure, crew: Sequence[Worker]) -> float:
        if id(crew[0]) not in filled:
            filled.add(id(crew[0]))
            crew[0].ask("fill", events=effort.read // 4)
        return measure(crew)

    yield "reading all", "events/s", partial(prepared, partial(_ask, "read_all"))
    streams = partial(_ask, "streams", seconds=seconds)
    yield "streams of 100 events", "streams/s", partial(prepared, streams)


def _ask(do: str, crew: Sequence[Worker], **arguments: Any) -> float:
    return crew[0].rate(do, **arguments)


def _one(do: str, writers: int, seconds: float, crew: Sequence[Worker]) -> float:
    return crew[0].rate(do, writers=writers, seconds=seconds)


def _all(seconds: float, crew: Sequence[Worker]) -> float:
    for worker in crew:
        worker.begin("single", writers=1, seconds=seconds)
    answers = [worker.answer() for worker in crew]
    began = min(answer["began"] for answer in answers)
    ended = max(answer["ended"] for answer in answers)
    return float(sum(answer["done"] for answer in answers) / (ended - began))


def _tail(contender: Contender, url: str, effort: Effort) -> Tail:
    seconds = effort.seconds * 4
    with ExitStack() as stack:
        crew = [stack.enter_context(Worker(contender)) for _ in range(1 + len(_TAIL_WRITERS))]
        for worker in crew:
            worker.open(url)
        reader, *writers = crew
        reader.begin("tail", seconds=seconds)
        for writer, work in zip(writers, _TAIL_WRITERS, strict=True):
            writer.begin("single", seconds=seconds, **work)
        stored = sum(writer.answer()["done"] for writer in writers)
        seen = reader.answer()["seen"]
    return Tail(contender=contender.name, stored=stored, missed=stored - seen)


@contextmanager
def _database(engine: str, url: str) -> Iterator[str]:
    """Give a contender a place of its own on the server, removed at the end."""
    name = f"bench_{secrets.token_hex(4)}"
    if engine == "postgres":
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(url)._replace(path=f"/{name}").geturl()
        finally:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(
                    sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
                )
    elif engine == "sqlite":
        directory = Path(urlsplit(url).path[1:]).parent
        yield f"sqlite:///{directory / name}.db"
        for file in directory.glob(f"{name}.db*"):
            file.unlink()
    elif engine == "memory":
        yield "memory://"
    else:
        own = f"{url}{'&' if '?' in url else '?'}namespace={name}"
        try:
            yield own
        finally:
            drop_namespace(own)
