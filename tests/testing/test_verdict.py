"""The judge of a campaign passes what is right and names what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from eventstore import Checkpoint, EventQuery
from eventstore.testing.history import Campaign, Fault, Restore, Rule, Verdict, judge, report
from eventstore.testing.history.recording import (
    NOBODY,
    Append,
    Closed,
    Conflicted,
    Failure,
    LogEntry,
    Operation,
    Outcome,
    Read,
    Reason,
    Refused,
    Replaced,
    Stored,
    Unavailable,
)
from tests.testing.stories import CART, SHIP, Story

SECOND = 1_000_000_000


class Tale(Story):
    """A story with faults in it."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Fault] = []

    def campaign(self) -> Campaign:
        return Campaign(operations=self.calls, log=self.log, faults=self.faults, timeout=3.0)

    def verdict(self) -> Verdict:
        return judge(self.campaign())

    def rules(self) -> set[Rule]:
        return {violation.rule for violation in self.verdict().violations}

    def fault(self, **about: Any) -> Fault:
        fault = Fault(**{"kind": "fault", "struck": self.tick(), "ended": self.tick(), **about})
        self.faults.append(fault)
        return fault

    def restore(self, *, head: int, copied: int, **about: Any) -> Restore:
        """Put the log back to its first ``head`` events."""
        restore = Restore(
            kind="restored",
            struck=self.tick(),
            ended=self.tick(),
            copied=copied,
            log=list(self.log),
            head=head,
            **about,
        )
        self.faults.append(restore)
        del self.log[head:]
        return restore

    def while_it_struck(self, call: Operation, fault: Fault) -> None:
        """Let a call have been under way when a fault struck, and until after it."""
        self.swap(call, replace(call, began=fault.struck - 1, ended=fault.ended + 1))

    def go_on_from(self, position: int | Checkpoint, *, shown: list[int] | None = None) -> None:
        number = position.sequence if isinstance(position, Checkpoint) else position
        read = self.read(EventQuery(from_sequence=number), shown=shown)
        self.swap(read, replace(read, position=position))

    def refuse(self, position: int | Checkpoint) -> None:
        began, ended = self.tick(), self.tick()
        self.calls.append(Failure(1, "read", began, ended, "beyond", Reason.POSITION, position))

    def checkpoint(self, sequence: int) -> Checkpoint:
        return Checkpoint("log", sequence, self.log[sequence - 1].event.event_id)


@pytest.fixture
def tale() -> Tale:
    """A right one: three events, of which one came after the copy, and a restore."""
    tale = Tale()
    tale.append(CART)
    tale.append(SHIP)
    copied = tale.tick()
    tale.append(CART)
    tale.read()
    tale.restore(head=2, copied=copied, outage=True)
    tale.append(SHIP, CART)
    tale.read()
    tale.go_on_from(2)
    tale.go_on_from(tale.checkpoint(2))
    return tale


def test_a_right_campaign_passes(tale: Tale) -> None:
    verdict = tale.verdict()
    assert verdict.violations == []
    assert (verdict.faults, verdict.events, verdict.operations) == ({"restored": 1}, 7, 8)


# --- What faults must not do


def test_a_lost_acknowledged_event_is_caught() -> None:
    tale = Tale()
    tale.append(CART)
    tale.append(CART)
    tale.fault(outage=True)
    tale.log.pop()
    tale.append(SHIP)
    assert Rule.LOST_EVENT in tale.rules()


def test_an_event_stored_twice_is_caught() -> None:
    tale = Tale()
    call = tale.append(CART)
    tale.fault()
    tale.called(call.events, Stored(tale.store(call.events)))
    assert Rule.DUPLICATE_ID in tale.rules()


def test_a_torn_batch_is_caught() -> None:
    tale = Tale()
    batch = tale.new(CART, SHIP, CART)
    tale.called(batch, Unavailable(may_have_written=True))
    tale.fault()
    tale.store(batch[:2])
    tale.append(SHIP)
    assert tale.rules() == {Rule.TORN_BATCH}


@pytest.mark.parametrize(
    "told", [Unavailable(may_have_written=False), Closed(), Conflicted(CART, 5, 0)]
)
def test_what_was_told_not_to_be_stored_but_is_is_caught(told: Outcome) -> None:
    tale = Tale()
    events = tale.new(CART)
    tale.called(events, told, expected=[(CART, 5)])
    tale.store(events)
    tale.fault(closes=True, workers=frozenset({1}))
    tale.append(SHIP)
    assert Rule.REFUSED_BUT_STORED in tale.rules()


@pytest.mark.parametrize("stored", [True, False])
def test_what_may_have_been_stored_may_be_there_or_not(*, stored: bool) -> None:
    tale = Tale()
    events = tale.new(CART)
    tale.called(events, Unavailable(may_have_written=True))
    if stored:
        tale.store(events)
    tale.fault()
    tale.append(SHIP)
    assert tale.rules() == set()


def test_a_reader_that_skips_an_event_is_caught() -> None:
    tale = Tale()
    tale.append(CART)
    tale.append(CART)
    tale.fault()
    tale.append(CART)
    tale.read(shown=[1, 3])
    assert tale.rules() == {Rule.LATE_EVENT}


@pytest.mark.parametrize(("closes", "rules"), [(True, set()), (False, {Rule.UNEXPECTED_ERROR})])
def test_a_store_is_closed_only_where_it_was(*, closes: bool, rules: set[Rule]) -> None:
    tale = Tale()
    tale.called(tale.new(CART), Closed())
    tale.calls.append(Failure(1, "head", tale.tick(), tale.tick(), "closed", Reason.CLOSED))
    tale.fault(closes=closes, workers=frozenset({1}))
    tale.append(SHIP)
    assert tale.rules() == rules


# --- Recovery


def test_no_append_after_a_fault_is_caught() -> None:
    tale = Tale()
    tale.append(CART)
    tale.fault(outage=True)
    tale.called(tale.new(CART), Unavailable(may_have_written=False))
    assert tale.rules() == {Rule.NO_RECOVERY}


def test_an_append_long_after_a_fault_is_caught() -> None:
    tale = Tale()
    fault = tale.fault()
    tale.now += 40 * SECOND
    tale.append(CART)
    assert fault.ended < tale.now
    assert tale.rules() == {Rule.NO_RECOVERY}


def test_recovery_is_the_time_to_the_first_acknowledged_append_after_an_outage() -> None:
    tale = Tale()
    tale.append(CART)
    outage = tale.fault(outage=True)
    tale.called(tale.new(CART), Unavailable(may_have_written=False))
    tale.now += 2 * SECOND
    call = tale.append(CART)
    tale.fault()
    tale.append(CART)
    assert call.ended is not None
    assert tale.verdict().recoveries == [(call.ended - outage.ended) / SECOND]


# --- Time


def test_a_call_that_hangs_is_caught() -> None:
    tale = Tale()
    fault = tale.fault()
    call = tale.append(CART)
    tale.swap(call, replace(call, ended=call.began + 20 * SECOND))
    assert tale.rules() == {Rule.HUNG}
    # Unless it was frozen so long
    tale.faults = [
        replace(fault, workers=frozenset({1}), struck=call.began, ended=call.began + 19 * SECOND)
    ]
    assert Rule.HUNG not in tale.rules()
    # And not where another was
    tale.faults = [replace(tale.faults[0], workers=frozenset({2}))]
    assert Rule.HUNG in tale.rules()


def test_a_worker_that_does_not_end_is_caught(tale: Tale) -> None:
    assert [
        violation.rule
        for violation in judge(replace(tale.campaign(), hung=["worker 1"])).violations
    ] == [Rule.HUNG]


# --- In flight


def counted(tale: Tale) -> int:
    return tale.verdict().in_flight.total()


def test_a_fault_counts_where_an_append_was_under_way() -> None:
    tale = Tale()
    tale.append(CART)
    fault = tale.fault()
    call = tale.append(CART)
    assert counted(tale) == 0
    tale.while_it_struck(call, fault)
    assert counted(tale) == 1


def test_a_fault_does_not_count_for_another_worker_a_read_or_bad_input() -> None:
    tale = Tale()
    fault = tale.fault(workers=frozenset({2}))
    tale.while_it_struck(tale.append(CART), fault)
    other = tale.fault()
    tale.while_it_struck(tale.read(), other)
    tale.while_it_struck(tale.called(tale.new(CART), Refused("no"), invalid=True), other)
    tale.append(CART)
    assert counted(tale) == 0


def test_an_append_of_a_killed_worker_was_under_way_when_it_was_killed_but_not_later() -> None:
    tale = Tale()
    killed = tale.called(tale.new(CART), None)
    tale.swap(killed, replace(killed, ended=None))
    tale.fault(kind="killed", workers=frozenset({1}), kills=True)
    tale.fault(kind="later")
    tale.calls.append(replace(tale.append(SHIP), worker=2))
    tale.calls.pop(-2)
    assert tale.verdict().in_flight == {"killed": 1}


def test_under_a_fifth_in_flight_is_no_run() -> None:
    tale = Tale()
    fault = tale.fault()
    for _ in range(4):
        tale.fault()
    tale.while_it_struck(tale.append(CART), fault)
    tale.append(SHIP)
    verdict = tale.verdict()
    assert (verdict.in_flight.total(), verdict.faults.total()) == (1, 5)
    assert verdict.is_a_run
    tale.fault()
    tale.append(SHIP)
    assert not tale.verdict().is_a_run
    assert "no run" in report(tale.verdict())


def test_appends_that_failed_are_counted_by_what_was_told(tale: Tale) -> None:
    for told in (True, False, False):
        tale.called(tale.new(CART), Unavailable(may_have_written=told))
    verdict = tale.verdict()
    assert (verdict.doubted, verdict.denied) == (1, 2)
    assert "3 appends failed, 1 of them with may_have_written" in report(verdict)


def test_verdicts_add_up(tale: Tale) -> None:
    once = tale.verdict()
    twice = once + once
    assert (twice.faults, twice.events) == ({"restored": 2}, 14)
    assert twice.recoveries == 2 * once.recoveries
    assert "2 faults" in report(twice)


# --- Restores


def test_what_was_acknowledged_before_the_copy_must_be_in_it(tale: Tale) -> None:
    (restore,) = tale.faults
    assert isinstance(restore, Restore)
    tale.faults = [replace(restore, copied=restore.struck)]
    assert tale.rules() == {Rule.LOST_EVENT}


def test_what_is_acknowledged_after_the_restore_must_be_there(tale: Tale) -> None:
    tale.log[-2:] = []
    assert Rule.LOST_EVENT in tale.rules()


def test_a_copy_of_another_log_is_caught(tale: Tale) -> None:
    tale.log[0] = LogEntry(tale.log[0].event, content=7, digest=7)
    assert Rule.CHANGED_EVENT in tale.rules()


def test_a_log_that_cannot_be_read_whole_is_the_only_thing_said_of_it(tale: Tale) -> None:
    began, ended = tale.tick(), tale.tick()
    tale.calls.append(Failure(NOBODY, "reading", began, ended, "3 is missing", Reason.UNEXPECTED))
    del tale.log[2:]
    assert tale.rules() == {Rule.UNREADABLE}


def test_a_gap_after_the_restore_is_caught(tale: Tale) -> None:
    tale.bend(3, sequence=4, batch_sequence=4)
    tale.bend(4, sequence=5, batch_sequence=4)
    assert Rule.GAP in tale.rules()


def test_an_append_that_ended_before_the_restore_does_not_come_up_after_it(tale: Tale) -> None:
    lost = tale.calls[2]
    assert isinstance(lost, Append)
    tale.store(lost.events)
    assert tale.rules() == {Rule.UNKNOWN_EVENT}


def test_a_read_after_the_restore_that_shows_what_is_gone_is_caught(tale: Tale) -> None:
    gone = Read(
        worker=1, what="head", began=tale.tick(), ended=tale.tick(), query=EventQuery(), count=5
    )
    tale.calls.append(gone)
    assert tale.rules() == {Rule.LOST_EVENT}


def test_a_checkpoint_of_an_event_that_is_gone_must_be_refused(tale: Tale) -> None:
    (restore,) = tale.faults
    assert isinstance(restore, Restore)
    gone = Checkpoint("log", 3, restore.log[2].event.event_id)
    tale.refuse(gone)
    assert tale.rules() == set()
    tale.go_on_from(gone)  # another event stands there now
    assert tale.rules() == {Rule.POSITION_PASSED}


def test_a_number_that_the_head_has_not_reached_must_be_refused(tale: Tale) -> None:
    tale.refuse(99)
    assert tale.rules() == set()
    tale.go_on_from(5, shown=[])
    assert tale.rules() == {Rule.POSITION_PASSED}


def test_a_number_that_the_head_may_have_reached_is_taken(tale: Tale) -> None:
    read = tale.read(EventQuery(from_sequence=5), shown=[])
    stored = tale.append(CART)
    tale.swap(read, replace(read, position=5))
    assert tale.rules() == {Rule.POSITION_PASSED}
    tale.swap(stored, replace(stored, began=read.began))
    assert tale.rules() == set()


def test_a_position_that_the_log_holds_must_be_taken(tale: Tale) -> None:
    tale.refuse(2)
    assert tale.rules() == {Rule.POSITION_REFUSED}
    tale.calls.pop()
    tale.refuse(tale.checkpoint(4))
    assert tale.rules() == {Rule.POSITION_REFUSED}


def test_an_append_across_the_restore_stands_in_one_of_the_logs(tale: Tale) -> None:
    (restore,) = tale.faults
    assert isinstance(restore, Restore)
    # Stored by the log that was taken away
    before, _seen = tale.calls[2], tale.calls.pop(3)
    tale.while_it_struck(before, restore)
    assert tale.rules() == set()
    # Or by the one that was put in its place
    after = tale.append(CART)
    tale.swap(after, replace(after, began=restore.struck - 1))
    assert tale.rules() == set()
    # By both, where the first answer was lost
    assert isinstance(before, Append)
    twice = tale.called(before.events, Stored(tale.store(before.events)))
    tale.swap(twice, replace(twice, began=restore.struck - 1))
    assert tale.rules() == set()
    # But not by none
    tale.log.pop()
    assert tale.rules() == {Rule.LOST_EVENT}


@pytest.mark.parametrize("era", ["before", "after"])
def test_an_append_across_the_restore_that_was_told_false_is_in_neither_log(
    tale: Tale, era: str
) -> None:
    (restore,) = tale.faults
    assert isinstance(restore, Restore)
    denied = tale.new(SHIP)
    call = tale.called(denied, Unavailable(may_have_written=False))
    tale.while_it_struck(call, restore)
    assert tale.rules() == set()
    other = Tale()
    other.log = restore.log if era == "before" else tale.log
    other.store(denied)
    assert tale.rules() == {Rule.REFUSED_BUT_STORED}


def test_a_repeat_across_the_restore_may_be_refused_by_the_log_that_lacks_it(tale: Tale) -> None:
    (restore,) = tale.faults
    lost = tale.calls[2]
    assert isinstance(lost, Append)
    refused = Refused("InvalidEventError: …")
    tale.while_it_struck(tale.called(lost.events, refused, assigned=True), restore)
    assert tale.rules() == set()


def test_a_read_across_the_restore_proves_nothing(tale: Tale) -> None:
    (restore,) = tale.faults
    tale.while_it_struck(tale.count(3), restore)
    assert tale.rules() == set()


def test_a_log_may_be_found_replaced_after_a_restore_but_not_before(tale: Tale) -> None:
    late = tale.called(tale.new(CART), Replaced())
    tale.calls.append(Failure(1, "head", tale.tick(), tale.tick(), "gone", Reason.REPLACED))
    assert tale.rules() == set()
    tale.swap(late, replace(late, began=1, ended=2))
    assert tale.rules() == {Rule.UNEXPECTED_ERROR}
    tale.calls.remove(replace(late, began=1, ended=2))
    tale.calls[-1] = Failure(1, "head", 1, 2, "gone", Reason.REPLACED)
    assert tale.rules() == {Rule.UNEXPECTED_ERROR}


def test_a_repeat_of_what_the_restore_took_away_may_be_refused(tale: Tale) -> None:
    lost = tale.calls[2]
    assert isinstance(lost, Append)
    tale.called(lost.events, Refused("InvalidEventError: …"), assigned=True)
    assert tale.rules() == set()
    held = tale.calls[0]
    assert isinstance(held, Append)
    tale.called(held.events, Refused("InvalidEventError: …"), assigned=True)
    assert tale.rules() == {Rule.REPEAT_REFUSED}
