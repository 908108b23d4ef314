"""Who takes part: this project and its peers, each with what it guarantees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A store that takes part."""

    name: str
    module: str
    """Of the worker, within this package."""
    requirements: tuple[str, ...] = ()
    """What to install; empty for ours, which runs in this environment."""
    engines: tuple[str, ...]
    python: tuple[int, int] = (3, 11)
    """The least version it takes."""
    environment: Mapping[str, str] = {}
    """Variables that its process gets: settings that its documentation names, or its worker."""
    note: str
    """What it guarantees, and how it is used here."""
    tail_only: bool = False
    """A setting whose speed is not compared, only whether a reader misses events."""


OURS: Final = Contender(
    name="eventstore-toolkit",
    module="eventstore_worker",
    engines=("memory", "sqlite", "postgres", "redis", "mongodb"),
    note="Dense order whose tail misses nothing, versions checked, appends idempotent, durable on"
    " return.",
)

_EVENTSOURCING: Final = Contender(
    name="eventsourcing",
    module="eventsourcing_worker",
    requirements=("eventsourcing[postgres]==9.5.6",),
    engines=("memory", "sqlite", "postgres"),
    note="Driven at its application recorder, with the standard library's JSON. Versions are"
    " unique; a table lock on PostgreSQL keeps the tail whole; appends are not idempotent, and"
    " a conflict leaves a gap there.",
)
_LOGICBLOCKS: Final = Contender(
    name="logicblocks",
    module="logicblocks_worker",
    requirements=("logicblocks-event-store==0.1.11",),
    engines=("memory", "postgres"),
    python=(3, 13),
    note="Asynchronous. A lock on the log, its default, keeps the tail whole; appends are not"
    " idempotent. Its append takes one stream, so a batch is one. Its log messages are kept to"
    " warnings.",
)
_STABILIZE: Final = Contender(
    name="stabilize",
    module="stabilize_worker",
    requirements=("stabilize[postgres]==0.33.1",),
    engines=("sqlite", "postgres"),
    # Its default is synchronous=NORMAL, with the rollback journal: not durable as the others are.
    environment={
        "STABILIZE_SQLITE_SYNCHRONOUS": "FULL",
        "STABILIZE_SQLITE_JOURNAL_MODE": "WAL",
    },
    note="The event store inside a workflow engine. No version is checked and no append"
    " idempotent; on PostgreSQL a number is taken at insert and seen at commit. On SQLite it is"
    " set to WAL and synchronous=FULL by its own variables.",
)

PEERS: Final = (
    _EVENTSOURCING,
    Contender(
        name="eventsource-py",
        module="eventsource_py_worker",
        requirements=("eventsource-py[postgresql,sqlite]==0.8.1", "sqlalchemy[asyncio]>=2.0"),
        engines=("memory", "sqlite", "postgres"),
        note="Asynchronous, over pydantic and SQLAlchemy. Versions are checked; on PostgreSQL"
        " positions are taken at insert, and its feed hides what is not surely committed but"
        " moves on past it. Its append takes one stream, so a batch is one.",
    ),
    _LOGICBLOCKS,
    _STABILIZE,
    msgspec.structs.replace(
        _EVENTSOURCING,
        name="eventsourcing, functions",
        engines=("postgres",),
        environment={"POSTGRES_ENABLE_DB_FUNCTIONS": "yes"},
        note="As above, with POSTGRES_ENABLE_DB_FUNCTIONS.",
        tail_only=True,
    ),
    msgspec.structs.replace(
        _LOGICBLOCKS,
        name="logicblocks, stream lock",
        engines=("postgres",),
        environment={"BENCHMARK_LOCK": "stream"},
        note="As above, with the lock on each stream that it offers.",
        tail_only=True,
    ),
    msgspec.structs.replace(
        _STABILIZE,
        name="stabilize, committed",
        engines=("postgres",),
        environment={"BENCHMARK_CURSOR": "committed"},
        note="As above, read by its cursor of committed transactions.",
        tail_only=True,
    ),
)
