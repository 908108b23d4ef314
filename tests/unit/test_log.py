"""Retries, positions and gaps: the core over a backend that misbehaves on purpose."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from eventstore import (
    AppendCondition,
    AppendResult,
    Checkpoint,
    CheckpointError,
    ConditionFailedError,
    CorruptLogError,
    DurabilityWarning,
    Event,
    EventQuery,
    EventStore,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedOperationError,
    open_store,
)
from eventstore._core.log import Log
from eventstore.backend import Backend, Batch, Outcome, PageRequest, Settings, open_log
from eventstore.memory import MemoryBackend


class Shaky(MemoryBackend):
    """A memory backend with faults put in."""

    faults: list[Exception]
    """Raised by the next commits, one each, before they write."""
    lost_answers: list[Exception]
    """Raised by the next commits, one each, after they wrote."""
    hidden: set[int]
    """Sequences that reads leave out."""
    lag: int
    """How far ``head`` stays behind until it is confirmed."""
    attempts: int
    asked: list[int]
    """The limits of the pages read."""

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        self.attempts += 1
        if self.faults:
            raise self.faults.pop(0)
        outcomes = super().commit(group, timeout)
        if self.lost_answers:
            raise self.lost_answers.pop(0)
        return outcomes

    def read(self, page: PageRequest) -> list[Event]:
        self.asked.append(page.limit)
        return [event for event in super().read(page) if event.sequence not in self.hidden]

    def head(self) -> int:
        return super().head() - self.lag

    def confirmed_head(self) -> int:
        self.lag = 0
        return super().head()

    def join(self, connection: Any, batch: Batch, timeout: float) -> Outcome:
        return super().commit([batch], timeout)[0]

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection["open"])


@pytest.fixture
def shaky() -> Shaky:
    shaky = open_log(Shaky, Settings.parse("memory://", {}, Shaky.options))
    shaky.faults, shaky.lost_answers, shaky.hidden, shaky.asked = [], [], set(), []
    shaky.lag = shaky.attempts = 0
    return shaky


Opener = Callable[..., EventStore]


@pytest.fixture
def opened(shaky: Shaky) -> Iterator[Opener]:
    stores = []

    def open_it(**options: Any) -> EventStore:
        stores.append(EventStore(Log(shaky, Settings.parse("memory://", options, Shaky.options))))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


def an_event() -> Event:
    return Event(event_type="Happened", entity_type="thing", entity_id="a")


def gone(*, may_have_written: bool = False, transient: bool = True) -> StoreUnavailableError:
    return StoreUnavailableError("gone", may_have_written=may_have_written, transient=transient)


def test_an_outage_is_survived_by_trying_again(shaky: Shaky, opened: Opener) -> None:
    shaky.faults = [gone(), gone()]
    assert opened().append(an_event()).sequence == 1
    assert shaky.attempts == 3


def test_a_lost_answer_is_found_again_and_told_as_replayed(shaky: Shaky, opened: Opener) -> None:
    shaky.lost_answers = [gone(may_have_written=True)]
    result = opened().append_batch([an_event(), an_event()])
    assert result.sequences == (1, 2)
    assert result.replayed
    assert opened().count_events() == 2


def test_once_something_may_have_been_written_the_last_error_says_so(
    shaky: Shaky, opened: Opener
) -> None:
    shaky.lost_answers = [gone(may_have_written=True)]
    shaky.faults = []
    store = opened(retries=2)
    original = shaky.commit

    def fail_after_first(group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        try:
            return original(group, timeout)
        finally:
            shaky.faults = [gone()]

    store._log._commits._commit = fail_after_first
    with pytest.raises(StoreUnavailableError) as caught:
        store.append(an_event())
    assert caught.value.may_have_written


def test_retries_are_counted(shaky: Shaky, opened: Opener) -> None:
    shaky.faults = [gone() for _ in range(9)]
    with pytest.raises(StoreUnavailableError):
        opened(retries=3).append(an_event())
    assert shaky.attempts == 4


def test_without_retries_the_first_error_is_raised(shaky: Shaky, opened: Opener) -> None:
    shaky.faults = [gone()]
    with pytest.raises(StoreUnavailableError):
        opened(retries=0).append(an_event())
    assert shaky.attempts == 1


def test_what_will_not_pass_is_not_tried_again(shaky: Shaky, opened: Opener) -> None:
    shaky.faults = [gone(transient=False)]
    with pytest.raises(StoreUnavailableError):
        opened().append(an_event())
    assert shaky.attempts == 1


def test_trying_again_ends_within_the_timeout(shaky: Shaky, opened: Opener) -> None:
    shaky.faults = [gone() for _ in range(1000)]
    with pytest.raises(StoreUnavailableError):
        opened(timeout=0.2, retries=1000).append(an_event())
    assert shaky.attempts < 200


@pytest.mark.parametrize("missing", [1, 2, 3, 5])
def test_a_gap_is_told_and_never_skipped(shaky: Shaky, opened: Opener, missing: int) -> None:
    store = opened()
    store.append_batch([an_event() for _ in range(5)])
    shaky.hidden = {missing}
    with pytest.raises(CorruptLogError, match=f"sequence {missing} is missing"):
        list(store.get_events())
    with pytest.raises(CorruptLogError, match=f"sequence {missing} is missing"):
        list(store.get_events(EventQuery(ascending=False)))


@pytest.mark.parametrize("missing", [1, 2, 5])
def test_a_gap_is_told_to_who_catches_up_or_reads_an_entity(
    shaky: Shaky, opened: Opener, missing: int
) -> None:
    store = opened()
    store.append_batch([an_event() for _ in range(5)])
    shaky.hidden = {missing}
    with pytest.raises(CorruptLogError):
        store.get_events_since(missing - 1)
    if missing < 5:  # an entity's last version is known by reading alone
        with pytest.raises(CorruptLogError):
            store.get_events_for_entity("thing", "a")


@pytest.mark.parametrize("missing", [1, 2, 4])
def test_a_gap_is_told_to_who_reads_an_entity_backwards(
    shaky: Shaky, opened: Opener, missing: int
) -> None:
    store = opened()
    store.append_batch([an_event() for _ in range(5)])
    shaky.hidden = {missing}
    windows: list[dict[str, Any]] = [{}, {"to_version": 4}, {"to_version": 9, "limit": 9}]
    for window in windows:
        with pytest.raises(CorruptLogError, match=f"version {missing} of 'thing' 'a' is missing"):
            store.get_events_for_entity("thing", "a", ascending=False, **window)
        with pytest.raises(CorruptLogError):
            list(store.iterate_entity("thing", "a", ascending=False, **window))
    assert len(store.get_events_for_entity("thing", "a", missing, ascending=False)) == 5 - missing


@pytest.mark.parametrize(
    ("window", "limits"),
    [
        ({}, [1000]),
        ({"limit": 3}, [3]),
        ({"to_version": 4}, [4]),
        ({"from_version": 2, "to_version": 4}, [2]),
        ({"to_version": 4, "limit": 9}, [4]),
        ({"limit": 0}, []),
        ({"from_version": 4, "to_version": 4}, []),
        ({"ascending": False}, [1000]),
        ({"ascending": False, "limit": 3}, [3]),
        ({"ascending": False, "to_version": 4}, [1, 4]),
        ({"ascending": False, "from_version": 2, "to_version": 4, "limit": 1}, [1, 1]),
        ({"ascending": False, "to_version": 9, "limit": 2}, [1, 1, 2]),
        ({"ascending": False, "from_version": 4, "to_version": 4}, []),
        ({"ascending": False, "limit": 0}, []),
    ],
    ids=repr,
)
def test_a_window_of_an_entity_is_read_at_once(
    shaky: Shaky, opened: Opener, window: dict[str, Any], limits: list[int]
) -> None:
    store = opened()
    store.append_batch([an_event() for _ in range(5)])
    shaky.asked = []
    store.get_events_for_entity("thing", "a", **window)
    assert shaky.asked == limits


def test_an_entity_that_grows_while_it_is_read_backwards_does_not_pass_its_bound(
    shaky: Shaky, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: an entity that outgrows the bound once it was seen not to have reached it
    store = opened()
    store.append_batch([an_event() for _ in range(2)])
    read = shaky.read
    grown: list[AppendResult] = []

    def read_then_grow(page: PageRequest) -> list[Event]:
        events = read(page)
        if len(grown) < 2:
            grown.append(store.append_batch([an_event() for _ in range(3)]))
        return events

    monkeypatch.setattr(shaky, "read", read_then_grow)

    # When
    events = store.get_events_for_entity("thing", "a", to_version=4, ascending=False)

    # Then
    assert [event.version for event in events] == [4, 3, 2, 1]


@pytest.mark.parametrize("ascending", [True, False])
def test_pages_of_an_entity_are_small_where_its_events_are_large(
    shaky: Shaky, opened: Opener, ascending: bool
) -> None:
    store = opened()
    store.append_batch([an_event().replace(data={"text": "x" * 400_000}) for _ in range(300)])
    shaky.asked = []
    assert sum(1 for _ in store.iterate_entity("thing", "a", ascending=ascending)) == 300
    assert shaky.asked[0] == 200
    assert max(shaky.asked[1:]) == 19


def test_payloads_may_be_changed_while_iterating_an_entity(opened: Opener) -> None:
    store = opened()
    store.append_batch([an_event() for _ in range(450)])
    for ascending in (True, False):
        for event in store.iterate_entity("thing", "a", ascending=ascending):
            event.data[3] = object()  # type: ignore[index]  # nothing that could be encoded
    assert store.get_current_version("thing", "a") == 450


def test_a_head_that_lags_is_confirmed_before_a_position_is_called_beyond_it(
    shaky: Shaky, opened: Opener
) -> None:
    store = opened()
    store.append_batch([an_event() for _ in range(5)])
    shaky.lag = 3
    assert store.get_events_since(5) == []
    shaky.lag = 3
    assert not store.wait_for_events(5, timeout=0)
    with pytest.raises(CheckpointError):
        store.get_events_since(6)


def test_a_repeat_is_returned_even_where_its_condition_names_another_log(opened: Opener) -> None:
    store = opened()
    event = store.append(an_event())
    elsewhere = AppendCondition(EventQuery(), Checkpoint("another", 3, event.event_id))
    assert store.append(event, condition=elsewhere) == event
    with pytest.raises(CheckpointError):
        store.append(an_event(), condition=elsewhere)


def test_a_plain_append_of_the_thread_that_holds_a_join_raises_at_once(opened: Opener) -> None:
    store = opened()
    connection = {"open": True}
    store.append(an_event(), connection=connection)
    with pytest.raises(UnsupportedOperationError):
        store.append(an_event())
    connection["open"] = False
    assert store.append(an_event()).sequence == 2


def test_pages_are_small_where_events_are_large(shaky: Shaky, opened: Opener) -> None:
    store = opened()
    store.append_batch([an_event().replace(data={"text": "x" * 400_000}) for _ in range(300)])
    shaky.asked = []
    assert sum(1 for _ in store.get_events()) == 300
    assert shaky.asked[0] == 200
    assert set(shaky.asked[1:]) == {19}


def test_payloads_may_be_changed_while_iterating(opened: Opener) -> None:
    store = opened()
    store.append_batch([an_event() for _ in range(450)])
    for event in store.get_events():
        event.data[3] = object()  # type: ignore[index]  # nothing that could be encoded
    assert store.count_events() == 450


def test_closing_a_view_ends_its_waits_alone(opened: Opener) -> None:
    store = opened()
    view = store.for_tenant("a")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(view.wait_for_events, 0, timeout=60)
        view.close()
        with pytest.raises(StoreClosedError):
            waiting.result(timeout=30)
    assert store.append(an_event()).sequence == 1


def test_connections_are_let_go_once_their_transaction_is_over(opened: Opener) -> None:
    class Connection(dict[str, bool]):
        """One that a weak reference can be made to."""

    store = opened()
    references = []
    for _ in range(3):
        connection = Connection(open=True)
        store.append(an_event(), connection=connection)
        connection["open"] = False
        references.append(ref(connection))
        del connection
    assert [reference() is None for reference in references] == [True, True, False]


def test_a_condition_may_stand_on_what_the_joined_transaction_itself_appended(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.db"
    with open_store(f"sqlite:///{path}") as store, closing(sqlite3.connect(path)) as connection:
        nothing_since = EventQuery(entity_type="thing")
        first = store.append(an_event(), connection=connection)
        second = store.append(
            an_event(),
            condition=AppendCondition(nothing_since, after=first.sequence),
            connection=connection,
        )
        assert second.sequence == 2
        with pytest.raises(ConditionFailedError):
            store.append(
                an_event(),
                condition=AppendCondition(nothing_since, after=first.sequence),
                connection=connection,
            )
        with pytest.raises(CheckpointError):
            store.append(
                an_event(),
                condition=AppendCondition(nothing_since, after=3),
                connection=connection,
            )


def test_a_durability_warning_points_at_who_opens_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MemoryBackend, "durability_risks", lambda _: ("it may lose events",))
    with pytest.warns(DurabilityWarning, match="it may lose events") as caught:
        open_store("memory://").close()
    assert caught[0].filename == __file__


def test_an_interrupt_while_closing_still_lets_go_of_the_engine(
    shaky: Shaky, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    def interrupted(_: float) -> bool:
        raise KeyboardInterrupt

    store = opened()
    monkeypatch.setattr(shaky, "close", lambda: closed.append(True))
    monkeypatch.setattr(store._log._commits, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.close()
    store.close()
    assert closed == [True]


def test_an_append_that_may_be_stored_says_so_when_the_store_closes_meanwhile(
    shaky: Shaky, opened: Opener
) -> None:
    store = opened(timeout=60, retries=1000)
    tried = threading.Event()

    def commit(group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        tried.set()
        raise gone(may_have_written=True)

    store._log._commits._commit = commit
    with ThreadPoolExecutor() as pool:
        appending = pool.submit(store.append, an_event())
        assert tried.wait(30)
        store.close()
        with pytest.raises(StoreUnavailableError) as caught:
            appending.result(timeout=30)
    assert caught.value.may_have_written


def test_a_read_cut_off_by_closing_raises_that_the_store_is_closed(
    shaky: Shaky, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()

    def read(page: PageRequest) -> list[Event]:
        store.close()
        raise gone()

    monkeypatch.setattr(shaky, "read", read)
    with pytest.raises(StoreClosedError):
        store.get_events_since(0)


def test_appends_of_others_do_not_hurry_who_tries_again(shaky: Shaky, opened: Opener) -> None:
    store = opened(timeout=1, retries=1000)
    attempts = 0

    def read(backend: Backend) -> int:
        nonlocal attempts
        attempts += 1
        store.append(an_event())
        raise gone()

    with pytest.raises(StoreUnavailableError):
        store._log.read(read)
    assert attempts < 60


def test_an_event_missing_where_a_checkpoint_stands_is_a_gap(shaky: Shaky, opened: Opener) -> None:
    store = opened()
    store.append_batch([an_event() for _ in range(3)])
    position = store.checkpoint()
    shaky.hidden = {3}
    with pytest.raises(CorruptLogError, match="sequence 3 is missing"):
        store.get_events_since(position)
