"""What the tests of the PostgreSQL adapter do alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event as Flag
from typing import Any, Final

import psycopg

from eventstore import Event, EventStoreError, open_store
from eventstore.backend import Batch, Outcome
from eventstore_postgres.appending import Appender
from tests.kit.secrets_scan import a_password
from tests.kit.servers import PostgresServer

WAIT: Final = 60.0
"""Seconds within which whatever must happen has happened, on a busy machine too."""


def note(entity_id: str = "n-1", **fields: Any) -> Event:
    """Return a small event."""
    return Event(event_type="Noted", entity_type="note", entity_id=entity_id, **fields)


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Return once something holds."""
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.002)


def url_as(server: PostgresServer, role: str, password: str = a_password()) -> str:
    """Return the server's URL for another role."""
    return f"postgresql://{role}:{password}@127.0.0.1:{server.port}/postgres"


def holders(admin: psycopg.Connection[Any], namespace: str) -> list[int]:
    """Return the processes that hold the write lock of a log."""
    rows = admin.execute(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
        " AND objid = to_regclass(%s)::oid",
        (f"{namespace}.events",),
    ).fetchall()
    return [pid for (pid,) in rows]


def join_and_stay(connection: Connection, url: str, namespace: str, commit: Flag) -> None:
    """Join a transaction, say so, and leave it open until told to commit."""
    with (
        open_store(url, namespace=namespace) as store,
        psycopg.connect(url) as transaction,
    ):
        store.append(note("joined"), connection=transaction)
        connection.send("holds the lock")
        commit.wait(WAIT)


def stay_within_an_append(connection: Connection, url: str, namespace: str, go_on: Flag) -> None:
    """Append, lingering between the statements of an append and its COMMIT; tell what came of
    it."""
    append = Appender.append

    def lingering(self: Appender, group: Sequence[Batch]) -> Sequence[Outcome]:
        outcomes = append(self, group)
        connection.send("holds the lock")
        go_on.wait(WAIT)
        return outcomes

    Appender.append = lingering  # type: ignore[method-assign]  # in this process alone
    # Behind a pooler of transactions each append is a BEGIN, statements, a COMMIT.
    options: dict[str, Any] = {"prepare_threshold": None, "timeout": 2, "retries": 0}
    with open_store(url, namespace=namespace, **options) as store:
        try:
            store.append_batch([note("stopped"), note("stopped")])
        except EventStoreError as error:
            connection.send(type(error).__name__)
        else:
            connection.send("stored")
