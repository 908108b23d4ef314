"""Every field of EventQuery is served by an index, and so are the lookups of an append."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from eventstore import EventQuery, EventStore, drop_namespace, open_store
from eventstore.backend import PageRequest
from eventstore_postgres import PostgresBackend
from eventstore_postgres.selecting import page_query
from tests.kit.servers import PostgresServer
from tests.postgres.work import note

pytestmark = pytest.mark.timeout(600)  # a busy machine takes minutes to make the log

EVENTS = 1_000_000
START = datetime(2024, 1, 1, tzinfo=UTC)
NAMESPACE = "indexed"

ANY_INDEX = "Index Scan"

FILL = """
    INSERT INTO indexed.events
    SELECT n, 1 + n / 1000, n, now(), gen_random_uuid(), 'tenant-' || n % 50, 'type-' || n % 40,
        'entity-' || n % 1000, 'Happened-' || n % 60, 'workflow-' || n % 500,
        ARRAY['tag-' || n % 300, 'tag-' || n % 7], '{}', '{}', 1,
        timestamptz '2024-01-01 00:00Z' + n * interval '1 second'
    FROM generate_series(0, %s) n
"""


@pytest.fixture(scope="module")
def filled(server: PostgresServer) -> Iterator[PostgresBackend]:
    """A log of some size, with statistics."""
    with (
        open_store(server.url, namespace=NAMESPACE) as store,
        psycopg.connect(server.url, autocommit=True) as admin,
    ):
        admin.execute(FILL.replace("%s", str(EVENTS)))
        admin.execute("VACUUM ANALYZE indexed.events")
        assert isinstance(store._log.backend, PostgresBackend)
        yield store._log.backend
    drop_namespace(server.url, namespace=NAMESPACE)


def plan_of(backend: PostgresBackend, page: PageRequest) -> str:
    """Return how PostgreSQL would read a page."""
    text, parameters = page_query(NAMESPACE, page)
    with backend._sessions.reading() as session:
        rows = session.execute(f"EXPLAIN {text}", parameters).fetchall()
    return "\n".join(line for (line,) in rows)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({"entity_type": "type-3"}, "events_entity_type"),
        ({"entity_id": "entity-3"}, "events_version"),
        ({"workflow_id": "workflow-3"}, "events_workflow"),
        ({"tenant_id": "tenant-3"}, "events_tenant"),
        ({"event_types": ["Happened-3"]}, "events_event_type"),
        ({"event_types": ["Happened-3", "Happened-4"]}, ANY_INDEX),
        ({"tags": ["tag-299"]}, "events_tags"),
        ({"tags": ["tag-299", "tag-3"]}, "events_tags"),
        ({"from_sequence": EVENTS - 300}, "events_sequence"),
        ({"to_sequence": 300}, "events_sequence"),
        ({"from_timestamp": START + timedelta(seconds=EVENTS - 300)}, "events_timestamp"),
        ({"to_timestamp": START + timedelta(seconds=300)}, "events_timestamp"),
        ({"any_of": [EventQuery(entity_id="entity-3"), EventQuery(tags=["tag-299"])]}, "BitmapOr"),
        ({}, "events_sequence"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("order", ["sequence", "timestamp"])
def test_each_field_is_served_by_an_index(
    filled: PostgresBackend, query: dict[str, Any], index: str, order: Any
) -> None:
    plan = plan_of(filled, PageRequest(query=EventQuery(**query), limit=1000, order_by=order))

    # In order of time it may also walk the log in that order, and filter.
    assert index in plan or (order == "timestamp" and "events_timestamp" in plan)
    assert "Seq Scan" not in plan


@pytest.mark.parametrize("ascending", [True, False])
def test_pages_in_time_order_go_on_by_key(filled: PostgresBackend, ascending: bool) -> None:
    resume = (START + timedelta(seconds=EVENTS // 2), EVENTS // 2)
    page = PageRequest(
        query=EventQuery(), limit=100, order_by="timestamp", ascending=ascending, resume=resume
    )
    plan = plan_of(filled, page)

    assert "events_timestamp" in plan
    assert "Sort" not in plan


def test_an_entity_is_read_by_its_versions(filled: PostgresBackend) -> None:
    query = EventQuery(entity_type="type-3", entity_id="entity-3", tenant_id="tenant-3")
    plan = plan_of(filled, PageRequest(query=query, limit=1000, above_version=5))

    assert "events_version" in plan
    assert "Sort" not in plan


def test_appends_look_up_by_the_right_index_even_before_there_are_statistics(
    store: EventStore, admin: psycopg.Connection[Any], namespace: str
) -> None:
    # Given a new log, which no one has analysed
    events = [store.append(note(f"n-{n}")) for n in range(300)]
    store.append_batch([note(f"n-{n}") for n in range(300)])
    # When there are repeats, too
    for event in events[:100]:
        assert store.append(event) == event
    assert store.append_batch(events[:100]).replayed
    # Then no index was read from end to end, again and again
    store.close()
    admin.execute("SELECT pg_stat_clear_snapshot()")
    read = dict(
        admin.execute(
            "SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = %s",
            (namespace,),
        ).fetchall()
    )
    assert {name for name, tuples in read.items() if tuples > 5_000} == set()
    scans = admin.execute(
        "SELECT seq_tup_read FROM pg_stat_user_tables WHERE schemaname = %s AND relname = 'events'",
        (namespace,),
    ).fetchone()
    assert scans is not None
    assert scans[0] < 5_000
