"""The server that holds a log: commands and scripts that reach the one log that was opened."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import NoScriptError, ResponseError

from eventstore.backend import replaced, time_left, translating
from eventstore.errors import StoreUnavailableError
from eventstore_redis.calls import BASE, Call, Names
from eventstore_redis.connections import Command, Connections
from eventstore_redis.translation import classify

_GONE: Final = re.compile(r"\bGONE\b")


class Script:
    """A Lua script, known to the server by its digest."""

    def __init__(self, *names: str, writes: bool = False) -> None:
        here = files("eventstore_redis")
        self.text = "\n".join(here.joinpath(name).read_text("utf-8") for name in names)
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.writes = writes
        """Whether it may store events."""


APPEND: Final = Script("query.lua", "append.lua", writes=True)
READ: Final = Script("query.lua", "read.lua")
FIND: Final = Script("query.lua", "find.lua")
OPEN: Final = Script("open.lua")
DROP: Final = Script("drop.lua")


class LogServer:
    """The server that holds a log, connected to when it is first needed."""

    def __init__(self, connect: Callable[[], Connections], namespace: str, timeout: float) -> None:
        self.namespace = namespace
        self.timeout = timeout
        self.log_id = ""
        """That of the log which was opened."""
        self.base_keys = Names(namespace, *BASE).keys
        self.meta, self.log, *_ = self.base_keys
        self._connect = connect
        self._inherited: list[object] = []
        self._connections: Connections | None = None
        self._making = threading.Lock()

    def after_fork(self) -> None:
        """Leave the parent's connections alone: the last reference to one would close it."""
        self._inherited.append(self._connections)
        self._connections = None
        self._making = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        if self._connections is not None:
            self._connections.close(self.timeout)

    def connected(self) -> Connections:
        """Return its connections, made by the first that asks."""
        if self._connections is None:
            with self._first_come(), translating(classify):
                self._connections = self._connections or self._connect()
        return self._connections

    @contextmanager
    def _first_come(self) -> Iterator[None]:
        """Let one thread connect; the others wait for it as long as they may."""
        if not self._making.acquire(timeout=time_left(self.timeout)):
            raise StoreUnavailableError("the server did not answer: another thread still connects")
        try:
            yield
        finally:
            self._making.release()

    @property
    def patience(self) -> float:
        """How many seconds a reply may take."""
        return time_left(min(self.timeout, self.connected().reply_seconds))

    def ask(self, *commands: Command) -> list[Any]:
        """Return the replies to commands that store no event."""
        with translating(classify):
            replies = self.connected().exchange(commands)
            for reply in replies:
                self._check(reply)
            return replies

    def of_log(self, command: Command) -> Any:
        """Return the reply to a command that reads the log which was opened.

        Whether it still is that one is asked after it, in the same round trip: so nothing took
        its place before.
        """
        reply, log_id = self.ask(command, ("HGET", self.meta, "log_id"))
        if log_id is None or log_id.decode() != self.log_id:
            raise replaced(self.namespace)
        return reply

    def call(
        self, script: Script, call: Call, following: Callable[[], Sequence[Command]] = tuple
    ) -> list[Any]:
        """Return the reply of a script, and those to the commands that follow it, which may be
        errors."""
        keys, arguments = call
        connections = self.connected()
        with translating(classify, writes=script.writes):
            command = ("EVALSHA", script.digest, len(keys), *keys, *arguments)
            replies = connections.exchange([command, *following()])
            if isinstance(replies[0], NoScriptError):  # the server restarted, or forgot
                command = ("EVAL", script.text, len(keys), *keys, *arguments)
                replies = connections.exchange([command, *following()])
            self._check(replies[0])
            return replies

    def _check(self, reply: Any) -> None:
        if isinstance(reply, ResponseError):
            raise replaced(self.namespace) if _GONE.search(str(reply)) else reply
