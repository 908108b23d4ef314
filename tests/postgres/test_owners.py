"""A log is used only where its objects belong to a role that may be trusted; and a stricter way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from eventstore import (
    AppendCondition,
    ConditionFailedError,
    ConfigurationError,
    EventQuery,
    EventStore,
    StoreUnavailableError,
    UnsupportedOperationError,
    VersionConflictError,
    drop_namespace,
    open_store,
)
from eventstore.registry import schema_ddl
from eventstore.testing.conformance.base import assert_log_is_sound
from tests.kit.secrets_scan import a_password
from tests.kit.servers import PostgresServer
from tests.postgres.work import WAIT, note, url_as

Admin = psycopg.Connection[Any]

TRAP = """
    CREATE OR REPLACE FUNCTION {namespace}.lock_log(_patience bigint) RETURNS boolean
    LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE {role} SUPERUSER'; RETURN true; END $$
"""


@pytest.fixture
def mallory(admin: Admin, role: str) -> str:
    """A role that may make schemas, as many may in a shared database."""
    admin.execute(f"GRANT CREATE ON DATABASE postgres TO {role}")
    return role


@pytest.fixture
def victim(admin: Admin) -> Iterator[str]:
    """An ordinary role that may make schemas too."""
    name = f"v{uuid4().hex[:16]}"
    with ExitStack() as after:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{a_password()}'")
        after.callback(admin.execute, f"DROP ROLE {name}")
        after.callback(admin.execute, f"DROP OWNED BY {name}")
        admin.execute(f"GRANT CREATE ON DATABASE postgres TO {name}")
        yield name


def is_superuser(admin: Admin, role: str) -> bool:
    row = admin.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    assert row is not None
    return bool(row[0])


@pytest.mark.parametrize("who", ["a superuser", "another role"])
@pytest.mark.parametrize("made", ["an empty schema", "a whole log", "a log with a trap"])
@pytest.mark.parametrize("options", [{}, {"prepare_threshold": None}], ids=["held", "pooled"])
def test_a_schema_that_somebody_else_made_first_is_refused(
    server: PostgresServer,
    admin: Admin,
    mallory: str,
    *,
    victim: str,
    namespace: str,
    who: str,
    made: str,
    options: dict[str, Any],
) -> None:
    # Given who made a schema of that name before, open to all
    with psycopg.connect(url_as(server, mallory), autocommit=True) as theirs:
        if made == "an empty schema":
            theirs.execute(f"CREATE SCHEMA {namespace}")
        else:
            open_store(url_as(server, mallory), namespace=namespace).close()
        theirs.execute(f"GRANT ALL ON SCHEMA {namespace} TO PUBLIC")
        if made == "a log with a trap":
            theirs.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {namespace} TO PUBLIC")
            theirs.execute(TRAP.format(namespace=namespace, role=mallory))
    before = admin.execute("SELECT count(*) FROM pg_class").fetchone()
    # When others open it, then they are told whose it is, and run nothing there
    url = server.url if who == "a superuser" else url_as(server, victim)
    with pytest.raises(ConfigurationError, match=f"schema of '{mallory}'"):
        open_store(url, namespace=namespace, **options)
    assert not is_superuser(admin, mallory)
    assert admin.execute("SELECT count(*) FROM pg_class").fetchone() == before


AS_MALLORY = "SET ROLE {1}; %s; RESET ROLE"
OVERLOAD = "CREATE FUNCTION {0}.append_one() RETURNS int LANGUAGE sql AS 'SELECT 1'"
TRIGGER = """
    CREATE FUNCTION {0}.theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER theirs BEFORE INSERT ON {0}.events
        FOR EACH ROW EXECUTE FUNCTION {0}.theirs()
"""


@pytest.mark.parametrize(
    ("what", "statement"),
    [
        ("table events", "ALTER TABLE {0}.events OWNER TO {1}"),
        ("table log", "ALTER TABLE {0}.log OWNER TO {1}"),
        ("function append_one", "ALTER FUNCTION {0}.append_one OWNER TO {1}"),
        ("function append_one", AS_MALLORY % OVERLOAD),
        ("trigger theirs", AS_MALLORY % TRIGGER),
    ],
)
def test_each_part_that_belongs_to_another_is_named(
    server: PostgresServer,
    admin: Admin,
    mallory: str,
    *,
    store: EventStore,
    namespace: str,
    what: str,
    statement: str,
) -> None:
    admin.execute(f"GRANT ALL ON SCHEMA {namespace} TO {mallory}")
    admin.execute(f"GRANT TRIGGER ON {namespace}.events TO {mallory}")
    admin.execute(statement.format(namespace, mallory))

    with pytest.raises(ConfigurationError, match=f"{what} of '{mallory}'"):
        open_store(server.url, namespace=namespace)

    open_store(server.url, namespace=namespace, owner=mallory).close()
    admin.execute(f"REASSIGN OWNED BY {mallory} TO postgres")


def test_a_log_of_a_role_that_one_is_a_member_of_is_used(
    server: PostgresServer, admin: Admin, mallory: str, victim: str
) -> None:
    # Given a group of which both are members, and which owns the log of one
    namespace = mallory
    with open_store(url_as(server, mallory), namespace=namespace) as store:
        store.append(note())
    admin.execute(f"GRANT {mallory} TO {victim}")
    # When the other opens it, then it may
    with open_store(url_as(server, victim), namespace=namespace) as store:
        assert store.append(note()).sequence == 2
    # … but a superuser, who is counted a member of every role, is asked to say so
    with pytest.raises(ConfigurationError, match="owner="):
        open_store(server.url, namespace=namespace)
    with open_store(server.url, namespace=namespace, owner=mallory) as store:
        assert store.append(note()).sequence == 3


def test_the_owner_of_the_database_may_own_the_log(
    server: PostgresServer, admin: Admin, mallory: str, victim: str
) -> None:
    database = f"d{uuid4().hex[:16]}"
    admin.execute(f"CREATE DATABASE {database} OWNER {mallory}")
    try:
        url = url_as(server, mallory).replace("/postgres", f"/{database}")
        # In "public", which belongs to a role that stands for the owner of the database.
        for namespace in ("public", "orders"):
            with open_store(url, namespace=namespace) as store:
                store.append(note())
            with open_store(
                server.url.removesuffix("postgres") + database, namespace=namespace
            ) as store:
                assert store.append(note()).sequence == 2
    finally:
        admin.execute(f"DROP DATABASE {database} WITH (FORCE)")


def test_an_overload_added_later_is_never_meant(
    server: PostgresServer, admin: Admin, mallory: str, store: EventStore, namespace: str
) -> None:
    # Given a log in whose schema another role may make functions, as all once might in "public"
    admin.execute(f"GRANT ALL ON SCHEMA {namespace} TO {mallory}")
    row = admin.execute(
        "SELECT pg_get_function_identity_arguments(oid) FROM pg_proc"
        " WHERE pronamespace = to_regnamespace(%s) AND proname = 'append_one'",
        (namespace,),
    ).fetchone()
    assert row is not None
    (arguments,) = row
    arguments = arguments.split(", OUT ")[0].replace("uuid", "text")
    admin.execute(
        f"SET ROLE {mallory}; CREATE FUNCTION {namespace}.append_one({arguments}) RETURNS record"
        " LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $x$called$x$; END'; RESET ROLE"
    )
    # When a store that is open appends, then by the function that it knows
    assert store.append(note()).sequence == 1


def test_a_role_without_rights_that_takes_the_lock_is_named_and_can_be_kept_out(
    server: PostgresServer, admin: Admin, role: str
) -> None:
    database = f"d{uuid4().hex[:16]}"
    admin.execute(f"CREATE DATABASE {database}")
    try:
        theirs = url_as(server, role).removesuffix("postgres") + database
        ours = server.url.removesuffix("postgres") + database
        with open_store(ours, timeout=0.3) as store:
            # Given a role that may do nothing but connect, and takes the advisory lock
            with psycopg.connect(theirs, autocommit=True) as mallory:
                mallory.execute(
                    "SELECT pg_advisory_lock((1702260588::bigint << 32) | c.oid::bigint)"
                    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE n.nspname = 'eventstore' AND c.relname = 'events'"
                )
                with pytest.raises(StoreUnavailableError, match=f"of '{role}'") as caught:
                    store.append(note())
                assert not caught.value.may_have_written
            # When the right to connect is taken from all
            admin.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
            # Then it cannot
            with pytest.raises(psycopg.OperationalError, match="permission denied"):
                psycopg.connect(theirs)
            assert store.append(note()).sequence == 1
    finally:
        admin.execute(f"DROP DATABASE {database} WITH (FORCE)")


# --- The stricter schema


def test_with_the_strict_schema_a_role_appends_by_the_functions_alone(
    server: PostgresServer, admin: Admin, namespace: str, role: str
) -> None:
    # Given what `eventstore schema --strict` prints, run by an administrator, the grants too
    printed = schema_ddl(server.url, namespace=namespace, strict=True)
    admin.execute(printed)
    grants = printed[printed.index("-- GRANT") :].replace("-- ", "")
    assert "INSERT" not in grants
    admin.execute(grants.replace('"app"', role))
    url = url_as(server, role)

    # When a role that may do nothing else works with the log
    with open_store(url, namespace=namespace, create=False, strict=True) as store:
        first = store.append(note())
        store.append_batch([note(), note("n-2")])
        store.append_batch([note("large", data={"n": n}) for n in range(500)])
        assert store.append(first.as_new(), expected_version=2).version == 3
        assert store.append(first) == first
        with pytest.raises(VersionConflictError):
            store.append(note(), expected_version=7)
        with pytest.raises(ConditionFailedError):
            store.append(note(), condition=AppendCondition(EventQuery(entity_id="n-2")))
        with psycopg.connect(url) as connection:
            store.append_batch([note("joined")], connection=connection)
        assert store.wait_for_events(504, timeout=WAIT)
        assert len(assert_log_is_sound(store)) == 505

        # Then it may write in no other way, nor in the name of who may
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in (
                f"INSERT INTO {namespace}.events SELECT * FROM {namespace}.events",
                f"UPDATE {namespace}.events SET version = 2",
                f"DELETE FROM {namespace}.events",
                f"TRUNCATE {namespace}.events",
                f"UPDATE {namespace}.log SET least_writer = 2",
                f"DROP TABLE {namespace}.events",
                f"SELECT {namespace}.lock_log(1)",
                f"CREATE FUNCTION {namespace}.lock_log() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                "SET ROLE eventstore_owner",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
    logins = admin.execute(
        "SELECT DISTINCT rolcanlogin FROM pg_roles JOIN pg_proc ON proowner = pg_roles.oid"
        " WHERE pronamespace = to_regnamespace(%s)",
        (namespace,),
    ).fetchall()
    assert logins == [(False,)]

    # … and without a word on who owns it, the log is not used.
    with pytest.raises(ConfigurationError, match="eventstore_owner"):
        open_store(url, namespace=namespace, create=False)


def test_functions_that_run_as_their_owner_see_no_path_but_their_own(
    server: PostgresServer, admin: Admin, namespace: str, role: str
) -> None:
    admin.execute(schema_ddl(server.url, namespace=namespace, strict=True))
    found = admin.execute(
        "SELECT proname, proconfig FROM pg_proc"
        " WHERE prosecdef AND pronamespace = to_regnamespace(%s) ORDER BY 1",
        (namespace,),
    ).fetchall()

    assert [name for name, _ in found] == ["append_many", "append_one", "log_state"]
    assert all(config == ["search_path=pg_catalog, pg_temp"] for _, config in found)


def test_a_strict_log_is_made_by_a_store_too(server: PostgresServer, namespace: str) -> None:
    with open_store(server.url, namespace=namespace, strict=True) as store:
        assert store.append(note()).sequence == 1


def test_the_command_line_prints_the_strict_schema(namespace: str) -> None:
    url = f"postgresql://db.invalid/orders?namespace={namespace}"
    command = [sys.executable, "-m", "eventstore.cli", "schema", url]
    plain, strict = (
        subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=WAIT, check=True
        ).stdout.removesuffix("\n")
        for options in ([], ["--strict"])
    )

    assert plain == schema_ddl(url)
    assert strict == schema_ddl(url, strict=True)
    assert strict.count("SECURITY DEFINER;") == 3
    assert "SECURITY DEFINER;" not in plain


def test_no_other_scheme_has_a_strict_schema() -> None:
    with pytest.raises(UnsupportedOperationError, match=r"^strict: "):
        schema_ddl("sqlite:///x.db", strict=True)


@pytest.mark.parametrize(("name", "value"), [("owner", ""), ("owner", 7), ("strict", "perhaps")])
def test_bad_options_are_refused_by_name(server: PostgresServer, name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        open_store(server.url, **{name: value})


def test_drop_tells_whether_there_was_a_log(server: PostgresServer, namespace: str) -> None:
    assert drop_namespace(server.url, namespace=namespace) is False
    open_store(server.url, namespace=namespace).close()
    assert drop_namespace(server.url, namespace=namespace) is True
    assert drop_namespace(server.url, namespace=namespace) is False
