"""``client=``: connections of a pool of the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

import psycopg

from eventstore.backend import Settings, time_left, translating
from eventstore.errors import ConfigurationError, StoreUnavailableError
from eventstore_postgres.connections import Guest, Sessions
from eventstore_postgres.options import Pool
from eventstore_postgres.translation import classify


class ClientSessions(Sessions):
    """Connections of a pool of the caller's, each taken for one transaction."""

    settled_once = False

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        if settings.location or settings.driver_options:
            raise ConfigurationError(
                "client: connects as it was made to: the URL must be postgresql:// alone, without"
                " options of the driver's"
            )
        self._pool: Final[Pool] = settings.own_options["client"]
        self._forked = False

    @contextmanager
    def writing(self, timeout: float, *, checked: bool = True) -> Iterator[Guest]:
        if self._forked:
            raise ConfigurationError(
                "client: is a pool of the parent process's; open a store over another one here"
            )
        if self._pool.closed:
            raise ConfigurationError("client: the pool is closed")
        end = monotonic() + timeout
        connection: psycopg.Connection[Any] | None = None
        begins_by_itself = False
        try:
            with translating(classify, "client: the pool gives no connection"):
                connection = self._pool.getconn(timeout)
            guest = Guest(connection)
            begins_by_itself = not connection.autocommit
            connection.autocommit = True
            with self.bounded(guest, end - monotonic()):
                if checked:
                    self._check(guest)
                yield guest
        finally:
            if connection is not None:
                try:
                    if begins_by_itself and not connection.closed:
                        connection.autocommit = False
                finally:  # the pool looks itself at the state that it comes back in
                    self._pool.putconn(connection)

    @contextmanager
    def reading(self) -> Iterator[Guest]:
        with (
            self.writing(time_left(self.timeout)) as guest,
            translating(self._classify, "the query failed"),
        ):
            yield guest

    connected_anew = reading

    def close(self) -> None:
        pass  # the pool is the caller's

    def _close_idle(self) -> None:
        pass  # and so are they

    def after_fork(self, *others: object) -> None:
        self._forked = True

    def _check(self, guest: Guest) -> None:
        """Raise for a connection on which a guarantee would not hold."""
        if guest.info.encoding != "utf-8":
            raise ConfigurationError(
                f"client: its client_encoding must be UTF8, not {guest.info.encoding}"
            )
        self._look_at_server(guest)
        with translating(classify, "client: a connection of the pool cannot be looked at"):
            standby = guest.info.parameter_status("in_hot_standby")
            if standby is None:  # before PostgreSQL 14
                (row,) = guest.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchall()
                standby = "on" if row[0] else "off"
        if standby != "off":
            raise StoreUnavailableError("client: the pool leads to a standby, whose reads lag")
