"""A private server that speaks the MongoDB protocol, each commit flushed to disk."""

from __future__ import annotations

import signal
import socket
import struct
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import ClassVar, Final

from tests.kit.ports import LOOPBACK
from tests.kit.servers.programs import (
    first_that_runs,
    in_wheel,
    on_path,
)
from tests.kit.servers.server import Server, StopMode

_WHEEL: Final = "SecantusDB"
_PINNED: Final = "--no-deps SecantusDB==0.6.0b17"
_SECONDS_TO_ANSWER: Final = 5.0
_OP_MSG: Final = 2013
_REPLICA_SET: Final = "rs0"

Value = int | str | dict[str, "Value"] | list["Value"]


def start_mongodb(**options: str) -> MongoServer:
    """Start a server; ``options`` are of its command line (``cache_size="1G"``).

    That of the wheel (which is GPL: it is run as a process, never imported), else a ``mongod``
    on the PATH, as a replica set of one so that it has transactions and change streams.
    """
    # The program itself, where the one in bin/ is but a Python script that runs it.
    of_wheel = tuple(in_wheel(_WHEEL, ".scripts/secantusd-rs", "/bin/secantusd-rs"))
    program, version = first_that_runs(
        chain(of_wheel, on_path("mongod")), what="MongoDB", install=_PINNED, names="`mongod`"
    )
    kind = SecantusServer if program in of_wheel else MongodServer
    return kind(program, version, options, None)._start_first()


class MongoServer(Server):
    """See ``start_mongodb``."""

    signals: ClassVar[Mapping[StopMode, signal.Signals]] = {
        "fast": signal.SIGTERM,
        "immediate": signal.SIGKILL,
    }
    defaults: ClassVar[Mapping[str, str]]

    def url_at(self, host: str, port: int) -> str:
        # At another address direct: a driver that discovers the replica set goes past a proxy.
        direct = "" if (host, port) == (LOOPBACK, self.port) else "?directConnection=true"
        return f"mongodb://{host}:{port}/{direct}"

    def answers(self) -> bool:
        return mongodb_answers(LOOPBACK, self.port)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _prepare(self) -> None:
        self._data.mkdir()

    def _flags(self) -> list[str]:
        flags = []
        for name, value in {**self.defaults, **self.options}.items():
            flags.append(f"--{name.replace('_', '-')}")
            if value:
                flags.append(value)
        return flags


class SecantusServer(MongoServer):
    """The wheel's server."""

    name: ClassVar[str] = "SecantusDB"
    defaults: ClassVar[Mapping[str, str]] = {
        "log-file-max": "32MB",
        "cache-size": "256M",
        "sync-on-commit": "",
    }

    def _command(self) -> list[str]:
        place = ["--host", LOOPBACK, "--port", str(self.port), "--storage-path", str(self._data)]
        return [str(self.program), *place, *self._flags()]


class MongodServer(MongoServer):
    """MongoDB itself."""

    name: ClassVar[str] = "MongoDB"
    defaults: ClassVar[Mapping[str, str]] = {"wiredTigerCacheSizeGB": "0.25"}

    def answers(self) -> bool:
        """Return whether it is primary; make a new server the only member of its set."""
        reply = _ask(LOOPBACK, self.port, {"hello": 1})
        if b"\x08isWritablePrimary\x00\x01" in reply:
            return True
        if reply and b"\x02setName\x00" not in reply:
            member: Value = {"_id": 0, "host": f"{LOOPBACK}:{self.port}"}
            configuration: Value = {"_id": _REPLICA_SET, "members": [member]}
            _ask(LOOPBACK, self.port, {"replSetInitiate": configuration})
        return False

    def _command(self) -> list[str]:
        place = ["--bind_ip", LOOPBACK, "--port", str(self.port), "--dbpath", str(self._data)]
        return [
            str(self.program),
            *place,
            "--replSet",
            _REPLICA_SET,
            "--nounixsocket",
            *self._flags(),
        ]


def mongodb_answers(host: str, port: int) -> bool:
    """Return whether a server that speaks the MongoDB protocol answers at this address."""
    return b"maxWireVersion" in _ask(host, port, {"hello": 1})


def _ask(host: str, port: int, command: dict[str, Value]) -> bytes:
    """Send one command and return the reply's document, unparsed; empty where there is none."""
    body = encoded({**command, "$db": "admin"})
    message = struct.pack("<iiiiiB", 21 + len(body), 1, 0, _OP_MSG, 0, 0) + body
    try:
        with socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER) as connection:
            connection.sendall(message)
            with connection.makefile("rb") as answers:
                (length,) = struct.unpack("<i", answers.read(4))
                return answers.read(length - 4)[17:]
    except (OSError, struct.error):
        return b""


def encoded(fields: Mapping[str, Value]) -> bytes:
    """Return a command as BSON."""
    elements = b"".join(_element(name, value) for name, value in fields.items())
    return struct.pack("<i", len(elements) + 5) + elements + b"\0"


def _element(name: str, value: Value) -> bytes:
    key = name.encode() + b"\0"
    match value:
        case int():
            return b"\x10" + key + struct.pack("<i", value)
        case str():
            text = value.encode() + b"\0"
            return b"\x02" + key + struct.pack("<i", len(text)) + text
        case dict():
            return b"\x03" + key + encoded(value)
        case list():
            return b"\x04" + key + encoded({str(i): item for i, item in enumerate(value)})
