"""A checkpoint never runs beside another connection's write, and the log before it stays short."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic

import pytest

from eventstore import EventStore, open_store
from eventstore.testing.builders import an_event
from eventstore_sqlite import SqliteBackend, connections
from eventstore_sqlite.connections import Connections

FRAME = 4096 + 24


@pytest.fixture
def checkpoint_often(monkeypatch: pytest.MonkeyPatch) -> int:
    """Makes checkpoints due after so many frames."""
    monkeypatch.setattr(connections, "_LONG_WAL", 50)
    return 50


@pytest.fixture
def log(path: Path) -> Iterator[Connections]:
    """Connections of a store, to be looked at from the inside."""
    with closing(Connections(path, timeout=5, synchronous="FULL")) as log:
        log.make_file()
        with log.writing(5) as writer:
            writer.execute("CREATE TABLE t (x)")
        yield log


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def traced(log: Connections, trace: Callable[[str], object]) -> None:
    """Tell of every statement on the connection that checkpoints."""
    with log.reading() as reader:
        reader.connection.set_trace_callback(trace)


def test_no_connection_checkpoints_by_itself(log: Connections) -> None:
    with log.reading() as reader, log.writing(1) as writer:
        for connection in (reader, writer):
            assert connection.execute("PRAGMA wal_autocheckpoint").fetchall() == [(0,)]


def test_a_checkpoint_runs_while_its_store_holds_the_write_lock(
    checkpoint_often: int, log: Connections, path: Path
) -> None:
    # Given a look from another program at the moment each checkpoint begins
    seen: list[str] = []

    def look(statement: str) -> None:
        if "wal_checkpoint" not in statement:
            return
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
                seen.append("anyone may write")
            except sqlite3.OperationalError as error:
                seen.append(str(error))

    traced(log, look)
    for _ in range(4 * checkpoint_often):
        with log.writing(1) as writer:
            writer.execute("INSERT INTO t VALUES (1)")

    assert len(seen) >= 3
    assert set(seen) == {"database is locked"}


def test_none_runs_while_someone_else_writes(
    log: Connections, connect: Callable[..., sqlite3.Connection]
) -> None:
    other = connect(isolation_level=None)
    statements: list[str] = []
    traced(log, statements.append)
    with log.writing(1) as writer:
        writer.execute("INSERT INTO t VALUES (1)")
        writer.execute("COMMIT")
        other.execute("BEGIN IMMEDIATE")
        log.checkpoint(writer)
        assert statements == []
        other.execute("ROLLBACK")
        log.checkpoint(writer)
        assert statements == ["PRAGMA wal_checkpoint(PASSIVE)"]
        writer.execute("BEGIN IMMEDIATE")


def test_the_write_ahead_log_stays_short(
    open_log: Callable[..., EventStore], path: Path, checkpoint_often: int
) -> None:
    store = open_log()
    for _ in range(300):
        store.append(an_event())

    assert wal(path).stat().st_size < 2 * checkpoint_often * FRAME
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM eventstore_events").fetchall() == [(300,)]
    other.close()


@pytest.mark.usefixtures("checkpoint_often")
def test_so_it_does_where_the_path_is_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "log.db").touch()
    (tmp_path / "link.db").symlink_to(real / "log.db")
    with open_store(f"sqlite:///{tmp_path}/link.db") as store:
        for _ in range(100):
            store.append(an_event())
        assert wal(real / "log.db").stat().st_size < 100 * FRAME


def test_it_is_not_checkpointed_for_every_append_while_a_reader_holds_an_old_state(
    open_log: Callable[..., EventStore],
    path: Path,
    connect: Callable[..., sqlite3.Connection],
    checkpoint_often: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoints = 0
    original = Connections.checkpoint

    def counting(self: Connections, writer: sqlite3.Cursor) -> None:
        nonlocal checkpoints
        checkpoints += 1
        original(self, writer)

    monkeypatch.setattr(Connections, "checkpoint", counting)
    store = open_log()
    store.append(an_event())
    reader = connect(isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM eventstore_events").fetchall()
    for _ in range(100):
        store.append(an_event())
    frames = wal(path).stat().st_size / FRAME

    assert frames > 4 * checkpoint_often
    assert 2 <= checkpoints <= frames / checkpoint_often + 1

    reader.execute("COMMIT")
    for _ in range(100):
        store.append(an_event())
    assert wal(path).stat().st_size / FRAME < frames + 2 * checkpoint_often


def test_a_log_grown_by_a_large_batch_gives_the_space_back(store: EventStore, path: Path) -> None:
    store.append_batch([an_event(data={"x": "x" * 900}) for _ in range(70_000)])
    assert wal(path).stat().st_size > 70_000_000
    for _ in range(3):
        store.append(an_event())

    assert wal(path).stat().st_size <= 67_108_864


def _hammer(path: str, ready: Connection) -> None:
    pytest.MonkeyPatch().setattr(connections, "_LONG_WAL", 20)
    with open_store(f"sqlite:///{path}") as store:
        ready.send("ready")
        while not ready.poll():
            store.append(an_event())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who holds a lock")
def test_many_processes_checkpoint_only_under_the_write_lock(path: Path) -> None:
    """Looks at SQLite's locks on the shared memory: 120 is held to write, 121 to checkpoint."""
    context = get_context("spawn")
    pipes = [context.Pipe() for _ in range(3)]
    workers = [context.Process(target=_hammer, args=(str(path), end)) for _, end in pipes]
    for worker in workers:
        worker.start()
    for pipe, _ in pipes:
        assert pipe.recv() == "ready"
    inode = f":{os.stat(f'{path}-shm').st_ino}"  # noqa: PTH116 - as in /proc/locks
    checkpoints = 0
    beside = []
    until = monotonic() + 30
    with Path("/proc/locks").open(encoding="ascii") as locks:
        while checkpoints < 25 and monotonic() < until:
            locks.seek(0)
            held = {"120": "", "121": ""}
            for line in locks.read().splitlines():
                *_, kind, process, file, first, last = line.split()
                if file.endswith(inode) and kind == "WRITE":
                    held |= {byte: process for byte in held if int(first) <= int(byte) <= int(last)}
            if held["121"]:
                checkpoints += 1
                if held["120"] != held["121"]:
                    beside.append(held)
    for pipe, _ in pipes:
        pipe.send("stop")
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0

    assert checkpoints >= 5
    assert beside == []


def test_a_store_that_is_the_last_to_close_leaves_one_whole_file(
    sqlite: SqliteBackend, path: Path
) -> None:
    sqlite.close()

    assert [file.name for file in path.parent.iterdir()] == [path.name]
