"""Files that are not as they must be: one clear error each, and nothing stored."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from eventstore import (
    ConfigurationError,
    CorruptLogError,
    EventStore,
    EventStoreError,
    LogReplacedError,
    StoreUnavailableError,
    drop_namespace,
    open_store,
)
from eventstore.backend import Settings, drop_log
from eventstore.backend import open_log as open_backend
from eventstore.testing.builders import an_event
from eventstore_sqlite import SqliteBackend, connections

Open = Callable[..., EventStore]
Connect = Callable[..., sqlite3.Connection]


def refusal(url: str, **options: Any) -> str:
    """Return the message of the ConfigurationError that opening ``url`` raises."""
    with pytest.raises(ConfigurationError) as caught:
        open_store(url, **options)
    return str(caught.value)


# --- Paths


def test_a_relative_path_is_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///log.db") as store:
        store.append(an_event())
        monkeypatch.chdir("/")
        assert store.append(an_event()).sequence == 2
    assert path.exists()


@pytest.mark.parametrize(
    ("written", "name"),
    [("a%20b.db", "a b.db"), ("a%3Fb%23.db", "a?b#.db"), ("ü.db", "ü.db"), ("%25.db", "%.db")],
)
def test_a_path_is_percent_decoded(tmp_path: Path, written: str, name: str) -> None:
    with open_store(f"sqlite:///{tmp_path}/{written}") as store:
        store.append(an_event())
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_stores_in_memory_are_private() -> None:
    with open_store("sqlite:///:memory:") as one, open_store("sqlite:///:memory:") as other:
        one.append(an_event())
        assert other.get_current_sequence() == 0
        assert one.log_id != other.log_id


@pytest.mark.parametrize("url", ["sqlite://log.db", "sqlite:///", "sqlite://", "sqlite:///a%00b"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    assert "sqlite:///relative.db" in refusal(url)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory" in refusal(f"sqlite:///{tmp_path}")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"there is no folder {tmp_path}/none" in refusal(f"sqlite:///{tmp_path}/none/log.db")
    assert list(tmp_path.iterdir()) == []


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_for_this_user_alone_and_so_are_those_beside_it(path: Path) -> None:
    with open_store(f"sqlite:///{path}") as store:
        store.append(an_event())
        assert {mode_of(each) for each in path.parent.iterdir()} == {0o600}
        assert len(list(path.parent.iterdir())) == 3


def test_the_mode_of_a_file_that_is_there_stays(path: Path) -> None:
    path.touch()
    path.chmod(0o664)
    with open_store(f"sqlite:///{path}") as store:
        store.append(an_event())
        assert {mode_of(each) for each in path.parent.iterdir()} == {0o664}


def test_a_link_to_nothing_is_not_followed_and_one_to_a_file_is(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    assert "is a link to" in refusal(f"sqlite:///{link}")
    assert not path.exists()

    with open_store(f"sqlite:///{path}") as store, open_store(f"sqlite:///{link}") as other:
        store.append(an_event())
        assert other.append(an_event()).sequence == 2


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").symlink_to(tmp_path / "b.db")
    (tmp_path / "b.db").symlink_to(tmp_path / "a.db")
    assert "a.db" in refusal(f"sqlite:///{tmp_path}/a.db")


@pytest.mark.parametrize("length", [250, 300, 5000])
def test_a_name_too_long_for_the_file_system_is_refused(tmp_path: Path, length: int) -> None:
    said = refusal(f"sqlite:///{tmp_path}/{'x' * length}")
    assert "too long" in said
    assert str(tmp_path) in said
    assert list(tmp_path.iterdir()) == []


def test_create_false_creates_nothing(tmp_path: Path, path: Path) -> None:
    assert "create=false" in refusal(f"sqlite:///{path}", create=False)
    assert list(tmp_path.iterdir()) == []
    with open_store(f"sqlite:///{path}"):
        assert "has no log 'other'" in refusal(f"sqlite:///{path}?namespace=other", create=False)
        open_store(f"sqlite:///{path}", create=False).close()


def test_an_older_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 33, 0))
    assert "3.34 is the least" in refusal(f"sqlite:///{path}")


# --- What is in the file


@pytest.mark.parametrize("content", [b"not a database " * 100, b"SQLite format 3\0" + b"x" * 4096])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(EventStoreError, match=r"log\.db"):
        open_store(f"sqlite:///{path}")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "table", ["eventstore_log (x)", "eventstore_events (x)", "eventstore_tags (x)"]
)
def test_a_table_of_someone_else_is_refused_and_left_alone(
    path: Path, connect: Connect, table: str
) -> None:
    connection = connect(isolation_level=None)
    connection.execute(f"CREATE TABLE {table}")

    assert "cannot be used as an event log" in refusal(f"sqlite:///{path}")
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    assert tables == [(1,)]
    with open_store(f"sqlite:///{path}", namespace="ours") as store:
        assert store.get_current_sequence() == 0


def test_a_namespace_of_someone_else_is_not_dropped(path: Path, connect: Connect) -> None:
    connect(isolation_level=None).execute("CREATE TABLE eventstore_log (x)")
    with pytest.raises(ConfigurationError):
        drop_namespace(f"sqlite:///{path}")


def test_dropping_what_is_not_there_creates_nothing(tmp_path: Path, path: Path) -> None:
    drop_namespace(f"sqlite:///{path}")
    assert list(tmp_path.iterdir()) == []


def test_namespaces_whose_names_begin_alike_share_a_file(
    path: Path, open_log: Open, connect: Connect
) -> None:
    names = ["a", "a_by", "a_events", "a_events_by", "a_log", "a_by_event"]
    stores = [open_log(namespace=name) for name in names]
    for count, store in enumerate(stores):
        store.append_batch([an_event() for _ in range(count + 1)])
    stores.pop().close()
    drop_namespace(f"sqlite:///{path}?namespace=a_by_event")

    assert [store.get_current_sequence() for store in stores] == [1, 2, 3, 4, 5]
    left = connect().execute("SELECT name FROM sqlite_master WHERE name GLOB 'a_by_event_*'")
    assert {name for (name,) in left.fetchall()} == {"a_by_event_id", "a_by_event_type"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE eventstore_events SET data = '{}'",
        "DELETE FROM eventstore_events",
        "UPDATE eventstore_tags SET tag = 'x'",
        "DELETE FROM eventstore_tags",
    ],
)
def test_recorded_events_are_not_changed_even_by_hand(
    store: EventStore, connect: Connect, statement: str
) -> None:
    store.append(an_event(tags=("a",)))
    with pytest.raises(sqlite3.IntegrityError, match="recorded events are never"):
        connect().execute(statement)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("data", "'[1]'"),
        ("data", "'{'"),
        ("metadata", "7"),
        ("tags", "'[1]'"),
        ("event_id", "NULL"),
        ("timestamp", "'then'"),
        ("timestamp", "1e30"),
    ],
)
def test_an_unreadable_record_is_told_with_its_sequence(
    store: EventStore, connect: Connect, column: str, value: str
) -> None:
    store.append_batch([an_event(), an_event()])
    other = connect(isolation_level=None)
    other.execute("DROP TRIGGER eventstore_events_no_update")
    other.execute("PRAGMA writable_schema = ON")
    other.execute(
        "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')"
        " WHERE name = 'eventstore_events'"
    )
    other.execute("PRAGMA writable_schema = RESET")
    other.execute(f"UPDATE eventstore_events SET {column} = {value} WHERE sequence = 2")

    with pytest.raises(CorruptLogError, match="sequence 2"):
        list(store.get_events())


def test_a_schema_run_by_hand_is_as_good(path: Path, connect: Connect, open_log: Open) -> None:
    settings = Settings.parse(f"sqlite:///{path}", {"namespace": "mine"}, SqliteBackend.options)
    connect().executescript(SqliteBackend.schema_ddl(settings))
    store = open_log(namespace="mine", create=False)
    assert store.append(an_event(tags=("a",))).sequence == 1


def test_data_is_kept_as_json_that_people_can_read(store: EventStore, connect: Connect) -> None:
    store.append(an_event(data={"total": 1e22, "name": "žluť"}, tags=("b", "a")))
    found = connect().execute("SELECT data, metadata, tags FROM eventstore_events").fetchall()
    assert found == [('{"total":1e22,"name":"žluť"}', "{}", '["b","a"]')]


# --- Journal, replacement, locks, space


def test_another_journal_mode_is_set_right_again(
    path: Path, open_log: Open, connect: Connect
) -> None:
    open_log().close()
    other = connect(isolation_level=None)
    assert other.execute("PRAGMA journal_mode = DELETE").fetchall() == [("delete",)]

    open_log().append(an_event())
    assert connect().execute("PRAGMA journal_mode").fetchall() == [("wal",)]


def test_a_journal_mode_that_stays_wrong_is_refused(open_log: Open, connect: Connect) -> None:
    open_log().close()
    other = connect(isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("DELETE FROM eventstore_log WHERE 0")

    with pytest.raises(StoreUnavailableError, match="locked"):
        open_log(timeout=0.2)


@pytest.mark.parametrize("how", ["replaced", "gone"])
def test_every_read_notices_a_file_that_was_replaced(
    store: EventStore, path: Path, open_log: Open, how: str
) -> None:
    # Given pooled connections to a file that another one, or none, takes the place of
    recorded = store.append(an_event())
    checkpoint = store.checkpoint()
    path.rename(path.with_suffix(".old"))
    if how == "replaced":
        open_log().append(an_event())

    # Then, after the few milliseconds for which reads share a look, none answers from the old one
    until = monotonic() + 5
    with suppress(LogReplacedError):
        while monotonic() < until:
            store.get_current_sequence()
    calls: list[Callable[[], object]] = [
        store.get_current_sequence,
        store.count_events,
        store.checkpoint,
        store.info,
        store.list_entities,
        lambda: list(store.get_events()),
        lambda: store.get_events_since(checkpoint),
        lambda: store.get_event_by_id(recorded.event_id),
        lambda: store.get_current_version("order", "o-1"),
        lambda: store.wait_for_events(1, timeout=0),
        lambda: store.append(an_event()),
    ]
    for call in calls:
        with pytest.raises(LogReplacedError, match=how):
            call()


def test_a_wait_notices_a_file_that_is_replaced_meanwhile(store: EventStore, path: Path) -> None:
    store.append(an_event())
    threading.Timer(0.2, lambda: path.rename(path.with_suffix(".old"))).start()
    with pytest.raises(LogReplacedError, match="gone"):
        store.wait_for_events(1, timeout=30)


@pytest.mark.parametrize("anew", [False, True], ids=["dropped", "made anew"])
def test_a_log_that_was_dropped_is_refused(
    store: EventStore, path: Path, open_log: Open, connect: Connect, anew: bool
) -> None:
    store.append(an_event())
    assert drop_namespace_of(path)
    assert not drop_namespace_of(path)
    other = open_log() if anew else None
    connection = connect()

    for call in (
        lambda: store.append(an_event()),
        lambda: store.append(an_event(), connection=connection),
        store.get_current_sequence,
        lambda: store.wait_for_events(0, timeout=0),
        lambda: list(store.get_events()),
    ):
        with pytest.raises(LogReplacedError, match="open it anew"):
            call()

    assert not connection.in_transaction
    assert other is None or other.append(an_event()).sequence == 1


def drop_namespace_of(path: Path) -> bool:
    return drop_log(SqliteBackend, Settings.parse(f"sqlite:///{path}", {}, SqliteBackend.options))


@pytest.fixture
def no_descriptors() -> Iterator[Callable[[], None]]:
    """Takes all descriptors that this process may still have; they are let go of at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def exhaust() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))

    def release() -> None:
        while taken:
            os.close(taken.pop())
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    exhaust.release = release  # type: ignore[attr-defined]  # a way back within the test
    yield exhaust
    release()


def test_out_of_descriptors_an_append_still_tells_what_became_of_it(
    open_log: Open, no_descriptors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_LONG_WAL", 1)
    store = open_log()
    store.append(an_event())

    no_descriptors()
    assert [store.append(an_event()).sequence for _ in range(3)] == [2, 3, 4]
    no_descriptors.release()

    assert store.append(an_event()).sequence == 5


def test_out_of_descriptors_no_connection_is_made_and_later_ones_are(
    open_log: Open, path: Path, no_descriptors: Any
) -> None:
    store = open_log(timeout=0.3)
    store.append(an_event())
    backend = store._log.backend
    backend.close()
    backend._connections._closed = False  # type: ignore[attr-defined]  # as after a fork
    settings = Settings.parse(f"sqlite:///{path}", {"timeout": 0.3}, SqliteBackend.options)
    new = Settings.parse(
        f"sqlite:///{path.with_name('new.db')}", {"timeout": 0.3}, SqliteBackend.options
    )

    no_descriptors()
    with pytest.raises(StoreUnavailableError) as caught:
        store.append(an_event())
    assert caught.value.transient
    assert not caught.value.may_have_written
    for each in (settings, new):
        with pytest.raises(StoreUnavailableError):
            open_backend(SqliteBackend, each)
    no_descriptors.release()

    assert store.append(an_event()).sequence == 2
    for each in (settings, new):
        open_backend(SqliteBackend, each).close()


def test_a_file_that_was_replaced_is_noticed(store: EventStore, path: Path) -> None:
    store.append(an_event())
    path.rename(path.with_suffix(".old"))
    with pytest.raises(ConfigurationError, match="is gone"):
        store.append(an_event())
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(ConfigurationError, match="was replaced"):
        store.append(an_event())


def test_a_locked_file_is_told_after_the_timeout_with_who_holds_it(
    open_log: Open, connect: Connect
) -> None:
    store = open_log(timeout=0.3)
    other = connect(isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = monotonic()

    said = r"was locked for 0\.3\d s by another connection of this process"
    with pytest.raises(StoreUnavailableError, match=said) as caught:
        store.append(an_event())
    assert 0.25 < monotonic() - began < 2
    assert not caught.value.may_have_written
    assert not caught.value.transient

    other.execute("ROLLBACK")
    assert store.append(an_event()).sequence == 1


_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who holds a lock")
def test_another_process_that_holds_the_lock_is_named(open_log: Open, path: Path) -> None:
    store = open_log(timeout=0.2)
    command = [sys.executable, "-c", _HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdin
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreUnavailableError, match=f"process {holder.pid}"):
            store.append(an_event())
        holder.stdin.close()


def test_a_full_disk_stores_nothing_and_is_no_reason_to_try_again(
    sqlite: SqliteBackend, open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_log()
    store.append(an_event())
    connections = store._log.backend._connections  # type: ignore[attr-defined]  # no public way in
    with connections.writing(1) as writer:
        writer.execute("PRAGMA max_page_count = 1")  # to the present size

    with pytest.raises(StoreUnavailableError, match="full") as caught:
        store.append_batch([an_event(data={"x": "x" * 1000}) for _ in range(100)])

    assert not caught.value.transient
    assert not caught.value.may_have_written
    assert sqlite.head() == 1
    assert store.append(an_event()).sequence == 2  # on a connection without that limit


_OPEN_AS_NOBODY = """
import os, sys
from eventstore import EventStoreError, open_store, registry
from eventstore.testing.builders import an_event
open_store("sqlite:///:memory:").close()  # all is imported while it can be read
found = registry.entry_points(group=registry.GROUP)
registry.entry_points = lambda group: found
os.setgid(65534), os.setuid(65534)
try:
    with open_store(f"sqlite:///{sys.argv[1]}") as store:
        store.append(an_event())
except EventStoreError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_read_only_is_refused(what: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "log.db"
        open_store(f"sqlite:///{path}").close()
        path.chmod(0o444 if what == "file" else 0o666)
        folder.chmod(0o777 if what == "file" else 0o555)
        if os.getuid() == 0:  # whom nothing stops
            command = [sys.executable, "-c", _OPEN_AS_NOBODY, str(path)]
            said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
            assert said.stdout.startswith("ConfigurationError"), said
            assert "read-only" in said.stdout
        else:
            assert "read-only" in refusal(f"sqlite:///{path}")
        folder.chmod(0o777)


# --- Many at once


def _open_and_append(path: str) -> str:
    with open_store(f"sqlite:///{path}") as store:
        store.append(an_event())
        return store.log_id


def test_ten_processes_create_one_log(path: Path) -> None:
    with get_context("spawn").Pool(10) as pool:
        ids = pool.map(_open_and_append, [str(path)] * 10, chunksize=1)

    assert len(set(ids)) == 1
    with open_store(f"sqlite:///{path}") as store:
        assert [event.sequence for event in store.get_events()] == list(range(1, 11))
