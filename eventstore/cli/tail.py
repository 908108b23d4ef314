"""``eventstore tail``: the end of the log, and what is added to it."""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from pathlib import Path
from typing import Annotated, Final

import typer

from eventstore.checkpoint import Checkpoint
from eventstore.cli.files import mode_of, told_of, written_whole
from eventstore.cli.options import Address, Format, Wide, address_of, query_of, takes
from eventstore.cli.output import EventPrinter
from eventstore.errors import (
    CheckpointError,
    InvalidQueryError,
    StoreClosedError,
    StoreUnavailableError,
)
from eventstore.query import EventQuery
from eventstore.store import EventStore

_LAST: Final = 10


@takes(address=address_of, query=query_of)
def tail(
    *,
    address: Address,
    query: EventQuery,
    number: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--number",
            metavar="N",
            min=0,
            show_default=str(_LAST),
            help="Begin with the last so many.",
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "-f",
            "--follow",
            help="Go on as events come in, through outages of the engine too, until Ctrl-C.",
        ),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            show_default=False,
            metavar="FILE",
            help="Go on after the position kept in FILE, from the start of the log where there"
            " is no such file; keep the new position there. It says what was WRITTEN to the"
            " output, not what its reader has worked off.",
        ),
    ] = None,
    output: Format = None,
    wide: Wide = False,
) -> None:
    """Print the last events, and those that come in.

    With --checkpoint every event is written once over many runs; only what was written just
    before a crash is written again. What a reader had not worked off when it died is not: where
    that matters, follow the log in Python and keep the position with the work (README,
    "Following the log").
    """
    if checkpoint is not None and number is not None:
        raise InvalidQueryError(
            "number: has no meaning beside --checkpoint, which goes on where it stopped"
        )
    printer = EventPrinter(output, wide=wide)
    with address.opened(create=False) as store:
        reader = _Reader(store) if follow else None
        try:
            if checkpoint is None:
                position = _print_last(store, query, printer, _LAST if number is None else number)
            else:
                position = _load(checkpoint, store)
                _save(checkpoint, position)  # to know now, and not after a page, that it can be
            if follow or checkpoint is not None:
                _go_on(store, query, printer, position, follow=follow, file=checkpoint)
        except StoreClosedError:
            if reader is not None and reader.has_left:
                raise BrokenPipeError from None
            raise


def _print_last(
    store: EventStore, query: EventQuery, printer: EventPrinter, number: int
) -> Checkpoint:
    """Print the last matches and return where the log ends."""
    position = store.checkpoint()
    if number:
        bound = position.sequence
        if query.to_sequence is not None:
            bound = min(bound, query.to_sequence)
        last = query.replace(to_sequence=bound, limit=number, ascending=False)
        printer.print(reversed(list(store.get_events(last))))
    return position


def _go_on(
    store: EventStore,
    query: EventQuery,
    printer: EventPrinter,
    position: Checkpoint,
    *,
    follow: bool,
    file: Path | None,
) -> None:
    """Print what matches after ``position``; with ``follow`` for ever."""
    while True:
        try:
            page = store.get_events_since(position)
        except StoreUnavailableError as error:
            if not follow or not error.transient:
                raise
            page = []  # to wait is to wait for the engine, too, and says so
        if page:
            printer.print(event for event in page if query.matches(event))
            position = store.checkpoint(page[-1])
            if file is not None:
                _save(file, position)
        elif follow:
            store.wait_for_events(position)
        else:
            return


class _Reader:
    """Who reads a pipe that is standard output; when they leave, the store is closed.

    A write would show it, but with nothing to write there is none, and the last process of a
    pipeline would wait for ever.
    """

    def __init__(self, store: EventStore) -> None:
        self.has_left = False
        self._store = store
        try:
            self._descriptor = sys.stdout.fileno()
            mode = os.fstat(self._descriptor).st_mode
        except (OSError, ValueError):
            return
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, 0)  # errors and hang-ups are told in any case
        poll.poll()
        self.has_left = True
        self._store.close()


def _load(file: Path, store: EventStore) -> Checkpoint:
    if mode_of(file) is None:
        return Checkpoint(store.log_id, 0, None)
    try:
        with told_of(file):
            return Checkpoint.parse(file.read_text("utf-8").strip())
    except (InvalidQueryError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: holds no checkpoint; {error}") from error


def _save(file: Path, position: Checkpoint) -> None:
    """Replace the file as a whole, so that a crash leaves the old position or the new one."""
    with written_whole(file, replace=True) as stream:
        stream.write(f"{position}\n".encode())
