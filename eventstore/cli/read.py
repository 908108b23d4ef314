"""``eventstore get``, ``tail``, ``count`` and ``entities``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from eventstore.checkpoint import Checkpoint
from eventstore.cli.options import Format, Url, opened, takes_query
from eventstore.cli.output import EventPrinter, print_table, wants_table, write_json
from eventstore.errors import CheckpointError, InvalidQueryError
from eventstore.query import EventQuery
from eventstore.store import EventStore


@takes_query
def get(
    *,
    url: Url,
    query: EventQuery,
    limit: Annotated[int | None, typer.Option(help="At most so many.", show_default=False)] = None,
    offset: Annotated[int, typer.Option(help="Skip so many matches first.")] = 0,
    order_by: Annotated[
        Literal["sequence", "timestamp"],
        typer.Option(help="By place in the log, or by when it happened."),
    ] = "sequence",
    ascending: Annotated[bool, typer.Option("--ascending/--descending")] = True,
    output: Format = None,
) -> None:
    """Print events."""
    query = query.replace(limit=limit, offset=offset, order_by=order_by, ascending=ascending)
    with opened(url, create=False) as store:
        EventPrinter(output).print(store.get_events(query))


@takes_query
def count(url: Url, query: EventQuery) -> None:
    """Print how many events there are."""
    with opened(url, create=False) as store:
        typer.echo(store.count_events(query))


def entities(
    *,
    url: Url,
    entity_type: Annotated[str | None, typer.Option(show_default=False, metavar="NAME")] = None,
    tenant_id: Annotated[str | None, typer.Option(show_default=False, metavar="ID")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    offset: Annotated[int, typer.Option(help="Skip so many first.")] = 0,
    output: Format = None,
) -> None:
    """Print entities, newest first."""
    with opened(url, create=False) as store:
        found = store.list_entities(entity_type, tenant_id=tenant_id, limit=limit, offset=offset)
        if wants_table(output):
            print_table(("type", "id", "tenant"), found)
        else:
            write_json(entity._asdict() for entity in found)


@takes_query
def tail(
    *,
    url: Url,
    query: EventQuery,
    number: Annotated[
        int, typer.Option("-n", "--number", help="Begin with the last so many.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on as events come in, until Ctrl-C.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            show_default=False,
            metavar="FILE",
            help="Go on after the position kept in FILE, from the start of the log where there"
            " is no such file; keep the new position there.",
        ),
    ] = None,
    output: Format = None,
) -> None:
    """Print the last events, and those that come in.

    With --checkpoint every event is printed once over many runs; only what was printed just
    before a crash is printed again.
    """
    with opened(url, create=False) as store:
        printer = EventPrinter(output)
        if checkpoint is not None:
            _go_on(store, query, printer, _load(checkpoint, store), follow=follow, file=checkpoint)
            return
        position = store.checkpoint()
        if number:
            bound = position.sequence
            if query.to_sequence is not None:
                bound = min(bound, query.to_sequence)
            last = query.replace(to_sequence=bound, limit=number, ascending=False)
            printer.print(reversed(list(store.get_events(last))))
        if follow:
            _go_on(store, query, printer, position, follow=True, file=None)


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
        page = store.get_events_since(position)
        if page:
            printer.print(event for event in page if query.matches(event))
            position = store.checkpoint(page[-1])
            if file is not None:
                _save(file, position)
        elif follow:
            store.wait_for_events(position)
        else:
            return


def _load(file: Path, store: EventStore) -> Checkpoint:
    try:
        return Checkpoint.parse(file.read_text().strip())
    except FileNotFoundError:
        return Checkpoint(store.log_id, 0, None)
    except (InvalidQueryError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: holds no checkpoint; {error}") from error


def _save(file: Path, position: Checkpoint) -> None:
    """Replace the file as a whole, so that a crash leaves the old position or the new one."""
    beside = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w") as stream:
            print(position, file=stream)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
