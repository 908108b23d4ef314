"""``client=``: the connections of a ``redis.Redis`` of the caller's, which stays the caller's."""

from __future__ import annotations

from math import inf
from typing import Any

from redis import Redis

from eventstore.backend import Settings, time_left
from eventstore.errors import ConfigurationError
from eventstore_redis.connections import Server


class Borrowed(Server):
    """Connections of a client that is the caller's: they are given back, and never closed."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        pool = client.connection_pool
        seconds = pool.connection_kwargs.get("socket_timeout") or inf
        super().__init__(_Loans(pool, settings.timeout), seconds)

    @classmethod
    def of(cls, client: Redis, settings: Settings) -> Borrowed:
        """Return the connections of a client; ConfigurationError where the URL asks for others."""
        if settings.scheme != "redis" or settings.location:
            raise ConfigurationError("url: must be redis:// alone where a client is given")
        for name in settings.driver_options:
            raise ConfigurationError(f"{name}: is a matter of the client that is given")
        return cls(client, settings)

    def _disconnect(self) -> None:
        pass


class _Loans:
    """A pool of the caller's; what is lent waits no longer than the call has left."""

    def __init__(self, pool: Any, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout

    def get_connection(self) -> Any:
        connection = self._pool.get_connection()
        try:
            own = connection.socket_timeout
            connection._sock.settimeout(time_left(min(self._timeout, own or inf)))
        except BaseException:
            self._pool.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        if connection._sock is not None:
            connection._sock.settimeout(connection.socket_timeout)
        self._pool.release(connection)
