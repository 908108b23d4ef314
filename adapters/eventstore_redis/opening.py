"""What is there: the server, the log, and how a log is made and removed."""

from __future__ import annotations

from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError
from uuid_utils.compat import uuid4

from eventstore.backend import Found, translating
from eventstore.errors import ConfigurationError
from eventstore_redis import facts
from eventstore_redis.server import DROP, OPEN, LogServer
from eventstore_redis.translation import classify

FORMAT: Final = 1
"""The newest format of keys and entries that this package reads and writes."""

_CHUNK: Final = 1000
"""Keys asked for at once."""


class Place:
    """Where a log is, or may be, on a server."""

    def __init__(self, server: LogServer) -> None:
        self._server = server
        self._meta = server.meta
        self._prefix = server.meta.removesuffix("meta")
        """What all keys of the log begin with, and none is."""
        self.forbidden = ""
        """A command that appends need and that this user may not use, as far as it was seen."""

    def look(self) -> Found | None:
        """Return what the log says of itself, None where there is none."""
        known = self._known(create=False)
        if not known:
            return None
        log_id, least_reader, least_writer, dropping, *forbidden = known
        if dropping:
            raise ConfigurationError(
                f"namespace: {self._server.namespace!r} was being dropped, but not to the end:"
                " drop it again"
            )
        self.forbidden = forbidden[0].decode() if forbidden else ""
        self._server.log_id = log_id.decode()
        return Found(self._server.log_id, int(least_reader), int(least_writer))

    def make(self) -> None:
        """Make the log, unless another was faster."""
        self._known(create=True)

    def _known(self, *, create: bool) -> list[Any]:
        """Return what open.lua tells of the log."""
        arguments = (int(create), str(uuid4()), FORMAT, FORMAT)
        known: list[Any] = self._server.call(OPEN, (self._server.base_keys, arguments))[0]
        return known

    def remove(self) -> bool:
        """Remove the log with all it holds; return whether it was there."""
        known = self._known(create=False)
        if known:
            log_id, _, _, mark, *_ = known
            self.remove_marked(mark or log_id)
        return bool(known)

    def remove_marked(self, mark: bytes) -> None:
        """Remove the log whose removal bears this mark, and no other."""
        self._server.ask(("SCAN", 0, "COUNT", 1))  # a right that must not be missing halfway
        cursor: bytes | int = 0
        there = self.begin_removal(mark)
        while there:
            scan = ("SCAN", cursor, "MATCH", f"{self._prefix}*", "COUNT", _CHUNK)
            ((cursor, keys),) = self._server.ask(scan)
            keys = [key.decode() for key in keys if key != self._meta.encode()]
            there = self._drop(mark, *keys)
            if not int(cursor):
                break
        if there:
            self._drop(mark, self._meta)

    def begin_removal(self, mark: bytes) -> bool:
        """Mark the log as being dropped; return whether it is there."""
        return self._drop(mark, self._prefix)

    def _drop(self, mark: bytes, *keys: str) -> bool:
        """Remove keys of a log that bears the mark; return whether it is there."""
        return bool(self._server.call(DROP, ((self._meta, *keys), (mark,)))[0])


def facts_of(server: LogServer, *, clustered: bool) -> facts.Facts:
    """Return what the server tells of itself; as good as nothing where this user may not ask."""
    with translating(classify):
        exchange = server.connected().exchange
        (reply,) = exchange([("INFO",)])
        if isinstance(reply, NoPermissionError):
            told = facts.greeted(*exchange([("HELLO",)]))
        elif isinstance(reply, ResponseError):
            raise reply
        else:
            told = facts.parsed(reply)
    if not clustered and told.get("redis_mode", told.get("server_mode")) == "cluster":
        raise ConfigurationError("url: this server is a node of a cluster: use redis+cluster://")
    return told
