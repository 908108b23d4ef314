"""``eventstore export`` and ``import``: a log as JSON lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from eventstore.cli.errors import ExitCode, printable, say
from eventstore.cli.options import Url, opened, takes_query
from eventstore.cli.output import progress
from eventstore.errors import InvalidQueryError, StoreUnavailableError
from eventstore.event import Event
from eventstore.query import EventQuery
from eventstore.result import AppendResult
from eventstore.transfer import export_lines, import_lines

_STEP = 1000
"""Events between two looks at the progress bar."""


@takes_query
def export(
    url: Url,
    query: EventQuery,
    file: Annotated[
        Path, typer.Argument(help="Where to; - for standard output.", metavar="[FILE]")
    ] = Path("-"),
) -> None:
    """Write the log as JSON lines, one line a batch.

    The log is read as it stands when the export begins. FILE appears when it is complete.
    """
    to_terminal = str(file) == "-" and sys.stdout.isatty()
    with opened(url, create=False) as store, _written(file) as stream:
        bar = progress(unit="events", hidden=to_terminal)
        with bar:
            total = None if bar.disable else store.count_events(query)
            task = bar.add_task("exporting", total=total)

            def counted(events: Iterable[Event]) -> Iterator[Event]:
                for number, event in enumerate(events, start=1):
                    if number % _STEP == 0:
                        bar.update(task, completed=number)
                    yield event

            for piece in export_lines(counted(store.get_events(query))):
                stream.write(piece)


def import_(
    url: Url,
    file: Annotated[
        Path, typer.Argument(help="Where from; - for standard input.", metavar="[FILE]")
    ] = Path("-"),
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on after lines that cannot be stored.")
    ] = False,
    new_ids: Annotated[
        bool,
        typer.Option(
            "--new-ids",
            help="Give events that have no event_id a new one. Importing them again then stores"
            " them again.",
        ),
    ] = False,
) -> None:
    """Append JSON lines: each an event, or an object whose "batch" is a list of them.

    Stops at the first line that cannot be stored; all before it are. What the log holds
    already is not stored again, so an interrupted import is simply run again.
    """
    tally = _Tally()
    with opened(url, create=True) as store, _read(file) as stream:
        size = file.stat().st_size if file.is_file() else None
        with progress(unit="bytes", hidden=False) as bar:
            task = bar.add_task("importing", total=size)

            def lines() -> Iterator[bytes]:
                read = 0
                for number, line in enumerate(stream, start=1):
                    read += len(line)
                    if number % _STEP == 0:
                        bar.update(task, completed=read)
                    yield line

            try:
                for number, outcome in import_lines(store, lines(), new_ids=new_ids):
                    if isinstance(outcome, AppendResult):
                        tally.add(outcome)
                        continue
                    if isinstance(outcome, StoreUnavailableError):
                        raise outcome
                    tally.bad += 1
                    bar.console.print(
                        f"eventstore: line {number}: {printable(str(outcome))}",
                        soft_wrap=True,
                        highlight=False,
                        markup=False,
                    )
                    if not skip_bad:
                        break
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"interrupted: {tally}; run it again to go on") from None
    typer.echo(tally)
    if tally.bad:
        if not skip_bad:
            say("stopped there; correct the line and run it again, or use --skip-bad")
        raise typer.Exit(ExitCode.BAD_LINES)


class _Tally:
    """What an import has done so far."""

    def __init__(self) -> None:
        self.events = self.batches = self.repeats = self.bad = 0

    def add(self, result: AppendResult) -> None:
        if result.replayed:
            self.repeats += 1
        else:
            self.batches += 1
            self.events += len(result)

    def __str__(self) -> str:
        events, batches = _many(self.events, "event", "s"), _many(self.batches, "batch", "es")
        parts = [f"stored {events} in {batches}"]
        if self.repeats:
            parts.append(f"{_many(self.repeats, 'line', 's')} stored before")
        if self.bad:
            parts.append(f"{_many(self.bad, 'line', 's')} refused")
        return "; ".join(parts)


def _many(count: int, what: str, plural: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else plural}"


@contextmanager
def _read(file: Path) -> Iterator[IO[bytes]]:
    if str(file) != "-":
        with file.open("rb") as stream:
            yield stream
    elif sys.stdin.isatty():
        raise InvalidQueryError("file: give one, or JSON lines on standard input")
    else:
        yield sys.stdin.buffer


@contextmanager
def _written(file: Path) -> Iterator[IO[bytes]]:
    """Open for writing; a regular file is replaced once all is written."""
    if str(file) == "-":
        yield sys.stdout.buffer
        return
    if file.exists() and not file.is_file():  # a pipe, a device
        with file.open("wb") as stream:
            yield stream
        return
    beside = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as stream:
            yield stream
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
