"""``redis://``, ``rediss://`` and ``redis+cluster://``: the log is one Redis Stream.

The Lua scripts beside this file decide and write: query.lua names every key, ``calls`` tells the
protocol. What is in which module: ``opening`` (what is there), ``appending``, ``selecting``,
``server`` (commands and scripts that reach the log that was opened, or none), ``connections``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Self

from eventstore.backend import (
    Backend,
    Batch,
    Capability,
    EventKey,
    Found,
    Options,
    Outcome,
    PageRequest,
    Settings,
    deadline,
    translating,
)
from eventstore.errors import ConfigurationError
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore_redis import facts
from eventstore_redis.appending import Appending, Replicas
from eventstore_redis.borrowed import Borrowed
from eventstore_redis.connections import Cluster, Connections, Server
from eventstore_redis.opening import FORMAT, Place, facts_of
from eventstore_redis.options import OPTIONS
from eventstore_redis.selecting import Selecting
from eventstore_redis.server import APPEND, LogServer
from eventstore_redis.translation import classify


class RedisBackend(Backend):
    """A log in one Redis Stream."""

    options: ClassVar[Options] = OPTIONS
    log_format = FORMAT

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._forked = False
        self.server = LogServer(self._connect, settings.namespace, settings.timeout)
        self.place = Place(self.server)
        self._selecting = Selecting(self.server)

    # --- Opening and closing

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        backend = cls(settings)
        try:
            backend._get_acquainted()
        except BaseException:
            backend.close()
            raise
        return backend

    def _connect(self) -> Connections:
        client = self._settings.own_options.get("client")
        if client is not None:
            if self._forked:
                raise ConfigurationError(
                    "client: belongs to the parent process: open a store anew in this one"
                )
            return Borrowed.of(client, self._settings)
        if self._settings.scheme == "redis+cluster":
            return Cluster(self._settings, self.server.meta)
        return Server.at(self._settings)

    def _get_acquainted(self) -> None:
        self._told = self._ask_for_facts()
        replicas = Replicas(self._settings.own_options.get("replicas", 0), self._told)
        if replicas.number:
            # Or the first append would wait for replicas twice, the first time for nothing.
            with translating(classify):
                self.server.connected().exchange([("SCRIPT", "LOAD", APPEND.text)])
        self._replicas = replicas
        self._appending = Appending(self.server, self._selecting, replicas)

    def _ask_for_facts(self) -> facts.Facts:
        return facts_of(self.server, clustered=self._settings.scheme == "redis+cluster")

    def engine_doubt(self) -> str | None:
        return facts.doubt(self._told)

    def look(self) -> Found | None:
        return self.place.look()

    def make(self) -> None:
        self.place.make()

    def remove(self) -> bool:
        return self.place.remove()

    def close(self) -> None:
        self.server.close()

    def after_fork(self) -> None:
        self._forked = True
        self.server.after_fork()

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.MULTI_PROCESS, Capability.PERSISTENT})

    def durability_risks(self) -> Sequence[str]:
        risks: dict[str, None] = {}
        with translating(classify):
            for replies in self.server.connected().exchange_with_each(
                [("CONFIG", "GET", name) for name in facts.DURABILITY_SETTINGS] + [("INFO",)]
            ):
                risks.update(dict.fromkeys(facts.risks(replies)))
        return tuple(risks)

    def info(self) -> Mapping[str, str | int]:
        risks = self.durability_risks()
        return {
            "backend": "redis",
            "server": facts.server_name(self._told),
            "durability": "every write is flushed" if not risks else "; ".join(risks),
            "replicas": self._replicas.number,
        }

    # --- Writing

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        if self.place.forbidden:
            raise ConfigurationError(
                f"url: the server refuses {self.place.forbidden} to this user, and appends need it"
            )
        with deadline(timeout):
            return self._appending.commit(group)

    # --- Reading

    def read(self, page: PageRequest) -> list[Event]:
        return self._selecting.read(page)

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        return self._selecting.find(keys)

    def count(self, query: EventQuery) -> int:
        return self._selecting.count(query)

    def head(self) -> int:
        return self._selecting.head()

    def version(self, entity: Entity) -> int:
        return self._selecting.version(entity)

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        return self._selecting.list_entities(entity_type, tenant_id, limit, offset)

    # --- Waiting

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        block = max(int(min(timeout, self.server.patience / 2) * 1000), 1)
        self.server.ask(("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", self.server.log, after))
