"""What a fork must wait for, and which files a forked child must leave alone.

SQLite notes for each file, by device and inode, which locks this process holds on it. A child
inherits the notes with every connection that is open, whoever opened it, but not the locks; and
as long as the inherited descriptor is open, each new connection of the child to that file, by
whatever path, believes the notes. So it is the descriptors that tell which files are safe.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol
from weakref import WeakSet


class Forking(Protocol):
    """Who takes part in a fork."""

    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


_all: Final[WeakSet[Forking]] = WeakSet()
_waiting: Final[list[Forking]] = []
"""Those that the present fork has stopped."""
_turn: Final = threading.RLock()
"""Held by the thread that forks: two at once would be in each other's way."""

_inherited: Final[dict[int, tuple[int, int]]] = {}
"""The regular files that were open when this process was forked, by descriptor."""
_kept: Final[list[sqlite3.Cursor]] = []
"""Connections of a parent process: neither used nor closed here."""


def register(member: Forking) -> None:
    """Have ``member`` told of forks, for as long as it lives."""
    _all.add(member)


def keep(cursors: Iterable[sqlite3.Cursor]) -> None:
    """Keep a parent's connections from being closed in this process."""
    _kept.extend(cursors)


def is_inherited(file: tuple[int, int]) -> bool:
    """Return whether a descriptor of this file came with the fork and is still open."""
    for descriptor, inherited in list(_inherited.items()):
        if _file_of(descriptor) != inherited:
            del _inherited[descriptor]  # closed, and its number may come again
    return file in _inherited.values()


def _file_of(descriptor: int) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            return found.st_dev, found.st_ino
    return None


def _descriptors() -> Sequence[int]:
    try:
        return [int(name) for name in os.listdir("/dev/fd")]  # noqa: PTH208 - numbers, no paths
    except OSError:  # out of descriptors itself
        return range(min(os.sysconf("SC_OPEN_MAX"), 65_536))


def _before() -> None:
    _turn.acquire()
    _waiting[:] = _all
    for member in _waiting:
        member.before_fork()


def _after_in_parent() -> None:
    for member in _waiting:
        member.after_fork_in_parent()
    _waiting.clear()
    _turn.release()


def _after_in_child() -> None:
    found = {descriptor: _file_of(descriptor) for descriptor in _descriptors()}
    _inherited.clear()
    _inherited.update((number, file) for number, file in found.items() if file is not None)
    for member in list(_all):
        member.after_fork_in_child()
    _waiting.clear()
    with suppress(RuntimeError):  # a server in C may fork without the first half
        _turn.release()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
