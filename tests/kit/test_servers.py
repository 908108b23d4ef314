"""The servers that tests and benchmarks start for themselves."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit import servers
from tests.kit.backends import BACKENDS
from tests.kit.ports import free_port
from tests.kit.servers import (
    MongoServer,
    PostgresServer,
    RedisCluster,
    RedisReplyError,
    RedisServer,
    Server,
    ServerUnavailableError,
    start_mongodb,
    start_postgres,
    start_redis,
    start_redis_cluster,
    start_redis_replica,
)
from tests.kit.servers.programs import version_of

STARTERS: dict[str, Callable[[], Server]] = {
    "postgres": start_postgres,
    "redis": start_redis,
    "mongodb": start_mongodb,
}


@contextmanager
def started(name: str) -> Iterator[Server]:
    """Start a server; where it cannot be had, fail if it was asked for, else skip."""
    try:
        server = STARTERS[name]()
    except ServerUnavailableError as error:
        if BACKENDS[name].asked_for:
            raise
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with started("postgres") as server:
        assert isinstance(server, PostgresServer)
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with started("redis") as server:
        assert isinstance(server, RedisServer)
        yield server


@pytest.fixture(scope="module")
def mongodb() -> Iterator[MongoServer]:
    with started("mongodb") as server:
        assert isinstance(server, MongoServer)
        yield server


@pytest.fixture(scope="module")
def cluster(redis: RedisServer) -> Iterator[RedisCluster]:
    assert redis.running  # it can be had here
    with start_redis_cluster() as cluster:
        yield cluster


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class TestEveryServer:
    @pytest.mark.parametrize("name", STARTERS)
    def test_stops_restarts_and_dies_on_one_port(self, name: str) -> None:
        with started(name) as server:
            port, first = server.port, server.pid
            assert server.answers()
            assert server.version
            assert server.version in repr(server)

            server.restart("fast")
            server.restart("immediate")
            server.kill()
            assert not server.running
            assert not server.answers()
            with pytest.raises(RuntimeError, match="does not run"):
                server.stop()

            server.start()
            assert server.answers()
            assert server.port == port
            assert server.pid != first
            last = server.pid
        assert is_gone(last)
        assert not server.directory.exists()
        server.close()

    @pytest.mark.parametrize("name", STARTERS)
    def test_goes_with_its_parent_even_when_that_is_killed(self, name: str) -> None:
        # Given a process whose server was started by a thread that has ended
        with started(name):
            pass  # it can be had here
        starter = STARTERS[name].__name__
        program = f"""if True:
            from threading import Thread
            from tests.kit.servers import {starter}
            made = []
            thread = Thread(target=lambda: made.append({starter}()))
            thread.start()
            thread.join()
            (server,) = made
            assert server.answers()
            print(server.pid, server.directory, flush=True)
            input()
        """
        parent = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with parent:
            assert parent.stdout is not None
            pid, directory = parent.stdout.readline().split()
            assert not is_gone(int(pid))
            # When it is killed
            parent.kill()
            # Then the server goes, and its data
            assert eventually(lambda: is_gone(int(pid)))
            assert eventually(lambda: not Path(os.fsdecode(directory)).exists())

    def test_that_cannot_start_shows_its_log_and_leaves_nothing(self, redis: RedisServer) -> None:
        # Given a setting that no server knows
        with pytest.raises(ServerUnavailableError, match="no-such-setting") as caught:
            start_redis(no_such_setting="1")
        assert str(redis.program) in str(caught.value)

    def test_that_is_not_installed_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        # Given no wheel, and a PATH with programs that do not run
        for module in (servers.postgres, servers.redis, servers.mongodb):
            monkeypatch.setattr(module, "in_wheel", lambda *_: iter(()))
        monkeypatch.setattr(servers.postgres, "on_path", lambda *_, **__: [tmp_path / "postgres"])
        for name in ("postgres", "initdb", "redis-server", "valkey-server", "mongod"):
            (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        # When one is started / Then the error tells the way out
        for name, starter in STARTERS.items():
            with pytest.raises(ServerUnavailableError, match=r"does not run.*: pip install"):
                starter()
            assert name in BACKENDS

    def test_goes_with_its_keeper(self) -> None:
        with started("redis") as server:
            pid = server.pid
            server._keeper._process.kill()
            assert eventually(lambda: is_gone(pid))
        assert not server.directory.exists()

    def test_is_ended_when_stopped_by_a_signal(self) -> None:
        with started("redis") as server:
            pid = server.pid
            os.kill(pid, signal.SIGSTOP)
        assert is_gone(pid)


class TestPostgres:
    def test_is_set_up_as_a_store_needs_it(self, postgres: PostgresServer) -> None:
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(postgres.url) as connection:
            settings = {
                name: connection.execute(f"SHOW {name}").fetchone()[0]
                for name in ("server_encoding", "fsync", "max_connections", "listen_addresses")
            }
            collation = connection.execute(
                "SELECT datcollate FROM pg_database WHERE datname = current_database()"
            ).fetchone()[0]
        assert settings == {
            "server_encoding": "UTF8",
            "fsync": "on",
            "max_connections": "200",
            "listen_addresses": "127.0.0.1",
        }
        assert collation == "C"

    def test_wants_its_password(self, postgres: PostgresServer) -> None:
        psycopg = pytest.importorskip("psycopg")
        wrong = postgres.url.replace(postgres.password, secrets.token_urlsafe(8))
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(wrong)
        assert postgres.password not in repr(postgres)

    def test_keeps_what_was_committed_before_a_crash(self, postgres: PostgresServer) -> None:
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(postgres.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        # Given a backend that is busy, and so does not see its postmaster die
        busy = psycopg.connect(postgres.url, autocommit=True)
        worker = busy.info.backend_pid
        # When the server is killed / Then nothing of it is left
        postgres.kill()
        assert is_gone(worker)
        busy.close()
        # And what was committed is there after a start
        postgres.start()
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)

    def test_leaves_no_shared_memory(self) -> None:
        segments = Path("/proc/sysvipc/shm")
        with started("postgres") as server:
            assert isinstance(server, PostgresServer)
            own = str(server._shared_memory())
            before = [line.split()[1] for line in segments.read_text().splitlines()]
            server.kill()
        after = [line.split()[1] for line in segments.read_text().splitlines()]
        assert own in before
        assert own not in after

    def test_takes_settings(self) -> None:
        psycopg = pytest.importorskip("psycopg")
        with started("postgres") as server:
            server.options["fsync"] = "off"
            server.restart()
            with psycopg.connect(server.url) as connection:
                assert connection.execute("SHOW fsync").fetchone() == ("off",)

    def test_runs_where_the_other_user_cannot_reach_the_wheel(
        self, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given programs that only we may run, as in an environment below /root
        real = version_of

        def only_ours(program: Path, account: Any = None) -> str | None:
            return None if account else real(program)

        monkeypatch.setattr(servers.postgres, "version_of", only_ours)
        # When a server is started / Then it runs all the same
        with start_postgres() as server:
            assert server.answers()
            if os.geteuid() == 0:
                running = Path(f"/proc/{server.pid}/exe").resolve()
                assert running.is_relative_to(server.directory)


class TestRedis:
    def test_flushes_every_write(self, redis: RedisServer) -> None:
        for name, value in (("appendonly", b"yes"), ("appendfsync", b"always"), ("save", b"")):
            assert redis.execute("CONFIG", "GET", name) == [name.encode(), value]

    def test_keeps_what_was_written_before_a_crash(self, redis: RedisServer) -> None:
        redis.execute("SET", "kept", b"\x00\r\n\xff")
        redis.kill()
        redis.start()
        assert redis.execute("GET", "kept") == b"\x00\r\n\xff"

    def test_takes_options_and_a_password(self) -> None:
        password = secrets.token_urlsafe(16)
        with (
            start_redis(requirepass=password, maxmemory="10mb", appendonly="no") as server,
            start_redis_replica(server, requirepass=password) as replica,
        ):
            assert server.execute("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"10485760"]
            assert password in server.url
            assert password not in repr(server)
            command = Path(f"/proc/{server.pid}/cmdline").read_bytes()
            assert password.encode() not in command
            server.execute("SET", "one", "1")
            assert server.execute("WAIT", "1", "10000") == 1
            assert replica.execute("GET", "one") == b"1"

    def test_raises_what_the_server_refuses(self, redis: RedisServer) -> None:
        with pytest.raises(RedisReplyError, match="unknown command"):
            redis.execute("NOSUCH")


class TestRedisCluster:
    def test_shares_the_slots(self, cluster: RedisCluster) -> None:
        owners = [cluster.owner_of(slot) for slot in (0, 8000, 16383)]
        assert owners == list(cluster.nodes)
        assert cluster.url.startswith("redis+cluster://127.0.0.1:")

    def test_moves_a_slot_key_by_key(self, cluster: RedisCluster) -> None:
        # Given two keys of one slot
        slot = cluster.slot_of("{log}")
        source = cluster.owner_of(slot)
        target = next(node for node in cluster.nodes if node is not source)
        source.execute("SET", "{log}:a", "1")
        source.execute("SET", "{log}:b", "2")
        # When the slot moves
        answers: list[str] = []

        def ask_for_both() -> None:
            try:
                source.execute("MGET", "{log}:a", "{log}:b")
            except RedisReplyError as error:
                answers.append(str(error).split()[0])
            else:
                answers.append("both")

        cluster.move_slot(slot, target, between=ask_for_both)
        # Then clients saw it move, and all is there
        assert answers == ["both", "TRYAGAIN", "ASK"]
        assert cluster.owner_of(slot) is target
        assert target.execute("MGET", "{log}:a", "{log}:b") == [b"1", b"2"]
        with pytest.raises(RedisReplyError, match="MOVED"):
            source.execute("GET", "{log}:a")

    def test_is_whole_again_after_a_node_was_killed(self, cluster: RedisCluster) -> None:
        node = cluster.nodes[1]
        node.kill()
        node.start()
        cluster.wait_until_whole()
        assert node.execute("CLUSTER", "INFO")


class TestMongodb:
    def test_keeps_what_was_written_before_a_crash(self, mongodb: MongoServer) -> None:
        pymongo = pytest.importorskip("pymongo")
        with pymongo.MongoClient(mongodb.url, w="majority", journal=True) as client:
            client.test.kept.insert_one({"_id": 1})
            mongodb.kill()
            mongodb.start()
            assert client.test.kept.find_one() == {"_id": 1}

    def test_at_another_address_is_reached_directly(self, mongodb: MongoServer) -> None:
        assert "directConnection" not in mongodb.url
        assert mongodb.url_at("127.0.0.1", 1).endswith("127.0.0.1:1/?directConnection=true")

    def test_is_asked_in_its_own_format(self) -> None:
        bson = pytest.importorskip("bson")
        member: servers.mongodb.Value = {"_id": 0, "host": "127.0.0.1:1"}
        command: dict[str, servers.mongodb.Value] = {"set": {"_id": "é", "members": [member, 1]}}
        assert servers.mongodb.encoded(command) == bson.encode(command)

    def test_is_not_imported(self, mongodb: MongoServer) -> None:
        assert mongodb.running
        assert "secantus" not in sys.modules


def test_ports_are_not_those_of_outgoing_connections() -> None:
    assert all(port < 32768 for port in (free_port() for _ in range(20)))


def test_nothing_imports_a_driver() -> None:
    program = """if True:
        import sys
        import tests.kit.backends, tests.kit.proxy
        print({"psycopg", "redis", "pymongo", "secantus"} & sys.modules.keys())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"
