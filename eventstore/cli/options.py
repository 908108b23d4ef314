"""What several commands share: the store they open, and the filter options of a query."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
import typer

from eventstore.backend.settings import split_url
from eventstore.checkpoint import Checkpoint
from eventstore.cli.errors import say
from eventstore.errors import ConfigurationError, DurabilityWarning, InvalidQueryError
from eventstore.query import EventQuery
from eventstore.registry import open_store
from eventstore.store import EventStore

_DEFAULT_URL_VARIABLE: Final = "EVENTSTORE_URL"

_HINT_OF_CREATE: Final = ", or open it without create=false"
"""How the errors of a log that is not there end, where ``create`` is false."""

Format = Annotated[
    Literal["table", "jsonl", "csv"] | None,
    typer.Option(
        "--format",
        show_default=False,
        help="A table, JSON lines or CSV; by default a table on a terminal, else JSON lines.",
    ),
]

Wide = Annotated[
    bool,
    typer.Option("--wide", help="A table that is cut nowhere, however narrow the terminal."),
]


class Address(NamedTuple):
    """The store that a command works on."""

    url: str
    options: dict[str, Any]
    """What the command line adds to the URL."""

    @contextmanager
    def opened(self, *, create: bool) -> Iterator[EventStore]:
        """Open the store, closed at the end; ``create=False`` never makes a new log."""
        options = self.options if create else self.options | {"create": False}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DurabilityWarning)
            try:
                store = open_store(self.url, **options)
            except ConfigurationError as error:
                text = str(error).removesuffix(_HINT_OF_CREATE)
                if text == str(error) or "create" in dict(split_url(self.url)[2]):
                    raise
                raise ConfigurationError(text) from None  # create=false is ours, not the user's
        for warning in caught:
            if issubclass(warning.category, DurabilityWarning):
                say(warning.message, kind="warning: ")
        with store:
            yield store


def url_in(variable: str) -> str:
    """Return the URL that an environment variable holds; ConfigurationError if it holds none."""
    if url := os.environ.get(variable):
        return url
    raise ConfigurationError(f"url: the environment variable {variable!r:.100} holds none")


_Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        show_default=False,
        help="The store, for example sqlite:///orders.db; without it, what the environment"
        f" variable {_DEFAULT_URL_VARIABLE} holds.",
    ),
]
_UrlEnv = Annotated[
    str | None,
    typer.Option(
        "--url-env",
        metavar="NAME",
        show_default=False,
        help="The environment variable that holds the URL: others on the machine can read the"
        " arguments of a command.",
    ),
]
_Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        show_default=False,
        help="The log within the database, instead of the URL's own.",
    ),
]


def address_of(
    *, url: _Url = None, url_env: _UrlEnv = None, namespace: _Namespace = None
) -> Address:
    """Return the store that these options name."""
    if url is not None and url_env is not None:
        raise ConfigurationError("url: give --url or --url-env, not both")
    if url is None:
        if url_env is None and not os.environ.get(_DEFAULT_URL_VARIABLE):
            raise ConfigurationError(
                f"url: give the store by --url or --url-env, or set {_DEFAULT_URL_VARIABLE}, for"
                " example to sqlite:///orders.db"
            )
        url = url_in(url_env or _DEFAULT_URL_VARIABLE)
    return Address(url, {} if namespace is None else {"namespace": namespace})


def schema_address_of(
    *,
    given: Annotated[
        str | None,
        typer.Argument(metavar="[URL]", show_default=False, help="As --url."),
    ] = None,
    url: _Url = None,
    url_env: _UrlEnv = None,
    namespace: _Namespace = None,
) -> Address:
    """Return the store that these options, or the URL alone, name."""
    if given is not None and url is not None:
        raise ConfigurationError("url: give it once")
    return address_of(url=given or url, url_env=url_env, namespace=namespace)


def takes(**groups: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, in place of each parameter named here, the options that make it.

    ``takes(query=query_of)`` calls ``query_of`` with its options and the command with the result.
    """
    shared = {
        name: inspect.signature(make, eval_str=True).parameters for name, make in groups.items()
    }

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            made = {
                name: make(**{each: given.pop(each) for each in shared[name]})
                for name, make in groups.items()
            }
            command(**made, **given)

        own = inspect.signature(command, eval_str=True).parameters
        parameters = [parameter for name, parameter in own.items() if name not in groups]
        for options in shared.values():
            parameters += options.values()
        keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined] # what typer reads
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__doc__ = command.__doc__
        return run

    return decorated


_PANEL: Final = "Which events (all that are given must match)"


def _option(name: str, text: str, metavar: str = "NAME") -> Any:
    return typer.Option(
        name, help=text, metavar=metavar, rich_help_panel=_PANEL, show_default=False
    )


def query_of(
    *,
    entity_type: Annotated[str | None, _option("--entity-type", "Of this kind of entity.")] = None,
    entity_id: Annotated[str | None, _option("--entity-id", "Of this entity.", "ID")] = None,
    workflow_id: Annotated[str | None, _option("--workflow-id", "Of this workflow.", "ID")] = None,
    tenant_id: Annotated[
        str | None, _option("--tenant-id", "Of this tenant; '' for those without one.", "ID")
    ] = None,
    event_types: Annotated[
        list[str] | None, _option("--event-type", "Of this type; repeat it for any of several.")
    ] = None,
    tags: Annotated[
        list[str] | None, _option("--tag", "With this tag; repeat it for all of several.", "TAG")
    ] = None,
    from_sequence: Annotated[
        str | None,
        _option(
            "--from-sequence",
            "AFTER this sequence, which is not itself among them: give the last one that you have"
            " seen as it is, without adding 1. Or the text of a checkpoint, which is verified.",
            "N",
        ),
    ] = None,
    to_sequence: Annotated[
        int | None, _option("--to-sequence", "Up to this sequence and with it.", "N")
    ] = None,
    from_timestamp: Annotated[
        str | None,
        _option("--from-timestamp", "From 2026-01-31T00:00:00Z on, and with it.", "TIME"),
    ] = None,
    to_timestamp: Annotated[
        str | None,
        _option("--to-timestamp", "Up to 2026-01-31T23:59:59+01:00 and with it.", "TIME"),
    ] = None,
    from_recorded_at: Annotated[
        str | None,
        _option("--from-recorded-at", "Stored from this time on, and with it.", "TIME"),
    ] = None,
    to_recorded_at: Annotated[
        str | None,
        _option("--to-recorded-at", "Stored up to this time and with it.", "TIME"),
    ] = None,
    any_of: Annotated[
        list[str] | None,
        _option(
            "--any-of",
            'A query as JSON, such as {"entity_type": "order", "tags": ["vip"]}; repeat it, and'
            " at least one must match.",
            "JSON",
        ),
    ] = None,
) -> EventQuery:
    """Return the query that these options make."""
    return EventQuery(
        entity_type=entity_type,
        entity_id=entity_id,
        workflow_id=workflow_id,
        tenant_id=tenant_id,
        event_types=event_types or None,
        tags=tags or None,
        from_sequence=_position(from_sequence),
        to_sequence=to_sequence,
        from_timestamp=parsed_time("from_timestamp", from_timestamp),
        to_timestamp=parsed_time("to_timestamp", to_timestamp),
        from_recorded_at=parsed_time("from_recorded_at", from_recorded_at),
        to_recorded_at=parsed_time("to_recorded_at", to_recorded_at),
        any_of=[_alternative(text) for text in any_of] if any_of else None,
    )


def _position(text: str | None) -> int | Checkpoint | None:
    if text is None:
        return None
    if "@" in text:
        return Checkpoint.parse(text)
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    raise InvalidQueryError(
        f"from_sequence: must be a whole number or a checkpoint, not {text!r:.100}"
    )


def parsed_id(field: str, text: str | None) -> UUID | None:
    """Return a UUID; InvalidQueryError for anything else."""
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise InvalidQueryError(f"{field}: must be a UUID, not {text!r:.100}") from None


def json_object(field: str, text: str | bytes) -> dict[str, Any]:
    """Return what a JSON object holds; InvalidQueryError for anything else."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidQueryError(f"{field}: {text!r:.100} is no JSON object ({error})") from error


def parsed_time(field: str, text: str | None) -> datetime | None:
    """Return an ISO 8601 time that has a timezone; InvalidQueryError for anything else."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InvalidQueryError(
            f"{field}: must be a time with its timezone, such as 2026-01-31T12:00:00Z or"
            f" 2026-01-31T12:00:00+01:00, not {text!r:.100}"
        )
    return time


def _alternative(text: str) -> EventQuery:
    """Return the query that a JSON object spells."""
    given = json_object("any_of", text)
    for name in given:
        if name not in EventQuery.__struct_fields__:
            raise InvalidQueryError(
                f"any_of: a query has no field {name!r:.100}; it has"
                f" {', '.join(EventQuery.__struct_fields__)}"
            )
    for name in ("from_timestamp", "to_timestamp", "from_recorded_at", "to_recorded_at"):
        if isinstance(given.get(name), str):
            given[name] = parsed_time(name, given[name])
    return EventQuery(**given)
