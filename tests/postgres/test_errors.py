"""What the server says is told as what it means: by SQLSTATE, with the driver's real classes."""

from __future__ import annotations

import sqlite3
import traceback
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventstore import (
    AppendCondition,
    ConfigurationError,
    CorruptLogError,
    EventQuery,
    EventStore,
    EventStoreError,
    LogReplacedError,
    StoreUnavailableError,
    TransactionConflictError,
    drop_namespace,
    open_store,
)
from eventstore.backend import translating
from eventstore.testing.conformance.crews import Thread
from eventstore_postgres.translation import classify
from tests.kit.ports import free_port
from tests.kit.proxy import Proxy
from tests.kit.servers import PostgresServer, start_postgres
from tests.postgres.work import WAIT, note, url_as

PASSING = [
    "08000", "08003", "08006", "25006", "25P03", "40001", "40P01", "53000", "53200", "53300",
    "57P01", "57P02", "57P03", "57P05",
]  # fmt: skip
LASTING = [
    "25P04", "28000", "28P01", "3D000", "53100", "53400", "55P03", "57014", "57P04", "58000",
    "58030", "58P01",
]  # fmt: skip
UNSURE = ["08000", "08003", "08006", "08007", "40003", "57P01", "57P02", "57P03", "57P05"]


def of(sqlstate: str | None) -> psycopg.Error:
    """Return an error of the class that the driver itself has for a code."""
    return psycopg.Error() if sqlstate is None else psycopg.errors.lookup(sqlstate)()


def told(sqlstate: str | None, *, writes: bool = False, **options: Any) -> EventStoreError:
    """Return what is made of it."""
    with (
        pytest.raises(EventStoreError) as caught,
        translating(partial(classify, **options), "the append failed", writes=writes),
    ):
        raise of(sqlstate)
    assert isinstance(caught.value.__cause__, psycopg.Error)
    return caught.value


@pytest.mark.parametrize("sqlstate", PASSING)
def test_what_passes_is_tried_again(sqlstate: str) -> None:
    error = told(sqlstate)
    assert isinstance(error, StoreUnavailableError)
    assert error.transient


@pytest.mark.parametrize("sqlstate", LASTING)
def test_what_stays_is_not_tried_again(sqlstate: str) -> None:
    error = told(sqlstate)
    assert isinstance(error, StoreUnavailableError)
    assert not error.transient


@pytest.mark.parametrize("sqlstate", [*PASSING, *LASTING, None, "08007", "40003"])
def test_an_append_may_be_written_where_its_answer_is_lost(sqlstate: str | None) -> None:
    error = told(sqlstate, writes=True)
    assert isinstance(error, StoreUnavailableError)
    assert error.may_have_written == (sqlstate is None or sqlstate in UNSURE)
    unsent = told(sqlstate)
    assert isinstance(unsent, StoreUnavailableError)
    assert not unsent.may_have_written


@pytest.mark.parametrize("sqlstate", ["42P01", "42883", "3F000"])
def test_what_is_missing_under_an_open_store_was_replaced(sqlstate: str) -> None:
    assert isinstance(told(sqlstate, log="orders"), LogReplacedError)
    assert type(told(sqlstate)) is ConfigurationError


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_a_conflict_in_the_callers_transaction_is_the_callers(sqlstate: str) -> None:
    assert isinstance(told(sqlstate, joined=True), TransactionConflictError)


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("23505", CorruptLogError),
        ("XX001", CorruptLogError),
        ("42501", ConfigurationError),
        ("54000", ConfigurationError),
        ("42939", ConfigurationError),
    ],
)
def test_what_is_no_outage_is_told_as_what_it_is(
    sqlstate: str, kind: type[EventStoreError]
) -> None:
    assert type(told(sqlstate)) is kind


# --- Connecting, where libpq has no SQLSTATE


@pytest.mark.parametrize(
    "where",
    [
        "postgres:wrong@127.0.0.1:{port}/postgres",
        "nobody:wrong@127.0.0.1:{port}/postgres",
        "postgres@127.0.0.1:{port}/postgres?passfile=/dev/null",
        "postgres:{right}@127.0.0.1:{port}/nosuchdatabase",
        "postgres:{right}@no-such-host.invalid:{port}/postgres",
        "postgres:{right}@127.0.0.1:{port}/postgres?sslmode=require",
    ],
)
def test_what_is_wrong_with_a_connection_is_not_tried_again(
    server: PostgresServer, where: str
) -> None:
    url = "postgresql://" + where.format(port=server.port, right=server.password)
    with pytest.raises(StoreUnavailableError) as caught:
        open_store(url)
    assert not caught.value.transient
    assert not caught.value.may_have_written


def test_a_server_that_is_away_or_full_may_be_back(
    server: PostgresServer, admin: psycopg.Connection[Any], role: str
) -> None:
    with pytest.raises(StoreUnavailableError, match="refused") as away:
        open_store(f"postgresql://postgres:x@127.0.0.1:{free_port()}/postgres")
    admin.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    with pytest.raises(StoreUnavailableError, match="too many") as full:
        open_store(url_as(server, role))
    assert away.value.transient
    assert full.value.transient
    for caught in (away, full):
        assert not {"\t", "\n"} & set(str(caught.value))


def test_a_server_without_a_free_connection_is_waited_for(server: PostgresServer) -> None:
    with (
        start_postgres(max_connections="6", superuser_reserved_connections="0") as small,
        ExitStack() as others,
    ):
        for _ in range(6):
            others.enter_context(psycopg.connect(small.url))
        with pytest.raises(StoreUnavailableError, match=r"too many|slots") as caught:
            open_store(small.url, timeout=0.5)
    assert caught.value.transient
    assert not caught.value.may_have_written


@pytest.mark.parametrize(
    "name", ["sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile"]
)
def test_a_file_that_is_not_there_is_told(
    server: PostgresServer, tmp_path: Path, name: str
) -> None:
    options: dict[str, Any] = {name: str(tmp_path / "missing.pem")}
    with pytest.raises(ConfigurationError, match=rf"^{name}: there is no file .*missing.pem") as of:
        open_store(server.url, **options)
    assert server.password not in "".join(traceback.format_exception(of.value))


def test_a_certificate_that_nobody_named_is_asked_for(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    with pytest.raises(ConfigurationError, match=r"^sslrootcert: must be given"):
        open_store(server.url, sslmode="verify-full")


def test_the_other_spelling_of_the_scheme_is_accepted(
    server: PostgresServer, namespace: str
) -> None:
    url = server.url.replace("postgresql://", "postgres://")
    with open_store(url, namespace=namespace) as store:
        assert store.append(note()).sequence == 1


@pytest.mark.parametrize("given", [object(), "connection"])
def test_what_is_no_connection_is_named_with_its_module(store: EventStore, given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"psycopg\.Connection, not builtins\."):
        store.append(note(), connection=given)
    other = sqlite3.connect(":memory:")
    with pytest.raises(ConfigurationError, match=r"psycopg\.Connection, not sqlite3\.Connection"):
        store.append(note(), connection=other)
    other.close()


# --- A full disk, for real


def test_a_full_disk_is_told_at_once_and_nothing_is_written(
    server: PostgresServer, store: EventStore, admin: psycopg.Connection[Any], namespace: str
) -> None:
    # Given a table that the server cannot write to: it says so as it does of a full disk
    store.append(note())
    admin.execute(f"""
        CREATE FUNCTION {namespace}.full() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file: no space' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_ BEFORE INSERT ON {namespace}.events
            FOR EACH STATEMENT EXECUTE FUNCTION {namespace}.full();
    """)
    for events in ([note()], [note(), note()]):
        with pytest.raises(StoreUnavailableError, match="no space") as caught:
            store.append_batch(events)
        assert not caught.value.transient
        assert not caught.value.may_have_written
    admin.execute(f"DROP FUNCTION {namespace}.full CASCADE")
    assert store.append(note()).sequence == 2


# --- A log that was removed, or made anew, under an open store


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("options", [{}, {"prepare_threshold": None}], ids=["held", "pooled"])
def test_a_log_that_is_gone_is_never_written_to(
    server: PostgresServer, namespace: str, anew: bool, options: dict[str, Any]
) -> None:
    with (
        open_store(server.url, namespace=namespace, **options) as store,
        psycopg.connect(server.url) as mine,
    ):
        for _ in range(8):  # until its statements are prepared
            store.append(note())
            store.append_batch([note(), note()])
            store.get_current_sequence()
        waits = AppendCondition(EventQuery(entity_id="nobody"))
        drop_namespace(server.url, namespace=namespace)
        if anew:
            open_store(server.url, namespace=namespace).close()

        for call in (
            lambda: store.append(note()),
            lambda: store.append_batch([note(), note()]),
            lambda: store.append(note(), condition=waits),
            lambda: store.append(note(), expected_version=7),
            lambda: store.append(note(), connection=mine),
            store.get_current_sequence,
            lambda: list(store.get_events()),
        ):
            with pytest.raises(LogReplacedError, match=f"'{namespace}' was removed or replaced"):
                call()
            mine.rollback()
    if anew:
        with open_store(server.url, namespace=namespace) as store:
            assert store.get_current_sequence() == 0


def test_a_log_is_not_replaced_beneath_an_append_that_waits(
    server: PostgresServer, store: EventStore, namespace: str
) -> None:
    # Given an append that waits for a transaction
    store.append(note())
    with psycopg.connect(server.url) as mine:
        store.append(note(), connection=mine)
        waiting = Thread(store.append, note())
        assert waiting.is_running(after=0.2)
        # When the log is to be dropped and made anew meanwhile
        dropping = Thread(lambda: drop_namespace(server.url, namespace=namespace))
        assert dropping.is_running(after=0.2)
        mine.commit()
    # Then the append is whole before that, or refused, and none is in the new log
    with suppress(LogReplacedError):
        assert waiting.result().sequence == 3
    dropping.result()
    with open_store(server.url, namespace=namespace) as anew:
        assert anew.get_current_sequence() == 0


def test_an_answer_that_is_cut_never_hides_what_was_stored(
    server: PostgresServer, namespace: str
) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = server.url_at(proxy.host, proxy.port)
        options: dict[str, Any] = {"retries": 0, "prepare_threshold": None}
        with open_store(url, namespace=namespace, **options) as store:
            repeated = store.append(note())
            cut = proxy.cut_before_answer(b"COMMIT\0")
            with pytest.raises(StoreUnavailableError) as caught:
                store.append_batch([note(), note()])
            assert cut.wait(WAIT)
            assert caught.value.may_have_written
            assert store.append(repeated) == repeated
            assert store.get_current_sequence() == 3
