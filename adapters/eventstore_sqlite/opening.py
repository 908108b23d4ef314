"""Where a log is, whether it is there, making and removing it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from eventstore.backend import Found, Settings, time_left
from eventstore.errors import ConfigurationError
from eventstore_sqlite.connections import Connections
from eventstore_sqlite.reading import rows
from eventstore_sqlite.selecting import Statements, text_of

_LEAST_SQLITE: Final = (3, 34)


def path_of(settings: Settings) -> Path | None:
    """Return the absolute path of the file; None for memory. ConfigurationError if it cannot be."""
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise ConfigurationError(
            f"SQLite {sqlite3.sqlite_version} is too old: 3.34 is the least; use a Python that is"
            " built with a newer one"
        )
    name = settings.path[1:]
    if not settings.location.startswith("/") or not name or "\0" in name:
        raise ConfigurationError(
            f"url: {settings.safe_url!r} names no file; it looks like sqlite:///relative.db,"
            " sqlite:////absolute/path.db or sqlite:///:memory:"
        )
    return None if name == ":memory:" else _usable(name)


def _usable(given: str) -> Path:
    """Return the path of the file itself: SQLite's other files are beside that, not a link's."""
    path = Path(os.path.realpath(given))
    if not path.exists() and Path(given).is_symlink():
        raise ConfigurationError(
            f"{given}: is a link to {path}, which is not there; open that path itself to make it"
        )
    if path.is_dir():
        raise ConfigurationError(f"{path}: is a directory, not a database file")
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path}: there is no folder {path.parent}; make it first")
    for needed in (path.parent, path):  # a write-ahead log is made beside the file
        if needed.exists() and not os.access(needed, os.R_OK | os.W_OK):
            raise ConfigurationError(f"{path}: cannot be used: {needed} is read-only for this user")
    path.with_name(f"{path.name}-journal").exists()  # raises where that name is too long
    return path


def look(connections: Connections, sql: Statements) -> Found | None:
    """Return what the log says of itself; None where there is none."""
    if connections.path is not None and not connections.path.exists():
        return None
    with connections.reading() as cursor:
        if not rows(cursor, sql["has_log"]):
            return None
        found = rows(cursor, sql["read_log"])
    if len(found) != 1:
        raise ConfigurationError(f"{connections.name}: {sql.namespace}_log is not of an event log")
    return Found(*found[0])


def make(connections: Connections, sql: Statements, settings: Settings) -> None:
    """Make the log, and the file, unless another process was faster."""
    connections.make_file()
    with connections.writing(time_left(settings.timeout)) as cursor:
        if not rows(cursor, sql["has_log"]):
            _run(cursor, text_of("schema.sql", settings.namespace))


def remove(connections: Connections, sql: Statements, settings: Settings) -> bool:
    """Remove the log; return whether it was there."""
    if look(connections, sql) is None:
        return False
    with connections.writing(time_left(settings.timeout)) as cursor:
        if not rows(cursor, sql["has_log"]):  # another process was faster
            return False
        _run(cursor, text_of("drop.sql", settings.namespace))
    return True


def _run(cursor: sqlite3.Cursor, script: str) -> None:
    """Execute a script's statements one by one, for ``executescript`` would commit before."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            cursor.execute(statement)
            statement = ""
