"""``eventstore init``, ``info`` and ``drop``: the log as a whole."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.filesize import decimal

from eventstore.cli.errors import ExitCode, printable, say
from eventstore.cli.options import Address, Format, address_of, schema_address_of, takes
from eventstore.cli.output import print_facts, print_records, wants_table
from eventstore.errors import InvalidQueryError
from eventstore.registry import drop_namespace, schema_ddl, settings_of
from eventstore.store import EventStore

_ENTITIES_AT_ONCE = 10_000


@takes(address=address_of)
def init(address: Address) -> None:
    """Create the log where it is not there yet, and check that it can be used."""
    with address.opened(create=True) as store:
        typer.echo(f"{store.url} is ready; it holds {store.get_current_sequence():,} events")


@takes(address=schema_address_of)
def schema(
    address: Address,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="For a log that is appended to by functions alone, which a role that cannot log in"
            " owns (PostgreSQL).",
        ),
    ] = False,
) -> None:
    """Print the DDL that creates the log, and the rights that a role needs to use it.

    Nothing is connected to; only the URL's scheme and namespace count. For teams that forbid DDL
    at run time: run it by hand, then open the log with create=false.
    """
    typer.echo(schema_ddl(address.url, **address.options, strict=strict))


@takes(address=address_of)
def info(address: Address, output: Format = None) -> None:
    """Print what is known of the store: server, durability, head, entities, size."""
    with address.opened(create=False) as store:
        facts: dict[str, object] = {
            "url": store.url,
            "log_id": store.log_id,
            **store.info(),
            "head": store.get_current_sequence(),
            "entities": _count_entities(store),
            "capabilities": sorted(each.value for each in store.capabilities),
        }
    if wants_table(output):
        if isinstance(size := facts.pop("size_bytes", None), int):
            facts["size"] = decimal(size)
        facts["capabilities"] = (
            ", ".join(sorted(each.value for each in store.capabilities)) or "none"
        )
        print_facts({name.replace("_", " "): value for name, value in facts.items()})
    else:
        print_records(output, [facts], {name: name for name in facts})


@takes(address=address_of)
def drop(
    address: Address,
    confirm: Annotated[
        str | None,
        typer.Option(
            metavar="NAMESPACE",
            show_default=False,
            help="The namespace's name, for scripts; asked for where it is not given.",
        ),
    ] = None,
) -> None:
    """Remove the log with every event in it. There is no way back."""
    settings = settings_of(address.url, **address.options)
    namespace, shown = settings.namespace, settings.safe_url
    if confirm is None:
        if sys.stdin is None:
            raise InvalidQueryError(
                "confirm: must be the name of the namespace, for standard input is closed"
            )
        typer.echo(
            f"This removes every event of {printable(shown)}.\n"
            f"Type the name of the namespace, {namespace}, to go on: ",
            nl=False,
            err=True,
        )
        confirm = sys.stdin.readline(1000).strip()
    if confirm != namespace:
        say(f"that is not the name of the namespace, {namespace}; nothing was removed")
        raise typer.Exit(ExitCode.USAGE)
    if not drop_namespace(address.url, **address.options):
        say(f"{shown}: has no log {namespace!r}; nothing was removed")
        raise typer.Exit(ExitCode.ERROR)
    typer.echo(f"{printable(shown)} is removed")


def _count_entities(store: EventStore) -> int:
    total = 0
    while found := len(store.list_entities(limit=_ENTITIES_AT_ONCE, offset=total)):
        total += found
    return total
