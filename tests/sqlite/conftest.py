"""A database file of its own for every test, and the backend under the store's skin."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from eventstore import EventStore, open_store
from eventstore.backend import Settings
from eventstore.backend import open_log as open_backend
from eventstore_sqlite import SqliteBackend

Open = Callable[..., EventStore]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database file is, or will be."""
    return tmp_path / "log.db"


@pytest.fixture
def open_log(path: Path) -> Iterator[Open]:
    """Opens stores on the file; they are closed at the end."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(open_store(f"sqlite:///{path}", **options))


@pytest.fixture
def store(open_log: Open) -> EventStore:
    """An empty log."""
    return open_log()


@pytest.fixture
def sqlite(path: Path) -> Iterator[SqliteBackend]:
    """The same as a backend."""
    settings = Settings.parse(f"sqlite:///{path}", {}, SqliteBackend.options)
    with closing(open_backend(SqliteBackend, settings)) as backend:
        yield backend


@pytest.fixture
def connect(path: Path) -> Iterator[Callable[..., sqlite3.Connection]]:
    """Opens another program's connections to the file; they are closed at the end."""
    with ExitStack() as stack:

        def connect(**options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = sqlite3.connect(path, **options)
            return stack.enter_context(closing(connection))

        yield connect
