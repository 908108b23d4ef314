"""What commands print on standard output: tables for people, JSON lines for programs."""

from __future__ import annotations

import csv
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
from eventstore.errors import InvalidQueryError
from eventstore.event import Event

_ROWS_AT_ONCE: Final = 500
_WIDE: Final = 1_000_000
"""Columns of a table that is cut nowhere."""

_TIMES: Final = (
    (90, "%Y-%m-%d %H:%M:%S", 19),
    (75, "%m-%d %H:%M:%S", 14),
    (45, "%H:%M", 5),
    (0, "", 0),
)
"""From so many columns on, this is how a time is printed, in so many characters."""
_LEAST_WITH_DATA: Final = 70
_SEQUENCE: Final = 6
_VERSION: Final = 3

_encode = msgspec.json.Encoder().encode


Chosen = Literal["table", "jsonl", "csv"] | None
"""A format, or None where it depends on where the output goes."""


def wants_table(chosen: Chosen) -> bool:
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


def write_csv(rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV in UTF-8, whatever the terminal's encoding; lists and objects as JSON."""
    text = csv.writer(_Utf8(), lineterminator="\n")
    for row in rows:
        text.writerow(
            _encode(cell).decode() if isinstance(cell, (list, dict)) else cell for cell in row
        )


def print_records(
    chosen: Chosen, records: Iterable[Mapping[str, object]], columns: Mapping[str, str]
) -> None:
    """Print records in the format that was chosen; ``columns`` are their fields and how a table
    for people calls them."""
    if wants_table(chosen):
        print_table(tuple(columns.values()), (tuple(record.values()) for record in records))
    elif chosen == "csv":
        write_csv((tuple(columns), *(tuple(record.values()) for record in records)))
    else:
        write_json(records)


class EventPrinter:
    """Prints events as they come: in a table whose columns stay where they are, or as lines."""

    def __init__(self, chosen: Chosen, *, wide: bool = False) -> None:
        self._table: _EventTable | None = None
        if wide or wants_table(chosen):
            if chosen not in (None, "table"):
                raise InvalidQueryError(f"wide: is for a table, not for {chosen}")
            self._table = _EventTable(wide=wide)
        self._csv = chosen == "csv"
        self._begun = False

    def print(self, events: Iterable[Event]) -> None:
        """Print events, a screenful at a time, and flush."""
        if self._table is not None:
            self._table.print(events)
        elif self._csv:
            if not self._begun:
                write_csv([Event.__struct_fields__])
                self._begun = True
            write_csv(list(event.to_dict().values()) for event in events)
        else:
            write_json(events)
        sys.stdout.flush()


class _EventTable:
    """Widths depend on the terminal alone, so that one table after another lines up."""

    def __init__(self, *, wide: bool) -> None:
        self._console = _Console(width=_WIDE, soft_wrap=True) if wide else _Console()
        self._wide = wide
        self._begun = False
        width = self._console.width
        # Where it is narrow, the time gives way first, then the data: type and entity stay.
        self._time, self._time_width = next(
            (form, characters) for least, form, characters in _TIMES if width >= least
        )
        self._data = width >= _LEAST_WITH_DATA

    def print(self, events: Iterable[Event]) -> None:
        rows = iter(events)
        while chunk := list(islice(rows, _ROWS_AT_ONCE)):
            self._console.print(self._of(chunk), crop=not self._wide)
            self._begun = True

    def _of(self, events: Sequence[Event]) -> Table:
        table = Table(
            box=None, expand=not self._wide, show_header=not self._begun, header_style="bold"
        )
        table.add_column("seq", justify="right", min_width=_SEQUENCE, no_wrap=True, style="cyan")
        if self._time:
            name = "time (UTC)" if self._time_width >= 10 else "time"
            table.add_column(name, width=self._time_width, no_wrap=True, style="dim")
        texts: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}
        table.add_column("type", ratio=4, **texts)
        table.add_column("entity", ratio=5, **texts)
        table.add_column("v", justify="right", min_width=_VERSION, no_wrap=True, style="cyan")
        if self._data:
            table.add_column("data", ratio=5, style="dim", **texts)
        for event in events:
            tenant = f" @{event.tenant_id}" if event.tenant_id else ""
            cells = [
                Text(str(event.sequence)),
                _text(event.event_type),
                _text(f"{event.entity_type} {event.entity_id}{tenant}"),
                Text(str(event.version)),
            ]
            if self._time:
                cells.insert(1, Text(event.timestamp.strftime(self._time)))
            if self._data:
                cells.append(_text(_encode(event.data).decode() if event.data else ""))
            table.add_row(*cells)
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


class _Utf8:
    """Standard output for text that is in UTF-8 in any case."""

    def write(self, text: str) -> None:
        sys.stdout.buffer.write(text.encode())


class _Console(Console):
    """Standard output, where a reader that leaves is the command line's to handle."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _text(text: str) -> Text:
    return Text(printable(text))
