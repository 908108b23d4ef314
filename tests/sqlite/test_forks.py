"""A fork leaves both sides with connections, and locks, of their own."""

from __future__ import annotations

import os
import sqlite3
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from eventstore import EventStore, UnsupportedOperationError, open_store
from eventstore.testing.builders import an_event
from eventstore_sqlite import SqliteBackend
from eventstore_sqlite import backend as sqlite_backend


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked child and return its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - shown
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_a_child_appends_survives_its_parents_close(
    open_log: Callable[..., EventStore], path: Path
) -> None:
    # Given a child that holds the log open beyond the parent's close
    store = open_log()
    store.append(an_event())
    closed, child_may_go_on = os.pipe()
    told, child_is_ready = os.pipe()

    def child() -> None:
        store.append(an_event())
        os.write(child_is_ready, b"x")
        os.read(closed, 1)
        assert store.append(an_event()).sequence == 3

    def parent() -> None:
        os.read(told, 1)
        store.close()
        with open_store(f"sqlite:///{path}") as other:
            assert other.get_current_sequence() == 2
        os.write(child_may_go_on, b"x")

    thread = threading.Thread(target=parent)
    # When the parent, the only other process, closes before the child appends again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        starter = threading.Timer(0, thread.start)
        starter.start()
        code = in_child(child)
    thread.join(10)

    # Then nothing is lost
    assert code == 0
    with open_store(f"sqlite:///{path}") as again:
        assert [event.sequence for event in again.get_events()] == [1, 2, 3]


def test_parent_and_child_append_side_by_side(open_log: Callable[..., EventStore]) -> None:
    store = open_log()

    def child() -> None:
        for _ in range(5):
            store.append(an_event())

    codes = []
    for _ in range(3):
        store.append(an_event())
        codes.append(in_child(child))

    assert codes == [0, 0, 0]
    assert [event.sequence for event in store.get_events()] == list(range(1, 19))


def test_a_fork_waits_for_a_read_that_is_under_way(
    open_log: Callable[..., EventStore],
) -> None:
    store = open_log()
    store.append_batch([an_event() for _ in range(5000)])
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            assert len(list(store.get_events())) >= 5000

    def child() -> None:
        store.append(an_event())

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(5):
            assert in_child(child) == 0
    finally:
        stop.set()
        for reader in readers:
            reader.join(30)
    assert store.get_current_sequence() == 5005


def test_a_child_of_a_fork_in_the_middle_of_a_call_is_told(
    open_log: Callable[..., EventStore],
) -> None:
    """The forking thread cannot wait for its own call to end."""
    store = open_log(timeout=0.2)
    store.append(an_event())
    connections = store._log.backend._connections  # type: ignore[attr-defined]  # no public way in

    def child() -> None:
        with pytest.raises(UnsupportedOperationError, match="forked"):
            store.append(an_event())

    with connections.reading():
        assert in_child(child) == 0

    assert store.append(an_event()).sequence == 2


def test_a_log_in_memory_goes_on_on_both_sides() -> None:
    with open_store("sqlite:///:memory:") as store:
        store.append(an_event())

        def child() -> None:
            assert store.append(an_event()).sequence == 2
            assert store.count_events() == 2

        assert in_child(child) == 0
        assert store.append(an_event()).sequence == 2


# --- What may outlive a loan, and what comes over all the same


def handles_of(path: Path) -> int:
    """Return how many descriptors of the file this process has."""
    file = path.stat()
    count = 0
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, no paths
        with suppress(OSError):
            count += os.path.samestat(os.fstat(int(name)), file)
    return count


def refuses(work: Callable[[], object]) -> None:
    with pytest.raises(UnsupportedOperationError, match="forked"):
        work()


def test_a_fork_right_after_a_commit_gives_the_child_no_handle(
    open_log: Callable[..., EventStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a fork at the place where a commit has given its connection back, but not returned
    store = open_log()
    store.append(an_event())
    codes: list[int] = []

    def child() -> None:
        assert handles_of(path) == 0

    class Forks(type):
        def __instancecheck__(cls, _: object) -> bool:
            codes.append(in_child(child))
            return False

    class Repeated(metaclass=Forks):
        pass

    monkeypatch.setattr(sqlite_backend, "Repeated", Repeated)
    store.append(an_event())

    assert codes == [0]


def test_what_holds_on_to_a_cursor_holds_no_file(sqlite: SqliteBackend, path: Path) -> None:
    # Given a traceback with the cursor of a statement that was under way
    def fail() -> None:
        with sqlite._connections.writing(1) as cursor:
            cursor.execute("SELECT 1 UNION SELECT 2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    with sqlite._connections.reading() as kept:
        kept.execute("SELECT 1 UNION SELECT 2")

    def child() -> None:
        assert handles_of(path) == 0

    assert in_child(child) == 0
    sqlite.close()
    assert handles_of(path) == 0
    assert caught.traceback
    with pytest.raises(sqlite3.ProgrammingError):
        kept.fetchall()


def test_forks_beside_appends_lose_nothing(open_log: Callable[..., EventStore], path: Path) -> None:
    """EVENTSTORE_TEST_FORKS=200 runs it for longer."""
    forks = int(os.environ.get("EVENTSTORE_TEST_FORKS", "25"))
    store = open_log()
    store.append(an_event())
    acknowledged = path.with_suffix(".acknowledged")
    stop = threading.Event()

    def append_one() -> None:
        event = store.append(an_event())
        with acknowledged.open("a") as file:
            file.write(f"{event.sequence} {event.event_id}\n")

    def append_many() -> None:
        while not stop.is_set():
            append_one()

    def child() -> None:
        for _ in range(3):
            append_one()

    writers = [threading.Thread(target=append_many) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        codes = [in_child(child) for _ in range(forks)]
    finally:
        stop.set()
        for writer in writers:
            writer.join(30)

    assert codes == [0] * forks
    told = dict(line.split() for line in acknowledged.read_text().splitlines())
    stored = {str(event.sequence): str(event.event_id) for event in store.get_events()}
    assert len(told) == len(acknowledged.read_text().splitlines()) == len(stored) - 1
    assert told.items() <= stored.items()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_a_file_that_was_being_read_is_refused_in_the_child_by_whatever_path(
    open_log: Callable[..., EventStore], path: Path, closed: bool
) -> None:
    # Given a read that is longer than the timeout, of a store that is closed meanwhile or not
    symbolic, hard = path.with_name("symbolic.db"), path.with_name("hard.db")
    symbolic.symlink_to(path)
    store = open_log(timeout=0.2)
    store.append(an_event())
    hard.hardlink_to(path)

    def open_other() -> None:
        for each in (path, symbolic, hard):
            refuses(lambda each=each: open_store(f"sqlite:///{each}"))  # type: ignore[misc]

    def child() -> None:
        open_other()
        assert in_child(open_other) == 0
        with open_store(f"sqlite:///{path.with_name('another.db')}") as another:
            assert another.append(an_event()).sequence == 1
            assert in_child(open_other) == 0
            assert another.append(an_event()).sequence == 2

    connections = store._log.backend._connections  # type: ignore[attr-defined]  # no public way in
    with connections.reading():
        if closed:
            store.close()
        assert in_child(child) == 0

    hard.unlink()
    with open_store(f"sqlite:///{path}") as again:
        assert again.append(an_event()).sequence == 2
        assert in_child(lambda: again.append(an_event())) == 0
        assert again.get_current_sequence() == 3


def test_a_connection_of_the_callers_that_came_over_a_fork_is_refused(
    store: EventStore, path: Path, connect: Callable[..., sqlite3.Connection]
) -> None:
    connection = connect()
    store.append(an_event(), connection=connection)
    connection.commit()

    def child() -> None:
        refuses(lambda: store.append(an_event(), connection=connection))
        refuses(lambda: store.append(an_event()))
        refuses(lambda: open_store(f"sqlite:///{path}"))

    assert in_child(child) == 0
    connection.close()
    assert in_child(lambda: store.append(an_event())) == 0
    assert store.append(an_event()).sequence == 3


def test_a_loan_that_ends_in_the_child_closes_nothing(
    open_log: Callable[..., EventStore], path: Path
) -> None:
    store = open_log(timeout=0.2)
    store.append(an_event())
    connections = store._log.backend._connections  # type: ignore[attr-defined]  # no public way in
    loan = connections.reading()

    def child() -> None:
        handles = handles_of(path)
        loan.__exit__(None, None, None)
        assert handles_of(path) == handles > 0

    loan.__enter__()
    assert in_child(child) == 0
    loan.__exit__(None, None, None)
    assert store.append(an_event()).sequence == 2


def test_threads_that_fork_at_once_are_not_in_each_others_way(
    open_log: Callable[..., EventStore], path: Path
) -> None:
    stores = [open_log(namespace=name) for name in ("a", "b", "c")]

    def child() -> None:
        assert handles_of(path) == 0
        for store in stores:
            store.append(an_event())

    codes: list[int] = []

    def fork() -> None:
        for store in stores:
            store.append(an_event())
            codes.append(in_child(child))

    threads = [threading.Thread(target=fork) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert codes == [0] * 9
    assert [store.get_current_sequence() for store in stores] == [12, 12, 12]
