"""Tail readers miss nothing, and a batch is seen whole (G1, G3, G4)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest

from eventstore import EventQuery, EventStore
from eventstore.testing.conformance.base import (
    WAIT,
    Conformance,
    assert_log_is_sound,
    note,
    notes,
    sequences,
)
from eventstore.testing.conformance.crews import Crew

EACH = 60  # events that each writer appends


def write(store: EventStore, writer: int) -> list[int]:
    """Append EACH events, singly and in batches of random size; return their sequences."""
    choose = random.Random(writer)
    written: list[int] = []
    while len(written) < EACH:
        size = min(choose.choice([1, 1, 1, 2, 5, 20]), EACH - len(written))
        tags = ("all", f"writer-{writer}")
        written += store.append_batch(notes(size, f"w-{writer}", tags=tags)).sequences
    return written


def _since(store: EventStore, position: int) -> list[int]:
    return sequences(store.get_events_since(position, limit=7))


def _query(store: EventStore, position: int) -> list[int]:
    return sequences(store.get_events(EventQuery(from_sequence=position)))


def _tagged(store: EventStore, position: int) -> list[int]:
    return sequences(store.get_events(EventQuery(tags=["all"], from_sequence=position, limit=9)))


def _waiting(store: EventStore, position: int) -> list[int]:
    store.wait_for_events(position, timeout=1.0)
    return sequences(store.get_events_since(position))


WAYS: dict[str, Callable[[EventStore, int], list[int]]] = {
    "get_events_since": _since,
    "get_events": _query,
    "get_events by tag": _tagged,
    "wait_for_events": _waiting,
}


def tail(store: EventStore, total: int, way: str) -> list[int]:
    """Follow the log, remembering one number; return the sequences seen, in order."""
    seen: list[int] = []
    position = 0
    deadline = time.monotonic() + WAIT
    while len(seen) < total and time.monotonic() < deadline:
        page = WAYS[way](store, position)
        seen += page
        position = page[-1] if page else position
    return seen


def watch_head(store: EventStore, total: int) -> list[int]:
    """Look at the head until it is at ``total``, and read up to it each time."""
    heads: list[int] = []
    deadline = time.monotonic() + WAIT
    while (not heads or heads[-1] < total) and time.monotonic() < deadline:
        head = store.get_current_sequence()
        heads.append(head)
        visible = store.count_events(EventQuery(to_sequence=head))
        assert visible == head, "every event up to the head is visible"
    return heads


def count_batches(store: EventStore, total: int) -> list[int]:
    """Read everything again and again; return how many events each snapshot held."""
    sizes = [0]
    deadline = time.monotonic() + WAIT
    while sizes[-1] < total and time.monotonic() < deadline:
        found = sequences(store.get_events())
        assert found == list(range(1, len(found) + 1))
        assert store.count_events() >= len(found)
        sizes.append(len(found))
    return sizes


def append_fives(store: EventStore, writer: int, count: int) -> None:
    """Append batches of five."""
    for _ in range(count):
        store.append_batch(notes(5, f"w-{writer}"))


ROLES: dict[str, Callable[..., Any]] = {
    "write": write,
    "tail": tail,
    "watch_head": watch_head,
    "count_batches": count_batches,
    "append_fives": append_fives,
}


def act(store: EventStore, role: str, *arguments: Any) -> Any:
    """What each worker of a crew does here."""
    return ROLES[role](store, *arguments)


def append_timed(store: EventStore, writer: int) -> list[tuple[float, float, int]]:
    """Append, and return when each append began and ended, and where it stands."""
    record = []
    for _ in range(30):
        begun = time.monotonic()  # one clock for all processes of a machine
        sequence = store.append(note(f"w-{writer}")).sequence
        record.append((begun, time.monotonic(), sequence))
    return record


class TailTests(Conformance):
    @pytest.mark.parametrize("way", WAYS)
    def test_a_reader_that_remembers_one_number_misses_nothing(
        self, store: EventStore, crew: Crew, way: str
    ) -> None:
        readers = crew.size // 3
        writers = crew.size - readers
        total = writers * EACH
        work: list[tuple[Any, ...]] = [("tail", total, way)] * readers
        work += [("write", writer) for writer in range(writers)]

        results = crew.run(act, work)

        for seen in results[:readers]:
            assert seen == list(range(1, total + 1))
        assert sorted(chain.from_iterable(results[readers:])) == list(range(1, total + 1))
        assert_log_is_sound(store)

    def test_the_head_never_goes_back_and_all_below_it_is_there(
        self, store: EventStore, crew: Crew
    ) -> None:
        writers = crew.size - 1
        total = writers * EACH

        heads, *_ = crew.run(
            act, [("watch_head", total), *(("write", writer) for writer in range(writers))]
        )

        assert heads == sorted(heads)
        assert heads[-1] == total

    def test_a_snapshot_holds_batches_whole(self, store: EventStore, crew: Crew) -> None:
        writers = crew.size - 1
        total = writers * 5 * 12

        sizes, *_ = crew.run(
            act,
            [
                ("count_batches", total),
                *(("append_fives", writer, 12) for writer in range(writers)),
            ],
        )

        assert all(size % 5 == 0 for size in sizes)
        assert sizes == sorted(sizes)
        assert sizes[-1] == total

    def test_an_append_that_returned_stands_before_one_begun_later(
        self, store: EventStore, crew: Crew
    ) -> None:
        records = crew.run(append_timed, [(writer,) for writer in range(crew.size)])

        appends = sorted(chain.from_iterable(records), key=lambda append: append[2])
        assert [sequence for *_, sequence in appends] == list(range(1, 30 * crew.size + 1))
        latest_begin = 0.0
        for begun, ended, sequence in appends:
            # Of those with a lower sequence, none may have begun after this one returned.
            assert ended >= latest_begin, f"the append at {sequence} came late"
            latest_begin = max(latest_begin, begun)

    def test_what_one_worker_appended_the_next_reads_at_once(
        self, store: EventStore, crew: Crew
    ) -> None:
        for _ in range(5):
            recorded = store.append(note())

            heads = crew.run(read_everything, [()] * crew.size)

            assert heads == [(recorded.sequence, recorded.sequence, recorded.version)] * crew.size


def read_everything(store: EventStore) -> tuple[int, int, int]:
    """Return the head, the number of events, and the version of the entity."""
    return (
        store.get_current_sequence(),
        len(list(store.get_events())),
        store.get_current_version("note", "n-1"),
    )
