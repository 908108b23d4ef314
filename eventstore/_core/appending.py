"""From a caller's events to a commit: checking, encoding, and what can be looked up before
the log's write lock is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from eventstore._core.checks import checked_name, checked_tenant, shown
from eventstore._core.log import Log
from eventstore._core.positions import in_tenant, verified, verified_position
from eventstore._core.reading import in_sequences
from eventstore._core.retrying import Answer, logger
from eventstore.backend import PageRequest
from eventstore.backend.deadline import INSTANT, time_left
from eventstore.backend.draft import Draft, draft_of
from eventstore.backend.planner import (
    AnotherPastError,
    Batch,
    Condition,
    Repeated,
    judge_repeat,
    twins_of,
)
from eventstore.checkpoint import Checkpoint
from eventstore.errors import (
    CheckpointError,
    ConditionFailedError,
    DuplicateEventError,
    EventStoreError,
    InvalidEventError,
    LogReplacedError,
    StoreUnavailableError,
)
from eventstore.event import Entity, Event
from eventstore.query import AppendCondition, EventQuery
from eventstore.result import AppendResult
from eventstore.versions import ExpectedVersion, checked_expectation

Expectation = int | Mapping[Any, int]
"""A number, or a mapping from ``Entity`` (or ``(entity_type, entity_id)``) to numbers."""


def batch_of(
    events: Sequence[Event], expected_version: Expectation, tenant_id: str | None
) -> Batch:
    """Return ``events`` as a valid batch, of ``tenant_id`` where one is given. One without events
    checks what is expected, and writes nothing.

    Raises InvalidEventError, and DuplicateEventError for an id that is there twice.
    """
    drafts = tuple(_drafts(events, tenant_id))
    if len(drafts) > 1:
        _refuse_an_id_twice(drafts)
    expected = _expectations(expected_version, drafts, tenant_id)
    return Batch(drafts=drafts, expected=expected)


def append(
    log: Log,
    batch: Batch,
    *,
    must_be_recorded: bool,
    condition: AppendCondition | None,
    tenant_id: str | None,
    connection: Any = None,
) -> AppendResult:
    """Append a batch and return its result, or raise what stands against it.

    ``must_be_recorded``: some of its events carry a sequence, so it can only be a repeat.
    """
    if must_be_recorded:
        repeated = recorded_already(log, batch)
        if repeated is None:
            raise InvalidEventError(
                "sequence: the event carries one but this log does not hold it; as_new() gives"
                " a copy that can be appended"
            )
        return repeated.result()
    if condition is not None:
        return log.in_one_call(lambda: _append_if(log, batch, condition, tenant_id, connection))
    return _append(log, batch, connection)


def _append_if(
    log: Log, batch: Batch, condition: AppendCondition, tenant_id: str | None, connection: Any
) -> AppendResult:
    while True:
        try:
            looked = looked_into(log, condition, tenant_id, joins=connection is not None)
        except LogReplacedError:
            raise
        except CheckpointError:
            repeated = recorded_already(log, batch)
            if repeated is None:
                raise
            return repeated.result()
        try:
            return _append(log, msgspec.structs.replace(batch, condition=looked), connection)
        except AnotherPastError as error:
            _look_again(log, error)
        except ConditionFailedError as error:
            if looked.match or connection is not None or not condition.query.has_recorded_bounds:
                raise
            # What came since was taken to be within bounds that the log had not passed yet. Now
            # that it is recorded, its time tells.
            _look_again(log, error)


def _look_again(log: Log, error: EventStoreError) -> None:
    """Let a condition be looked into once more, because of ``error``, if there is time left."""
    if time_left(log.settings.timeout) <= INSTANT:
        raise StoreUnavailableError(f"not within the timeout: {error}") from error
    logger.info("looking again: %s", error)


def _append(log: Log, batch: Batch, connection: Any) -> AppendResult:
    if connection is not None:
        return result_of(log.join(connection, batch))
    return result_of(log.append((batch,))[0])


def result_of(answer: Answer) -> AppendResult:
    """Return the result of a batch that stands, or raise what stands against it."""
    if isinstance(answer, Exception):
        raise answer
    return answer.result()


def recorded_already(log: Log, batch: Batch) -> Repeated | None:
    """Return the recorded events that ``batch`` repeats, or None if none of its ids is known."""
    found = log.read(lambda backend: backend.find(batch.keys))
    verdict = judge_repeat(batch, twins_of(found))
    if isinstance(verdict, EventStoreError):
        raise verdict
    return verdict


def looked_into(
    log: Log, condition: AppendCondition, tenant_id: str | None, *, joins: bool
) -> Condition:
    """Return ``condition`` checked up to the head of this moment, which can take long and needs
    no lock: what is recorded stays as it is.

    ``joins``: the append joins a transaction, which may hold events that only it sees.

    Raises CheckpointError where its position does not fit the log.
    """
    query = verified(log, in_tenant(condition.query, tenant_id), tenant_id)
    if condition.after is None:
        after = 0
    elif joins and not isinstance(condition.after, Checkpoint):
        after = condition.after  # whether that is beyond the head, the transaction itself knows
    else:
        after = verified_position(log, condition.after, "condition.after", tenant_id)
    newest = log.page(PageRequest(query=EventQuery(), limit=1, ascending=False))
    head = newest[0].sequence if newest else 0
    witness = (newest[0].tenant_id, newest[0].event_id) if newest and after <= head else None
    query = in_sequences(log, query, tenant_id, after=max(after - 1, 0), head=head, later=True)
    if after >= head:
        return Condition(
            asked=condition, query=query, after=after, checked_to=after, witness=witness
        )
    page = PageRequest(query=query, after=after, up_to=head, limit=1)
    found = log.page(page)
    match = found[0].sequence if found else 0
    return Condition(
        asked=condition, query=query, after=after, checked_to=head, match=match, witness=witness
    )


def _drafts(events: Sequence[Event], tenant_id: str | None) -> Iterable[Draft]:
    if len(events) == 1:
        yield draft_of(events[0], tenant_id)
        return
    for index, event in enumerate(events):
        try:
            yield draft_of(event, tenant_id)
        except InvalidEventError as error:
            raise InvalidEventError(f"events[{index}].{error}") from error.__cause__


def _refuse_an_id_twice(drafts: Sequence[Draft]) -> None:
    keys = {draft.identity for draft in drafts}
    if len(keys) == len(drafts):
        return
    for draft in drafts:
        key = draft.identity
        if key not in keys:
            raise DuplicateEventError(
                f"event_id: {draft.event_id} is in this batch twice", event_id=draft.event_id
            )
        keys.remove(key)


def _expectations(
    expected_version: Expectation, drafts: Sequence[Draft], tenant_id: str | None
) -> tuple[tuple[Entity, int], ...]:
    if isinstance(expected_version, Mapping):
        pairs = [
            (_entity_key(key, tenant_id), checked_expectation(value))
            for key, value in expected_version.items()
        ]
        if len(dict(pairs)) != len(pairs):
            raise InvalidEventError("expected_version: names an entity twice")
    else:
        expected = checked_expectation(expected_version)
        if expected == ExpectedVersion.ANY:
            return ()
        if not drafts:
            raise InvalidEventError(
                "expected_version: a batch without events names no entity; give a mapping"
                " {(entity_type, entity_id): version}"
            )
        entities = {draft.entity for draft in drafts}
        if len(entities) > 1:
            raise InvalidEventError(
                f"expected_version: the batch writes {len(entities)} entities; give a mapping"
                " {(entity_type, entity_id): version}"
            )
        pairs = [(entities.pop(), expected)]
    return tuple((entity, value) for entity, value in pairs if value != ExpectedVersion.ANY)


def _entity_key(key: object, tenant_id: str | None) -> Entity:
    if not isinstance(key, tuple) or len(key) not in (2, 3):
        raise InvalidEventError(
            "expected_version: a mapping's keys must be Entity or (entity_type, entity_id),"
            f" not {shown(key)}"
        )
    error = InvalidEventError
    own_tenant = checked_tenant(key[2], error) if len(key) == 3 else ""
    if tenant_id is not None:
        if own_tenant not in ("", tenant_id):
            raise InvalidEventError(
                f"expected_version: {own_tenant!r} is not the tenant of this view, {tenant_id!r}"
            )
        own_tenant = tenant_id
    return Entity(
        checked_name("expected_version: entity_type", key[0], error),
        checked_name("expected_version: entity_id", key[1], error),
        own_tenant,
    )
