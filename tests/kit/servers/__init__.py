"""Real database servers for tests and benchmarks: private, started from wheels.

    with start_postgres() as server:
        store = open_store(server.url)
        server.kill()       # SIGKILL; also stop(), restart("fast" | "immediate")
        server.start()      # on the same port and data

Each runs on 127.0.0.1 with its data in a temporary directory, answers when ``start_…`` returns,
and is gone with its data at the end of ``with``, or when this process ends in any way. The
programs come from wheels of the ``testing`` extra, else from the PATH; where there is none,
ServerUnavailableError says what to install. No driver is imported.
"""

from tests.kit.servers.mongodb import MongoServer, start_mongodb
from tests.kit.servers.postgres import PostgresServer, start_postgres
from tests.kit.servers.programs import ServerUnavailableError
from tests.kit.servers.redis import (
    RedisReplyError,
    RedisServer,
    start_redis,
    start_redis_replica,
)
from tests.kit.servers.redis_cluster import RedisCluster, start_redis_cluster
from tests.kit.servers.server import Server, StopMode

__all__ = [
    "MongoServer",
    "PostgresServer",
    "RedisCluster",
    "RedisReplyError",
    "RedisServer",
    "Server",
    "ServerUnavailableError",
    "StopMode",
    "start_mongodb",
    "start_postgres",
    "start_redis",
    "start_redis_cluster",
    "start_redis_replica",
]
