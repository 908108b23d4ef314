"""``eventstore append``: one event from options, or an event or a batch as JSON."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
import typer

from eventstore.cli.errors import say
from eventstore.cli.options import Format, Url, opened, parsed_time
from eventstore.cli.output import EventPrinter
from eventstore.errors import InvalidEventError
from eventstore.event import Event
from eventstore.transfer import parse_line
from eventstore.versions import ExpectedVersion

_EXPECTATIONS: Final = {
    "any": ExpectedVersion.ANY,
    "no-stream": ExpectedVersion.NO_STREAM,
    "stream-exists": ExpectedVersion.STREAM_EXISTS,
}

_Name = Annotated[str | None, typer.Option(show_default=False, metavar="NAME")]
_Id = Annotated[str | None, typer.Option(show_default=False, metavar="ID")]
_Json = Annotated[str | None, typer.Option(show_default=False, metavar="JSON")]


def append(
    *,
    url: Url,
    event_type: _Name = None,
    entity_type: _Name = None,
    entity_id: _Id = None,
    data: _Json = None,
    metadata: _Json = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", show_default=False, metavar="TAG", help="Repeat it for several."),
    ] = None,
    workflow_id: _Id = None,
    tenant_id: _Id = None,
    event_id: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            metavar="UUID",
            help="A new one unless given; appending it again stores nothing.",
        ),
    ] = None,
    timestamp: Annotated[
        str | None,
        typer.Option(show_default=False, metavar="TIME", help="2026-01-31T12:00:00Z; now if not."),
    ] = None,
    schema_version: Annotated[int | None, typer.Option(show_default=False)] = None,
    expected_version: Annotated[
        str,
        typer.Option(
            metavar="VERSION",
            help="Append only if the entity is at this version: a number, no-stream,"
            " stream-exists or any.",
        ),
    ] = "any",
    output: Format = None,
) -> None:
    """Append an event, and print it as recorded.

    Without these options, JSON is read from standard input: one event, or an object whose
    "batch" is a list of events, to be stored atomically.
    """
    fields: dict[str, Any] = {
        "event_type": event_type,
        "entity_type": entity_type,
        "entity_id": entity_id,
        "data": _json_object("data", data),
        "metadata": _json_object("metadata", metadata),
        "tags": tuple(tags) if tags else None,
        "workflow_id": workflow_id,
        "tenant_id": tenant_id,
        "event_id": _uuid(event_id),
        "timestamp": parsed_time("timestamp", timestamp),
        "schema_version": schema_version,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    events = [_event(given)] if given else _from_standard_input()
    with opened(url, create=True) as store:
        result = store.append_batch(events, expected_version=_expectation(expected_version))
        if result.replayed:
            say("was stored before; nothing was written", kind="note: ")
        EventPrinter(output).print(result)


def _event(given: dict[str, Any]) -> Event:
    for name in ("event_type", "entity_type", "entity_id"):
        if name not in given:
            option = name.replace("_", "-")
            raise InvalidEventError(f"{name}: must be given, by --{option}")
    return Event(**given)


def _from_standard_input() -> list[Event]:
    if sys.stdin.isatty():
        raise InvalidEventError(
            "event: give --event-type, --entity-type and --entity-id, or JSON on standard input"
        )
    try:
        return parse_line(sys.stdin.buffer.read(), new_ids=True)
    except InvalidEventError as error:
        raise InvalidEventError(f"standard input: {error}") from error


def _json_object(field: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidEventError(f"{field}: {text!r:.100} is no JSON object ({error})") from error


def _uuid(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError as error:
        raise InvalidEventError(f"event_id: must be a UUID, not {text!r:.100}") from error


def _expectation(text: str) -> int:
    if text in _EXPECTATIONS:
        return _EXPECTATIONS[text]
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    raise InvalidEventError(
        f"expected_version: must be a number, {', '.join(_EXPECTATIONS)}, not {text!r:.100}"
    )
