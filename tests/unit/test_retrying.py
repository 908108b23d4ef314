"""Trying again: within one deadline, for the whole of it, and no doubt is forgotten."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Self
from uuid import uuid4

import msgspec
import pytest

from eventstore import (
    AppendCondition,
    Checkpoint,
    CheckpointError,
    ConditionFailedError,
    ConfigurationError,
    DuplicateEventError,
    Event,
    EventQuery,
    EventStore,
    EventStoreError,
    StoreUnavailableError,
    UnsupportedOperationError,
    VersionConflictError,
    drop_namespace,
    open_store,
    registry,
)
from eventstore._core.group_commit import GroupCommit
from eventstore.backend import Batch, Outcome, PageRequest, Settings, time_left
from eventstore.backend.draft import draft_of
from eventstore.errors import BatchTooLargeError, LogReplacedError
from eventstore.memory import MemoryBackend


def an_event(entity_id: str = "a") -> Event:
    return Event(event_type="Happened", entity_type="thing", entity_id=entity_id)


def gone(*, may_have_written: bool = False, transient: bool = True) -> StoreUnavailableError:
    return StoreUnavailableError("gone", may_have_written=may_have_written, transient=transient)


class Script(MemoryBackend):
    """A memory backend that does what a test says, once for each call."""

    commits: list[Callable[[Sequence[Batch]], Sequence[Outcome]]]
    """What the next commits do; then it is a plain memory backend again."""
    opens: list[Exception]
    """Raised by the next ``open``s."""
    drops: list[Exception]
    closes: list[Exception]
    away_until: float = 0.0
    """Until when reads find no engine, by ``time.monotonic``."""
    seconds_left: list[float]
    """What each read, and ``close``, could still wait."""

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        if cls.opens:
            raise cls.opens.pop(0)
        backend = super().connect(settings)
        backend.commits, backend.seconds_left = [], []
        return backend

    def remove(self) -> bool:
        if self.drops:
            raise self.drops.pop(0)
        return super().remove()

    def close(self) -> None:
        self.seconds_left.append(time_left(60.0))
        if self.closes:
            raise self.closes.pop(0)

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        if self.commits:
            return self.commits.pop(0)(group)
        return super().commit(group, timeout)

    def store(self, group: Sequence[Batch]) -> Sequence[Outcome]:
        return super().commit(group, 1.0)

    def read(self, page: PageRequest) -> list[Event]:
        self._ask()
        return super().read(page)

    def head(self) -> int:
        self._ask()
        return super().head()

    def _ask(self) -> None:
        self.seconds_left.append(time_left(60.0))
        if monotonic() < self.away_until:
            raise gone()


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch) -> type[Script]:
    """``memory://`` opens a Script."""
    Script.opens, Script.drops, Script.closes = [], [], []
    monkeypatch.setattr(registry, "_load", lambda _: Script)
    return Script


@pytest.fixture(params=["one by one", "in groups"])
def store(request: pytest.FixtureRequest) -> Iterator[EventStore]:
    with open_store("memory://", timeout=20) as store:
        if request.param == "in groups":
            log = store._log
            log._commits = GroupCommit(log.backend.commit, 10**6)
        yield store


def script_of(store: EventStore) -> Script:
    backend = store._log.backend
    assert isinstance(backend, Script)
    return backend


def raising(error: BaseException) -> Callable[[Sequence[Batch]], Sequence[Outcome]]:
    def fail(_: Sequence[Batch]) -> Sequence[Outcome]:
        raise error

    return fail


def answering(error: EventStoreError) -> Callable[[Sequence[Batch]], Sequence[Outcome]]:
    return lambda group: [error for _ in group]


# --- Doubt

A_CONFLICT_THAT_MAY_PASS = VersionConflictError(
    entity_type="thing", entity_id="a", tenant_id="", expected_version=5, actual_version=3
)
A_LASTING_CONFLICT = VersionConflictError(
    entity_type="thing", entity_id="a", tenant_id="", expected_version=3, actual_version=5
)


@pytest.mark.parametrize(
    "then",
    [
        raising(gone()),
        raising(gone(transient=False)),
        raising(ConfigurationError("the role may no longer write")),
        raising(LogReplacedError("removed")),
        raising(BatchTooLargeError("too large")),
        raising(UnsupportedOperationError("not now")),
        raising(OSError(errno.EMFILE, "Too many open files")),
        answering(CheckpointError("beyond the head")),
        answering(A_CONFLICT_THAT_MAY_PASS),
        answering(gone()),
    ],
)
def test_an_attempt_in_doubt_is_not_denied_by_the_next(
    store: EventStore, then: Callable[[Sequence[Batch]], Sequence[Outcome]]
) -> None:
    # Given an append whose first attempt may yet be stored, and a second that fails otherwise
    script_of(store).commits = [raising(gone(may_have_written=True)), *[then] * 10_000]

    # When it gives up, then it says so
    with pytest.raises(StoreUnavailableError) as caught:
        with_timeout(store, 0.3).append(an_event())
    assert caught.value.may_have_written


def with_timeout(store: EventStore, seconds: float) -> EventStore:
    log = store._log
    log.settings = msgspec.structs.replace(log.settings, timeout=seconds)
    return store


@pytest.mark.parametrize(
    "lasting",
    [
        A_LASTING_CONFLICT,
        ConditionFailedError(condition=AppendCondition(EventQuery()), sequence=1),
        DuplicateEventError("recorded", event_id=uuid4()),
    ],
)
def test_what_stays_true_is_told_after_a_doubt_too(
    store: EventStore, lasting: EventStoreError
) -> None:
    script_of(store).commits = [raising(gone(may_have_written=True)), answering(lasting)]
    with pytest.raises(type(lasting)) as caught:
        store.append(an_event())
    assert caught.value is lasting


def test_what_the_system_refuses_in_a_commit_is_in_doubt(store: EventStore) -> None:
    script_of(store).commits = [raising(OSError(errno.EACCES, "Permission denied"))]
    with pytest.raises(StoreUnavailableError, match="Permission denied") as caught:
        store.append(an_event())
    assert caught.value.may_have_written
    assert not caught.value.transient
    assert isinstance(caught.value.__cause__, OSError)


def test_one_of_several_batches_that_is_stored_leaves_the_call_in_doubt(
    store: EventStore,
) -> None:
    # Given a group that the engine refuses as a whole, and whose second batch then fails alone
    script = script_of(store)
    script.commits = [
        raising(BatchTooLargeError("too large together")),
        script.store,
        raising(gone(transient=False)),
    ]
    batches = [batch_of_one("a"), batch_of_one("b")]

    with pytest.raises(StoreUnavailableError) as caught:
        store._log.append(batches)

    assert caught.value.may_have_written
    assert store.get_current_sequence() == 1


def batch_of_one(entity_id: str) -> Batch:
    return Batch(drafts=(draft_of(an_event(entity_id)),))


def test_a_group_that_failed_by_a_fault_leaves_its_batches_in_doubt(store: EventStore) -> None:
    script = script_of(store)
    script.commits = [
        raising(KeyError("a fault after the commit")),
        *[raising(gone(transient=False))] * 2,
    ]
    with pytest.raises(StoreUnavailableError) as caught:
        store._log.append([batch_of_one("a"), batch_of_one("b")])
    assert caught.value.may_have_written


# --- Time


@pytest.mark.parametrize("retries", [None, 10**6])
def test_the_whole_timeout_is_used(retries: int | None) -> None:
    # Given an outage that ends shortly before the time is up
    options: dict[str, Any] = {} if retries is None else {"retries": retries}
    with open_store("memory://", timeout=4, **options) as store:
        script_of(store).away_until = monotonic() + 3.5

        # When it is asked, then it is still there to see the end of it
        assert store.get_current_sequence() == 0


def test_an_outage_that_lasts_ends_the_call_at_its_timeout() -> None:
    with open_store("memory://", timeout=1) as store:
        script_of(store).away_until = monotonic() + 60
        began = monotonic()
        with pytest.raises(StoreUnavailableError):
            store.get_current_sequence()
        assert 0.8 <= monotonic() - began <= 1.5


def entity_of_two_pages(store: EventStore) -> Any:
    return store.get_events_for_entity("thing", "a")


def conditional_append(store: EventStore) -> Any:
    condition = AppendCondition(EventQuery(entity_id="x"), after=store._log.head())
    return store.append(an_event(), condition=condition)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get_events_since(Checkpoint(store.log_id, 0, None)),
        lambda store: store.get_events_since(store.checkpoint()),
        lambda store: store.wait_for_events(store.checkpoint(), timeout=0),
        lambda store: next(store.get_events()),
        lambda store: store.checkpoint(),
        entity_of_two_pages,
        conditional_append,
    ],
)
def test_what_asks_several_times_has_one_deadline(call: Callable[[EventStore], Any]) -> None:
    with open_store("memory://", timeout=30) as store:
        store.append_batch([an_event() for _ in range(1_001)])
        backend = script_of(store)
        backend.seconds_left = []

        call(store)

        left = backend.seconds_left[-2:]  # of the same call, whatever came before it
        assert len(left) == 2
        assert left[1] < left[0] <= 30


def test_closing_and_the_wait_for_appends_share_one_deadline() -> None:
    # Given an append that the engine keeps for longer than the timeout
    entered, end = threading.Event(), threading.Event()
    store = open_store("memory://", timeout=0.5)
    backend = script_of(store)
    store._log._commits = GroupCommit(backend.commit, 10**6)

    def hang(_: Sequence[Batch]) -> Sequence[Outcome]:
        entered.set()
        end.wait(30)
        raise gone(transient=False)

    backend.commits = [hang]
    with ThreadPoolExecutor() as pool:
        appending = pool.submit(store.append, an_event())
        assert entered.wait(30)

        # When the store is closed, then nothing is left for the backend to wait for
        began = monotonic()
        store.close()
        assert monotonic() - began < 1.0
        assert backend.seconds_left[-1] < 0.1
        end.set()
        assert isinstance(appending.exception(30), EventStoreError)


# --- Opening, dropping, closing


def test_open_store_tries_again_until_the_engine_is_up(script: type[Script]) -> None:
    script.opens = [gone(), gone(), OSError(errno.EMFILE, "Too many open files")]
    with open_store("memory://") as store:
        assert store.append(an_event()).sequence == 1
    assert script.opens == []


def test_open_store_gives_up_after_its_timeout(script: type[Script]) -> None:
    script.opens = [gone() for _ in range(10_000)]
    began = monotonic()
    with pytest.raises(StoreUnavailableError):
        open_store("memory://", timeout=0.5)
    assert 0.4 <= monotonic() - began <= 1.5


@pytest.mark.parametrize("error", [gone(transient=False), ConfigurationError("no")])
def test_open_store_does_not_try_again_what_will_not_pass(
    script: type[Script], error: EventStoreError
) -> None:
    script.opens = [error]
    with pytest.raises(type(error)) as caught:
        open_store("memory://")
    assert caught.value is error


def test_without_retries_open_store_tries_once(script: type[Script]) -> None:
    script.opens = [gone()]
    with pytest.raises(StoreUnavailableError):
        open_store("memory://", retries=0)


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        (errno.EMFILE, StoreUnavailableError),
        (errno.EIO, StoreUnavailableError),
        (errno.ELOOP, ConfigurationError),
        (errno.ENAMETOOLONG, ConfigurationError),
        (errno.EACCES, ConfigurationError),
    ],
)
def test_what_the_system_refuses_is_one_error_of_ours(
    script: type[Script], code: int, ours: type[EventStoreError]
) -> None:
    script.opens = [OSError(code, "it refused")]
    with pytest.raises(ours, match="it refused") as caught:
        open_store("memory://", retries=0)
    assert isinstance(caught.value.__cause__, OSError)

    script.drops = [OSError(code, "it refused")]
    with pytest.raises(ours, match="it refused"):
        drop_namespace("memory://x")

    store = open_store("memory://")
    script.closes = [OSError(code, "it refused")]
    with pytest.raises(ours, match="it refused"):
        store.close()
    store.close()


def test_what_the_system_refuses_while_adapters_are_looked_up_is_one_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(registry, "entry_points", refuse)
    with pytest.raises(StoreUnavailableError, match="Too many open files"):
        open_store("memory://")


def test_dropping_tells_whether_there_was_a_log() -> None:
    url = f"memory://{uuid4().hex}"
    open_store(url).close()
    assert drop_namespace(url) is True
    assert drop_namespace(url) is False


def test_a_warning_of_durability_that_is_an_error_closes_the_store(
    script: type[Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Script] = []

    def close(backend: Script) -> None:
        closed.append(backend)

    monkeypatch.setattr(script, "durability_risks", lambda _: ("it may lose events",))
    monkeypatch.setattr(script, "close", close)
    with pytest.raises(Warning, match="it may lose events"):  # the tests make errors of warnings
        open_store("memory://")
    assert len(closed) == 1


def test_without_a_url_the_environment_names_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_URL", "memory://?timeout=3")
    with open_store(namespace="mine") as store:
        assert store.url == "memory://?namespace=mine"
    monkeypatch.delenv("EVENTSTORE_URL")
    with pytest.raises(ConfigurationError, match="EVENTSTORE_URL"):
        open_store()
