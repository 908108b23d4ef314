"""A database that is put back to an older copy, or a log that is made anew, under an open store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pymongo
import pytest

from eventstore import (
    CorruptLogError,
    EventStore,
    LogReplacedError,
    StoreUnavailableError,
    drop_namespace,
    open_store,
)
from eventstore.testing.conformance.base import assert_log_is_sound, note, notes
from tests.kit.servers.mongodb import MongoServer

KEPT, LOST = 40, 20


def before_insert(store: EventStore, what: Callable[[], object]) -> None:
    """Call ``what`` before the next insert of ``store``, once everything was looked up."""
    appender: Any = store._log.backend._appender  # type: ignore[attr-defined]
    put = appender._put

    def held(documents: Any) -> None:
        appender._put = put
        what()
        put(documents)

    appender._put = held


def collection_type(store: EventStore) -> Any:
    """Return the class of the driver's, or the fake's, collections."""
    return type(store._log.backend._commits)  # type: ignore[attr-defined]


def test_a_restore_while_an_append_waits_leaves_no_gap(
    start: Callable[[], MongoServer], tmp_path: Path
) -> None:
    # Given a copy of the server's files, and a store that has appended since
    server = start()
    data = server._data
    with (
        open_store(server.url, timeout=30) as store,
        open_store(server.url, timeout=30) as other,
        pymongo.MongoClient[Any](server.url) as client,
    ):
        store.append_batch(notes(KEPT))
        server.stop()
        shutil.copytree(data, tmp_path / "copy")
        server.start()
        for _ in range(LOST):
            store.append(note())

        # When the copy is put back between the store's look at the tail and its insert
        def restore() -> None:
            server.kill()
            shutil.rmtree(data)
            shutil.copytree(tmp_path / "copy", data)
            server.start()
            store._log.backend._client.admin.command("ping")  # type: ignore[attr-defined]

        before_insert(store, restore)
        recorded = store.append(note("after"))

        # Then the append follows what is there, for this and every other store
        assert recorded.sequence == KEPT + 1
        assert other.append(note("other")).sequence == KEPT + 2
        assert len(assert_log_is_sound(store)) == KEPT + 2
        assert (
            client["eventstore"]["eventstore.commits"].count_documents({"last": {"$gt": 42}}) == 0
        )


@pytest.mark.parametrize("at", ["parts", "versions"])
def test_a_commit_is_not_put_beyond_a_gap_for_what_was_looked_up_before_a_restore(
    start: Callable[[], MongoServer], tmp_path: Path, at: str
) -> None:
    # Given a store that has seen more than is in a copy of the server's files
    server = start()
    data = server._data
    with open_store(server.url, timeout=30) as store:
        store.append_batch(notes(KEPT))
        server.stop()
        shutil.copytree(data, tmp_path / "copy")
        server.start()
        for _ in range(LOST):
            store.append(note())
        appender: Any = store._log.backend._appender  # type: ignore[attr-defined]
        reader = appender._reader
        put, versions = appender._put, reader.versions
        commits: list[int] = []

        def restore() -> None:
            server.kill()
            shutil.rmtree(data)
            shutil.copytree(tmp_path / "copy", data)
            server.start()
            store._log.backend._client.admin.command("ping")  # type: ignore[attr-defined]

        def watched(documents: Any) -> None:
            is_commit = "last" in documents[0]
            if is_commit:
                commits.append(documents[0]["_id"])
            elif at == "parts" and not restored:
                restored.append(True)
                restore()
            put(documents)

        def looked_up(*arguments: Any) -> Any:
            if at == "versions" and not restored:
                restored.append(True)
                restore()
            return versions(*arguments)

        restored: list[bool] = []
        appender._put, reader.versions = watched, looked_up
        # When the copy is put back while its parts are written, or versions looked up
        recorded = store.append_batch(notes(30, "new"))

        # Then its commit never stands beyond a gap, where readers would take it for the head
        assert restored
        assert commits == [KEPT + 1]
        assert recorded.sequences[0] == KEPT + 1
        assert len(assert_log_is_sound(store)) == KEPT + 30


def test_an_insert_after_a_gap_is_taken_back_though_the_first_answer_is_lost(url: str) -> None:
    with open_store(url, namespace="rewound") as store:
        backend: Any = store._log.backend
        store.append_batch(notes(3))
        store.append(note())
        delete = backend._commits.delete_one
        asked: list[Any] = []

        class Failing:
            """The collection, whose first answer to a delete is lost."""

            def __getattr__(self, name: str) -> Any:
                return getattr(backend._commits, name)

            def delete_one(self, query: Any) -> Any:
                asked.append(query)
                delete(query)
                if len(asked) == 1:
                    raise pymongo.errors.AutoReconnect("lost")

        backend._appender._commits = Failing()
        backend._appender._trusted = -1.0

        before_insert(store, lambda: backend._commits.delete_many({"_id": {"$gt": 1}}))
        recorded = store.append(note())

        assert len(asked) == 2
        assert recorded.sequence == 4
        assert len(assert_log_is_sound(store)) == 4
    drop_namespace(url, namespace="rewound")


def test_an_appender_waits_where_another_has_left_a_gap(url: str) -> None:
    with open_store(url, namespace="gap", timeout=0.5, retries=0) as store:
        store.append_batch(notes(3))
        backend: Any = store._log.backend
        orphan = {**backend._commits.find_one({"_id": 1}), "_id": 62, "last": 64}
        orphan["token"] = b"of the other"
        backend._commits.insert_one(orphan)
        with open_store(url, namespace="gap", timeout=20) as fresh:
            tail = fresh._log.backend._reader.tail  # type: ignore[attr-defined]

            def take_back() -> Any:
                found = tail()
                backend._commits.delete_one({"_id": 62})
                return found

            fresh._log.backend._reader.tail = take_back  # type: ignore[attr-defined]
            assert fresh.append(note()).sequence == 4
        assert len(assert_log_is_sound(store)) == 4
    drop_namespace(url, namespace="gap")


def test_a_gap_whose_writer_was_killed_refuses_appends_until_it_is_mended_by_hand(
    url: str,
) -> None:
    # Given a commit behind a gap, whose writer was killed before it took it back
    with open_store(url, namespace="mended", timeout=20) as store:
        store.append_batch(notes(3))
        commits: Any = store._log.backend._commits  # type: ignore[attr-defined]
        left = {**commits.find_one({"_id": 1}), "_id": 62, "last": 64, "token": b"of the killed"}
        commits.insert_one(left)
        with (
            open_store(url, namespace="mended", timeout=2, retries=0) as fresh,
            pytest.raises(CorruptLogError, match="sequence 61 is missing"),
        ):
            fresh.append(note())
        assert commits.count_documents({"_id": {"$gt": 1}}) == 1

        # When it is removed as docs/mongodb.md says
        (newest,) = commits.find({"last": {"$exists": True}}).sort("last", -1).limit(1)
        assert newest["_id"] == 62
        assert commits.count_documents({"last": newest["_id"] - 1}) == 0
        commits.delete_one({"_id": newest["_id"], "token": newest["token"]})

        # Then the log goes on where it was
        assert store.append(note()).sequence == 4
        assert len(assert_log_is_sound(store)) == 4
    drop_namespace(url, namespace="mended")


def test_a_log_made_anew_while_an_append_waits_is_left_alone(url: str) -> None:
    with open_store(url, namespace="anew") as store:
        store.append_batch(notes(3))

        def make_anew() -> None:
            drop_namespace(url, namespace="anew")
            with open_store(url, namespace="anew") as anew:
                anew.append_batch(notes(3))

        before_insert(store, make_anew)
        with pytest.raises(LogReplacedError):
            store.append(note())
        with open_store(url, namespace="anew") as anew:
            assert len(assert_log_is_sound(anew)) == 3
    drop_namespace(url, namespace="anew")


def test_the_first_append_of_all_into_a_log_made_anew_is_refused(url: str) -> None:
    with open_store(url, namespace="first") as store:
        assert store.get_current_sequence() == 0

        def make_anew() -> None:
            drop_namespace(url, namespace="first")
            open_store(url, namespace="first").close()

        before_insert(store, make_anew)
        with pytest.raises(LogReplacedError):
            store.append(note())
        with open_store(url, namespace="first") as anew:
            assert anew.get_current_sequence() == 0
    drop_namespace(url, namespace="first")


def test_a_log_that_was_dropped_is_told(url: str) -> None:
    with open_store(url, namespace="dropped") as store:
        store.append_batch(notes(3))
        drop_namespace(url, namespace="dropped")
        for call in (store.get_current_sequence, lambda: store.append(note()), store.checkpoint):
            with pytest.raises(LogReplacedError, match="open it anew"):
                call()


def test_an_append_in_the_midst_of_a_drop_leaves_nothing_behind(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a store that has just seen its log, and so appends without another look
    with open_store(url, namespace="amidst") as store:
        store.append_batch(notes(3))
        kind = collection_type(store)
        drop = kind.drop
        late: list[object] = []

        def and_append(collection: Any) -> None:
            drop(collection)
            if collection.name == "amidst.commits" and not late:
                late.append(None)
                with suppress(LogReplacedError):
                    late.append(store.append(note()).sequence)

        # When it appends right after the log's collection is gone
        monkeypatch.setattr(kind, "drop", and_append)
        assert drop_namespace(url, namespace="amidst")
        monkeypatch.undo()

        # Then nobody takes what it has made for a log, nor for something else
        assert late
        with pytest.raises(LogReplacedError):
            store.append(note())
        with open_store(url, namespace="amidst") as anew:
            assert anew.append(note()).sequence == 1
    drop_namespace(url, namespace="amidst")


def test_a_drop_that_was_cut_off_is_told_and_ended_by_the_next(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(url, namespace="cut_off") as store:
        store.append(note())

    def killed(collection: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(collection_type(store), "drop", killed)
    with pytest.raises(KeyboardInterrupt):
        drop_namespace(url, namespace="cut_off")
    monkeypatch.undo()

    with pytest.raises(StoreUnavailableError, match="drop it again"):
        open_store(url, namespace="cut_off", timeout=3.0)
    assert drop_namespace(url, namespace="cut_off")
    assert not drop_namespace(url, namespace="cut_off")
    with open_store(url, namespace="cut_off") as anew:
        assert anew.get_current_sequence() == 0
    drop_namespace(url, namespace="cut_off")


def test_what_an_append_looks_up_is_of_the_past_that_it_follows(url: str) -> None:
    # Given a log that went on after an appender has seen its tail
    with open_store(url, namespace="followed") as store:
        first, second = store.append(note()), store.append(note())
        reader: Any = store._log.backend._reader  # type: ignore[attr-defined]
        # Then a version or an id that stands beyond counts for nothing: were the log put back to
        # end at that tail, the append would stand, and they would not
        assert reader.versions([first.entity], first.sequence) == {first.entity: 1}
        keys = [(each.tenant_id, each.event_id) for each in (first, second)]
        assert reader.with_ids(keys, first.sequence) == [first]
        assert reader.versions([first.entity]) == {first.entity: 2}
    drop_namespace(url, namespace="followed")


def test_a_join_of_a_log_made_anew_is_refused(server: MongoServer, namespace: str) -> None:
    with (
        open_store(server.url, namespace=namespace) as store,
        pymongo.MongoClient[Any](server.url) as client,
        client.start_session() as session,
    ):
        store.append(note())
        drop_namespace(server.url, namespace=namespace)
        with open_store(server.url, namespace=namespace) as anew:
            with session.start_transaction():
                with pytest.raises(LogReplacedError):
                    store.append(note(), connection=session)
                session.abort_transaction()
            assert anew.get_current_sequence() == 0


def test_a_log_that_is_only_out_of_reach_is_not_called_replaced(
    start: Callable[[], MongoServer],
) -> None:
    server = start()
    with open_store(server.url, timeout=0.5, retries=0) as store:
        store.append(note())
        server.stop()
        with pytest.raises(StoreUnavailableError):
            store.get_current_sequence()
        server.start()
        assert store.get_current_sequence() == 1
