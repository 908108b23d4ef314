"""``eventstore init``, ``info`` and ``drop``: the log as a whole."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.filesize import decimal

from eventstore.cli.errors import ExitCode, say
from eventstore.cli.options import Format, Url, opened
from eventstore.cli.output import print_facts, wants_table, write_json
from eventstore.registry import drop_namespace, schema_ddl
from eventstore.store import EventStore
from eventstore.url import checked_namespace, redacted, split_url

_ENTITIES_AT_ONCE = 10_000


def init(url: Url) -> None:
    """Create the log where it is not there yet, and check that it can be used."""
    with opened(url, create=True) as store:
        typer.echo(f"{store.url} is ready; it holds {store.get_current_sequence():,} events")


def schema(
    url: Annotated[
        str,
        typer.Argument(
            envvar="EVENTSTORE_URL",
            metavar="URL",
            show_default=False,
            help="The store; only its scheme and namespace count, nothing is connected to.",
        ),
    ],
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

    For teams that forbid DDL at run time: run it by hand, then open the log with create=false.
    """
    typer.echo(schema_ddl(url, strict=strict))


def info(url: Url, output: Format = None) -> None:
    """Print what is known of the store: server, durability, head, entities, size."""
    with opened(url, create=False) as store:
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
        write_json([facts])


def drop(
    url: Url,
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
    namespace = checked_namespace(dict(split_url(url)[2]).get("namespace", "eventstore"))
    if confirm is None:
        typer.echo(
            f"This removes every event of {redacted(url)}.\n"
            f"Type the name of the namespace, {namespace}, to go on: ",
            nl=False,
            err=True,
        )
        confirm = sys.stdin.readline().strip()
    if confirm != namespace:
        say(f"that is not the name of the namespace, {namespace}; nothing was removed")
        raise typer.Exit(ExitCode.USAGE)
    drop_namespace(url)
    typer.echo(f"{redacted(url)} is removed")


def _count_entities(store: EventStore) -> int:
    total = 0
    while found := len(store.list_entities(limit=_ENTITIES_AT_ONCE, offset=total)):
        total += found
    return total
