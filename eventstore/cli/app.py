"""The command line put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import typer

from eventstore import __version__
from eventstore.cli import append, bench, read, stores, tail, transfers
from eventstore.cli.errors import CommandLine

app = typer.Typer(
    name="eventstore",
    cls=CommandLine,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 1 the store or a file could not do it, 2 wrong usage, 3 a conflict"
    " with another event, 4 bad lines in an import, 130 Ctrl-C.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "init": stores.init,
    "append": append.append,
    "get": read.get,
    "tail": tail.tail,
    "count": read.count,
    "entities": read.entities,
    "info": stores.info,
    "export": transfers.export,
    "import": transfers.import_,
    "schema": stores.schema,
    "drop": stores.drop,
    "bench": bench.bench,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """An append-only log of events on SQLite, PostgreSQL, MongoDB or Redis.

    Every command takes --url, --url-env, or EVENTSTORE_URL from the environment.
    """
    if show_version:
        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
