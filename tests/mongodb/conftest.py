"""Private servers for the tests of the MongoDB adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

from eventstore import drop_namespace
from tests.kit.backends import BACKENDS
from tests.kit.servers import ServerUnavailableError
from tests.kit.servers.mongodb import MongoServer, start_mongodb


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Iterator[MongoServer]:
    """A server that all tests share, and none stops or sets differently."""
    try:
        server = start_mongodb()
    except ServerUnavailableError as error:
        if BACKENDS["mongodb"].asked_for or "mongodb" in pytestconfig.getoption("--backend"):
            pytest.fail(f"mongodb was asked for: {error}", pytrace=False)
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def start(server: MongoServer) -> Iterator[Callable[..., MongoServer]]:
    """Starts a server of the test's own; it is skipped where there is none."""
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(start_mongodb(**options))


@pytest.fixture
def namespace(server: MongoServer) -> Iterator[str]:
    """A log of the test's own on the shared server."""
    name = f"t{uuid4().hex[:12]}"
    yield name
    drop_namespace(server.url, namespace=name)


@pytest.fixture(params=["mongomock", "mongodb"])
def url(request: pytest.FixtureRequest) -> str:
    """The fake, or the shared server."""
    if request.param == "mongomock":
        return f"mongomock://{uuid4().hex}"
    server: MongoServer = request.getfixturevalue("server")
    return server.url
