"""Files that a command writes: whole or not at all, for the user's eyes, at the user's path."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from eventstore.errors import InvalidQueryError


def standard_input(wanted: str) -> IO[bytes]:
    """Return standard input; InvalidQueryError where nothing can be read there, or only typed."""
    if sys.stdin is None:
        raise InvalidQueryError(f"{wanted} must come from standard input, which is closed")
    if sys.stdin.isatty():
        raise InvalidQueryError(
            f"{wanted} must come from standard input, which is a terminal; use a pipe or a file"
        )
    return sys.stdin.buffer


def something_waits() -> bool:
    """Return whether a pipe or a file that is standard input holds anything, without reading it."""
    try:
        descriptor = sys.stdin.fileno()
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            return os.lseek(descriptor, 0, os.SEEK_CUR) < found.st_size
        if stat.S_ISFIFO(found.st_mode):
            waiting = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
            return int.from_bytes(waiting, sys.byteorder) > 0
    except (AttributeError, OSError, ValueError):  # closed, or not a file of the system's
        return False
    return False


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """Let an OSError name the path that the user gave, not one beside it, nor none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def mode_of(path: Path) -> int | None:
    """Return the mode of the file that stands at ``path``; None where nothing does.

    Raises OSError where it is anything but a regular file: a link may be somebody else's, and
    would lead elsewhere.
    """
    with told_of(path):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(found.st_mode):
            raise OSError(errno.ELOOP, "is a link; name the file that it leads to")
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        return stat.S_IMODE(found.st_mode)


@contextmanager
def written_whole(path: Path, *, replace: bool) -> Iterator[IO[bytes]]:
    """Open a new file that takes its place at ``path`` when all is written.

    It has the mode of the file that it replaces, else it is its owner's alone. Raises OSError
    where there is a file already and ``replace`` is false.
    """
    with told_of(path):
        mode = mode_of(path)
        if mode is not None and not replace:
            raise FileExistsError(errno.EEXIST, "is there already; --force replaces it")
        # Random in name, made with O_EXCL and O_NOFOLLOW, and of mode 0600.
        descriptor, beside = tempfile.mkstemp(".tmp", ".eventstore-", path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                if mode is not None:
                    os.fchmod(descriptor, mode)
                yield stream
                stream.flush()
                os.fsync(descriptor)
            if not replace:
                # Fails where somebody made one meanwhile; a hard link would need a file system
                # that has them.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            Path(beside).replace(path)
        finally:
            Path(beside).unlink(missing_ok=True)
