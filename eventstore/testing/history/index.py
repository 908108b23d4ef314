"""The final log, arranged for questions, and what was known of it at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final
from uuid import UUID

from eventstore.event import Entity
from eventstore.query import EventQuery
from eventstore.testing.history.recording import LogEntry

_NOTHING: Final[list[int]] = []


class LogIndex:
    """The log as it stood in the end."""

    def __init__(self, log: Sequence[LogEntry]) -> None:
        self.entries = {entry.event.sequence: entry for entry in log}
        self.sequences = sorted(self.entries)
        self.head = self.sequences[-1] if self.sequences else 0
        self.by_id: dict[tuple[str, UUID], int] = {}
        self.by_entity: defaultdict[Entity, list[int]] = defaultdict(list)
        self._by_tag: defaultdict[str, list[int]] = defaultdict(list)
        self._by_type: defaultdict[str, list[int]] = defaultdict(list)
        self._by_workflow: defaultdict[str | None, list[int]] = defaultdict(list)
        self._batch_end: dict[int, int] = {}
        for sequence in self.sequences:
            event = self.entries[sequence].event
            self.by_id.setdefault((event.tenant_id, event.event_id), sequence)
            self.by_entity[event.entity].append(sequence)
            self._by_type[event.event_type].append(sequence)
            self._by_workflow[event.workflow_id].append(sequence)
            for tag in set(event.tags):
                self._by_tag[tag].append(sequence)
            self._batch_end[event.batch_sequence] = sequence
        self._matching: dict[EventQuery, list[int]] = {}

    def sequence_of(self, tenant_id: str, event_id: UUID) -> int | None:
        """Return where an event stands, None if it is not in the log."""
        return self.by_id.get((tenant_id, event_id))

    def whole_batch(self, sequence: int) -> int:
        """Return the last sequence of the batch that holds ``sequence``: it was there as well."""
        entry = self.entries.get(sequence)
        return sequence if entry is None else self._batch_end[entry.event.batch_sequence]

    def same_batch(self, one: int, other: int) -> bool:
        """Return whether two sequences were recorded together."""
        entries = self.entries
        return entries[one].event.batch_sequence == entries[other].event.batch_sequence

    def matching(self, query: EventQuery) -> list[int]:
        """Return the sequences, ascending, that the query takes, but for ``from_sequence``,
        order and window."""
        bare = query.replace(
            from_sequence=None, limit=None, offset=0, order_by="sequence", ascending=True
        )
        found = self._matching.get(bare)
        if found is None:
            entries = self.entries
            found = [
                sequence
                for sequence in self._candidates(bare)
                if bare.matches(entries[sequence].event)
            ]
            self._matching[bare] = found
        return found

    def _candidates(self, query: EventQuery) -> Sequence[int]:
        """Return sequences among which all matches are, few if possible."""
        choices: list[Sequence[int]] = [self.sequences]
        if query.entity_type is not None and query.entity_id is not None:
            entity = Entity(query.entity_type, query.entity_id, query.tenant_id or "")
            if query.tenant_id is not None:
                choices.append(self.by_entity.get(entity, _NOTHING))
        if query.workflow_id is not None:
            choices.append(self._by_workflow.get(query.workflow_id, _NOTHING))
        choices.extend(self._by_tag.get(tag, _NOTHING) for tag in query.tags or ())
        if query.event_types is not None:
            choices.append(_merged(self._by_type.get(t, _NOTHING) for t in query.event_types))
        if query.any_of is not None:
            choices.append(_merged(self.matching(alternative) for alternative in query.any_of))
        return min(choices, key=len)


def _merged(lists: Iterable[Sequence[int]]) -> list[int]:
    return sorted({sequence for sequences in lists for sequence in sequences})


class Known:
    """Which head was known for sure at which time."""

    def __init__(self, facts: Mapping[int, int]) -> None:
        """Take the heads seen by calls, by the time these ended."""
        self._times = sorted(facts)
        self._heads = list(accumulate((facts[time] for time in self._times), max))

    def before(self, time: int) -> int:
        """Return the highest head that a call saw which had ended before ``time``."""
        position = bisect_left(self._times, time)
        return self._heads[position - 1] if position else 0
