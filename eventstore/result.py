"""What an append returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from eventstore.event import Event


def _rebuild(sequences: tuple[int, ...], events: tuple[Event, ...], replayed: bool) -> AppendResult:
    return AppendResult(sequences, lambda: events, replayed=replayed)


class AppendResult(Sequence[Event]):
    """The recorded events of a batch, in its order: an immutable sequence.

    The events are built when first looked at, so an append that ignores them pays nothing.
    """

    __slots__ = ("_build", "_events", "_replayed", "_sequences")

    def __init__(
        self,
        sequences: Sequence[int] = (),
        build: Callable[[], Sequence[Event]] = tuple,
        *,
        replayed: bool = False,
    ) -> None:
        self._sequences = sequences
        self._build = build
        self._events: tuple[Event, ...] | None = None
        self._replayed = replayed

    @property
    def events(self) -> tuple[Event, ...]:
        """The events as recorded."""
        if self._events is None:
            self._events = tuple(self._build())
        return self._events

    @property
    def sequences(self) -> tuple[int, ...]:
        """Their sequences: contiguous, unless they are a repeat of several batches."""
        return tuple(self._sequences)

    @property
    def first_sequence(self) -> int:
        """The sequence of the first event; 0 when empty."""
        return self._sequences[0] if self._sequences else 0

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event; 0 when empty."""
        return self._sequences[-1] if self._sequences else 0

    @property
    def replayed(self) -> bool:
        """True where the events were found recorded and nothing was written: by an earlier
        call, or by an attempt of this one whose answer was lost."""
        return self._replayed

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Event, ...]: ...
    def __getitem__(self, index: int | slice) -> Event | tuple[Event, ...]:
        return self.events[index]

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self._sequences)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AppendResult):
            return NotImplemented
        return self.events == other.events and self._replayed == other._replayed

    def __hash__(self) -> int:
        return hash((tuple(self._sequences), self._replayed))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it travel between processes: with its events built, however that was to be done."""
        return _rebuild, (self.sequences, self.events, self._replayed)

    def __repr__(self) -> str:
        return (
            f"AppendResult(first_sequence={self.first_sequence},"
            f" last_sequence={self.last_sequence}, replayed={self._replayed})"
        )
