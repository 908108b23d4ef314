"""A private Redis Cluster of three nodes, without replicas."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Self

from tests.kit.ports import LOOPBACK
from tests.kit.servers.programs import ServerUnavailableError
from tests.kit.servers.redis import RedisReplyError, RedisServer, start_redis

_SLOTS: Final = 16384
_NODES: Final = 3
_SECONDS_TO_JOIN: Final = 60.0
_MILLISECONDS_TO_MOVE: Final = "30000"


def start_redis_cluster(**options: str) -> RedisCluster:
    """Start three nodes that share the slots evenly, and return when all say it is whole."""
    nodes: list[RedisServer] = []
    try:
        for _ in range(_NODES):
            # Not so short that a busy machine makes the others give a node up.
            clustered = {"cluster_enabled": "yes", "cluster_node_timeout": "5000", **options}
            nodes.append(start_redis(**clustered))
        cluster = RedisCluster(nodes)
        cluster._form()
    except BaseException:
        for node in nodes:
            node.close()
        raise
    return cluster


class RedisCluster:
    """See ``start_redis_cluster``."""

    def __init__(self, nodes: list[RedisServer]) -> None:
        self.nodes: Final = tuple(nodes)

    @property
    def url(self) -> str:
        """The base URL for ``open_store``."""
        return self.nodes[0].url.replace("redis://", "redis+cluster://").removesuffix("/0")

    @property
    def version(self) -> str:
        """That of its nodes."""
        return self.nodes[0].version

    def slot_of(self, key: str) -> int:
        """Return the slot a key belongs to."""
        slot = self.nodes[0].execute("CLUSTER", "KEYSLOT", key)
        assert isinstance(slot, int)
        return slot

    def owner_of(self, slot: int) -> RedisServer:
        """Return the node that serves a slot."""
        ranges = self.nodes[0].execute("CLUSTER", "SLOTS")
        assert isinstance(ranges, list)
        for first, last, (_, port, *_), *_ in ranges:  # type: ignore[misc]  # replies are untyped
            if first <= slot <= last:  # type: ignore[operator]
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(f"no node serves slot {slot}")

    def move_slot(
        self, slot: int, to: RedisServer, *, between: Callable[[], None] | None = None
    ) -> None:
        """Move a slot with its keys to another node, while clients go on.

        ``between`` is called before the first key moves and after each: then some keys are here
        and some there, and clients are answered ASK and TRYAGAIN.
        """
        source = self.owner_of(slot)
        if source is to:
            return
        to.execute("CLUSTER", "SETSLOT", str(slot), "IMPORTING", _id_of(source))
        source.execute("CLUSTER", "SETSLOT", str(slot), "MIGRATING", _id_of(to))
        while True:
            if between:
                between()
            keys = source.execute("CLUSTER", "GETKEYSINSLOT", str(slot), "1")
            assert isinstance(keys, list)
            if not keys:
                break
            (key,) = keys
            assert isinstance(key, bytes)
            secret = to.options_password
            source.execute(
                *("MIGRATE", LOOPBACK, str(to.port), "", "0", _MILLISECONDS_TO_MOVE),
                *(("AUTH", secret) if secret else ()),
                *("KEYS", key),
            )
        others = [node for node in self.nodes if node not in (source, to)]
        for node in (to, source, *others):  # the new owner first, or a crash leaves none
            node.execute("CLUSTER", "SETSLOT", str(slot), "NODE", _id_of(to))

    def wait_until_whole(self) -> None:
        """Return when every node knows all nodes and slots, and serves."""
        deadline = time.monotonic() + _SECONDS_TO_JOIN
        while not all(_is_whole(node) for node in self.nodes):
            if time.monotonic() > deadline:
                raise ServerUnavailableError(
                    f"the Redis Cluster is not whole after {_SECONDS_TO_JOIN:g} s:\n"
                    + self.nodes[0]._failure("is one of its nodes").args[0]
                )
            time.sleep(0.02)

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _form(self) -> None:
        first, *others = self.nodes
        for place, node in enumerate(self.nodes):
            slots = range(_SLOTS * place // _NODES, _SLOTS * (place + 1) // _NODES)
            node.execute("CLUSTER", "ADDSLOTS", *map(str, slots))
            node.execute("CLUSTER", "SET-CONFIG-EPOCH", str(place + 1))
        for node in others:
            first.execute("CLUSTER", "MEET", LOOPBACK, str(node.port))
        self.wait_until_whole()


def _id_of(node: RedisServer) -> bytes:
    reply = node.execute("CLUSTER", "MYID")
    assert isinstance(reply, bytes)
    return reply


def _is_whole(node: RedisServer) -> bool:
    try:
        reply = node.execute("CLUSTER", "INFO")
    except (OSError, RedisReplyError):
        return False
    assert isinstance(reply, bytes)
    said = reply.decode().split()
    wanted = (f"cluster_known_nodes:{_NODES}", f"cluster_slots_ok:{_SLOTS}", "cluster_state:ok")
    return all(line in said for line in wanted)
