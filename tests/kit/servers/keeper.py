"""Runs a server, and ends it when the process that asked for it ends, however that ends.

A script of its own: ``python -I -S keeper.py DIRECTORY PARENT_PID``. (A death signal to the
server would not do: the kernel sends it when the *thread* that forked ends.)

Each line on standard input is a JSON object, the program to run next; each is answered by
``pid N`` and, when the program and all it started are gone, ``exit STATUS``. At the end of
input, or when the parent is gone, what runs is ended and DIRECTORY removed.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SECONDS_TO_END = 5.0
_SECONDS_BETWEEN_LOOKS = 1.0


def main(directory: str, parent: int) -> None:
    """Serve one parent until it is gone."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans of the server become ours, to be ended and reaped
    wake_up, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, _nothing)
    signal.signal(signal.SIGTERM, _leave)
    running: int | None = None
    ending = int(signal.SIGKILL)
    try:
        # The end of input tells at once; the parent's id also where a fork keeps the pipe open.
        while os.getppid() == parent:
            ready, _, _ = select.select([0, wake_up], [], [], _SECONDS_BETWEEN_LOOKS)
            if wake_up in ready:
                os.read(wake_up, 4096)
                status = _reap(running)
                if status is not None:
                    running = None
                    _tell(f"exit {status}")
            if 0 in ready:
                line = sys.stdin.buffer.readline()
                if not line:
                    break
                program = json.loads(line)
                ending = program["ending"]
                running = _spawn(program, directory)
                _tell(f"pid {running}")
    except BrokenPipeError:
        pass  # the parent is gone
    finally:
        if running is not None:
            _end(running, ending)
        shutil.rmtree(directory, ignore_errors=True)


def _spawn(program: dict[str, Any], directory: str) -> int:
    log = os.open(Path(directory, "server.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode=0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    child = os.fork()
    if child:
        os.close(log)
        os.close(nothing)
        return child
    try:
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.set_wakeup_fd(-1)
        os.chdir(directory)
        if program["uid"] is not None:
            os.setgroups([])
            os.setgid(program["gid"])
            os.setuid(program["uid"])
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))  # after setuid, which clears it
        command = program["command"]
        os.execve(command[0], command, program["environment"])
    except BaseException as error:  # noqa: BLE001  # whatever it is, a fork must not go on as us
        os.write(2, f"{error!r}\n".encode())
    finally:
        os._exit(127)


def _reap(running: int | None) -> int | None:
    """Collect the dead; return the status of ``running`` when it and its family are gone."""
    status = None
    try:
        while True:
            pid, waited = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == running:
                status = os.waitstatus_to_exitcode(waited)
    except ChildProcessError:
        return status
    if status is not None:
        _end_family()
    return status


def _end_family() -> None:
    """Kill and reap all that is left. Nobody forks: what started them is dead."""
    try:
        while True:
            for pid in _children():
                os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


def _children() -> list[int]:
    own = os.getpid()
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name, with anything in it) state parent ...
            parent = entry.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # gone meanwhile
        if int(parent) == own:
            found.append(int(entry.parent.name))
    return found


def _end(running: int, ending: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(running, ending)
    os.kill(running, signal.SIGCONT)  # it may have been stopped by a test
    deadline = time.monotonic() + _SECONDS_TO_END
    while _reap(running) is None:
        if time.monotonic() > deadline:
            os.kill(running, signal.SIGKILL)
        time.sleep(0.005)


def _tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Let the signal be written to the wake-up pipe."""


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
