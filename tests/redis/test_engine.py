"""Which server answers. The work-alikes are not run here: what they say of themselves is replayed,
from their documentation and their issues, in front of a server that is none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from eventstore import ConfigurationError, Event, drop_namespace, open_store
from eventstore_redis import connections
from tests.kit.servers.redis import RedisServer

EVENT = Event(event_type="A", entity_type="a", entity_id="1")

INFO = "# Server\r\nredis_version:{0}\r\n"

KNOWN = {
    "Redis 6.2": INFO.format("6.2.14") + "redis_git_sha1:00000000\r\nredis_mode:standalone\r\n",
    "Redis 8": INFO.format("8.2.1") + "redis_git_sha1:00000000\r\nredis_mode:standalone\r\n",
    "Valkey 8": INFO.format("7.2.4") + "server_name:valkey\r\nvalkey_version:8.1.0\r\n",
    "Amazon ElastiCache": INFO.format("7.1.0")
    + "redis_git_sha1:0\r\nredis_build_id:0\r\nredis_mode:standalone\r\nos:Amazon ElastiCache\r\n",
}
WORK_ALIKES = {
    "Dragonfly df-v1.40.1": INFO.format("7.4.0")
    + "dragonfly_version:df-v1.40.1\r\nredis_mode:standalone\r\nthread_count:7\r\n",
    "Garnet 1.0.84": INFO.format("7.4.3") + "garnet_version:1.0.84\r\n",
    "Garnet 1.0.1": "# Server\r\ngarnet_version:1.0.1\r\nos:Unix 5.15\r\n",
    "KeyDB": INFO.format("6.3.4")
    + "redis_git_sha1:7e7e5e57\r\nredis_mode:standalone\r\nexecutable:/data/keydb-server\r\n",
    "Kvrocks 2.17.0": "# Server\r\nkvrocks_version:2.17.0\r\nredis_version:4.0.0\r\n",
    "Upstash 1.10.5": INFO.format("6.2.6") + "upstash_version:1.10.5\r\n",
    "Redict 7.3.0": INFO.format("7.2.4") + "redict_version:7.3.0\r\n",
    "SomethingNew": INFO.format("7.2.4") + "server_name:SomethingNew\r\n",
    "does not say": "# Server\r\nversion:1.0\r\n",
    "Redis 6.0.16, older than Redis 6.2": INFO.format("6.0.16"),
    "Redis 5.0.7, older": INFO.format("5.0.7"),
}

Says = Callable[[Any, Any], None]


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Says:
    """Has every server answer INFO and HELLO in these words."""
    exchange = connections._exchange

    def say(info: Any, hello: Any) -> None:
        answers = {("INFO",): info, ("HELLO",): hello}

        def replayed(pool: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
            replies = exchange(pool, commands)
            return [
                answers.get(tuple(command), reply)
                for command, reply in zip(commands, replies, strict=True)
            ]

        monkeypatch.setattr(connections, "_exchange", replayed)

    return say


@pytest.mark.parametrize("info", KNOWN.values(), ids=KNOWN)
def test_an_engine_that_is_known_is_opened(
    server: RedisServer, namespace: str, says: Says, info: str
) -> None:
    says(info.encode(), [])
    with open_store(server.url, namespace=namespace, durability="relaxed") as store:
        assert store.append(EVENT).sequence == 1


@pytest.mark.parametrize(("name", "info"), WORK_ALIKES.items(), ids=WORK_ALIKES)
def test_a_work_alike_is_refused_by_name_unless_it_is_asked_for(
    server: RedisServer, namespace: str, says: Says, name: str, info: str
) -> None:
    says(info.encode(), [])
    with pytest.raises(ConfigurationError, match=f"the server.* {name}.*engine=unchecked"):
        open_store(server.url, namespace=namespace)
    assert server.execute("EXISTS", f"{{{namespace}}}:meta") == 0
    url = f"{server.url}?engine=unchecked&durability=relaxed"
    with open_store(url, namespace=namespace) as store:
        assert store.append(EVENT).sequence == 1
    assert drop_namespace(server.url, namespace=namespace)


@pytest.mark.parametrize(
    ("hello", "refused"),
    [
        ([b"server", b"redis", b"version", b"7.2.4", b"mode", b"standalone"], None),
        ([b"server", b"valkey", b"version", b"9.1.2", b"proto", 2], None),
        ([b"server", b"redis", b"version", b"6.2.11", b"dfly_version", b"df-1"], "Dragonfly df-1"),
        ([b"server", b"redis", b"version", b"6.0.9"], "Redis 6.0.9, older"),
        ([b"server", b"SomethingNew", b"version", b"9.9.9"], "SomethingNew"),
        (NoPermissionError("no"), None),
    ],
)
def test_a_server_that_may_not_be_asked_for_info_is_known_by_its_greeting(
    server: RedisServer, namespace: str, says: Says, hello: Any, refused: str | None
) -> None:
    says(NoPermissionError("this user has no permissions to run the 'info' command"), hello)
    if refused:
        with pytest.raises(ConfigurationError, match=f"the server is {refused}"):
            open_store(server.url, namespace=namespace)
    else:
        open_store(server.url, namespace=namespace, durability="relaxed").close()


def test_the_server_that_is_run_here_is_named(server: RedisServer, namespace: str) -> None:
    with open_store(server.url, namespace=namespace) as store:
        name, version = str(store._log.backend.info()["server"]).split()
    assert name in ("Redis", "Valkey")
    assert version in server.version
