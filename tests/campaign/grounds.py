"""Where a campaign takes place: a private server behind a proxy, a private file, or somebody
else's URL, on which neither the server nor its data is touched."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from eventstore.backend.settings import redacted
from tests.kit.proxy import Proxy
from tests.kit.servers import Server, start_mongodb, start_postgres, start_redis

_START: Final[dict[str, Callable[[], Server]]] = {
    "redis": start_redis,
    "mongodb": start_mongodb,
    # Every copy holds the write-ahead log too: let that stay small.
    "postgres": lambda: start_postgres(max_wal_size="64MB", min_wal_size="32MB"),
}
PRIVATE: Final = ("sqlite", *_START)
_PORTS: Final = {"redis": 6379, "mongodb": 27017, "postgresql": 5432}


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """A place, and what may be harmed there."""

    url: str
    """What the workers open: by way of the proxy, where there is one."""
    direct: str
    """The same past the proxy."""
    proxy: Proxy | None = None
    server: PrivateServer | None = None
    file: PrivateFile | None = None


@contextmanager
def ground_of(target: str) -> Iterator[Ground]:
    """Give the ground that ``target`` names: one of PRIVATE, or the URL of a running engine."""
    if target == "sqlite":
        with tempfile.TemporaryDirectory(prefix="eventstore-campaign-") as directory:
            file = PrivateFile(Path(directory, "log.db"))
            yield Ground(url=file.url, direct=file.url, file=file)
    elif target in _START:
        with _START[target]() as server, Proxy("127.0.0.1", server.port) as proxy:
            url = server.url_at(proxy.host, proxy.port)
            yield Ground(url=url, direct=server.url, proxy=proxy, server=PrivateServer(server))
    else:
        parts = urlsplit(target)
        if parts.scheme == "sqlite":
            yield Ground(url=target, direct=target)
        elif parts.scheme in _PORTS and parts.hostname and "," not in parts.netloc:
            with Proxy(parts.hostname, parts.port or _PORTS[parts.scheme]) as proxy:
                yield Ground(url=_at(proxy, target), direct=target, proxy=proxy)
        else:
            raise SystemExit(
                f"{redacted(target)}: must be one of {', '.join(PRIVATE)}, or the URL of an SQLite"
                " file or of one PostgreSQL, MongoDB or Redis server"
            )


def _at(proxy: Proxy, url: str) -> str:
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    query = parts.query
    if parts.scheme == "mongodb":  # a driver that discovers a replica set goes past the proxy
        query = "&".join(filter(None, (query, "directConnection=true")))
    place = f"{user}{at}{proxy.host}:{proxy.port}"
    return parts._replace(netloc=place, path=parts.path or "/", query=query).geturl()


class PrivateServer:
    """A server to be harmed, data and all."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._data = server.directory / "data"
        self._copy = server.directory / "copy"

    def kill(self) -> None:
        self._server.kill()

    def stop(self, *, at_once: bool = False) -> None:
        self._server.stop("immediate" if at_once else "fast")

    def start(self) -> None:
        self._server.start()

    def freeze(self) -> None:
        """Stop it and its children, as a stalled machine would, until ``thaw``."""
        for pid in _family(self._server.pid):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in _family(self._server.pid):
            os.kill(pid, signal.SIGCONT)

    def copy(self) -> None:
        """Copy its data, while it does not run."""
        subprocess.run(["cp", "-a", self._data, self._copy], check=True)
        (self._copy / "postmaster.pid").unlink(missing_ok=True)  # it would name a stranger

    def put_back(self) -> None:
        """Replace its data by the copy, while it does not run."""
        shutil.rmtree(self._data)
        self._copy.rename(self._data)


class PrivateFile:
    """An SQLite database to be harmed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._copy = path.with_name("copy.db")
        self._replaced = 0

    @property
    def url(self) -> str:
        return _url_of(self._path)

    def copy(self) -> None:
        """Copy it, whoever uses it meanwhile."""
        with (
            closing(sqlite3.connect(self._path)) as source,
            closing(sqlite3.connect(self._copy)) as target,
        ):
            source.backup(target)

    def put_back(self) -> str:
        """Put the copy in its place; return the URL under which the old one can be read."""
        self._replaced += 1
        old = self._path.with_name(f"old-{self._replaced}.db")
        for ending in ("", "-wal", "-shm"):
            part = Path(f"{self._path}{ending}")
            if part.exists():
                part.rename(f"{old}{ending}")
        self._copy.rename(self._path)
        return _url_of(old)


def _url_of(path: Path) -> str:
    return f"sqlite:///{quote(str(path))}"


def _family(pid: int) -> list[int]:
    """Return a process and its children, the parent first."""
    found = [pid]
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name, with anything in it) state parent ...
            parent = entry.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # gone meanwhile
        if int(parent) == pid:
            found.append(int(entry.parent.name))
    return found
