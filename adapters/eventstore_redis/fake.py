"""``fakeredis://``: the same backend over fakeredis, for tests without a server.

``fakeredis://`` is a new log each time; ``fakeredis://name`` is shared within the process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from fakeredis import FakeRedisConnection, FakeServer
from redis.connection import ConnectionPool

from eventstore.backend import Backend, Capability, Options, Settings
from eventstore.errors import StoreClosedError
from eventstore_redis.backend import RedisBackend
from eventstore_redis.connections import Command, Connections, Server
from eventstore_redis.facts import Facts

_named_servers: Final[dict[str, FakeServer]] = {}
"""What ``fakeredis://name`` shares within the process."""


_call: Final = threading.Lock()
"""Held during every call, so that a fork finds no fake, with locks of its own, halfway."""

os.register_at_fork(
    before=_call.acquire, after_in_parent=_call.release, after_in_child=_call.release
)


class FakeRedisBackend(RedisBackend):
    """A log in a Redis that is a Python object."""

    options = Options()

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        name = settings.path
        self._fake = _named_servers.setdefault(name, FakeServer()) if name else FakeServer()

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset()

    def durability_risks(self) -> Sequence[str]:
        return ()

    def info(self) -> Mapping[str, str | int]:
        return {
            "backend": "fakeredis",
            "server": "fakeredis",
            "durability": "none: gone with the process",
        }

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        Backend.wait(self, after, timeout, nap)  # XREAD BLOCK would hold up all other threads

    def _connect(self) -> Connections:
        return _Fake(self._fake)

    def _ask_for_facts(self) -> Facts:
        return {}  # it knows no INFO, and is what it is


class _Fake(Server):
    """The fake in a thread of its own: else Ctrl-C could stop a script halfway."""

    def __init__(self, fake: FakeServer) -> None:
        kind = FakeRedisConnection
        super().__init__(ConnectionPool(connection_class=kind, server=fake, protocol=2))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fakeredis")

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        try:
            work = self._thread.submit(self._exchange_alone, commands)
        except RuntimeError as error:  # shut down
            raise StoreClosedError("the store is closed") from error
        return work.result()

    def _exchange_alone(self, commands: Sequence[Command]) -> list[Any]:
        with _call:
            return super().exchange(commands)

    def close(self, timeout: float) -> None:
        super().close(timeout)
        self._thread.shutdown()
