"""Connections to one server, or to the node of a cluster that holds the log, and what
redis-py's errors mean here.

Commands are sent over redis-py's connections and pools, below its client: the store tries
again by itself, must know whether a command was sent before a connection broke, and needs
WAIT on the connection of the commit it waits for.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import BlockingConnectionPool, Connection, SSLConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from eventstore.errors import (
    ConfigurationError,
    CorruptLogError,
    EventStoreError,
    StoreClosedError,
    StoreUnavailableError,
)
from eventstore.url import Settings
from eventstore_redis.options import connection_options

Command = Sequence[str | bytes | int]

_REDIRECTS: Final = 5
"""How many MOVED or ASK in a row are followed."""
_SECONDS_TO_END: Final = 2.0
"""How long closing waits for reads in flight."""


class Connections(ABC):
    """Ways to the server that holds a log."""

    def __init__(self) -> None:
        self._in_use = 0
        self._closed = False
        self._changed = threading.Condition()

    @abstractmethod
    def exchange(self, commands: Sequence[Command], timeout: float | None) -> list[Any]:
        """Send commands over one connection; return their replies, errors among them as values.

        Where ``timeout`` is given, each reply may take so many seconds, and else socket_timeout.
        Raises StoreUnavailableError where nothing was sent, redis-py's errors otherwise.
        """

    @abstractmethod
    def exchange_with_each(self, commands: Sequence[Command]) -> Iterator[list[Any]]:
        """Yield the replies of every server that may hold the log."""

    def close(self) -> None:
        """Close all connections; what is being read ends first, if that does not take long."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._in_use, _SECONDS_TO_END)
        self._disconnect()

    @abstractmethod
    def _disconnect(self) -> None:
        """Close all connections."""

    def _exchange(self, pool: Any, commands: Sequence[Command], timeout: float | None) -> list[Any]:
        with self._changed:
            if self._closed:
                raise StoreClosedError("the store is closed")
            self._in_use += 1
        try:
            return _exchange(pool, commands, timeout)
        finally:
            with self._changed:
                self._in_use -= 1
                self._changed.notify_all()


def _exchange(pool: Any, commands: Sequence[Command], timeout: float | None) -> list[Any]:
    try:
        connection = pool.get_connection()
    except (RedisError, OSError) as error:
        raise translated(error, sent=False) from error
    try:
        for command in commands:
            connection.send_command(*command)
        replies: list[Any] = []
        for _ in commands:
            if timeout is not None and not connection.can_read(timeout):
                raise RedisTimeoutError(f"no reply within {timeout:.3g} s")
            try:
                replies.append(connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


class Server(Connections):
    """Connections to a single server."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self._pool = pool

    @classmethod
    def at(cls, settings: Settings) -> Server:
        """Make a pool for a URL; it connects when first used."""
        kind = SSLConnection if settings.scheme == "rediss" else Connection
        pool = BlockingConnectionPool(  # type: ignore[no-untyped-call]  # redis-py's
            connection_class=kind,
            timeout=settings.timeout,
            retry=Retry(NoBackoff(), 0),
            **connection_options(settings),
        )
        return cls(pool)

    def exchange(self, commands: Sequence[Command], timeout: float | None) -> list[Any]:
        return self._exchange(self._pool, commands, timeout)

    def exchange_with_each(self, commands: Sequence[Command]) -> Iterator[list[Any]]:
        yield self.exchange(commands, None)

    def _disconnect(self) -> None:
        self._pool.disconnect()


class Cluster(Connections):
    """Connections to the node that holds a log's slot, wherever that moves."""

    def __init__(self, settings: Settings, key: str) -> None:
        super().__init__()
        options = connection_options(settings)
        scheme = "rediss" if options.pop("ssl", False) else "redis"
        host = options.pop("host")
        host = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{host}:{options.pop('port')}"
        self._key = key
        self._client: Any = RedisCluster(url=url, retry=Retry(NoBackoff(), 0), **options)

    def exchange(self, commands: Sequence[Command], timeout: float | None) -> list[Any]:
        pool = self._pool_of(self._client.get_node_from_key(self._key))
        replies: list[Any] = []
        asking = False
        for _ in range(_REDIRECTS):
            sent = [("ASKING",), *commands] if asking else commands
            try:
                replies = self._exchange(pool, sent, timeout)[len(sent) - len(commands) :]
            except (RedisError, OSError, StoreUnavailableError):
                self._look_around()
                raise
            redirect = replies[0]
            if not isinstance(redirect, AskError):  # nor a MovedError: that is one too
                break
            asking = not isinstance(redirect, MovedError)
            if not asking:
                self._look_around()
            node = self._client.get_node(redirect.host, redirect.port)
            if node is None:
                break
            pool = self._pool_of(node)
        return replies

    def exchange_with_each(self, commands: Sequence[Command]) -> Iterator[list[Any]]:
        for node in self._client.get_primaries():
            yield self._exchange(self._pool_of(node), commands, None)

    def _disconnect(self) -> None:
        self._client.close()

    def _pool_of(self, node: Any) -> Any:
        return self._client.get_redis_connection(node).connection_pool

    def _look_around(self) -> None:
        """Learn which node holds what; keep what is known if no node tells."""
        with suppress(RedisError, RedisClusterException, OSError):
            self._client.nodes_manager.initialize()


_TRANSIENT: Final = re.compile(r"\b(BUSY|READONLY|NOREPLICAS|CLUSTERDOWN)\b")
_LASTING: Final = re.compile(r"\b(OOM|MISCONF|GONE)\b")
_CORRUPT: Final = re.compile(r"\b(CORRUPT|WRONGTYPE|XADD)\b")
"""Codes of error replies: redis-py knows few, and older servers wrap those from scripts."""
_TRANSIENT_ERRORS: Final = (
    BusyLoadingError,
    ReadOnlyError,
    TryAgainError,
    ClusterDownError,
    AskError,
    NoScriptError,
)


@contextmanager
def translating(*, sent: bool) -> Iterator[None]:
    """Raise the driver's errors as this package's; ``sent``: what failed may be done."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        raise translated(error, sent=sent) from error


def translated(error: Exception, *, sent: bool) -> EventStoreError:
    """Return what an error of the driver or the server means here.

    A script refused as a whole, and each of these refusals is, has written nothing.
    """
    text = str(error)
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
        return ConfigurationError(f"url: the server refuses this user or password: {text}")
    if isinstance(error, _TRANSIENT_ERRORS):
        return StoreUnavailableError(f"the server cannot answer now: {text}")
    if isinstance(error, ResponseError):
        if isinstance(error, OutOfMemoryError) or _LASTING.search(text):
            return StoreUnavailableError(f"the server refuses: {text}", transient=False)
        if _CORRUPT.search(text):
            return CorruptLogError(f"the log is damaged: {text}")
        if _TRANSIENT.search(text):
            return StoreUnavailableError(f"the server cannot answer now: {text}")
        if "DB index" in text:
            return ConfigurationError(f"url: the server has no such database: {text}")
        return StoreUnavailableError(
            f"the server refuses: {text}", may_have_written=sent, transient=False
        )
    return StoreUnavailableError(
        f"the server did not answer: {text or type(error).__name__}", may_have_written=sent
    )
