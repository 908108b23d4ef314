"""Sixty bad inputs, over the API and the command line, on each engine.

Whatever is wrong, it is told in one clear sentence: no traceback, no driver's exception, no
password, and nothing is stored.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

from eventstore import (
    AppendCondition,
    Checkpoint,
    CheckpointError,
    ConfigurationError,
    DuplicateEventError,
    Event,
    EventQuery,
    EventStore,
    EventStoreError,
    InvalidEventError,
    InvalidQueryError,
    StoreClosedError,
    StoreUnavailableError,
    open_store,
)
from eventstore.cli.app import app
from eventstore.testing.conformance import Harness

SECRET = "hunter2"
NAMESPACE = "bad_inputs"
WORDS = ("--event-type", "E", "--entity-type", "t", "--entity-id", "1")
LINE = b'{"event_type":"E","entity_type":"t","entity_id":"1"}'

_DRIVERS = re.compile(
    r"Traceback|\bpsycopg\.(?!Connection)|pymongo\.|redis\.exceptions|sqlite3\.(?!Connection)"
    r"|msgspec\.|OperationalError|ServerSelectionTimeoutError|<Topology|Errno"
)


def assert_one_sentence(text: str) -> None:
    assert text.strip()
    assert not re.search(r"[\n\t\r]", text.strip()), text
    assert len(text) < 500, text
    assert not _DRIVERS.search(text), text
    assert SECRET not in text


@pytest.fixture(scope="module")
def store(harness: Harness) -> Iterator[EventStore]:
    """A log of one event."""
    harness.drop(NAMESPACE)
    with harness.open(NAMESPACE) as store:
        store.append(event(event_id=UUID(int=1)))
        yield store
    harness.drop(NAMESPACE)


def event(**fields: Any) -> Event:
    return Event(**{"event_type": "E", "entity_type": "t", "entity_id": "1"} | fields)


class Colour(Enum):
    RED = 1


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError(SECRET)


def nested(depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(depth):
        data = {"x": data}
    return data


def cyclic() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["x"] = data
    return data


@dataclass(frozen=True)
class Call:
    """A call that must fail, with what kind of error, and words that it must hold."""

    run: Callable[[EventStore], object]
    error: type[EventStoreError]
    words: str


def appending(words: str, **fields: Any) -> Call:
    return Call(lambda store: store.append(event(**fields)), InvalidEventError, words)


def reading(words: str, **fields: Any) -> Call:
    return Call(
        lambda store: list(store.get_events(EventQuery(**fields))), InvalidQueryError, words
    )


CALLS: Mapping[str, Call] = {
    "an event that is a dict": Call(
        lambda s: s.append({"event_type": "E"}),  # type: ignore[arg-type] # the bad input
        InvalidEventError,
        "Event",
    ),
    "a batch that is text": Call(lambda s: s.append_batch("E"), InvalidEventError, "events"),  # type: ignore[arg-type] # the bad input
    "a batch that is None": Call(lambda s: s.append_batch(None), InvalidEventError, "events"),  # type: ignore[arg-type] # the bad input
    "an empty name": appending("event_type: must not be empty", event_type=""),
    "a name of bytes": appending("entity_id: must be text", entity_id=b"1"),
    "a name of 256 bytes": appending("255 bytes", entity_id="é" * 128),
    "a name with NUL": appending("NUL", entity_type="a\0b"),
    "a lone surrogate": appending("surrogates", entity_id="\udcff"),
    "an Enum of a number": appending("event_type", event_type=Colour.RED),
    "no printable value": appending("entity_id: must be text", entity_id=Unprintable()),
    "NaN": appending("data['x']", data={"x": float("nan")}),
    "an integer of 65 bits": appending("data['x']", data={"x": 2**64}),
    "an integer of 10,000 digits": appending("data['x']", data={"x": 10**10_000}),
    "a tuple in data": appending("data['x']", data={"x": (1, 2)}),
    "bytes in metadata": appending("metadata['x']", metadata={"x": b"1"}),
    "a number as a key": appending("keys must be", data={1: 2}),
    "NUL in a key": appending("keys must not contain NUL", data={"a\0": 1}),
    "half a surrogate pair in data": appending("data['x']", data={"x": "\ud800"}),
    "data that is a list": appending("data: must be", data=[]),
    "data that is too deep": appending("nested more than 64 deep", data=nested(65)),
    "data that holds itself": appending("nested more than 64 deep", data=cyclic()),
    "a naive time": appending("timestamp: must have a timezone", timestamp=datetime(2026, 1, 1)),  # noqa: DTZ001 - the bad input
    "a time that is text": appending("timestamp: must be a datetime", timestamp="2026-01-01"),
    "an id that is text": appending("event_id: must be a", event_id=str(uuid4())),
    "a tag that is None": appending("tags[0]", tags=(None,)),
    "tags that are text": appending("tags: must be a collection", tags="vip"),
    "a schema version of nothing": appending("schema_version", schema_version=0),
    "an event of another log": appending("as_new()", sequence=7),
    "one id twice": Call(
        lambda s: s.append_batch([event(event_id=UUID(int=2))] * 2),
        DuplicateEventError,
        "is in this batch twice",
    ),
    "other content under an id": Call(
        lambda s: s.append(event(event_id=UUID(int=1), data={"x": 1})),
        DuplicateEventError,
        "another data",
    ),
    "a version that is text": Call(
        lambda s: s.append(event(), expected_version="1"),  # type: ignore[arg-type] # the bad input
        InvalidEventError,
        "expected_version",
    ),
    "a version of -7": Call(
        lambda s: s.append(event(), expected_version=-7), InvalidEventError, "expected_version"
    ),
    "a condition that is a query": Call(
        lambda s: s.append(event(), condition=EventQuery()),  # type: ignore[arg-type] # the bad input
        InvalidQueryError,
        "condition: must be an AppendCondition",
    ),
    "a condition with a limit": Call(
        lambda s: s.append(event(), condition=AppendCondition(EventQuery(limit=1))),
        InvalidQueryError,
        "limit",
    ),
    "a condition after the end": Call(
        lambda s: s.append(event(), condition=AppendCondition(EventQuery(), after=99)),
        CheckpointError,
        "99",
    ),
    "a query that is a dict": Call(
        lambda s: s.get_events({"entity_type": "t"}),  # type: ignore[arg-type] # the bad input
        InvalidQueryError,
        "query: must be an EventQuery",
    ),
    "an operator in a query": reading("entity_type: must be text", entity_type={"$ne": 1}),
    "an empty tag to look for": reading("tags[0]: must not be empty", tags=[""]),
    "no types to look for": reading("event_types: must not be empty", event_types=[]),
    "a limit of -1": reading("limit: must be a whole number", limit=-1),
    "a limit that is true": reading("limit: must be a whole number", limit=True),
    "an order by size": reading("order_by: must be", order_by="size"),
    "a naive bound": reading("from_timestamp: must have", from_timestamp=datetime(2026, 1, 1)),  # noqa: DTZ001 - the bad input
    "alternatives within alternatives": reading(
        "any_of", any_of=[EventQuery(any_of=[EventQuery(entity_type="t")])]
    ),
    "a position that is text": Call(
        lambda s: s.get_events_since("1"),  # type: ignore[arg-type] # the bad input
        InvalidQueryError,
        "position",
    ),
    "a position after the end": Call(lambda s: s.get_events_since(99), CheckpointError, "99"),
    "a checkpoint of another log": Call(
        lambda s: s.wait_for_events(Checkpoint("other", 1, UUID(int=1)), 0),
        CheckpointError,
        "it is of the log other",
    ),
    "a checkpoint of another event": Call(
        lambda s: s.get_events_since(Checkpoint(s.log_id, 1, UUID(int=9))),
        CheckpointError,
        "00000000-0000-0000-0000-000000000009",
    ),
    "a checkpoint that is none": Call(
        lambda s: s.get_events_since(Checkpoint.parse("seven")), InvalidQueryError, "checkpoint"
    ),
    "a wait of -1 seconds": Call(
        lambda s: s.wait_for_events(0, -1), InvalidQueryError, "timeout: must be"
    ),
    "an id to find that is text": Call(
        lambda s: s.get_event_by_id("7"),  # type: ignore[arg-type] # the bad input
        InvalidQueryError,
        "event_id: must be a UUID",
    ),
    "a count with an offset": Call(
        lambda s: s.count_events(EventQuery(offset=1)), InvalidQueryError, "offset"
    ),
    "a tenant that is None": Call(
        lambda s: s.for_tenant(None),  # type: ignore[arg-type] # the bad input
        InvalidQueryError,
        "tenant_id",
    ),
    "another tenant in a view": Call(
        lambda s: s.for_tenant("a").append(event(tenant_id="b")), InvalidEventError, "tenant_id"
    ),
    "a view that was closed": Call(
        lambda s: closed_view(s).get_current_sequence(), StoreClosedError, "closed"
    ),
    "a connection that is none": Call(
        lambda s: s.append(event(), connection=object()), EventStoreError, "connection"
    ),
}


def closed_view(store: EventStore) -> EventStore:
    view = store.for_tenant("a")
    view.close()
    return view


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call(store: EventStore, call: Call) -> None:
    with pytest.raises(call.error) as caught:
        call.run(store)

    assert call.words in str(caught.value)
    assert_one_sentence(str(caught.value))
    assert store.get_current_sequence() == 1


OPTIONS: Mapping[str, tuple[dict[str, Any], str]] = {
    "an option nobody knows": ({"colour": "blue"}, "colour"),
    "create=maybe": ({"create": "maybe"}, "create: must be true or false"),
    "a namespace in capitals": ({"namespace": "Bad Name"}, "namespace: must be"),
    "a namespace of 41 letters": ({"namespace": "a" * 41}, "namespace: must be"),
    "a durability of its own": ({"durability": "eventual"}, "durability: must be one of"),
    "a timeout of -1": ({"timeout": -1}, "timeout: must be a number"),
    "a timeout that never ends": ({"timeout": "nan"}, "timeout: must be a number"),
    "retries that are text": ({"retries": "many"}, "retries: must be a whole number"),
    "a log that is not there": (
        {"namespace": "not_there", "create": False},
        "has no log 'not_there'; make it with `eventstore init`",
    ),
}


@pytest.mark.parametrize(("options", "words"), OPTIONS.values(), ids=OPTIONS)
def test_an_option(harness: Harness, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(harness.url, **{"namespace": NAMESPACE} | options)

    assert words in str(caught.value)
    assert_one_sentence(str(caught.value))


URLS: Mapping[str, tuple[Any, type[EventStoreError]]] = {
    "no URL": ("", ConfigurationError),
    "a number": (7, ConfigurationError),
    "a path": ("orders.db", ConfigurationError),
    "a scheme nobody knows": (f"oracle://me:{SECRET}@host", ConfigurationError),
    "a password with a question mark": (f"redis://me:x?{SECRET}@host/0", ConfigurationError),
    "a fragment": (f"postgresql://me:{SECRET}#1@host/db", ConfigurationError),
    "SQLAlchemy's": (f"postgresql+psycopg://me:{SECRET}@host/db", ConfigurationError),
    "a folder that is not there": ("sqlite:////no/such/folder/x.db", EventStoreError),
    "a file that is a folder": ("sqlite:////tmp", EventStoreError),
    "no PostgreSQL": (f"postgresql://me:{SECRET}@127.0.0.1:1/db", StoreUnavailableError),
    "no MongoDB": (f"mongodb://me:{SECRET}@127.0.0.1:1/db", StoreUnavailableError),
    "no Redis": (f"redis://me:{SECRET}@127.0.0.1:1/0", StoreUnavailableError),
    "no TLS": (f"rediss://me:{SECRET}@127.0.0.1:1/0", StoreUnavailableError),
    "no such port": (f"redis://me:{SECRET}@127.0.0.1:99999/0", EventStoreError),
}


@pytest.mark.parametrize(("url", "error"), URLS.values(), ids=URLS)
def test_a_url(url: Any, error: type[EventStoreError]) -> None:
    with pytest.raises(error) as caught:
        open_store(url, timeout=0.3)

    assert_one_sentence(str(caught.value))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_broken_file(tmp_path: Path) -> None:
    file = tmp_path / "orders.db"
    file.write_bytes(b"this is no database, and was none before\n" * 100)

    with pytest.raises(EventStoreError) as caught:
        open_store(f"sqlite:///{file}")

    assert_one_sentence(str(caught.value))
    assert str(file) in str(caught.value)


# --- The command line


@dataclass(frozen=True)
class Command:
    """A command that must fail."""

    arguments: tuple[str, ...]
    code: int
    words: str
    given: bytes = b""
    more: tuple[str, ...] = field(default=("--namespace", NAMESPACE))


COMMANDS: Mapping[str, Command] = {
    "no such command": Command(("cuont",), 2, "No such command", more=()),
    "no such option": Command(("count", "--colour", "blue"), 2, "--colour"),
    "an option without a value": Command(("get", "--entity-type"), 2, "--entity-type", more=()),
    "one argument too many": Command(("get", "extra"), 2, "extra"),
    "an empty event": Command(("append",), 2, "standard input: is empty"),
    "half an event": Command(("append",), 2, "JSON ends too early", b'{"event_type":'),
    "an array": Command(("append",), 2, "standard input: ", b"[]"),
    "an empty batch": Command(("append",), 2, "batch: must not be empty", b'{"batch": []}'),
    "a field nobody knows": Command(("append",), 2, "colour", LINE[:-1] + b',"colour":1}'),
    "a name of two bytes in Latin-1": Command(
        ("append",), 2, "another encoding than UTF-8", LINE.replace(b'"1"', b'"\xe9\xe8"')
    ),
    "an event in UTF-16": Command(("append",), 2, "UTF-16", LINE.decode().encode("utf-16")),
    "an event in gzip": Command(("append",), 2, "compressed by gzip", b"\x1f\x8b\x08\0\0"),
    "a picture": Command(("append",), 2, "is binary data", b"\x89PNG\r\n\x1a\n\0"),
    "10,000 brackets": Command(("append",), 2, "standard input: ", b"[" * 10_000),
    "no id": Command(("append", "--event-type", "E", "--entity-type", "t"), 2, "--entity-id"),
    "data that is a list": Command(
        ("append", *WORDS, "--data", "[1]"), 2, "data: '[1]' is no JSON"
    ),
    "data that is NaN": Command(("append", *WORDS, "--data", '{"x": NaN}'), 2, "data: "),
    "data that is not UTF-8": Command(("append", *WORDS, "--data", "\udcff"), 2, "data: "),
    "data of a file that is not there": Command(
        ("append", *WORDS, "--data", "@/no/such/file"), 1, "/no/such/file: No such file"
    ),
    "a time without a zone": Command(
        ("append", *WORDS, "--timestamp", "2026-01-01T00:00"), 2, "timestamp: must be a time with"
    ),
    "a version that is many": Command(
        ("append", *WORDS, "--expected-version", "many"), 2, "expected_version: must be"
    ),
    "a version that it is not at": Command(
        ("append", *WORDS, "--expected-version", "7"), 3, "is at version 1"
    ),
    "an id with other content": Command(
        ("append", *WORDS, "--event-id", str(UUID(int=1)), "--data", '{"x": 1}'), 3, "another data"
    ),
    "a name that is not UTF-8": Command(
        ("append", *WORDS, "--workflow-id", "\udcff"), 2, "workflow_id: must not contain lone"
    ),
    "a limit that is many": Command(("get", "--limit", "many"), 2, "--limit"),
    "a limit below nothing": Command(("get", "--limit", "-1"), 2, "limit: must be a whole number"),
    "an operator": Command(("get", "--any-of", '{"$ne": 1}'), 2, "any_of: a query has no field"),
    "a position that is text": Command(
        ("get", "--from-sequence", "x"), 2, "from_sequence: must be"
    ),
    "an id that is text": Command(("get", "--id", "7"), 2, "id: must be a UUID"),
    "an id of nobody": Command(("get", "--id", str(UUID(int=9))), 1, "there is no event with"),
    "a wide line": Command(("get", "--wide", "--format", "jsonl"), 2, "wide: is for a table"),
    "a number beside a checkpoint": Command(
        ("tail", "-n", "1", "--checkpoint", "/no/such/file"), 2, "beside --checkpoint"
    ),
    "a checkpoint in no folder": Command(
        ("tail", "--checkpoint", "/no/such/file"), 1, "/no/such/file: No such file"
    ),
    "a checkpoint that is a device": Command(
        ("tail", "--checkpoint", "/dev/null"), 1, "/dev/null: is no regular file"
    ),
    "an import of no file": Command(("import", "/no/such/file"), 1, "/no/such/file: No such file"),
    "an import of a folder": Command(("import", "/tmp"), 1, "/tmp: Is a directory"),
    "an export into no folder": Command(
        ("export", "/no/such/file"), 1, "/no/such/file: No such file"
    ),
    "an export over a file": Command(("export", __file__), 1, "is there already; --force"),
    "a drop of another name": Command(("drop", "--confirm", "other"), 2, "nothing was removed"),
    "a drop of nothing": Command(
        ("drop", "--namespace", "not_there", "--confirm", "not_there"),
        1,
        "has no log 'not_there'; nothing was removed",
        more=(),
    ),
    "a count of nothing": Command(
        ("count", "--namespace", "not_there"),
        2,
        "has no log 'not_there'; make it with `eventstore init`\n",
        more=(),
    ),
    "a variable that is not set": Command(("count", "--url-env", "NO_SUCH_URL"), 2, "NO_SUCH_URL"),
    "two URLs": Command(("count", "--url", "memory://", "--url-env", "NO_SUCH_URL"), 2, "not both"),
    "a password in a bad URL": Command(
        ("count", "--url", f"redis://me:x?{SECRET}@host"), 2, "write '?'"
    ),
    "a server that is not there": Command(
        ("count", "--url", f"redis://me:{SECRET}@127.0.0.1:1/0?timeout=0.2"), 1, "127.0.0.1"
    ),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command(harness: Harness, store: EventStore, command: Command) -> None:
    result = CliRunner().invoke(
        app,
        [*command.arguments, *command.more],
        input=command.given,
        env={"EVENTSTORE_URL": harness.url},
    )

    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (command.code, "")
    complaint = "".join(  # whether the server is safe is not what was asked
        line
        for line in result.stderr.splitlines(keepends=True)
        if not line.startswith("eventstore: warning: ")
    )
    assert complaint.startswith("eventstore: ")
    assert command.words in complaint
    assert_one_sentence(complaint)
    assert store.get_current_sequence() == 1


@dataclass(frozen=True)
class Surrounding:
    """A process that must fail, and where it runs."""

    arguments: tuple[str, ...]
    code: int
    redirected: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


SURROUNDINGS: Mapping[str, Surrounding] = {
    "standard output closed": Surrounding(("append", *WORDS), 1, ">&-"),
    "standard input closed": Surrounding(("append",), 2, "<&-"),
    "all closed": Surrounding(("append", *WORDS), 1, "<&- >&- 2>&-"),
    "a full disk": Surrounding(("schema", "sqlite://"), 1, ">/dev/full"),
    "a terminal of one column": Surrounding(("init", "--limit"), 2, "", {"COLUMNS": "1"}),
    "ASCII alone": Surrounding(
        ("get", "--entity-id", "☃", "--limit", "-1"), 2, "", {"PYTHONIOENCODING": "ascii"}
    ),
    "Latin-1": Surrounding(
        ("get", "--entity-id", "☃" * 100), 2, "", {"PYTHONIOENCODING": "latin-1"}
    ),
    "a locale nobody has": Surrounding(("get", "--id", "ü"), 2, "", {"LC_ALL": "xx_XX.none"}),
}


@pytest.mark.parametrize("surrounding", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_a_process(harness: Harness, store: EventStore, surrounding: Surrounding) -> None:
    shell = ("sh", "-c", f'exec "$@" {surrounding.redirected}', "sh")
    ended = subprocess.run(
        [
            *(*shell, sys.executable, "-m", "eventstore"),
            *(*surrounding.arguments, "--namespace", NAMESPACE),
        ],
        env=os.environ | {"EVENTSTORE_URL": harness.url} | dict(surrounding.environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )

    told = [
        line
        for line in ended.stderr.decode("latin-1").splitlines()
        if not line.startswith("eventstore: warning: ")
    ]
    assert (ended.returncode, ended.stdout) == (surrounding.code, b"")
    assert len(told) == (0 if "2>&-" in surrounding.redirected else 1)
    for line in told:
        assert line.startswith("eventstore: ")
        assert_one_sentence(line)
    assert store.get_current_sequence() == 1


def test_there_are_sixty_and_more() -> None:
    assert len(CALLS) + len(OPTIONS) + len(URLS) >= 60
    assert len(COMMANDS) + len(SURROUNDINGS) >= 50
