"""A private server: started, stopped, killed, started again on the same port and data."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final, Literal, Self

from tests.kit.ports import LOOPBACK, free_port
from tests.kit.servers import keeper
from tests.kit.servers.programs import Account, ServerUnavailableError

StopMode = Literal["fast", "immediate"]
"""``fast``: cut the clients off, write out what is to be written, end. ``immediate``: end."""

_SECONDS_TO_START: Final = 60.0
_SECONDS_TO_STOP: Final = 60.0
_SECONDS_BETWEEN_PINGS: Final = 0.02
_PORTS_TRIED: Final = 5


class Server(ABC):
    """A server of its own on 127.0.0.1, with its data in a private temporary directory.

    Made by the ``start_…`` functions. It ends, and its directory goes, with ``close()`` or
    ``with``, and also when this process ends in any way, SIGKILL included. To be driven by one
    thread at a time.
    """

    name: ClassVar[str]
    """What it is, for people."""
    signals: ClassVar[Mapping[StopMode, signal.Signals]]
    """The signal for each way to stop."""

    def __init__(
        self, program: Path, version: str, options: Mapping[str, str], account: Account | None
    ) -> None:
        self.program: Final = program
        self.version: Final = version
        self.options: Final = dict(options)
        """The server's own settings; a change counts from the next start."""
        self.port = free_port()
        """It stays the same over restarts."""
        self._owner = os.getpid()
        self._account = account
        self._pid: int | None = None
        self.directory: Final = _private_directory(account)
        """Holds its data and ``server.log``; removed at the end."""
        self._keeper = _Keeper(self.directory)

    def __repr__(self) -> str:
        state = f"pid {self._pid}" if self.running else "stopped"
        return f"<{self.name} {self.version} on {LOOPBACK}:{self.port}, {state}>"

    # --- What each kind of server fills in

    @property
    def url(self) -> str:
        """The base URL for ``open_store``. It may hold a (random) password."""
        return self.url_at(LOOPBACK, self.port)

    @abstractmethod
    def url_at(self, host: str, port: int) -> str:
        """Return the URL for reaching this server at another address: that of a proxy."""

    @abstractmethod
    def answers(self) -> bool:
        """Return whether it serves requests now, having asked it."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command line that runs the server in the foreground."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make ready what the first start needs."""

    # --- What all do alike

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        if self._pid is not None and self._keeper.exit_status(0) is not None:
            self._pid = None
        return self._pid is not None

    @property
    def pid(self) -> int:
        """The process id; RuntimeError when it does not run."""
        if not self.running or self._pid is None:
            raise RuntimeError(f"{self!r} does not run")
        return self._pid

    def start(self) -> None:
        """Start it and return when it answers; ServerUnavailableError, with its log, if not."""
        if self.running:
            raise RuntimeError(f"{self!r} runs already")
        self._pid = self._keeper.start(
            self._command(), ending=self.signals["immediate"], account=self._account
        )
        deadline = time.monotonic() + _SECONDS_TO_START
        while self._keeper.exit_status(_SECONDS_BETWEEN_PINGS) is None:
            if self.answers():
                return
            if time.monotonic() > deadline:
                self.kill()
                raise self._failure(f"did not answer within {_SECONDS_TO_START:g} s")
        self._pid = None
        raise self._failure("ended while starting")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it and return when its processes are gone."""
        self._end(self.signals[mode])

    def kill(self) -> None:
        """End it as a crash would, by SIGKILL, and return when its processes are gone."""
        self._end(signal.SIGKILL)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop it, and start it on the same port and data."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """End it and remove its directory. Idempotent; in a forked child it does nothing."""
        if os.getpid() == self._owner:
            self._keeper.close()
            self._pid = None
            shutil.rmtree(self.directory, ignore_errors=True)  # in case the keeper was killed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_first(self) -> Self:
        """Prepare and start a new server; try another port where one was taken meanwhile."""
        try:
            self._prepare()
            for left in reversed(range(_PORTS_TRIED)):
                try:
                    self.start()
                except ServerUnavailableError as error:
                    if not left or "in use" not in str(error):
                        raise
                    self.port = free_port()
                else:
                    break
        except BaseException:
            self.close()
            raise
        return self

    def _run(self, command: list[str]) -> None:
        """Run a program to its end, under the keeper too."""
        self._keeper.start(command, ending=signal.SIGKILL, account=self._account)
        status = self._keeper.exit_status(_SECONDS_TO_START)
        if status != 0:
            raise self._failure(f"{Path(command[0]).name} failed ({status})")

    def _end(self, how: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it crashed just now
            os.kill(self.pid, how)
        if self._keeper.exit_status(_SECONDS_TO_STOP) is None:
            raise RuntimeError(f"{self!r} did not stop within {_SECONDS_TO_STOP:g} s")
        self._pid = None

    def _failure(self, what: str) -> ServerUnavailableError:
        try:
            log = (self.directory / "server.log").read_text(errors="replace")
        except FileNotFoundError:
            log = ""
        return ServerUnavailableError(
            f"{self.name} {self.version} ({self.program}) {what}; its log ends:\n{log[-3000:]}"
        )


class _Keeper:
    """The other end of ``keeper.py``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # A session of its own: Ctrl-C at the terminal is for us, not for the servers.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, str(directory), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._told = b""
        self._status: int | None = None

    def start(self, command: list[str], *, ending: signal.Signals, account: Account | None) -> int:
        """Start a program and return its pid."""
        program = {
            "command": command,
            "uid": account.uid if account else None,
            "gid": account.gid if account else None,
            "ending": int(ending),
            # Not ours: PGPORT and the like would change what is started.
            "environment": {
                "HOME": str(self._directory),
                "LC_ALL": "C",
                "PATH": os.environ.get("PATH", os.defpath),
            },
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(program).encode() + b"\n")
        self._status = None
        line = self._line(_SECONDS_TO_START)
        if line is None:
            raise ServerUnavailableError(f"could not start {command[0]}: its keeper is silent")
        return int(line.removeprefix("pid "))

    def exit_status(self, timeout: float) -> int | None:
        """Return the status of the program that was started, None while it runs."""
        if self._status is None:
            line = self._line(timeout)
            if line is not None:
                self._status = int(line.removeprefix("exit "))
        return self._status

    def close(self) -> None:
        """End what runs; return when it is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _line(self, timeout: float) -> str | None:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._told:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                return None
            part = self._process.stdout.read(4096)
            if not part:
                raise ServerUnavailableError("the keeper of a server was killed, and the server")
            self._told += part
        line, _, self._told = self._told.partition(b"\n")
        return line.decode()


def _private_directory(account: Account | None) -> Path:
    parent = Path(tempfile.gettempdir()).resolve()
    if account and not all(step.stat().st_mode & 0o001 for step in (parent, *parent.parents)):
        parent = Path("/tmp")  # the other user cannot get into ours
    directory = Path(tempfile.mkdtemp(prefix="eventstore-", dir=parent))
    if account:
        os.chown(directory, *account)
    return directory
