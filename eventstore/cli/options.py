"""What several commands share: the store they open, and the filter options of a query."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
import typer

from eventstore.cli.errors import say
from eventstore.errors import DurabilityWarning, InvalidQueryError
from eventstore.query import EventQuery
from eventstore.registry import open_store
from eventstore.store import EventStore

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="EVENTSTORE_URL",
        metavar="URL",
        show_default=False,
        help="The store, for example sqlite:///orders.db.",
    ),
]

Format = Annotated[
    Literal["table", "jsonl"] | None,
    typer.Option(
        "--format",
        show_default=False,
        help="A table or JSON lines; by default a table on a terminal, else JSON lines.",
    ),
]


@contextmanager
def opened(url: str, *, create: bool) -> Iterator[EventStore]:
    """Open the store, closed at the end; ``create=False`` never makes a new log."""
    options: dict[str, Any] = {} if create else {"create": False}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DurabilityWarning)
        store = open_store(url, **options)
    for warning in caught:
        if issubclass(warning.category, DurabilityWarning):
            say(warning.message, kind="warning: ")
    with store:
        yield store


def takes_query(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command``, which has a parameter ``query``, the options of ``_query`` for it."""
    filters = inspect.signature(_query, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters

    def run(**given: Any) -> None:
        query = _query(**{name: given.pop(name) for name in filters})
        command(query=query, **given)

    parameters = [parameter for name, parameter in own.items() if name != "query"]
    parameters += filters.values()
    keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined] # what typer reads
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__doc__ = command.__doc__
    return run


_PANEL: Final = "Which events (all that are given must match)"


def _option(name: str, text: str, metavar: str = "NAME") -> Any:
    return typer.Option(
        name, help=text, metavar=metavar, rich_help_panel=_PANEL, show_default=False
    )


def _query(
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
        int | None, _option("--from-sequence", "After this sequence.", "N")
    ] = None,
    to_sequence: Annotated[
        int | None, _option("--to-sequence", "Up to this sequence.", "N")
    ] = None,
    from_timestamp: Annotated[
        str | None, _option("--from-timestamp", "From 2026-01-31T00:00:00Z on.", "TIME")
    ] = None,
    to_timestamp: Annotated[
        str | None, _option("--to-timestamp", "Up to 2026-01-31T23:59:59+01:00.", "TIME")
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
    return EventQuery(
        entity_type=entity_type,
        entity_id=entity_id,
        workflow_id=workflow_id,
        tenant_id=tenant_id,
        event_types=event_types or None,
        tags=tags or None,
        from_sequence=from_sequence,
        to_sequence=to_sequence,
        from_timestamp=parsed_time("from_timestamp", from_timestamp),
        to_timestamp=parsed_time("to_timestamp", to_timestamp),
        any_of=[_alternative(text) for text in any_of] if any_of else None,
    )


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
    try:
        given = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidQueryError(f"any_of: {text!r:.100} is no JSON object ({error})") from error
    for name in given:
        if name not in EventQuery.__struct_fields__:
            raise InvalidQueryError(
                f"any_of: a query has no field {name!r:.100}; it has"
                f" {', '.join(EventQuery.__struct_fields__)}"
            )
    for name in ("from_timestamp", "to_timestamp"):
        if isinstance(given.get(name), str):
            given[name] = parsed_time(name, given[name])
    return EventQuery(**given)
