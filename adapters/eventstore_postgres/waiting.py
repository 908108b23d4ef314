"""Waking up by LISTEN: one connection for all threads that wait. Only ever a hint."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf

from eventstore.backend import time_left, translating
from eventstore.errors import StoreClosedError
from eventstore_postgres.connections import Session
from eventstore_postgres.translation import classify


class Listener:
    """Waits for notices on a channel. The first thread to wait listens for all others.

    A notice that is lost, or that nobody waits for, does no harm: whoever waits looks again
    after each turn. (A server that cannot get rid of its notices since nobody reads them drops
    the connection, by tcp_user_timeout.)
    """

    def __init__(self, connect: Callable[[], Session], channel: str, timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self._channel = channel
        self._session: Session | None = None
        self._changed = threading.Condition()
        self._turns = 0
        self._listening = False
        self._closed = False

    def wait(self, timeout: float) -> None:
        """Return at a notice, or as soon as one may have been missed; at the latest after
        ``timeout`` seconds."""
        with self._changed:
            if self._listening:
                turn = self._turns
                self._changed.wait_for(lambda: self._turns != turn, timeout)
                return
            if self._closed:
                raise StoreClosedError("the store is closed")
            self._listening = True
        try:
            with translating(classify, "waiting failed"):
                self._listen(timeout)
        except BaseException:
            self._drop()
            raise
        finally:
            if self._closed:
                self._drop()
            with self._changed:
                self._listening = False
                self._turns += 1
                self._changed.notify_all()

    def close(self) -> None:
        """Close the connection, once nobody listens by it; the one who does closes it where
        that takes too long."""
        with self._changed:
            self._closed = True
            if self._changed.wait_for(lambda: not self._listening, time_left(self._timeout)):
                self._drop()

    def _listen(self, timeout: float) -> None:
        if self._session is None:
            self._session = self._connect()
            # What is committed from now on is heard; the caller looks for what was before.
            self._session.execute(f'LISTEN "{self._channel}"')
            self._session.deadline = inf  # each wait has a time-out of its own
            return
        for _ in self._session.notifies(timeout=timeout, stop_after=1):
            pass

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
