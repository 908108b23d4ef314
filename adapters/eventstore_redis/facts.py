"""What a server tells of itself: its version, and what it may lose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

Facts = Mapping[str, str]
"""The fields of an INFO, or those of them that are known."""

DURABILITY_SETTINGS: Final = (
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "maxmemory-policy",
)

_OLDEST: Final = (6, 2)

_WORK_ALIKES: Final = {
    "dfly_version": "Dragonfly",
    "dragonfly_version": "Dragonfly",
    "garnet_version": "Garnet",
    "keydb_version": "KeyDB",
    "kvrocks_version": "Kvrocks",
    "mvcc_depth": "KeyDB",
    "pika_version": "Pika",
    "redict_version": "Redict",
    "upstash_version": "Upstash",
}
"""Who speaks Redis's protocol, by a field of INFO or HELLO that nobody else has. All of them tell a
``redis_version`` too, lest clients stumble."""


def risks(replies: Sequence[Any]) -> Iterable[str]:
    """Return how a server may lose events, by its replies to CONFIG GET of each of the
    ``DURABILITY_SETTINGS`` and to INFO, which has some of them where CONFIG is forbidden."""
    *configured, info = replies
    settings = {
        name.decode(): value.decode()
        for reply in configured
        if not isinstance(reply, ResponseError)
        for name, value in _pairs(reply)
    }
    facts: Facts = {} if isinstance(info, ResponseError) else parsed(info)
    if "aof_enabled" in facts:
        settings.setdefault("appendonly", "yes" if facts["aof_enabled"] == "1" else "no")
    if "maxmemory_policy" in facts:
        settings.setdefault("maxmemory-policy", facts["maxmemory_policy"])
    if settings.get("appendonly") == "no":
        yield "the server keeps no append-only file: set appendonly yes and appendfsync always"
    elif settings.get("appendfsync") != "always":
        found = settings.get("appendfsync", "not told to this user")
        yield (
            f"the server may lose the last moments in a crash: appendfsync is {found},"
            " set it to always"
        )
    elif settings.get("no-appendfsync-on-rewrite") == "yes":
        yield (
            "the server does not flush while it rewrites its file: set no-appendfsync-on-rewrite no"
        )
    policy = settings.get("maxmemory-policy", "")
    if policy.startswith("allkeys"):
        yield (
            f"the server may evict events when its memory is full: maxmemory-policy is {policy},"
            " set it to noeviction"
        )


def _pairs(reply: Any) -> Iterable[tuple[bytes, Any]]:
    """Return the pairs of a reply that is a map, which RESP2 gives as a list."""
    return reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)


def parsed(info: bytes) -> Facts:
    """Return the fields of an INFO."""
    pairs = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value.strip() for name, colon, value in pairs if colon}


def greeted(hello: Any) -> Facts:
    """Return what the reply to HELLO tells of those fields; nothing where it is an error."""
    if isinstance(hello, ResponseError):
        return {}
    told = {
        name.decode(): value.decode("utf-8", "replace")
        for name, value in _pairs(hello)
        if isinstance(value, bytes)
    }
    server = told.get("server", "")
    own = {"server_name": server, f"{server}_version": told.get("version", "")}
    return told | own | {"redis_mode": told.get("mode", "")}


def doubt(facts: Facts) -> str | None:
    """Return what a server is that is neither a Redis nor a Valkey known to do; None too where it
    tells nothing."""
    for field, name in _WORK_ALIKES.items():
        if field in facts:
            return f"the server is {name} {facts[field] if 'version' in field else ''}".strip()
    if "keydb" in facts.get("executable", ""):
        return "the server is KeyDB"
    name = facts.get("server_name", "valkey" if "valkey_version" in facts else "redis")
    if name.lower() not in ("redis", "valkey"):
        return f"the server is {name:.100}"
    if facts and not facts.keys() & {"redis_version", "valkey_version"}:
        return "the server does not say that it is a Redis or a Valkey"
    if version(facts) < _OLDEST:
        return f"the server is {server_name(facts)}, older than Redis 6.2"
    return None


def version(facts: Facts) -> tuple[int, ...]:
    """Return major and minor version; the least that will do where the server tells none.
    Valkey tells that of the Redis it is compatible with."""
    numbers = re.findall(r"\d+", facts.get("redis_version", "6.2"))
    return tuple(int(number) for number in numbers[:2])


def server_name(facts: Facts) -> str:
    """Return the server's name and version."""
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts.get('redis_version', 'of unknown version')}"
