"""Pages and counts of queries of any size that the core lets through."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from eventstore.backend import PageRequest
from eventstore.query import EventQuery
from eventstore_sqlite.appending import rows
from eventstore_sqlite.selecting import Statements, parts


def find_page(cursor: sqlite3.Cursor, sql: Statements, page: PageRequest) -> list[tuple[Any, ...]]:
    """Return the rows of a page."""
    queries = parts(page.query)
    if len(queries) == 1:
        probe = sql.probe(page)
        few = probe is not None and bool(rows(cursor, probe)[0][0])
        return rows(cursor, sql.page(page, few=few))
    with _one_state(cursor):
        among = {
            sequence
            for query in queries
            for (sequence,) in rows(cursor, sql.firsts(msgspec.structs.replace(page, query=query)))
        }
        return rows(cursor, sql.among(page, among))


def count_matches(cursor: sqlite3.Cursor, sql: Statements, query: EventQuery) -> int:
    """Return how many events match."""
    queries = parts(query)
    if len(queries) == 1:
        ((count,),) = rows(cursor, sql.count(query))
        return int(count)
    with _one_state(cursor):
        return len({found for part in queries for found in rows(cursor, sql.matches(part))})


@contextmanager
def _one_state(cursor: sqlite3.Cursor) -> Iterator[None]:
    """Have all statements of the block see the log as it stands at the first."""
    cursor.execute("BEGIN")
    yield
    cursor.execute("COMMIT")  # an exception leaves that to who lent the connection
