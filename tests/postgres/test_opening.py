"""What is wrong with a URL, a role or a database is told in one clear error."""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from eventstore import (
    Capability,
    ConfigurationError,
    DurabilityWarning,
    Event,
    EventQuery,
    EventStore,
    EventStoreError,
    StoreUnavailableError,
    UnsupportedOperationError,
    drop_namespace,
    open_store,
)
from eventstore.registry import schema_ddl
from eventstore.testing.conformance.base import assert_log_is_sound
from eventstore.testing.conformance.crews import Thread
from eventstore_postgres import PostgresBackend
from tests.kit.ports import free_port
from tests.kit.secrets_scan import a_password
from tests.kit.servers import PostgresServer, start_postgres
from tests.postgres.work import WAIT, note, url_as

SECRET = a_password()


def test_it_claims_all_capabilities(store: EventStore) -> None:
    assert store.capabilities == frozenset(Capability)


# --- URLs


def test_a_password_with_any_characters_works_when_it_is_encoded(
    server: PostgresServer, admin: psycopg.Connection[Any], role: str
) -> None:
    password = a_password("@p/w:o?r#d%é ")
    admin.execute(f"GRANT CREATE ON DATABASE postgres TO {role}")
    admin.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
    with open_store(url_as(server, role, quote(password, safe="")), namespace=role) as store:
        assert store.append(note()).sequence == 1
        assert "p@ss" not in store.url


@pytest.mark.parametrize(
    "where",
    [
        "postgres:{secret}@127.0.0.1:{port}/postgres",  # a wrong password
        "nobody:{secret}@127.0.0.1:{port}/postgres",
        "postgres:{right}@127.0.0.1:{port}/nosuchdatabase",
        "postgres:{secret}@no-such-host.invalid/postgres",
        "postgres:{secret}@127.0.0.1:{closed}/postgres",
        "postgres:{secret}@127.0.0.1:notaport/postgres",
        "postgres:{secret}/x@127.0.0.1:{port}/postgres",
        "postgres:{secret}@x@127.0.0.1:{port}/postgres",
        "postgres:{secret}%zz@127.0.0.1:{port}/postgres",
        "127.0.0.1:{port}/postgres?user=postgres&password={secret}",
        "postgres@127.0.0.1:{port}/postgres?password={secret}&sslmode=nonsense",
    ],
)
def test_a_bad_url_is_told_without_its_password(server: PostgresServer, where: str) -> None:
    location = where.format(
        secret=SECRET, right=server.password, port=server.port, closed=free_port()
    )
    with pytest.raises(EventStoreError) as caught:
        open_store(f"postgresql://{location}", timeout=5)

    told = "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value, (ConfigurationError, StoreUnavailableError))
    assert SECRET not in told
    assert server.password not in told


def test_libpq_options_pass_through(server: PostgresServer, namespace: str) -> None:
    url = f"{server.url}?sslmode=prefer&application_name=orders&connect_timeout=3"
    with open_store(url, namespace=namespace, keepalives=1) as store:
        backend = store._log.backend
        assert isinstance(backend, PostgresBackend)
        with backend._sessions.reading() as session:
            assert session.info.parameter_status("application_name") == "orders"


# --- Databases


def test_another_encoding_is_refused(
    server: PostgresServer, admin: psycopg.Connection[Any]
) -> None:
    admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(ConfigurationError, match="UTF8"):
            open_store(server.url.removesuffix("postgres") + "latin")
    finally:
        admin.execute("DROP DATABASE latin WITH (FORCE)")


def test_names_compare_by_bytes_whatever_the_locale_of_the_database(
    store: EventStore, admin: psycopg.Connection[Any], namespace: str
) -> None:
    collations = admin.execute(
        "SELECT DISTINCT collname FROM pg_attribute JOIN pg_collation c ON c.oid = attcollation"
        " WHERE attrelid = to_regclass(%s) AND attname <> 'data'",
        (f"{namespace}.events",),
    ).fetchall()
    # Composed and decomposed: alike to people, not by their bytes.
    store.append_batch([note("é"), note("e\N{COMBINING ACUTE ACCENT}"), note("E")])

    assert collations == [("C",)]
    assert store.count_events(EventQuery(entity_id="é")) == 1
    assert store.count_events(EventQuery(entity_id="e")) == 0


def test_a_schema_of_the_same_name_may_hold_other_things(
    server: PostgresServer, admin: psycopg.Connection[Any], namespace: str
) -> None:
    admin.execute(f"CREATE SCHEMA {namespace}; CREATE TABLE {namespace}.invoices (n integer)")
    with open_store(server.url, namespace=namespace) as store:
        store.append(note())
    drop_namespace(server.url, namespace=namespace)

    assert admin.execute(f"SELECT count(*) FROM {namespace}.invoices").fetchone() == (0,)
    assert admin.execute("SELECT to_regclass(%s)", (f"{namespace}.events",)).fetchone() == (None,)
    admin.execute(f"DROP SCHEMA {namespace} CASCADE")


@pytest.mark.parametrize("table", ["events", "log"])
def test_a_table_of_that_name_that_is_not_ours_is_refused_and_left_alone(
    server: PostgresServer, admin: psycopg.Connection[Any], namespace: str, table: str
) -> None:
    admin.execute(f"CREATE SCHEMA {namespace}; CREATE TABLE {namespace}.{table} (n integer)")
    admin.execute(f"INSERT INTO {namespace}.{table} VALUES (7)")

    with pytest.raises(ConfigurationError, match=f"table {table}"):
        open_store(server.url, namespace=namespace)
    with pytest.raises(ConfigurationError, match=f"table {table}"):
        drop_namespace(server.url, namespace=namespace)

    assert admin.execute(f"SELECT n FROM {namespace}.{table}").fetchall() == [(7,)]
    admin.execute(f"DROP SCHEMA {namespace} CASCADE")


def test_a_log_for_newer_writers_is_read_though_its_functions_have_other_names(
    server: PostgresServer, admin: psycopg.Connection[Any], store: EventStore, namespace: str
) -> None:
    recorded = store.append(note())
    admin.execute(f"UPDATE {namespace}.log SET least_writer = 2")
    admin.execute(f"ALTER FUNCTION {namespace}.append_one RENAME TO append_1")

    with open_store(server.url, namespace=namespace) as older:
        assert list(older.get_events()) == [recorded]
        with pytest.raises(UnsupportedOperationError, match="upgrade"):
            older.append(note())
    admin.execute(f"UPDATE {namespace}.log SET least_writer = 1")
    with pytest.raises(ConfigurationError, match="lacks the functions append_one"):
        open_store(server.url, namespace=namespace)
    admin.execute(f"DROP FUNCTION {namespace}.append_1")


@pytest.mark.parametrize("namespace_", ["user", "select", "table", "public"])
def test_any_valid_name_serves_as_a_namespace(server: PostgresServer, namespace_: str) -> None:
    with open_store(server.url, namespace=namespace_) as store:
        store.append(note())
        assert len(list(store.get_events())) == 1
    drop_namespace(server.url, namespace=namespace_)


def test_a_name_that_postgresql_reserves_is_told(server: PostgresServer) -> None:
    with pytest.raises(ConfigurationError, match="pg_orders"):
        open_store(server.url, namespace="pg_orders")


def test_nothing_is_changed_or_removed_in_a_log(
    store: EventStore, admin: psycopg.Connection[Any], namespace: str
) -> None:
    store.append(note())
    admin.execute("SET session_replication_role = replica")  # silences ordinary triggers
    for statement in (
        f"UPDATE {namespace}.events SET version = 2",
        f"DELETE FROM {namespace}.events",
        f"TRUNCATE {namespace}.events",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation, match="only appended"):
            admin.execute(statement)
    assert store.get_current_sequence() == 1


# --- Creating


def test_twenty_may_create_at_once(server: PostgresServer, namespace: str) -> None:
    with ExitStack() as stack:

        def append_one(n: int) -> str:
            store = stack.enter_context(open_store(server.url, namespace=namespace, pool_size=1))
            store.append(note(f"n-{n}"))
            return store.log_id

        threads = [Thread(append_one, n) for n in range(20)]
        assert len({thread.result(WAIT) for thread in threads}) == 1
    with open_store(server.url, namespace=namespace, create=False) as store:
        assert len(assert_log_is_sound(store)) == 20


def test_without_create_what_is_missing_is_told_and_nothing_made(
    server: PostgresServer, admin: psycopg.Connection[Any], namespace: str
) -> None:
    with pytest.raises(ConfigurationError, match="make it with `eventstore init`, or open it with"):
        open_store(server.url, namespace=namespace, create=False)

    assert admin.execute("SELECT to_regnamespace(%s)", (namespace,)).fetchone() == (None,)


def test_a_role_without_rights_is_told_what_it_lacks(server: PostgresServer, role: str) -> None:
    with pytest.raises(ConfigurationError, match="eventstore schema"):
        open_store(url_as(server, role), namespace=role)


def test_the_ddl_and_grants_serve_a_role_with_least_privilege(
    server: PostgresServer, admin: psycopg.Connection[Any], namespace: str, role: str
) -> None:
    # Given what `eventstore schema` prints, run by an administrator, the grants too
    printed = schema_ddl(server.url, namespace=namespace)
    admin.execute(printed)
    grants = printed[printed.index("-- GRANT") :].replace("-- ", "")
    admin.execute(grants.replace('"app"', role))

    # When a role that may do nothing else works with the log
    with open_store(url_as(server, role), namespace=namespace, create=False) as store:
        first = store.append(note())
        store.append_batch([note(), note()])
        store.append_batch([note("large", data={"n": n}) for n in range(500)])
        assert store.append(first.as_new(), expected_version=3).version == 4
        assert store.append(first) == first
        with psycopg.connect(url_as(server, role)) as connection:
            store.append(note("joined"), connection=connection)

        # Then it does, and may do nothing else
        assert store.wait_for_events(504, timeout=WAIT)
        assert len(assert_log_is_sound(store)) == 505
        with psycopg.connect(url_as(server, role), autocommit=True) as connection:
            for statement in (
                f"UPDATE {namespace}.events SET version = 2",
                f"DELETE FROM {namespace}.events",
                f"TRUNCATE {namespace}.events",
                f"UPDATE {namespace}.log SET least_writer = 2",
                f"DROP TABLE {namespace}.events",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


def test_what_is_printed_makes_what_create_makes(
    server: PostgresServer, admin: psycopg.Connection[Any], namespace: str, store: EventStore
) -> None:
    admin.execute(schema_ddl(server.url, namespace=f"{namespace}_b"))
    tables = """
        SELECT c.relname, pg_get_indexdef(i.indexrelid), a.attname, format_type(atttypid, NULL)
        FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0
        LEFT JOIN pg_index i ON i.indexrelid = c.oid
        WHERE relnamespace = to_regnamespace(%s) ORDER BY 1, 3
    """
    functions = """
        SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = to_regnamespace(%s)
        ORDER BY proname
    """
    for query in (tables, functions):
        made = admin.execute(query, (namespace,)).fetchall()
        printed = admin.execute(query, (f"{namespace}_b",)).fetchall()
        assert str(printed).replace(f"{namespace}_b", namespace) == str(made)
    drop_namespace(server.url, namespace=f"{namespace}_b")


# --- Durability


def test_a_server_without_fsync_is_told(server: PostgresServer) -> None:
    with start_postgres(fsync="off") as careless:
        with pytest.warns(DurabilityWarning, match="fsync=on"):
            open_store(careless.url).close()
        with pytest.raises(ConfigurationError, match="fsync=on"):
            open_store(careless.url, durability="strict")
        open_store(careless.url, durability="relaxed").close()


def test_an_unlogged_table_is_told(
    server: PostgresServer, admin: psycopg.Connection[Any], store: EventStore, namespace: str
) -> None:
    admin.execute(f"ALTER TABLE {namespace}.events SET UNLOGGED")
    with pytest.warns(DurabilityWarning, match="SET LOGGED"):
        open_store(server.url, namespace=namespace).close()


def test_relaxed_durability_does_not_wait_for_the_disk(
    server: PostgresServer, namespace: str
) -> None:
    with open_store(server.url, namespace=namespace, durability="relaxed") as store:
        assert "synchronous_commit=off" in str(store.info()["durability"])
        assert store.append(Event(event_type="A", entity_type="b", entity_id="c")).sequence == 1
