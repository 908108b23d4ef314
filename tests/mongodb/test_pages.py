"""A long read fetches each document about once, however many pages it takes."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import drop_namespace, open_store
from eventstore._core.reading import PAGE
from eventstore.testing.conformance.base import note
from eventstore_mongodb import walking
from eventstore_mongodb.pieces import Piece
from eventstore_mongodb.records import PART

PAGES = 3


def test_the_next_page_of_an_entity_begins_where_the_last_one_ended(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an entity of several pages of events
    with open_store(url, namespace="pages", timeout=30) as store:
        for _ in range(PAGES):
            store.append_batch([note("n-1") for _ in range(PAGE)])
        fetched: list[Any] = []

        def counted(document: Any) -> Any:
            fetched.append(document)
            return Piece(document)

        monkeypatch.setattr(walking, "Piece", counted)

        # When it is read
        events = store.get_events_for_entity("note", "n-1")

        # Then hardly a document was fetched again
        assert [event.version for event in events] == list(range(1, PAGES * PAGE + 1))
        assert len(fetched) < 1.5 * PAGES * PAGE / PART
    drop_namespace(url, namespace="pages")
