"""The table of backends that tests and benchmarks run over.

    for backend in selected_backends():
        with backend.base_url() as url:
            with open_store(url, namespace="orders") as store: ...

A row takes its URL from ``EVENTSTORE_TEST_<NAME>_URL`` where that is set, and then it must
answer; else it starts a server of its own. ``EVENTSTORE_TEST_BACKENDS=postgres,redis`` selects
rows. What was asked for in either way must work; a row that was not, and that cannot be had here
(ServerUnavailableError), may be skipped with that reason.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from eventstore.backend import as_flag
from eventstore.backend.settings import redacted
from tests.kit.servers import ServerUnavailableError
from tests.kit.servers.mongodb import mongodb_answers, start_mongodb
from tests.kit.servers.postgres import postgres_answers, start_postgres
from tests.kit.servers.redis import redis_answers, start_redis

_SELECTION: Final = "EVENTSTORE_TEST_BACKENDS"


class BackendUnderTest(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table."""

    name: str
    schemes: tuple[str, ...]
    """Those that a URL from the environment may have: a fake never stands in for a server."""
    start: Callable[[], AbstractContextManager[str]]
    """Makes a private base URL, and whatever is behind it."""
    answers: Callable[[str, int], bool] | None = None
    """Asks the server at a host and port whether it serves; None where there is no server."""
    default_port: int = 0

    @property
    def variable(self) -> str:
        """The environment variable for a URL to use instead of a private one."""
        return f"EVENTSTORE_TEST_{self.name.upper()}_URL"

    @property
    def asked_for(self) -> bool:
        """Whether the environment names it, so that it must work and not be skipped."""
        return bool(os.environ.get(self.variable)) or self.name in _selection()

    @contextmanager
    def base_url(self) -> Iterator[str]:
        """Give a URL to open stores at, each in a namespace of its own.

        Raises ServerUnavailableError.
        """
        given = os.environ.get(self.variable)
        if given:
            self._check(given)
            yield given
        else:
            with self.start() as url:
                yield url

    def _check(self, url: str) -> None:
        if url.partition("://")[0] not in self.schemes:
            raise ServerUnavailableError(
                f"{self.variable}={redacted(url)} must begin with "
                + " or ".join(f"{scheme}://" for scheme in self.schemes)
            )
        address = self._address(url)
        if self.answers and address and not self.answers(*address):
            host, port = address
            raise ServerUnavailableError(
                f"{self.variable}={redacted(url)}: no such server answers at {host}:{port}"
            )

    def _address(self, url: str) -> tuple[str, int] | None:
        """Return where to ask; None (then opening a store shows it) where plain TCP won't do."""
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        encrypted = any(as_flag(name, options.get(name, "false")) for name in ("tls", "ssl"))
        first = parts.netloc.rpartition("@")[2].partition(",")[0]
        host_and_port = urlsplit(f"//{first}")
        host = host_and_port.hostname
        if encrypted or not host or "%" in host or parts.scheme in ("rediss", "mongodb+srv"):
            return None
        return host, host_and_port.port or self.default_port


def selected_backends() -> list[BackendUnderTest]:
    """Return the rows that ``EVENTSTORE_TEST_BACKENDS`` names, all where it is not set."""
    names = _selection()
    unknown = names - BACKENDS.keys()
    if unknown:
        raise ValueError(
            f"{_SELECTION}: there is no {', '.join(sorted(unknown))}; there are "
            + ", ".join(BACKENDS)
        )
    return [backend for backend in BACKENDS.values() if not names or backend.name in names]


def _selection() -> frozenset[str]:
    return frozenset(os.environ.get(_SELECTION, "").replace(",", " ").split())


def _in_process(scheme: str) -> Callable[[], AbstractContextManager[str]]:
    @contextmanager
    def start() -> Iterator[str]:
        # A name of its own, under which every store of this process finds the same data.
        yield f"{scheme}://{secrets.token_hex(8)}"

    return start


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="eventstore-") as directory:
        yield f"sqlite:///{quote(str(Path(directory, 'test.db')))}"


@contextmanager
def _postgres() -> Iterator[str]:
    with start_postgres() as server:
        yield server.url


@contextmanager
def _redis() -> Iterator[str]:
    with start_redis() as server:
        yield server.url


@contextmanager
def _mongodb() -> Iterator[str]:
    with start_mongodb() as server:
        yield server.url


BACKENDS: Final[Mapping[str, BackendUnderTest]] = {
    row.name: row
    for row in (
        BackendUnderTest(name="memory", schemes=("memory",), start=_in_process("memory")),
        BackendUnderTest(name="sqlite", schemes=("sqlite",), start=_sqlite),
        BackendUnderTest(name="fakeredis", schemes=("fakeredis",), start=_in_process("fakeredis")),
        BackendUnderTest(
            name="redis",
            schemes=("redis", "rediss", "redis+cluster"),
            start=_redis,
            answers=redis_answers,
            default_port=6379,
        ),
        BackendUnderTest(name="mongomock", schemes=("mongomock",), start=_in_process("mongomock")),
        BackendUnderTest(
            name="mongodb",
            schemes=("mongodb", "mongodb+srv"),
            start=_mongodb,
            answers=mongodb_answers,
            default_port=27017,
        ),
        BackendUnderTest(
            name="postgres",
            schemes=("postgresql", "postgres"),
            start=_postgres,
            answers=postgres_answers,
            default_port=5432,
        ),
    )
}
"""By name."""
