"""The history checker passes what is right and names what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from msgspec.structs import replace

from eventstore import (
    AppendCondition,
    Checkpoint,
    ConfigurationError,
    Entity,
    Event,
    EventQuery,
    EventStore,
    ExpectedVersion,
)
from eventstore.backend import PageRequest
from eventstore.memory import MemoryBackend
from eventstore.testing.history import History, Rule, check, run_history
from eventstore.testing.history.__main__ import main
from eventstore.testing.history.recording import (
    Answer,
    Append,
    BeyondHead,
    ConditionFailed,
    Conflicted,
    Duplicate,
    Failure,
    Operation,
    Outcome,
    Read,
    Reason,
    Recorder,
    Refused,
    Stored,
    Unavailable,
    Unexpected,
    load_operations,
    runs_of,
    sequences_of,
)
from eventstore.testing.history.running import Workers
from eventstore.testing.history.workload import Workload
from tests.testing.stories import CART, DAWN, SHIP, Story, of


@pytest.fixture
def story() -> Story:
    """A right history with something of everything."""
    story = Story()
    story.append(CART)
    first = story.append(CART, SHIP, CART, tags=("red",))
    story.read()
    story.read(EventQuery(from_sequence=1, limit=2))
    story.read(EventQuery(ascending=False, limit=3))
    story.read(EventQuery(tags=("red",)))
    story.read(of(CART).replace(offset=1))
    story.count(4)
    story.count(3, of(CART))
    story.count(0, EventQuery(from_sequence=4, limit=1))
    story.called(first.events, Stored([story.receipt(n) for n in (2, 3, 4)], replayed=True))
    story.called(first.events[:1], Stored([story.receipt(2)], replayed=None))
    story.called(first.events[::-1], Duplicate(first.events[-1].event_id))
    story.called([*first.events, *story.new(CART)], Duplicate(first.events[0].event_id))
    twice = story.new(CART)
    story.called([*twice, *twice], Duplicate(twice[0].event_id))
    story.append(CART, expected=[(CART, 3)])
    story.append(SHIP, expected=[(SHIP, 1), (CART, 4)])
    story.append(SHIP, expected=[(SHIP, ExpectedVersion.STREAM_EXISTS)])
    story.called(story.new(CART), Conflicted(CART, 3, 4), expected=[(CART, 3)])
    story.append(SHIP, condition=AppendCondition(EventQuery(tags=("red",)), 4), tags=("red",))
    red = AppendCondition(EventQuery(tags=("red",)), 4)
    story.called(story.new(CART), ConditionFailed(8), condition=red)
    beyond = AppendCondition(EventQuery(), Checkpoint("log", 99, UUID(int=1)))
    story.called(story.new(CART), BeyondHead(), condition=beyond)
    story.called(story.new(CART), Refused("InvalidEventError: …"), invalid=True)
    story.called(story.new(CART), Unavailable(may_have_written=False))
    unknown = story.new(CART, SHIP)
    story.called(unknown, Unavailable(may_have_written=True))
    story.called(unknown, Stored(story.store(unknown), replayed=True))
    never = story.new(SHIP)
    story.called(never, Unavailable(may_have_written=True))
    story.calls.append(
        Failure(1, "head", story.tick(), story.tick(), "lost it", Reason.UNAVAILABLE)
    )
    story.find(never[0].event_id, None)
    story.find(first.events[0].event_id, story.receipt(2))
    killed = replace(story.called(story.new(CART), None), ended=None)
    story.swap(story.calls[-1], killed)
    story.store(killed.events)
    return story


def test_a_right_history_passes(story: Story) -> None:
    assert check(story.history()) == []


def test_events_from_before_the_history_need_no_append() -> None:
    story = Story()
    story.store(story.new(CART))
    story.append(CART, expected=[(CART, 1)])
    story.read()
    assert check(replace(story.history(), start=1)) == []


# --- The log


def test_a_gap_is_caught(story: Story) -> None:
    del story.log[4]
    assert Rule.GAP in story.rules()


def test_a_log_that_does_not_begin_with_1_is_caught() -> None:
    story = Story()
    story.append(CART)
    story.bend(1, sequence=2, batch_sequence=2)
    assert Rule.GAP in story.rules()


def test_an_event_that_nobody_appended_is_caught(story: Story) -> None:
    story.store(story.new(SHIP))
    assert story.rules() == {Rule.UNKNOWN_EVENT}


def test_a_lost_acknowledged_event_is_caught(story: Story) -> None:
    lost = story.new(SHIP)
    story.called(lost, Stored(story.store(lost)))
    story.log.pop()
    assert story.rules() == {Rule.LOST_EVENT}


def test_a_duplicate_id_in_the_log_is_caught(story: Story) -> None:
    story.store(story.new(CART))
    story.bend(len(story.log), event_id=story.log[0].event.event_id)
    assert Rule.DUPLICATE_ID in story.rules()


def test_recorded_at_that_goes_back_is_caught(story: Story) -> None:
    story.bend(3, recorded_at=DAWN)
    assert story.rules() == {Rule.TIME_WENT_BACK}


def test_a_wrong_version_in_the_log_is_caught(story: Story) -> None:
    story.bend(5, version=5)
    assert Rule.WRONG_VERSION in story.rules()


def test_a_refused_append_that_is_in_the_log_is_caught(story: Story) -> None:
    refused = story.new(CART)
    story.called(refused, Conflicted(CART, 1, 6), expected=[(CART, 1)])
    story.store(refused)
    assert Rule.REFUSED_BUT_STORED in story.rules()


def test_an_append_that_surely_wrote_nothing_but_did_is_caught(story: Story) -> None:
    lost = story.new(CART)
    story.called(lost, Unavailable(may_have_written=False))
    story.store(lost)
    assert story.rules() == {Rule.REFUSED_BUT_STORED}


# --- Batches


def test_a_batch_of_which_a_part_is_missing_is_caught(story: Story) -> None:
    batch = story.new(SHIP, SHIP, SHIP)
    story.called(batch, Unavailable(may_have_written=True))
    story.store(batch[:2])
    assert story.rules() == {Rule.TORN_BATCH}


def test_a_batch_of_unknown_outcome_may_be_stored_whole(story: Story) -> None:
    batch = story.new(SHIP, SHIP, SHIP)
    story.called(batch, Unavailable(may_have_written=True))
    story.store(batch)
    assert story.rules() == set()


def test_a_batch_with_another_inside_is_caught() -> None:
    story = Story()
    batch, other = story.new(CART, CART), story.new(SHIP)
    receipts = [*story.store(batch[:1]), *story.store(other), *story.store(batch[1:])]
    story.called(batch, Stored([receipts[0], receipts[2]]))
    story.at_once(story.called(other, Stored([receipts[1]])))
    assert Rule.TORN_BATCH in story.rules()


def test_a_batch_in_another_order_is_caught() -> None:
    story = Story()
    batch = story.new(CART, SHIP)
    receipts = story.store(batch[::-1])
    story.called(batch, Stored(receipts[::-1]))
    assert Rule.TORN_BATCH in story.rules()


def test_a_wrong_batch_sequence_is_caught(story: Story) -> None:
    story.bend(3, batch_sequence=3)
    story.bend(4, batch_sequence=3)
    assert Rule.TORN_BATCH in story.rules()


def test_two_batches_stored_as_one_are_caught(story: Story) -> None:
    story.bend(6, batch_sequence=5)
    assert Rule.TORN_BATCH in story.rules()


def test_an_answer_without_some_of_the_batch_is_caught(story: Story) -> None:
    call = story.append(CART, SHIP)
    assert isinstance(call.outcome, Stored)
    story.swap(call, replace(call, outcome=Stored(call.outcome.receipts[:1])))
    assert story.rules() == {Rule.TORN_BATCH}


def test_a_read_that_shows_part_of_a_batch_is_caught() -> None:
    story = Story()
    batch = story.new(CART, SHIP)
    receipts = story.store(batch)
    story.read(shown=[1])
    call = story.called(batch, Stored(receipts))
    story.swap(call, replace(call, began=0))
    assert story.rules() == {Rule.TORN_READ}


def test_a_head_within_a_batch_is_caught() -> None:
    story = Story()
    batch = story.new(CART, SHIP)
    receipts = story.store(batch)
    story.count(1)
    call = story.called(batch, Stored(receipts))
    story.swap(call, replace(call, began=0))
    assert story.rules() == {Rule.TORN_READ}


# --- Order and time


def test_an_append_below_one_that_returned_before_it_began_is_caught() -> None:
    story = Story()
    early, late = story.new(CART), story.new(SHIP)
    receipts = story.store(late) + story.store(early)
    story.called(early, Stored(receipts[1:]))
    story.called(late, Stored(receipts[:1]))
    assert story.rules() == {Rule.OUT_OF_ORDER}


def test_appends_at_the_same_time_may_come_in_any_order() -> None:
    story = Story()
    early, late = story.new(CART), story.new(SHIP)
    receipts = story.store(late) + story.store(early)
    story.at_once(
        story.called(early, Stored(receipts[1:])), story.called(late, Stored(receipts[:1]))
    )
    assert story.rules() == set()


def test_a_late_low_number_is_caught() -> None:
    story = Story()
    early, late = story.new(CART), story.new(SHIP)
    receipts = story.store(late) + story.store(early)
    call = story.called(early, Unavailable(may_have_written=True))
    story.swap(call, replace(call, ended=1000))
    story.read(shown=[2])
    story.called(late, Stored(receipts[:1]))
    assert story.rules() == {Rule.LATE_EVENT}


def test_a_tail_reader_that_skips_an_event_is_caught(story: Story) -> None:
    story.read(EventQuery(from_sequence=4), shown=[5, 7, 8])
    assert story.rules() == {Rule.LATE_EVENT}


def test_a_filtered_read_that_skips_an_event_is_caught(story: Story) -> None:
    story.read(EventQuery(tags=("red",)), shown=[2, 4, 8])
    assert story.rules() == {Rule.LATE_EVENT}


def test_a_read_in_another_order_is_caught(story: Story) -> None:
    story.read(EventQuery(limit=3), shown=[1, 3, 2])
    assert Rule.CHANGED_EVENT in story.rules()


def test_a_read_of_what_its_query_does_not_take_is_caught(story: Story) -> None:
    story.read(EventQuery(tags=("red",)), shown=[1, 2, 3, 4, 8])
    assert story.rules() == {Rule.CHANGED_EVENT}


def test_a_read_of_other_content_than_the_log_holds_is_caught(story: Story) -> None:
    read = story.read(EventQuery(limit=3))
    story.swap(read, replace(read, digest=(read.digest or 0) + 1))
    assert story.rules() == {Rule.CHANGED_EVENT}


def test_an_event_that_was_seen_but_is_gone_is_caught(story: Story) -> None:
    story.read(EventQuery(from_sequence=11), shown=[12])
    assert story.rules() == {Rule.LOST_EVENT}


def test_a_stale_read_after_an_append_is_caught(story: Story) -> None:
    story.append(SHIP)
    story.read(EventQuery(from_sequence=9), shown=[10, 11])
    assert story.rules() == {Rule.STALE_READ}


def test_a_stale_head_after_an_append_is_caught(story: Story) -> None:
    story.append(SHIP)
    story.count(len(story.log) - 1)
    assert story.rules() == {Rule.STALE_READ}


def test_a_stale_version_after_an_append_is_caught(story: Story) -> None:
    call = story.append(SHIP)
    assert isinstance(call.outcome, Stored)
    story.count(call.outcome.receipts[0].version - 1, of(SHIP))
    assert story.rules() == {Rule.STALE_READ}


def test_an_event_not_found_after_its_append_is_caught(story: Story) -> None:
    call = story.append(SHIP)
    story.find(call.events[0].event_id, None)
    assert story.rules() == {Rule.STALE_READ}


def test_waiting_in_vain_for_what_is_there_is_caught(story: Story) -> None:
    story.append(SHIP)
    story.count(0, EventQuery(from_sequence=5, limit=1))
    assert story.rules() == {Rule.STALE_READ}


def test_a_head_that_goes_back_is_caught() -> None:
    story = Story()
    stored = story.new(CART)
    receipts = story.store(stored)
    story.count(1)
    story.count(0)
    call = story.called(stored, Stored(receipts))
    story.swap(call, replace(call, began=0))
    assert story.rules() == {Rule.HEAD_WENT_BACK}


def test_a_position_that_was_seen_but_is_called_beyond_the_head_is_caught(story: Story) -> None:
    known = AppendCondition(EventQuery(tags=("blue",)), 5)
    story.called(story.new(CART), BeyondHead(), condition=known)
    assert story.rules() == {Rule.HEAD_WENT_BACK}


def test_an_event_seen_before_its_append_began_is_caught() -> None:
    story = Story()
    stored = story.new(CART)
    receipts = story.store(stored)
    story.read()
    story.called(stored, Stored(receipts))
    assert story.rules() == {Rule.LATE_EVENT}


# --- Versions


def test_two_winners_of_one_version_are_caught(story: Story) -> None:
    version = sum(entry.event.entity == SHIP for entry in story.log)
    story.append(SHIP, expected=[(SHIP, version)])
    story.append(SHIP, expected=[(SHIP, version)])
    assert story.rules() == {Rule.TWO_WINNERS, Rule.EXPECTATION_IGNORED}


def test_two_may_expect_a_version_of_what_they_do_not_write(story: Story) -> None:
    version = sum(entry.event.entity == SHIP for entry in story.log)
    story.append(CART, expected=[(SHIP, version)])
    story.append(CART, expected=[(SHIP, version)])
    assert story.rules() == set()


@pytest.mark.parametrize("expected", [99, ExpectedVersion.NO_STREAM])
def test_an_ignored_expectation_is_caught(story: Story, expected: int) -> None:
    story.append(SHIP, expected=[(SHIP, expected)])
    assert story.rules() == {Rule.EXPECTATION_IGNORED}


def test_a_wrong_version_in_an_answer_is_caught(story: Story) -> None:
    call = story.append(SHIP)
    assert isinstance(call.outcome, Stored)
    wrong = replace(call.outcome.receipts[0], version=99)
    story.swap(call, replace(call, outcome=Stored([wrong])))
    assert story.rules() == {Rule.WRONG_VERSION}


@pytest.mark.parametrize(
    ("expected", "reported", "actual"),
    [
        (2, 2, 2),  # it holds
        (2, 2, 1),  # outdated when the append began
        (2, 2, 77),  # never reached
        (2, 3, 4),  # not asked
    ],
)
def test_an_unjustified_version_conflict_is_caught(
    story: Story, expected: int, reported: int, actual: int
) -> None:
    conflict = Conflicted(CART, reported, actual)
    story.called(story.new(CART), conflict, expected=[(CART, expected)])
    assert story.rules() == {Rule.UNJUSTIFIED_CONFLICT}


# --- Conditions


def test_an_ignored_condition_is_caught(story: Story) -> None:
    story.append(CART, condition=AppendCondition(EventQuery(tags=("red",)), 4))
    assert story.rules() == {Rule.CONDITION_IGNORED}


def test_an_ignored_condition_with_alternatives_is_caught(story: Story) -> None:
    query = EventQuery(any_of=(EventQuery(tags=("blue",)), of(SHIP)))
    story.append(CART, condition=AppendCondition(query, 4))
    assert story.rules() == {Rule.CONDITION_IGNORED}


@pytest.mark.parametrize(
    "sequence",
    [
        5,  # does not match
        2,  # not after
        99,  # not in the log
    ],
)
def test_an_unjustified_condition_failure_is_caught(story: Story, sequence: int) -> None:
    red = AppendCondition(EventQuery(tags=("red",)), 4)
    story.called(story.new(CART), ConditionFailed(sequence), condition=red)
    assert story.rules() == {Rule.UNJUSTIFIED_CONDITION}


def test_a_condition_that_failed_over_a_later_event_is_caught(story: Story) -> None:
    blue = AppendCondition(EventQuery(tags=("blue",)), 4)
    story.called(story.new(CART), ConditionFailed(len(story.log) + 1), condition=blue)
    story.append(SHIP, tags=("blue",))
    assert story.rules() == {Rule.LATE_EVENT}


# --- Repeats


def test_a_repeat_that_is_stored_again_is_caught(story: Story) -> None:
    first = story.append(SHIP)
    assert isinstance(first.outcome, Stored)
    story.called(first.events, Stored(story.store(first.events)))
    assert Rule.DUPLICATE_ID in story.rules()


def test_two_appends_that_both_count_as_the_first_are_caught(story: Story) -> None:
    first = story.append(SHIP)
    story.called(first.events, first.outcome)
    assert story.rules() >= {Rule.WRONG_REPEAT}


def test_a_repeat_that_returns_other_events_is_caught(story: Story) -> None:
    first = story.append(SHIP)
    wrong = replace(story.receipt(1), event_id=first.events[0].event_id)
    story.called(first.events, Stored([wrong], replayed=True))
    assert story.rules() == {Rule.WRONG_REPEAT}


def test_other_content_that_passes_for_a_repeat_is_caught(story: Story) -> None:
    first = story.append(SHIP)
    assert isinstance(first.outcome, Stored)
    other = [replace(first.events[0], content=7)]
    story.called(other, Stored(first.outcome.receipts, replayed=True))
    assert story.rules() == {Rule.WRONG_REPEAT}


def test_another_order_that_passes_for_a_repeat_is_caught(story: Story) -> None:
    first = story.append(SHIP, CART)
    assert isinstance(first.outcome, Stored)
    story.called(first.events[::-1], Stored(first.outcome.receipts[::-1], replayed=True))
    assert story.rules() == {Rule.WRONG_REPEAT}


@pytest.mark.parametrize(
    "refusal",
    [Conflicted(SHIP, 1, 4), ConditionFailed(1), BeyondHead()],
    ids=["version", "condition", "position"],
)
def test_a_repeat_that_is_refused_is_caught(story: Story, refusal: Outcome) -> None:
    first = story.append(SHIP)
    condition = AppendCondition(EventQuery(), 0)
    story.called(first.events, refusal, condition=condition, expected=[(SHIP, 1)])
    assert story.rules() == {Rule.REPEAT_REFUSED}


def test_a_repeat_that_is_called_a_duplicate_is_caught(story: Story) -> None:
    first = story.append(SHIP)
    story.called(first.events, Duplicate(first.events[0].event_id))
    assert story.rules() == {Rule.REPEAT_REFUSED}


def test_a_repeat_during_its_first_attempt_that_is_called_a_duplicate_is_caught(
    story: Story,
) -> None:
    first = story.append(SHIP, CART)
    story.at_once(first, story.called(first.events, Duplicate(first.events[0].event_id)))
    assert story.rules() == {Rule.UNJUSTIFIED_DUPLICATE}


def test_a_new_id_that_is_called_a_duplicate_is_caught(story: Story) -> None:
    new = story.new(SHIP)
    story.called(new, Duplicate(new[0].event_id))
    assert story.rules() == {Rule.UNJUSTIFIED_DUPLICATE}


# --- Input and errors


def test_bad_input_that_is_accepted_is_caught(story: Story) -> None:
    story.append(SHIP, invalid=True)
    assert story.rules() == {Rule.BAD_INPUT_STORED}


@pytest.mark.parametrize("outcome", [Unexpected("OperationalError: busy"), Refused("no")])
def test_an_error_that_is_not_due_is_caught(story: Story, outcome: Outcome) -> None:
    story.called(story.new(CART), outcome)
    assert story.rules() == {Rule.UNEXPECTED_ERROR}


def test_a_read_that_raises_is_caught(story: Story) -> None:
    story.calls.append(Failure(1, "head", story.tick(), story.tick(), "boom", Reason.UNEXPECTED))
    assert story.rules() == {Rule.UNEXPECTED_ERROR}


def test_an_append_seen_while_its_worker_was_killed_may_stand_or_not(story: Story) -> None:
    killed = story.called(story.new(CART, CART), None)
    story.swap(killed, replace(killed, ended=None))
    assert story.rules() == set()
    story.store(killed.events)
    assert story.rules() == set()


def test_many_violations_of_a_rule_are_cut() -> None:
    story = Story()
    for _ in range(100):
        story.store(story.new(CART))
    assert len(check(story.history())) == 20


# --- Recording


def test_a_record_is_read_back_as_written(story: Story, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 1)
    for call in story.calls:
        if isinstance(call, Append):
            recorder.write(replace(call, ended=None, outcome=None))
            if call.ended is not None and call.outcome is not None:
                recorder.write(Answer(call.worker, call.number, call.ended, call.outcome))
        else:
            recorder.write(call)
    recorder.close()
    loaded = load_operations(tmp_path)
    assert sorted(loaded, key=lambda call: call.began) == story.calls
    assert check(replace(story.history(), operations=loaded)) == []


def test_half_a_line_of_a_killed_worker_is_left_out(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 1)
    recorder.write(Failure(1, "head", 1, 2, "lost it", Reason.UNAVAILABLE))
    recorder.close()
    path = tmp_path / "worker-1.jsonl"
    path.write_bytes(path.read_bytes() + b'{"type":"Fail')
    assert len(load_operations(tmp_path)) == 1


@pytest.mark.parametrize("sequences", [[], [1], [1, 2, 3], [3, 2, 1], [1, 2, 5, 6, 9]])
def test_runs_stand_for_their_sequences(sequences: list[int]) -> None:
    assert list(sequences_of(runs_of(sequences))) == sequences


# --- Real histories


@pytest.fixture(scope="module")
def real() -> History:
    return run_history("memory://", seconds=1, workers=3, seed=1)


def test_a_real_history_passes_and_has_everything_in_it(real: History) -> None:
    assert check(real) == []
    outcomes = {type(call.outcome) for call in real.operations if isinstance(call, Append)}
    assert outcomes >= {Stored, Conflicted, ConditionFailed, Duplicate, BeyondHead, Refused}
    assert any(
        isinstance(call, Append) and isinstance(call.outcome, Stored) and call.outcome.replayed
        for call in real.operations
    )


def _lose_the_last(history: History, random: Random) -> History:
    return replace(history, log=history.log[:-1])


def _lose_one(history: History, random: Random) -> History:
    log = list(history.log)
    del log[random.randrange(len(log) - 1)]
    return replace(history, log=log)


def _swap_neighbours(history: History, random: Random) -> History:
    log = list(history.log)
    i = random.randrange(len(log) - 1)
    one, other = log[i], log[i + 1]
    log[i] = replace(
        other, event=other.event.replace(sequence=i + 1, batch_sequence=one.event.batch_sequence)
    )
    log[i + 1] = replace(
        one, event=one.event.replace(sequence=i + 2, batch_sequence=other.event.batch_sequence)
    )
    return replace(history, log=log)


def _change_content(history: History, random: Random) -> History:
    log = list(history.log)
    i = random.randrange(len(log))
    log[i] = replace(log[i], content=log[i].content ^ 1)
    return replace(history, log=log)


def _hide_an_event_from_a_read(history: History, random: Random) -> History:
    calls = list(history.operations)
    i = random.choice(
        [
            i
            for i, call in enumerate(calls)
            if isinstance(call, Read) and call.runs and call.count > 2 and call.query.ascending
        ]
    )
    read = calls[i]
    assert isinstance(read, Read)
    shown = list(sequences_of(read.runs or ()))
    del shown[random.randrange(len(shown) - 1)]
    calls[i] = replace(read, runs=runs_of(shown), count=len(shown))
    return replace(history, operations=calls)


def _make_a_head_stale(history: History, random: Random) -> History:
    calls = list(history.operations)
    heads = [i for i, call in enumerate(calls) if isinstance(call, Read) and call.what == "head"]
    i = random.choice(heads[len(heads) // 2 :])
    read = calls[i]
    assert isinstance(read, Read)
    calls[i] = replace(read, count=max(0, read.count - 300))
    return replace(history, operations=calls)


def _forget_an_append(history: History, random: Random) -> History:
    calls = list(history.operations)
    once = [
        i
        for i, call in enumerate(calls)
        if isinstance(call, Append)
        and call.what == "append with version"
        and isinstance(call.outcome, Stored)
    ]
    ids = {asked.event_id for asked in _append(calls[random.choice(once)]).events}
    kept = [
        call
        for call in calls
        if not (isinstance(call, Append) and ids & {asked.event_id for asked in call.events})
    ]
    return replace(history, operations=kept)


def _deny_a_stored_append(history: History, random: Random) -> History:
    calls = list(history.operations)
    named = Counter(
        asked.event_id for call in calls if isinstance(call, Append) for asked in call.events
    )
    i = random.choice(
        [
            i
            for i, call in enumerate(calls)
            if isinstance(call, Append)
            and call.what == "append_batch"
            and isinstance(call.outcome, Stored)
            and named[call.events[0].event_id] == 1  # a repeat might have stored it as well
        ]
    )
    calls[i] = replace(_append(calls[i]), outcome=Unavailable(may_have_written=False))
    return replace(history, operations=calls)


def _append(call: Operation) -> Append:
    assert isinstance(call, Append)
    return call


@pytest.mark.parametrize(
    ("mutate", "caught"),
    [
        (_lose_the_last, {Rule.LOST_EVENT}),
        (_lose_one, {Rule.GAP}),
        (_swap_neighbours, {Rule.CHANGED_EVENT, Rule.WRONG_REPEAT}),
        (_change_content, {Rule.CHANGED_EVENT, Rule.WRONG_REPEAT}),
        (_hide_an_event_from_a_read, {Rule.LATE_EVENT}),
        (_make_a_head_stale, {Rule.STALE_READ}),
        (_forget_an_append, {Rule.UNKNOWN_EVENT}),
        (_deny_a_stored_append, {Rule.REFUSED_BUT_STORED}),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_real_history_that_was_tampered_with_is_caught(
    real: History, mutate: Callable[[History, Random], History], caught: set[Rule], seed: int
) -> None:
    rules = {violation.rule for violation in check(mutate(real, Random(seed)))}
    assert rules & caught


# --- Stores that are wrong


def _ignore_conditions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("eventstore.backend.planner._unmet_condition", lambda *_: None)


def _ignore_expectations(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("eventstore.backend.planner._unmet_expectation", lambda *_: None)


def _store_repeats_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("eventstore.backend.planner.judge_repeat", lambda *_: None)


def _show_part_of_the_last_batch(patch: pytest.MonkeyPatch) -> None:
    read = MemoryBackend.read

    def shown(self: MemoryBackend, page: PageRequest) -> list[Event]:
        if page.query.event_types is None:
            return read(self, page)
        return read(self, replace(page, up_to=max(1, self.head() - 1)))

    patch.setattr(MemoryBackend, "read", shown)


def _lose_an_event(patch: pytest.MonkeyPatch) -> None:
    read = MemoryBackend.read

    def shown(self: MemoryBackend, page: PageRequest) -> list[Event]:
        return [event for event in read(self, page) if event.sequence != 100]

    patch.setattr(MemoryBackend, "read", shown)


def _cache_the_version(patch: pytest.MonkeyPatch) -> None:
    version = MemoryBackend.version
    cached: dict[Entity, int] = {}

    def shown(self: MemoryBackend, entity: Entity) -> int:
        fresh = version(self, entity)
        return cached.setdefault(entity, fresh) if fresh % 5 else cached.pop(entity, fresh)

    patch.setattr(MemoryBackend, "version", shown)


def _say_nothing_came(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EventStore, "wait_for_events", lambda *_: False)


def _overlook_every_other_id(patch: pytest.MonkeyPatch) -> None:
    find = MemoryBackend.find

    def found(self: MemoryBackend, keys: Sequence[tuple[str, UUID]]) -> list[Event]:
        return [event for event in find(self, keys) if event.sequence % 2]

    patch.setattr(MemoryBackend, "find", found)


def _leak_an_error(patch: pytest.MonkeyPatch) -> None:
    def leak(*_: object) -> int:
        raise LookupError("the driver's own")

    patch.setattr(MemoryBackend, "count", leak)


@pytest.mark.parametrize(
    ("make_wrong", "caught"),
    [
        (_ignore_conditions, {Rule.CONDITION_IGNORED}),
        (_ignore_expectations, {Rule.EXPECTATION_IGNORED}),
        (_store_repeats_again, {Rule.DUPLICATE_ID}),
        (_show_part_of_the_last_batch, {Rule.TORN_READ, Rule.STALE_READ}),
        (_lose_an_event, {Rule.UNEXPECTED_ERROR}),
        (_cache_the_version, {Rule.STALE_READ}),
        (_say_nothing_came, {Rule.STALE_READ}),
        (_overlook_every_other_id, {Rule.STALE_READ, Rule.REPEAT_REFUSED}),
        (_leak_an_error, {Rule.UNEXPECTED_ERROR}),
    ],
)
def test_a_store_that_is_wrong_is_caught(
    make_wrong: Callable[[pytest.MonkeyPatch], None],
    caught: set[Rule],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_wrong(monkeypatch)
    history = run_history("memory://", seconds=0.5, workers=2, seed=3)
    assert caught & {violation.rule for violation in check(history)}


def test_a_worker_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Workload, "step", fail)
    with pytest.raises(RuntimeError, match="a worker failed"):
        run_history("memory://", seconds=0.1)


# --- Processes


def test_processes_share_a_log(tmp_path: Path) -> None:
    history = run_history(f"sqlite:///{tmp_path}/log.db", seconds=2, workers=3, seed=4)
    assert check(history) == []
    assert len({call.worker for call in history.operations}) == 6


def test_a_killed_process_leaves_no_violation(tmp_path: Path) -> None:
    def kill_one(workers: Workers) -> None:
        workers[0].join(1)  # it works that long
        workers[0].kill()

    url = f"sqlite:///{tmp_path}/log.db"
    history = run_history(url, seconds=2, workers=2, seed=5, disturb=kill_one)
    assert check(history) == []


def test_a_second_history_goes_on_with_the_log_of_the_first(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    first = run_history(url, seconds=0.5, workers=1)
    second = run_history(url, seconds=0.5, workers=1)
    assert second.start == len(first.log)
    assert check(second) == []


def test_a_store_that_no_worker_can_open_is_told(tmp_path: Path) -> None:
    def vanish(workers: Workers) -> None:
        raise AssertionError("not reached")

    with pytest.raises(ConfigurationError):
        run_history(f"sqlite:///{tmp_path}", seconds=1, disturb=vanish)


def test_the_command_prints_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory://", "--seconds", "0.3", "--workers", "2", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "0 violations" in printed
    assert "append" in printed
