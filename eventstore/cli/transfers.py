"""``eventstore export`` and ``import``: a log as JSON lines."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Protocol, Self

import typer

from eventstore.cli.errors import ExitCode, printable, say
from eventstore.cli.files import standard_input, told_of, written_whole
from eventstore.cli.options import Address, Selection, address_of, query_of, takes
from eventstore.cli.output import progress
from eventstore.errors import StoreUnavailableError
from eventstore.event import Event
from eventstore.result import AppendResult
from eventstore.transfer import LineReader, export_lines, import_lines

_STEP: Final = 100
"""Events of an export between two looks at the progress bar."""
_STEP_BYTES: Final = 1 << 16
"""Bytes of an import between two looks."""


@takes(address=address_of, selection=query_of)
def export(
    address: Address,
    selection: Selection,
    file: Annotated[
        Path,
        typer.Argument(
            help="Where to; - for standard output. Compressed where it ends in .gz.",
            metavar="[FILE]",
        ),
    ] = Path("-"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace FILE where it is there already.")
    ] = False,
) -> None:
    """Write the log as JSON lines, one line a batch.

    The log is read as it stands when the export begins. FILE appears when it is complete, to be
    read by its owner alone; one that is replaced keeps its mode.
    """
    to_terminal = str(file) == "-" and sys.stdout.isatty()
    query = selection.query
    with address.opened(create=False) as store, _written(file, force=force) as stream:
        selection.verify(store)
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


@takes(address=address_of)
def import_(
    address: Address,
    file: Annotated[
        Path,
        typer.Argument(
            help="Where from; - for standard input. Decompressed where it ends in .gz.",
            metavar="[FILE]",
        ),
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
    with (
        _read(file) as source,
        address.opened(create=True) as store,
        progress(unit="bytes", hidden=False) as bar,
        _BetweenCommits() as ctrl_c,
    ):
        task = bar.add_task("importing", total=source.size)
        lines = _Lines(source, ctrl_c, lambda read: bar.update(task, completed=read))
        try:
            for number, outcome in import_lines(store, lines, new_ids=new_ids):
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
            ctrl_c.let_in()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted: {tally}; run it again to go on") from None
    if not lines.read:
        say("the input is empty", kind="note: ")
    typer.echo(tally)
    if tally.bad:
        if not skip_bad:
            say("stopped there; correct the line and run it again, or use --skip-bad")
        raise typer.Exit(ExitCode.BAD_LINES)


class _BetweenCommits:
    """Lets Ctrl-C in between two commits, so that what is said to be stored is what is stored.

    A second one is let in at once.
    """

    def __init__(self) -> None:
        self._pressed = self._waiting = False

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _press(self, *_: object) -> None:
        if self._waiting or self._pressed:
            raise KeyboardInterrupt
        self._pressed = True

    def let_in(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed meanwhile."""
        if self._pressed:
            raise KeyboardInterrupt

    def while_open(self, wait: Callable[[int], bytes], size: int) -> bytes:
        """Return ``wait(size)``, which Ctrl-C ends at once: no commit is in flight."""
        self._waiting = True  # before the look, so that none is missed between the two
        try:
            self.let_in()
            return wait(size)
        finally:
            self._waiting = False


class _Source(NamedTuple):
    """What an import reads."""

    name: str
    stream: LineReader
    size: int | None
    """In bytes, as stored, where it is known."""
    place: Callable[[], int] | None
    """How many of those are read; None: as many as came out of the stream."""


class _Lines:
    """The lines of an import, as they are asked for."""

    def __init__(
        self, source: _Source, ctrl_c: _BetweenCommits, tell: Callable[[int], None]
    ) -> None:
        self.read = 0
        """Bytes, decompressed."""
        self._source = source
        self._ctrl_c = ctrl_c
        self._tell = tell
        self._told = 0

    def readline(self, size: int, /) -> bytes:
        try:
            piece = self._ctrl_c.while_open(self._source.stream.readline, size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise OSError(
                errno.EIO, f"what gzip compressed there is damaged ({error})", self._source.name
            ) from error
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._source.name) from error
        self.read += len(piece)
        if self.read - self._told >= _STEP_BYTES:
            self._told = self.read
            self._tell(self._source.place() if self._source.place else self.read)
        return piece


class _Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


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
def _read(file: Path) -> Iterator[_Source]:
    if str(file) == "-":
        yield _Source("standard input", standard_input("file: JSON lines"), None, None)
        return
    with told_of(file):
        raw = file.open("rb")
    with raw:
        size = os.fstat(raw.fileno()).st_size if file.is_file() else None
        stream: LineReader = raw
        if file.suffix == ".gz":
            stream = gzip.GzipFile(fileobj=raw)
        yield _Source(str(file), stream, size, raw.tell if size is not None else None)


@contextmanager
def _written(file: Path, *, force: bool) -> Iterator[_Sink]:
    """Open for writing; a regular file appears once all is written."""
    if str(file) == "-":
        yield sys.stdout.buffer
    elif file.exists() and not file.is_file():  # a pipe, a device
        with told_of(file), file.open("wb") as opened:
            yield opened
    elif file.suffix == ".gz":
        with (
            written_whole(file, replace=force) as stream,
            gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as compressed,
        ):
            yield compressed
    else:
        with written_whole(file, replace=force) as stream:
            yield stream
