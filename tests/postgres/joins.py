"""Transactions of psycopg connections, and formats of logs, for the conformance suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg

from eventstore.testing.conformance import Joins


def set_formats(url: str, namespace: str, least_reader: int, least_writer: int) -> None:
    """Note the formats that a log asks for."""
    with psycopg.connect(url) as connection:
        connection.execute(
            f'UPDATE "{namespace}".log SET least_reader = %s, least_writer = %s',
            (least_reader, least_writer),
        )


class PostgresJoins(Joins):
    """Connections that begin transactions by themselves, set up as unlike the store's own as
    can be."""

    def __init__(self, url: str, *, path: str = "pg_temp, public, pg_catalog") -> None:
        self._url = url
        self._path = path

    @contextmanager
    def connect(self, namespace: str) -> Iterator[psycopg.Connection[Any]]:
        with self._open(self._url, row_factory=psycopg.rows.dict_row) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS"
                " public.notes (namespace pg_catalog.text, note pg_catalog.text)"
            )
            connection.execute(f"SET search_path = {self._path}")
            connection.execute("SET TimeZone = 'America/St_Johns'")
            connection.execute("SET DateStyle = 'German'")
            connection.execute(f"SET notes.namespace = {namespace}")
            connection.commit()
            connection.prepare_threshold = None
            connection.adapters.register_loader("json", psycopg.types.string.TextLoader)
            connection.adapters.register_loader("int8", psycopg.types.string.TextLoader)
            connection.adapters.register_dumper(bytes, psycopg.types.string.BytesDumper)
            yield connection

    @contextmanager
    def _open(self, url: str, **options: Any) -> Iterator[psycopg.Connection[Any]]:
        connection = psycopg.connect(url, **options)
        try:
            yield connection
        finally:
            connection.close()

    def begin(self, connection: psycopg.Connection[Any]) -> None:
        pass  # the append begins it, or a statement of the caller's before

    def begin_with_snapshot(self, connection: psycopg.Connection[Any]) -> bool:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT FROM public.notes")
        return True

    def commit(self, connection: psycopg.Connection[Any]) -> None:
        connection.commit()

    def rollback(self, connection: psycopg.Connection[Any]) -> None:
        connection.rollback()

    def write_note(self, connection: psycopg.Connection[Any], note: str) -> None:
        connection.execute(
            "INSERT INTO public.notes VALUES (pg_catalog.current_setting('notes.namespace'), %s)",
            (note,),
        )

    def notes(self, connection: psycopg.Connection[Any]) -> list[str]:
        rows = connection.execute(
            "SELECT note FROM public.notes WHERE namespace"
            " OPERATOR(pg_catalog.=) pg_catalog.current_setting('notes.namespace')"
        ).fetchall()
        connection.commit()
        return [row["note"] for row in rows]

    def unsuitable(self, namespace: str) -> Mapping[str, Callable[[], AbstractContextManager[Any]]]:
        return {
            "autocommit outside a transaction": lambda: self._open(self._url, autocommit=True),
            "another database": lambda: self._open(self._url, dbname="template1"),
            "closed": self._closed,
            "in a failed transaction": self._failed,
            "in another encoding": lambda: self._open(self._url, client_encoding="LATIN1"),
            "in pipeline mode": self._pipeline,
        }

    @contextmanager
    def _closed(self) -> Iterator[psycopg.Connection[Any]]:
        with self._open(self._url) as connection:
            connection.close()
            yield connection

    @contextmanager
    def _failed(self) -> Iterator[psycopg.Connection[Any]]:
        with self._open(self._url) as connection:
            try:
                connection.execute("SELECT no.such_function()")
            except psycopg.Error:
                yield connection

    @contextmanager
    def _pipeline(self) -> Iterator[psycopg.Connection[Any]]:
        with self._open(self._url) as connection, connection.pipeline():
            yield connection
