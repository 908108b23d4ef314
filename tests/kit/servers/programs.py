"""Where the servers' programs are: in an installed wheel, else on the PATH."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

_SECONDS: Final = 20


class ServerUnavailableError(RuntimeError):
    """A server cannot be had here: not installed, not startable, or it does not answer.

    The message tells what to do about it.
    """


class Account(NamedTuple):
    """A system user to run a program as."""

    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Return the user for programs that refuse to run as root; None if we are not root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def in_wheel(distribution: str, *paths: str) -> Iterator[Path]:
    """Yield an installed distribution's files by the ends of their paths, importing nothing."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return
    for path in paths:
        for file in files:
            if file.as_posix().endswith(path):
                yield Path(str(file.locate())).resolve()


def version_of(program: Path, account: Account | None = None) -> str | None:
    """Return the version number a program tells, or None where it does not run."""
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            check=True,
            cwd="/",
            timeout=_SECONDS,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\d+(\.\d+)+\S*", done.stdout)
    return match.group() if match else None


def on_path(*names: str, also: str = "") -> Iterator[Path]:
    """Yield the programs of these names on the PATH, and those of a glob under ``/``."""
    for name in names:
        found = shutil.which(name)
        if found:
            yield Path(found).resolve()
    if also:
        yield from sorted(Path("/").glob(also), reverse=True)


def first_that_runs(
    candidates: Iterable[Path], *, what: str, install: str, names: str
) -> tuple[Path, str]:
    """Return the first program that runs, and its version.

    Raises ServerUnavailableError that tells what to ``install``, or to have on the PATH.
    """
    tried = []
    for program in candidates:
        version = version_of(program)
        if version is not None:
            return program, version
        tried.append(str(program))
    found = f" ({', '.join(tried)}: does not run)" if tried else ""
    raise ServerUnavailableError(
        f"no {what} here{found}: pip install {install}, or put {names} on the PATH"
    )
