"""``eventstore get``, ``count`` and ``entities``."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Annotated, Final, Literal

import typer

from eventstore.cli.errors import ExitCode, say
from eventstore.cli.options import (
    Address,
    Format,
    Selection,
    Wide,
    address_of,
    parsed_id,
    query_of,
    takes,
)
from eventstore.cli.output import EventPrinter, print_records, wants_table
from eventstore.errors import InvalidQueryError
from eventstore.query import EventQuery

_ON_A_TERMINAL: Final = 100
"""Events that ``get`` prints there unless told."""


@takes(address=address_of, selection=query_of)
def get(
    *,
    address: Address,
    selection: Selection,
    event_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="UUID",
            show_default=False,
            help="The one event with this id, of the tenant of --tenant-id or of none.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default=False,
            help=f"At most so many: {_ON_A_TERMINAL} on a terminal, else all, unless given.",
        ),
    ] = None,
    offset: Annotated[int, typer.Option(metavar="N", help="Skip so many matches first.")] = 0,
    order_by: Annotated[
        Literal["sequence", "timestamp"],
        typer.Option(help="By place in the log, or by when it happened."),
    ] = "sequence",
    ascending: Annotated[
        bool, typer.Option("--ascending/--descending", help="The first ones first, or the last.")
    ] = True,
    output: Format = None,
    wide: Wide = False,
) -> None:
    """Print events."""
    printer = EventPrinter(output, wide=wide)
    query = selection.query.replace(
        limit=limit, offset=offset, order_by=order_by, ascending=ascending
    )
    if event_id is not None:
        if query.replace(tenant_id=None) != EventQuery():
            raise InvalidQueryError("id: only --tenant-id has a meaning beside it")
        wanted = parsed_id("id", event_id)
        assert wanted is not None  # noqa: S101 - given, as seen above
        with address.opened(create=False) as store:
            event = store.get_event_by_id(wanted, tenant_id=query.tenant_id or "")
        if event is None:
            say(f"there is no event with the id {wanted}")
            raise typer.Exit(ExitCode.ERROR)
        printer.print([event])
        return
    limited = limit is None and sys.stdout.isatty() and wants_table(output)
    with address.opened(create=False) as store:
        selection.verify(store)
        events = store.get_events(query)
        printer.print(islice(events, _ON_A_TERMINAL) if limited else events)
        if limited and next(events, None) is not None:
            say(f"the first {_ON_A_TERMINAL} are shown; --limit shows more", kind="note: ")


@takes(address=address_of, selection=query_of)
def count(address: Address, selection: Selection) -> None:
    """Print how many events there are."""
    with address.opened(create=False) as store:
        selection.verify(store)
        typer.echo(store.count_events(selection.query))


@takes(address=address_of)
def entities(
    *,
    address: Address,
    entity_type: Annotated[
        str | None, typer.Option(show_default=False, metavar="NAME", help="Of this kind.")
    ] = None,
    tenant_id: Annotated[
        str | None,
        typer.Option(
            show_default=False, metavar="ID", help="Of this tenant; '' for those without one."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many.")] = 100,
    offset: Annotated[int, typer.Option(metavar="N", help="Skip so many first.")] = 0,
    output: Format = None,
) -> None:
    """Print entities, newest first."""
    with address.opened(create=False) as store:
        found = store.list_entities(entity_type, tenant_id=tenant_id, limit=limit, offset=offset)
    columns = {"entity_type": "type", "entity_id": "id", "tenant_id": "tenant"}
    print_records(output, [entity._asdict() for entity in found], columns)
