"""Nothing that somebody else put at the front of the search path is ever called."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from eventstore import (
    AppendCondition,
    ConditionFailedError,
    EventQuery,
    StoreUnavailableError,
    drop_namespace,
    open_store,
)
from eventstore.testing.conformance import ConformanceSuite, Harness
from eventstore.testing.conformance.crews import Thread
from eventstore_postgres import PostgresBackend
from tests.kit.servers import PostgresServer, start_postgres
from tests.postgres.joins import PostgresJoins, set_formats
from tests.postgres.traps import PATH, calls, plant
from tests.postgres.work import WAIT, holders, note, wait_until

POOLED: dict[str, Any] = {"prepare_threshold": None}


@pytest.fixture(scope="module")
def hostile(server: PostgresServer) -> Iterator[PostgresServer]:
    """A server whose superuser has such a schema first in the search path."""
    with start_postgres() as hostile:
        with psycopg.connect(hostile.url, autocommit=True) as admin:
            assert plant(admin) > 2000
            # Of the role, so that it is there from a session's first statement.
            admin.execute(f"ALTER ROLE postgres SET search_path = {PATH}")
        yield hostile


@pytest.fixture
def watch(hostile: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the superuser's that sees no trap; at the end none was called."""
    with psycopg.connect(hostile.url, autocommit=True) as admin:
        admin.execute("SET search_path = pg_catalog")
        before = calls(admin)
        yield admin
        assert calls(admin) == before


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT FROM pg_catalog.pg_class WHERE oid = 1",
        "SELECT 'a'::pg_catalog.text || 'b'::pg_catalog.text",
        "SELECT '{}'::pg_catalog.text[] @> '{}'::pg_catalog.text[]",
        "SELECT 1::pg_catalog.int8 IN (2::pg_catalog.int8)",
        "SELECT count(*) FROM pg_catalog.pg_class",
        "SELECT max(2::pg_catalog.int8)",
        "SELECT current_setting('fsync'::pg_catalog.text)",
        "SELECT pg_total_relation_size('pg_catalog.pg_class'::pg_catalog.regclass)",
        "SELECT now()",
        "SELECT 'a'::text",
        "SELECT FROM pg_locks",
    ],
)
def test_the_traps_are_sprung_by_names_that_are_not_qualified(
    hostile: PostgresServer, statement: str
) -> None:
    with (
        psycopg.connect(hostile.url, autocommit=True) as careless,
        pytest.raises(psycopg.errors.RaiseException),
    ):
        careless.execute(statement)


class _Watched(ConformanceSuite):
    """The suite, in a log whose users all have the traps first in their search path."""

    @pytest.fixture(autouse=True)
    def _nothing_is_called(self, watch: psycopg.Connection[Any]) -> None:
        """See ``watch``."""


class TestPooled(_Watched):
    """Behind a pooler: no session keeps its settings."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, hostile: PostgresServer, pytestconfig: pytest.Config) -> Harness:
        return Harness(
            url=hostile.url,
            options=POOLED,
            joins=PostgresJoins(hostile.url, path=PATH),
            set_formats=partial(set_formats, hostile.url),
            history_seconds=pytestconfig.getoption("--history-seconds"),
        )


@pytest.mark.parametrize("options", [{}, POOLED], ids=["held", "pooled"])
def test_no_trap_is_sprung_by_what_is_not_in_the_suite(
    hostile: PostgresServer, watch: psycopg.Connection[Any], options: dict[str, Any]
) -> None:
    namespace = "apart"
    # Given a log, made by a store; and what a store tells of it
    with open_store(hostile.url, namespace=namespace, timeout=0.5, **options) as store:
        assert int(str(store.info()["size_bytes"])) > 0
        tagged = store.append(note(tags=("a", "b")))
        # When a condition is judged under the lock
        backend = store._log.backend
        assert isinstance(backend, PostgresBackend)
        with pytest.raises(ConditionFailedError):
            store.append(note(), condition=AppendCondition(EventQuery(tags=["a"])))
        # … and an append waits in vain, is told by whom, and a joined one as well
        with psycopg.connect(hostile.url) as other, psycopg.connect(hostile.url) as third:
            holder = Thread(lambda: store.append(note(), connection=other))
            holder.result(WAIT)
            wait_until(lambda: holders(watch, namespace), "the lock")
            with pytest.raises(StoreUnavailableError, match="process"):
                store.append(note())
            with pytest.raises(StoreUnavailableError, match="process"):
                store.append(note(), connection=third)
            other.rollback()
        assert list(store.get_events(EventQuery(tags=["b"]))) == [tagged]
    # … and removed
    drop_namespace(hostile.url, namespace=namespace, **options)


def test_printed_ddl_makes_the_same_log_whatever_its_reader_has_in_the_path(
    hostile: PostgresServer, watch: psycopg.Connection[Any]
) -> None:
    from eventstore.registry import schema_ddl

    with psycopg.connect(hostile.url, autocommit=True) as careless:
        careless.execute(schema_ddl(hostile.url, namespace="printed"))
    with open_store(hostile.url, namespace="printed", create=False) as store:
        assert store.append(note(tags=("a",))).sequence == 1
    drop_namespace(hostile.url, namespace="printed")
