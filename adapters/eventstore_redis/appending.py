"""Committing a group: one call of append.lua, unless it asks for another look at what is new."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec
from redis.exceptions import NoPermissionError, ResponseError

from eventstore.backend import (
    INSTANT,
    Accepted,
    AnotherPastError,
    Batch,
    Outcome,
    PageRequest,
    Repeated,
    from_microseconds,
    judge_repeat,
    position_beyond,
    time_left,
    twins_of,
)
from eventstore.errors import (
    BatchTooLargeError,
    ConditionFailedError,
    EventStoreError,
    StoreUnavailableError,
    VersionConflictError,
)
from eventstore_redis import facts
from eventstore_redis.calls import append_call, for_one_call
from eventstore_redis.connections import Command
from eventstore_redis.records import identity_in
from eventstore_redis.selecting import Selecting
from eventstore_redis.server import APPEND, LogServer

_MAX_ARGUMENTS: Final = 1_000_000
"""To one command: Redis 6.2 takes 1,048,576."""
_MAX_BYTES: Final = 400_000_000
"""In one command: Redis drops a client that has sent 1 GB of one."""

_ACCEPTED, _REPEAT, _VERSION_CONFLICT, _BEYOND, _MATCH, _ANOTHER_PAST, _AGAIN = range(7)
"""The outcomes of append.lua."""

_NOTHING_YET: Final = Repeated(())
"""The outcome of a repeat until it is compared with what is recorded."""


class Replicas:
    """How many replicas must have an append, and how they are waited for."""

    def __init__(self, number: int, told: facts.Facts) -> None:
        self.number = number
        self._flush = facts.version(told) >= (7, 2) and told.get("aof_enabled") == "1"
        """Whether the server can tell that they have flushed it."""

    def command(self, seconds: float) -> Sequence[Command]:
        """Return the command that waits; it must follow the append on the same connection."""
        if not self.number:
            return ()
        milliseconds = int(seconds * 600) + 1  # it may be 100 ms late, and must be heard
        if self._flush:
            return [("WAITAOF", 1, self.number, milliseconds)]
        return [("WAIT", self.number, milliseconds)]

    def check(self, reply: int | list[int] | ResponseError) -> None:
        """Raise StoreUnavailableError unless the reply says that enough of them have it."""
        if isinstance(reply, ResponseError):
            raise StoreUnavailableError(
                f"replicas: the server does not tell who has the append ({reply}); it is stored,"
                " but a failover may lose it",
                may_have_written=True,
                transient=not isinstance(reply, NoPermissionError),
            ) from reply
        master, replicas = reply if isinstance(reply, list) else (1, reply)
        if replicas < self.number or not master:
            what = "flushed" if self._flush else "received"
            raise StoreUnavailableError(
                f"replicas: {replicas} of {self.number} have {what} the append in time; it is"
                " stored, but a failover may lose it",
                may_have_written=True,
            )


class Appending:
    """Commits to the log on a server."""

    def __init__(self, server: LogServer, selecting: Selecting, replicas: Replicas) -> None:
        self._server = server
        self._selecting = selecting
        self._replicas = replicas

    def commit(self, group: Sequence[Batch]) -> list[Outcome]:
        """Return the outcomes of batches. Once something may be stored, no error says of all that
        nothing is."""
        batches = list(group)
        outcomes: list[Outcome] = []
        try:
            while len(outcomes) < len(batches):
                time, judged = self._append(for_one_call(batches[len(outcomes) :]))
                for code, *details in judged:
                    batch = batches[len(outcomes)]
                    if code == _AGAIN:
                        batches[len(outcomes)] = self._looked_again(batch, *details)
                    else:
                        outcomes.append(_outcome(batch, code, details, time))
        except EventStoreError as error:
            if not outcomes:
                raise
            outcomes += [_after_others(error) for _ in batches[len(outcomes) :]]
        for place, outcome in enumerate(outcomes):
            if outcome is _NOTHING_YET:
                outcomes[place] = self._judged_repeat(batches[place])
        return outcomes

    def _append(self, batches: Sequence[Batch]) -> tuple[datetime, list[Any]]:
        """Return when the batches are recorded, and what the script says of each, up to the first
        that must be looked into again."""
        call = append_call(self._server.namespace, self._server.log_id, batches)
        size = sum(batch.weight for batch in batches)
        if len(call[0]) + len(call[1]) > _MAX_ARGUMENTS or size > _MAX_BYTES:
            raise BatchTooLargeError(
                f"a batch of {len(batches[0].drafts)} events, about {size} bytes, is more than"
                " Redis takes in one command: append it in parts of some 10,000 events"
            )
        if self._replicas.number:
            waiting = partial(self._replicas.command, self._server.patience)
            reply, confirmed = self._server.call(APPEND, call, waiting)
            self._replicas.check(confirmed)
        else:
            (reply,) = self._server.call(APPEND, call)
        recorded_at, judged = reply
        return from_microseconds(int(recorded_at)), judged

    def _looked_again(self, batch: Batch, head: int, witness: bytes) -> Batch:
        """Return a batch whose condition has been looked into up to ``head``: too much was new
        to do so in the script.

        The script saw both witnesses at once, the one of before and that of ``head``. So where
        the latter still stands at the commit, all that was looked into does.
        """
        condition = batch.condition
        assert condition is not None  # noqa: S101 - only a condition is looked into
        if time_left(self._server.timeout) <= INSTANT:
            raise StoreUnavailableError("condition: events come faster than it can be looked into")
        news = self._selecting.read(
            PageRequest(query=condition.query, after=condition.checked_to, up_to=head, limit=1)
        )
        looked = msgspec.structs.replace(
            condition,
            checked_to=head,
            witness=identity_in(witness),
            match=news[0].sequence if news else 0,
        )
        return msgspec.structs.replace(batch, condition=looked)

    def _judged_repeat(self, batch: Batch) -> Outcome:
        try:
            verdict = judge_repeat(batch, twins_of(self._selecting.find(batch.keys)))
        except EventStoreError as error:  # its own: the others of its group stand
            return _after_others(error)
        if verdict is None:  # it was recorded a moment ago
            return StoreUnavailableError(
                "the log was put back to an older copy meanwhile", may_have_written=True
            )
        return verdict


def _outcome(batch: Batch, code: int, details: list[int], recorded_at: datetime) -> Outcome:
    if code == _ACCEPTED:
        return Accepted(batch.drafts, details[0], details[1:], recorded_at)
    if code == _REPEAT:
        return _NOTHING_YET
    if code == _VERSION_CONFLICT:
        entity, expected = batch.expected[details[0]]
        return VersionConflictError(
            entity_type=entity.entity_type,
            entity_id=entity.entity_id,
            tenant_id=entity.tenant_id,
            expected_version=expected,
            actual_version=details[1],
        )
    if code == _ANOTHER_PAST:
        return AnotherPastError()
    condition = batch.condition
    assert condition is not None  # noqa: S101 - the other outcomes are about one
    if code == _BEYOND:
        return position_beyond("condition.after", condition.after)
    return ConditionFailedError(condition=condition.asked, sequence=details[0])


def _after_others(error: EventStoreError) -> EventStoreError:
    """Return an error as one batch's own, of a group of which something is stored."""
    error = error.again()
    if isinstance(error, StoreUnavailableError):
        error.may_have_written = True
    return error
