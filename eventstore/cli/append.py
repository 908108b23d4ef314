"""``eventstore append``: one event from options, or an event or a batch as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from eventstore.cli.errors import say
from eventstore.cli.files import something_waits, standard_input, told_of
from eventstore.cli.options import (
    Address,
    Format,
    address_of,
    json_object,
    parsed_id,
    parsed_time,
    takes,
)
from eventstore.cli.output import EventPrinter
from eventstore.errors import InvalidEventError
from eventstore.event import Event
from eventstore.transfer import MAX_LINE_BYTES, parse_line
from eventstore.versions import ExpectedVersion

_EXPECTATIONS: Final = {
    "any": ExpectedVersion.ANY,
    "no-stream": ExpectedVersion.NO_STREAM,
    "stream-exists": ExpectedVersion.STREAM_EXISTS,
}


def _named(text: str, metavar: str = "NAME") -> Any:
    return typer.Option(show_default=False, metavar=metavar, help=text)


@takes(address=address_of)
def append(
    *,
    address: Address,
    event_type: Annotated[str | None, _named("What happened, such as OrderPlaced.")] = None,
    entity_type: Annotated[str | None, _named("The kind of thing it happened to.")] = None,
    entity_id: Annotated[str | None, _named("Which one.", "ID")] = None,
    data: Annotated[
        str | None,
        _named(
            "What happened in detail, a JSON object; @FILE reads it from there, - here.", "JSON"
        ),
    ] = None,
    metadata: Annotated[
        str | None, _named("About the event rather than of it; as --data.", "JSON")
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", show_default=False, metavar="TAG", help="A label; repeat it for several."
        ),
    ] = None,
    workflow_id: Annotated[str | None, _named("The run that it belongs to.", "ID")] = None,
    tenant_id: Annotated[str | None, _named("The tenant whose event it is.", "ID")] = None,
    event_id: Annotated[
        str | None,
        _named("A new one unless given; appending it again stores nothing.", "UUID"),
    ] = None,
    timestamp: Annotated[
        str | None, _named("When it happened, as 2026-01-31T12:00:00Z; now if not given.", "TIME")
    ] = None,
    schema_version: Annotated[
        int | None, _named("The version of the shape of the data; 1 if not given.", "N")
    ] = None,
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

    Without options for the event, JSON is read from standard input: one event, or an object
    whose "batch" is a list of events, to be stored atomically.
    """
    expectation = _expectation(expected_version)
    fields: dict[str, Any] = {
        "event_type": event_type,
        "entity_type": entity_type,
        "entity_id": entity_id,
        "data": data,
        "metadata": metadata,
        "tags": tuple(tags) if tags else None,
        "workflow_id": workflow_id,
        "tenant_id": tenant_id,
        "event_id": parsed_id("event_id", event_id),
        "timestamp": parsed_time("timestamp", timestamp),
        "schema_version": schema_version,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    events = [_event(given)] if given else _from_standard_input()
    with address.opened(create=True) as store:
        result = store.append_batch(events, expected_version=expectation)
        if result.replayed:
            say("was stored before; nothing was written", kind="note: ")
        EventPrinter(output).print(result)


def _event(given: dict[str, Any]) -> Event:
    payloads = [name for name in ("data", "metadata") if name in given]
    from_input = [name for name in payloads if given[name] == "-"]
    if len(from_input) > 1:
        raise InvalidEventError("metadata: standard input can be read once, for --data")
    if not from_input and something_waits():
        raise InvalidEventError(
            "event: it is given by options, but standard input holds something too; leave out the"
            " one or the other (< /dev/null)"
        )
    for name in ("event_type", "entity_type", "entity_id"):
        if name not in given:
            option = name.replace("_", "-")
            raise InvalidEventError(f"{name}: must be given, by --{option}")
    for name in payloads:
        given[name] = json_object(name, _payload(name, given[name]))
    return Event(**given)


def _payload(name: str, text: str) -> str | bytes:
    """Return what an option spells: JSON, ``@file`` or ``-``."""
    if text == "-":
        return standard_input(f"{name}: a JSON object").read()
    if text.startswith("@"):
        path = Path(text[1:])
        with told_of(path):
            return path.read_bytes()
    return text


def _from_standard_input() -> list[Event]:
    wanted = "event: JSON (or --event-type, --entity-type and --entity-id)"
    text = standard_input(wanted).read(MAX_LINE_BYTES + 1)
    try:
        if not text.strip():
            raise InvalidEventError("is empty; an event or a batch as JSON is read from it")
        if len(text) > MAX_LINE_BYTES:
            raise InvalidEventError(f"is longer than {MAX_LINE_BYTES // 1_000_000} MB")
        return parse_line(text, new_ids=True)
    except InvalidEventError as error:
        raise InvalidEventError(f"standard input: {error}") from error


def _expectation(text: str) -> int:
    if text in _EXPECTATIONS:
        return _EXPECTATIONS[text]
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    raise InvalidEventError(
        f"expected_version: must be a number, {', '.join(_EXPECTATIONS)}, not {text!r:.100}"
    )
