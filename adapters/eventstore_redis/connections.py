"""Connections to one server, or to the node of a cluster that holds the log.

Commands are sent over redis-py's connections and pools, below its client: the store tries
again by itself, must know whether a command was sent before a connection broke, and needs
WAIT on the connection of the commit it waits for.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
)
from redis.exceptions import (
    AskError,
    MovedError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from eventstore.backend import Settings, deadline, time_left, translated
from eventstore.errors import StoreClosedError, StoreUnavailableError
from eventstore_redis.options import connection_options
from eventstore_redis.translation import DRIVER_ERRORS, fault_of

Command = Sequence[str | bytes | int]

_MAX_CONNECTIONS: Final = 50
_REDIRECTS: Final = 5
"""How many MOVED or ASK in a row are followed."""
_SECONDS_TO_END: Final = 2.0
"""How long closing waits, at the most, for reads in flight."""


class _Punctual(AbstractConnection):
    """Waits no longer than the call that it serves has left, whichever call that is.

    redis-py reads the two properties whenever it connects; whatever is sent or read, in its
    handshake too, goes through the two methods.
    """

    _socket_timeout: float
    _socket_connect_timeout: float

    @property
    def socket_timeout(self) -> float:
        return time_left(self._socket_timeout)

    @socket_timeout.setter
    def socket_timeout(self, seconds: float) -> None:
        self._socket_timeout = seconds

    @property
    def socket_connect_timeout(self) -> float:
        return time_left(self._socket_connect_timeout)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, seconds: float) -> None:
        self._socket_connect_timeout = seconds

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        self._hurry()
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]  # redis-py's

    def read_response(self, *args: Any, **options: Any) -> Any:
        self._hurry()
        return super().read_response(*args, **options)

    def stand(self) -> None:
        """Connect, anew where the server has ended the connection or said what nobody asked."""
        if self._sock is not None:
            try:
                if not self.can_read():
                    return
            except (RedisError, OSError):
                pass
            self.disconnect()
        self.connect()  # type: ignore[no-untyped-call]  # redis-py's

    def _hurry(self) -> None:
        if self._sock is not None:
            self._sock.settimeout(time_left(self._socket_timeout))


class _Plain(_Punctual, Connection):
    """Over TCP."""


class _Encrypted(_Punctual, SSLConnection):
    """Over TLS."""


class _Pool:
    """Connections to one server. redis-py's own takes longer than the way to a near server and
    back, and waits for a place in it whatever time the call has left."""

    def __init__(self, connect: Callable[[], _Punctual], size: int, timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self._places = threading.Semaphore(size)
        self._free: deque[_Punctual] = deque()
        self._all: list[_Punctual] = []

    def get_connection(self) -> _Punctual:
        """Return one that stands; RedisError where there is none in time."""
        if not self._places.acquire(timeout=time_left(self._timeout)):
            raise RedisConnectionError("all max_connections connections are in use")
        try:
            try:
                connection = self._free.pop()
            except IndexError:
                connection = self._connect()
                self._all.append(connection)
        except BaseException:
            self._places.release()
            raise
        try:
            connection.stand()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: _Punctual) -> None:
        self._free.append(connection)
        self._places.release()

    def disconnect(self) -> None:
        for connection in self._all.copy():
            connection.disconnect()  # type: ignore[no-untyped-call]  # redis-py's


class Connections(ABC):
    """Ways to the server that holds a log."""

    def __init__(self, reply_seconds: float = inf) -> None:
        self.reply_seconds = reply_seconds
        """How long a reply may take, whatever the call has left."""
        self._in_use = 0
        self._closed = False
        self._changed = threading.Condition()

    @abstractmethod
    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands over one connection; return their replies, errors among them as values.

        Raises an error of ours where nothing was sent, redis-py's otherwise.
        """

    @abstractmethod
    def exchange_with_each(self, commands: Sequence[Command]) -> Iterator[list[Any]]:
        """Yield the replies of every server that may hold the log."""

    def close(self, timeout: float) -> None:
        """Close all connections; what is being read ends first, if that does not take long."""
        with self._changed:
            self._closed = True
            seconds = min(_SECONDS_TO_END, time_left(timeout))
            self._changed.wait_for(lambda: not self._in_use, seconds)
        self._disconnect()

    @abstractmethod
    def _disconnect(self) -> None:
        """Close all connections."""

    def _exchange(self, pool: Any, commands: Sequence[Command]) -> list[Any]:
        with self._changed:
            if self._closed:
                raise StoreClosedError("the store is closed")
            self._in_use += 1
        try:
            return _exchange(pool, commands)
        finally:
            with self._changed:
                self._in_use -= 1
                self._changed.notify_all()


def _exchange(pool: Any, commands: Sequence[Command]) -> list[Any]:
    try:
        connection = pool.get_connection()
    except DRIVER_ERRORS as error:
        raise translated(fault_of(error)) from error
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        replies: list[Any] = []
        for _ in commands:
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

    def __init__(self, pool: Any, reply_seconds: float = inf) -> None:
        super().__init__(reply_seconds)
        self._pool = pool

    @classmethod
    def at(cls, settings: Settings) -> Server:
        """Make a pool for a URL; it connects when first used."""
        options = connection_options(settings)
        kind = _Encrypted if options.pop("ssl") else _Plain
        size = options.pop("max_connections", _MAX_CONNECTIONS)
        connect = partial(kind, retry=Retry(NoBackoff(), 0), **options)
        return cls(_Pool(connect, size, settings.timeout), options["socket_timeout"])

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        return self._exchange(self._pool, commands)

    def exchange_with_each(self, commands: Sequence[Command]) -> Iterator[list[Any]]:
        yield self.exchange(commands)

    def _disconnect(self) -> None:
        self._pool.disconnect()


class Cluster(Connections):
    """Connections to the node that holds a log's slot, wherever that moves."""

    def __init__(self, settings: Settings, key: str) -> None:
        options = connection_options(settings)
        super().__init__(options["socket_timeout"])
        kind = _Encrypted if options.pop("ssl") else _Plain
        host = options.pop("host")
        host = f"[{host}]" if ":" in host else host
        url = f"redis://{host}:{options.pop('port')}"
        self._key = key
        self._timeout = settings.timeout
        self._lost = False
        """Whether the node of before did not answer: the slot may have moved since."""
        self._client: Any = RedisCluster(
            url=url, connection_class=kind, retry=Retry(NoBackoff(), 0), **options
        )

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        if self._lost:  # asked here, for the call that lost it may have had no time left
            self._look_around()
        pool = self._pool_of(self._client.get_node_from_key(self._key))
        replies: list[Any] = []
        asking = False
        for _ in range(_REDIRECTS):
            # ASKING counts for the first command alone. One of another key that follows is
            # answered MOVED, and the whole tried again, rather than read before it is there.
            sent = [("ASKING",), *commands] if asking else commands
            try:
                replies = self._exchange(pool, sent)[len(sent) - len(commands) :]
            except (RedisError, OSError, StoreUnavailableError):
                self._lost = True
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
            yield self._exchange(self._pool_of(node), commands)

    def _disconnect(self) -> None:
        self._client.close()

    def _pool_of(self, node: Any) -> Any:
        return self._client.get_redis_connection(node).connection_pool

    def _look_around(self) -> None:
        """Learn which node holds what; keep what is known if no node tells."""
        half = time_left(self._timeout) / 2  # the other half is for what is asked
        with suppress(RedisError, RedisClusterException, OSError), deadline(half):
            self._client.nodes_manager.initialize()
            self._lost = False
