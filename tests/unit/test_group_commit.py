"""Group commit by itself, over a commit function that the test controls."""

from __future__ import annotations

import linecache
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import pytest

from eventstore._core.group_commit import GroupCommit
from eventstore.backend import Accepted, Batch, Outcome
from eventstore.backend.draft import draft_of
from eventstore.errors import (
    BatchTooLargeError,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from eventstore.event import Event

SECONDS = 10.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_batch(entity_id: str = "e") -> Batch:
    return Batch(drafts=(draft_of(Event(event_type="T", entity_type="t", entity_id=entity_id)),))


class Engine:
    """A log in memory whose commits can be held and made to fail."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.fails: Callable[[list[str]], Exception | None] = lambda _: None

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        assert timeout > 0
        self.entered.release()
        assert self.gate.wait(SECONDS)
        names = [batch.drafts[0].entity_id for batch in group]
        if (error := self.fails(names)) is not None:
            raise error
        self.groups.append(names)
        return [Accepted(batch.drafts, 1, [1], NOW) for batch in group]


class Caller(threading.Thread):
    """A thread that submits one batch and keeps what it got."""

    def __init__(self, commits: GroupCommit, name: str, timeout: float = SECONDS) -> None:
        super().__init__(daemon=True)
        self.commits, self.entity, self.timeout = commits, name, timeout
        self.got: Any = None

    def run(self) -> None:
        try:
            self.got = self.commits.submit([a_batch(self.entity)], self.timeout)[0]
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the test looks at it
            self.got = error

    def finish(self) -> Any:
        self.join(SECONDS)
        assert not self.is_alive()
        return self.got


@contextmanager
def held(engine: Engine, commits: GroupCommit, *names: str) -> Iterator[list[Caller]]:
    """Callers of whom the first is inside a commit that is held, the others queued behind it."""
    engine.gate.clear()
    callers = [Caller(commits, name) for name in names]
    callers[0].start()
    assert engine.entered.acquire(timeout=SECONDS)
    for number, caller in enumerate(callers[1:], 1):
        caller.start()
        wait_for_queue(commits, number)
    try:
        yield callers
    finally:
        engine.gate.set()


def wait_until(condition: Callable[[], bool]) -> None:
    paused = threading.Event()
    for _ in range(10_000):
        if condition():
            return
        paused.wait(0.001)
    raise AssertionError("the condition never came true")


def wait_for_queue(commits: GroupCommit, length: int) -> None:
    wait_until(lambda: len(commits._queue) == length)


def test_one_thread_commits_each_batch_at_once() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    for name in "abc":
        assert isinstance(commits.submit([a_batch(name)], SECONDS)[0], Accepted)
    assert engine.groups == [["a"], ["b"], ["c"]]


def test_what_queued_up_during_a_commit_travels_in_one_group_in_order() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    with held(engine, commits, "a", "b", "c", "d") as callers:
        pass
    assert all(isinstance(caller.finish(), Accepted) for caller in callers)
    assert engine.groups == [["a"], ["b", "c", "d"]]


def test_several_batches_of_one_caller_stay_together_and_in_order() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    answers = commits.submit([a_batch("a"), a_batch("b")], SECONDS)
    assert len(answers) == 2
    assert engine.groups == [["a", "b"]]


def test_a_batch_too_heavy_for_the_group_commits_in_the_next() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, a_batch().weight * 2)
    with held(engine, commits, "a", "b", "c", "d") as callers:
        pass
    for caller in callers:
        caller.finish()
    assert engine.groups == [["a"], ["b", "c"], ["d"]]


def test_a_poisonous_batch_fails_alone() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    engine.fails = lambda names: BatchTooLargeError("too large") if "c" in names else None
    with held(engine, commits, "a", "b", "c", "d") as callers:
        pass
    got = {caller.entity: caller.finish() for caller in callers}
    assert isinstance(got.pop("c"), BatchTooLargeError)
    assert all(isinstance(outcome, Accepted) for outcome in got.values())
    assert engine.groups == [["a"], ["b"], ["d"]]


def test_an_error_nobody_foresaw_reaches_only_its_caller_and_frees_the_queue() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    engine.fails = lambda names: ZeroDivisionError() if "b" in names else None
    with held(engine, commits, "a", "b", "c") as callers:
        pass
    got = {caller.entity: caller.finish() for caller in callers}
    assert isinstance(got["b"], ZeroDivisionError)
    assert isinstance(got["c"], Accepted)


def test_an_outage_reaches_every_caller_of_the_group_as_its_own_error() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    engine.fails = lambda names: (
        StoreUnavailableError("gone", may_have_written=True) if "b" in names else None
    )
    with held(engine, commits, "a", "b", "c") as callers:
        pass
    first, second = callers[1].finish(), callers[2].finish()
    assert isinstance(first, StoreUnavailableError)
    assert isinstance(second, StoreUnavailableError)
    assert first is not second
    assert first.may_have_written
    assert second.may_have_written


def test_a_follower_whose_time_is_up_withdraws_its_batch() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    with held(engine, commits, "a"):
        late = Caller(commits, "late", timeout=0.05)
        late.start()
        error = late.finish()
        assert isinstance(error, StoreUnavailableError)
        assert not error.may_have_written
        assert commits._queue == []
    wait_until(lambda: engine.groups == [["a"]])


def test_a_follower_whose_batch_is_taken_when_its_time_is_up_says_it_may_be_written() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    with held(engine, commits, "a", "b") as callers:
        late = Caller(commits, "late", timeout=0.3)
        late.start()
        wait_for_queue(commits, 2)
        engine.fails = lambda names: engine.gate.clear()
        engine.gate.set()
        assert engine.entered.acquire(timeout=SECONDS)  # b leads a group with late in it
        error = late.finish()
        assert isinstance(error, StoreUnavailableError)
        assert error.may_have_written
    for caller in callers:
        caller.finish()


def test_what_an_interrupted_leader_may_have_stored_is_said_to_be_maybe_written() -> None:
    # Given a commit that stores a leader's batch and a follower's, but whose answer is lost
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    with held(engine, commits, "first", "leader", "follower") as (first, leader, follower):
        interrupted = []

        def fails(names: list[str]) -> Exception | None:
            if "leader" in names:
                interrupted.append(names)
                raise KeyboardInterrupt
            # When the follower's own attempt then surely stores nothing
            return StoreUnavailableError("gone") if interrupted else None

        engine.fails = fails
    first.finish()
    # Then the follower is told that the first attempt may have
    got = follower.finish()
    assert interrupted == [["leader", "follower"]]
    assert isinstance(got, StoreUnavailableError)
    assert got.may_have_written
    leader.finish()


def test_close_waits_for_what_is_in_flight_and_refuses_what_comes_later() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    with held(engine, commits, "a", "b") as callers:
        assert not commits.close(0.01)
        with pytest.raises(StoreClosedError):
            commits.submit([a_batch()], SECONDS)
    assert commits.close(SECONDS)
    assert all(isinstance(caller.finish(), Accepted) for caller in callers)


def test_an_append_inside_an_append_of_the_same_thread_raises_instead_of_hanging() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    seen: list[Exception] = []

    def interrupting(names: list[str]) -> None:
        try:
            commits.submit([a_batch("inner")], SECONDS)
        except UnsupportedOperationError as error:
            seen.append(error)

    engine.fails = interrupting
    assert isinstance(commits.submit([a_batch("outer")], SECONDS)[0], Accepted)
    assert len(seen) == 1
    assert engine.groups == [["outer"]]


class InterruptAt:
    """Raises KeyboardInterrupt in this thread at the n-th line run in group_commit.py."""

    # Python notices a signal after a call, never between the end of a with block and its
    # __exit__, nor at a bare try or finally; a tracer would raise there all the same. So the
    # lines of ``submit`` and of with statements are left out.
    functions = frozenset(
        ["_enqueue", "_await_turn", "_lead", "_take_group", "_commit_all", "_settle", "_leave"]
    )

    def __init__(self, line: int) -> None:
        self.left = line
        self.raised = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.endswith("group_commit.py"):
            return None
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if (
            event == "line"
            and frame.f_code.co_name in self.functions
            and not source.startswith("with ")
        ):
            self.left -= 1
            if self.left < 0 and not self.raised:
                self.raised = True
                raise KeyboardInterrupt
        return self


def test_an_interrupt_at_any_line_of_the_leader_leaves_the_others_to_finish() -> None:
    interrupted = 0
    for line in range(500):
        engine = Engine()
        commits = GroupCommit(engine.commit, 10**6)
        interrupt = InterruptAt(line)
        followers = [Caller(commits, "b"), Caller(commits, "c")]
        started: list[str] = []

        def let_followers_queue_up(
            names: list[str],
            *,
            commits: GroupCommit = commits,
            started: list[str] = started,
            followers: list[Caller] = followers,
        ) -> None:
            if not started:
                started.extend(names)
                for number, follower in enumerate(followers, 1):
                    follower.start()
                    wait_for_queue(commits, number)

        engine.fails = let_followers_queue_up
        sys.settrace(interrupt)
        try:
            commits.submit([a_batch("a")], SECONDS)
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(None)
        engine.fails = lambda _: None
        # Whatever the line: both followers are served, and this thread may append again.
        if not started:
            for follower in followers:
                follower.start()
        for follower in followers:
            assert isinstance(follower.finish(), Accepted), line
        assert isinstance(commits.submit([a_batch("d")], SECONDS)[0], Accepted)
        assert commits.close(SECONDS)
        assert not commits._inside
        if not interrupt.raised:
            break
    assert interrupted > 20
    assert not interrupt.raised


def test_an_interrupt_at_any_line_of_a_follower_leaves_the_others_to_finish() -> None:
    interrupted = 0
    for line in range(500):
        engine = Engine()
        commits = GroupCommit(engine.commit, 10**6)
        interrupt = InterruptAt(line)
        with held(engine, commits, "a") as leaders:
            last = Caller(commits, "c")

            def open_gate(
                *,
                commits: GroupCommit = commits,
                last: Caller = last,
                engine: Engine = engine,
                interrupt: InterruptAt = interrupt,
            ) -> None:
                wait_until(lambda: bool(commits._queue) or interrupt.raised)
                last.start()
                wait_until(
                    lambda: any(t.batches[0].drafts[0].entity_id == "c" for t in commits._queue)
                )
                engine.gate.set()

            opener = threading.Thread(target=open_gate, daemon=True)
            opener.start()
            sys.settrace(interrupt)
            try:
                commits.submit([a_batch("b")], SECONDS)
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                sys.settrace(None)
            opener.join(SECONDS)
        assert isinstance(leaders[0].finish(), Accepted), line
        assert isinstance(last.finish(), Accepted), line
        assert isinstance(commits.submit([a_batch("d")], SECONDS)[0], Accepted)
        assert commits.close(SECONDS)
        assert not commits._inside
        if not interrupt.raised:
            break
    assert interrupted > 10
    assert not interrupt.raised


def test_many_threads_are_all_served() -> None:
    engine = Engine()
    commits = GroupCommit(engine.commit, 10**6)
    served: list[Outcome] = []

    def work() -> None:
        for _ in range(50):
            served.extend(commits.submit([a_batch()], SECONDS))  # type: ignore[arg-type]

    threads = [threading.Thread(target=work, daemon=True) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(served) == 16 * 50
    assert sum(map(len, engine.groups)) == 16 * 50
