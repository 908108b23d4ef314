"""A log that a newer release has made or changed: who may read it, and who may append."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from eventstore import Capability, ConfigurationError, EventStore, UnsupportedOperationError
from eventstore.testing.conformance.base import Conformance, OpenAnother, note, notes, require
from eventstore.testing.conformance.harness import Harness

NEWER: Final = 1000
"""A format that no release has reached."""

SetFormats = Callable[[int, int], None]


class FormatTests(Conformance):
    """The least reader and the least writer that a log asks for."""

    @pytest.fixture
    def set_formats(self, harness: Harness, namespace: str, store: EventStore) -> SetFormats:
        """Notes a least reader and a least writer in the log of ``store``."""
        note_down = harness.set_formats
        if note_down is None:
            pytest.skip("the harness does not say how a log's formats are set (set_formats)")
        return lambda reader, writer: note_down(namespace, reader, writer)

    def test_a_log_for_newer_writers_is_read_and_not_appended_to(
        self, store: EventStore, open_another: OpenAnother, set_formats: SetFormats
    ) -> None:
        recorded = list(store.append_batch(notes(3)))
        set_formats(1, NEWER)

        older = open_another()

        assert list(older.get_events()) == recorded
        assert older.get_current_sequence() == 3
        assert older.checkpoint().sequence == 3
        for append in (
            lambda: older.append(note()),
            lambda: older.append_batch(notes(2)),
            lambda: older.for_tenant("a").append(note()),
        ):
            with pytest.raises(UnsupportedOperationError, match=f"format {NEWER}.*upgrade"):
                append()
        assert list(older.get_events()) == recorded

    def test_a_log_for_newer_writers_takes_no_appends_in_joins(
        self,
        harness: Harness,
        namespace: str,
        store: EventStore,
        open_another: OpenAnother,
        set_formats: SetFormats,
    ) -> None:
        require(store, Capability.JOIN_TRANSACTION)
        joins = harness.joins
        assert joins is not None
        set_formats(1, NEWER)
        older = open_another()
        with joins.connect(namespace) as connection:
            joins.begin(connection)
            with pytest.raises(UnsupportedOperationError, match="upgrade"):
                older.append(note(), connection=connection)
            joins.rollback(connection)
        assert store.get_current_sequence() == 0

    def test_a_log_for_newer_readers_is_not_opened(
        self, store: EventStore, open_another: OpenAnother, set_formats: SetFormats
    ) -> None:
        recorded = store.append(note())
        set_formats(NEWER, NEWER)
        with pytest.raises(ConfigurationError, match=f"format {NEWER}.*upgrade"):
            open_another()
        set_formats(1, 1)
        assert list(open_another().get_events()) == [recorded]
