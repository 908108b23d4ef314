"""Private servers for the tests of the Redis adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

from eventstore import drop_namespace
from tests.kit.backends import BACKENDS
from tests.kit.fault_work import StartServer
from tests.kit.servers import ServerUnavailableError
from tests.kit.servers.redis import RedisServer, start_redis


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    """A server that all tests share, and none stops or sets differently."""
    try:
        server = start_redis()
    except ServerUnavailableError as error:
        if BACKENDS["redis"].asked_for or "redis" in pytestconfig.getoption("--backend"):
            pytest.fail(f"redis was asked for: {error}", pytrace=False)
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def start(server: RedisServer) -> Iterator[StartServer]:
    """Starts a server of the test's own; it is skipped where there is none."""
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(start_redis(**options))


@pytest.fixture
def namespace(server: RedisServer) -> Iterator[str]:
    """A log of the test's own on the shared server."""
    name = f"t{uuid4().hex[:12]}"
    yield name
    drop_namespace(server.url, namespace=name)
