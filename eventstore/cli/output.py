"""What commands print on standard output: tables for people, JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from eventstore.cli.errors import printable
from eventstore.event import Event

_ROWS_AT_ONCE: Final = 500

_encode = msgspec.json.Encoder().encode


def wants_table(chosen: Literal["table", "jsonl"] | None) -> bool:
    """Return whether to print a table: what was asked for, else on a terminal alone."""
    return sys.stdout.isatty() if chosen is None else chosen == "table"


def write(pieces: Iterable[bytes]) -> None:
    """Write bytes to standard output."""
    stream = sys.stdout.buffer
    for piece in pieces:
        stream.write(piece)


def write_json(values: Iterable[Any]) -> None:
    """Write each value as a line of JSON."""
    write(_encode(value) + b"\n" for value in values)


class EventPrinter:
    """Prints events as they come, in a table whose columns stay where they are, or as lines."""

    def __init__(self, chosen: Literal["table", "jsonl"] | None) -> None:
        self._console = _Console() if wants_table(chosen) else None
        self._begun = False

    def print(self, events: Iterable[Event]) -> None:
        """Print events, a screenful at a time, and flush."""
        if self._console is None:
            write_json(events)
        else:
            rows = iter(events)
            while chunk := list(islice(rows, _ROWS_AT_ONCE)):
                self._console.print(self._table(chunk))
                self._begun = True
        sys.stdout.flush()

    def _table(self, events: Sequence[Event]) -> Table:
        # Widths depend on the terminal alone, so that one table after another lines up.
        table = Table(box=None, expand=True, show_header=not self._begun, header_style="bold")
        table.add_column("seq", justify="right", width=8, style="cyan")
        table.add_column("time (UTC)", width=19, style="dim")
        for name, ratio in (("type", 3), ("entity", 5)):
            table.add_column(name, ratio=ratio, no_wrap=True, overflow="ellipsis")
        table.add_column("v", justify="right", width=5, style="cyan")
        table.add_column("data", ratio=8, no_wrap=True, overflow="ellipsis", style="dim")
        for event in events:
            tenant = f" @{event.tenant_id}" if event.tenant_id else ""
            table.add_row(
                str(event.sequence),
                event.timestamp.strftime("%Y-%m-%d %H:%M:%S"),
                _text(event.event_type),
                _text(f"{event.entity_type} {event.entity_id}{tenant}"),
                str(event.version),
                _text(_encode(event.data).decode() if event.data else ""),
            )
        return table


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a small table for people."""
    table = Table(*columns, box=None, header_style="bold", show_header=any(columns))
    for row in rows:
        table.add_row(*(_text(str(cell)) for cell in row))
    _Console().print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values for people."""
    print_table(("", ""), [(f"{name}:", value) for name, value in facts.items()])


def progress(*, unit: Literal["bytes", "events"], hidden: bool) -> Progress:
    """Return a progress bar on standard error; nothing where that is no terminal."""
    count: ProgressColumn = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        count,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden or not sys.stderr.isatty(),
        transient=True,
    )


class _Console(Console):
    """Standard output, where a reader that leaves is the command line's to handle."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _text(text: str) -> Text:
    return Text(printable(text))
