"""Private servers for the tests of the PostgreSQL adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from eventstore import EventStore, drop_namespace, open_store
from tests.kit.backends import BACKENDS
from tests.kit.secrets_scan import a_password
from tests.kit.servers import PostgresServer, ServerUnavailableError, start_postgres


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """A server that all tests share, and none stops or sets differently."""
    try:
        server = start_postgres()
    except ServerUnavailableError as error:
        if BACKENDS["postgres"].asked_for or "postgres" in pytestconfig.getoption("--backend"):
            pytest.fail(f"postgres was asked for: {error}", pytrace=False)
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="module")
def own_server(server: PostgresServer) -> Iterator[PostgresServer]:
    """A server that the tests of one module may stop and start."""
    with start_postgres() as own:
        yield own


@pytest.fixture
def namespace(server: PostgresServer) -> Iterator[str]:
    """A log of the test's own on the shared server."""
    name = f"t{uuid4().hex[:16]}"
    yield name
    drop_namespace(server.url, namespace=name)


@pytest.fixture
def store(server: PostgresServer, namespace: str) -> Iterator[EventStore]:
    """A store over an empty log on the shared server."""
    with open_store(server.url, namespace=namespace) as store:
        yield store


@pytest.fixture
def admin(server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """The superuser's connection to the shared server, in autocommit mode."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(server: PostgresServer, admin: psycopg.Connection[Any]) -> Iterator[str]:
    """A role of the test's own that can log in and owns nothing."""
    name = f"r{uuid4().hex[:16]}"
    with ExitStack() as after:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{a_password()}'")
        after.callback(admin.execute, f"DROP ROLE {name}")
        after.callback(admin.execute, f"DROP OWNED BY {name}")
        yield name
