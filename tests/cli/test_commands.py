"""What each command does."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import typer

from eventstore import Checkpoint, Event, EventStore, open_store
from eventstore.cli.app import app

RunCommand = Callable[..., Any]


@pytest.fixture
def filled(store: EventStore) -> EventStore:
    """A log of four events in three batches."""
    placed = Event(
        event_type="OrderPlaced",
        entity_type="order",
        entity_id="o-1",
        data={"total": 42},
        tags=("vip", "berlin"),
        workflow_id="w-1",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
    )
    paid = placed.as_new().replace(
        event_type="OrderPaid", tags=("vip",), timestamp=datetime(2026, 1, 2, tzinfo=UTC)
    )
    taken = placed.as_new().replace(
        event_type="StockTaken",
        entity_type="item",
        entity_id="i-1",
        tags=(),
        timestamp=datetime(2025, 1, 1, tzinfo=UTC),
    )
    store.append(placed)
    store.append_batch([paid, taken])
    store.append(
        placed.as_new().replace(entity_id="o-2", workflow_id=None, tags=(), tenant_id="acme")
    )
    return store


def sequences(result: Any) -> list[int]:
    return [event["sequence"] for event in result.events]


class TestInit:
    def test_makes_the_log_and_says_so(self, run: RunCommand, url: str) -> None:
        result = run("init")

        assert result.exit_code == 0
        assert result.stdout == f"{url} is ready; it holds 0 events\n"

    def test_leaves_a_log_that_is_there_as_it_is(self, run: RunCommand, filled: EventStore) -> None:
        result = run("init")

        assert "holds 4 events" in result.stdout
        assert filled.get_current_sequence() == 4


class TestAppend:
    def test_stores_an_event_from_options_and_prints_it_as_recorded(
        self, run: RunCommand, store: EventStore
    ) -> None:
        event_id = uuid4()

        result = run(
            *("append", "--event-type", "OrderPlaced", "--entity-type", "order"),
            *("--entity-id", "o-1", "--data", '{"total": 42.0, "n": 1, "list": [null, true]}'),
            *("--metadata", '{"actor_id": "me"}', "--tag", "b", "--tag", "a"),
            *("--workflow-id", "w", "--tenant-id", "acme", "--event-id", str(event_id)),
            *("--timestamp", "2026-01-01T01:00:00+01:00", "--schema-version", "2"),
        )

        (recorded,) = store.get_events()
        assert result.exit_code == 0
        assert recorded.replace(sequence=0, version=0, batch_sequence=0, recorded_at=None) == Event(
            event_type="OrderPlaced",
            entity_type="order",
            entity_id="o-1",
            data={"total": 42.0, "n": 1, "list": [None, True]},
            metadata={"actor_id": "me"},
            tags=("b", "a"),
            workflow_id="w",
            tenant_id="acme",
            event_id=event_id,
            timestamp=datetime(2026, 1, 1, tzinfo=UTC),
            schema_version=2,
        )
        assert sequences(result) == [1]
        assert result.events[0]["event_id"] == str(event_id)

    def test_takes_an_event_from_standard_input(self, run: RunCommand, store: EventStore) -> None:
        line = {"event_type": "E", "entity_type": "t", "entity_id": "1", "data": {"x": 1e22}}

        result = run("append", given=json.dumps(line))

        assert result.exit_code == 0
        assert next(store.get_events()).data == {"x": 1e22}

    def test_takes_an_atomic_batch_from_standard_input(
        self, run: RunCommand, store: EventStore
    ) -> None:
        event = {"event_type": "E", "entity_type": "t", "entity_id": "1"}

        result = run("append", given=json.dumps({"batch": [event, event]}))

        assert sequences(result) == [1, 2]
        assert [event.batch_sequence for event in store.get_events()] == [1, 1]

    def test_of_a_bad_batch_stores_nothing(self, run: RunCommand, store: EventStore) -> None:
        event = {"event_type": "E", "entity_type": "t", "entity_id": "1"}

        result = run("append", given=json.dumps({"batch": [event, event | {"entity_id": ""}]}))

        assert result.exit_code == 2
        assert result.stderr == "eventstore: events[1].entity_id: must not be empty\n"
        assert store.get_current_sequence() == 0

    @pytest.mark.parametrize("version", ["1", "any", "stream-exists"])
    def test_stores_where_the_expected_version_holds(
        self, run: RunCommand, filled: EventStore, version: str
    ) -> None:
        result = run(
            *("append", "--event-type", "E", "--entity-type", "item", "--entity-id", "i-1"),
            *("--expected-version", version),
        )

        assert result.exit_code == 0
        assert filled.get_current_version("item", "i-1") == 2

    @pytest.mark.parametrize("version", ["7", "no-stream"])
    def test_ends_with_3_where_it_does_not(
        self, run: RunCommand, filled: EventStore, version: str
    ) -> None:
        result = run(
            *("append", "--event-type", "E", "--entity-type", "item", "--entity-id", "i-1"),
            *("--expected-version", version),
        )

        assert result.exit_code == 3
        assert "it is at version 1" in result.stderr
        assert filled.get_current_sequence() == 4

    def test_again_with_the_same_id_stores_nothing_and_says_so(
        self, run: RunCommand, store: EventStore
    ) -> None:
        arguments = ("append", "--event-type", "E", "--entity-type", "t", "--entity-id", "1")
        event_id = ("--event-id", str(uuid4()))
        first = run(*arguments, *event_id)

        again = run(*arguments, *event_id)

        assert (again.exit_code, again.stdout) == (0, first.stdout)
        assert "was stored before" in again.stderr
        assert store.get_current_sequence() == 1

    def test_again_with_other_content_ends_with_3(self, run: RunCommand, store: EventStore) -> None:
        arguments = ("append", "--event-type", "E", "--entity-type", "t", "--entity-id", "1")
        event_id = ("--event-id", str(uuid4()))
        run(*arguments, *event_id)

        again = run(*arguments, *event_id, "--data", '{"x": 1}')

        assert again.exit_code == 3
        assert "another data" in again.stderr
        assert store.get_current_sequence() == 1

    @pytest.mark.parametrize(
        ("option", "value", "reason"),
        [
            ("--data", '{"a": NaN}', "no JSON object"),
            ("--data", '{"a": 1', "no JSON object"),
            ("--data", "[1]", "no JSON object"),
            ("--data", '{"a": {"b": 18446744073709551616}}', "data['a']['b']: integers must fit"),
            ("--data", '{"a": "\\ud800"}', "no JSON object"),
            ("--metadata", "7", "no JSON object"),
            ("--event-id", "7", "event_id: must be a UUID"),
            ("--timestamp", "2026-01-01T00:00:00", "timezone"),
            ("--timestamp", "yesterday", "timezone"),
            ("--expected-version", "-1", "expected_version: must be"),
            ("--expected-version", "many", "expected_version: must be"),
            ("--tag", "", "tags[0]: must not be empty"),
            ("--schema-version", "0", "schema_version"),
            ("--entity-id", "x" * 256, "255 bytes"),
            ("--workflow-id", "", "workflow_id: must not be empty"),
        ],
    )
    def test_refuses_what_is_not_as_it_must_be(
        self, run: RunCommand, store: EventStore, option: str, value: str, reason: str
    ) -> None:
        arguments = ["append", "--event-type", "E", "--entity-type", "t", "--entity-id", "1"]

        result = run(*arguments, option, value)

        assert result.exit_code == 2
        assert reason in result.stderr
        assert result.stderr.count("\n") == 1
        assert store.get_current_sequence() == 0

    def test_takes_payloads_from_files_and_standard_input(
        self, run: RunCommand, store: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "metadata.json"
        file.write_text('{"actor_id": "me"}')
        arguments = ("append", "--event-type", "E", "--entity-type", "t", "--entity-id", "1")

        result = run(*arguments, "--metadata", f"@{file}", "--data", "-", given='{"é": 1.0}')

        assert result.exit_code == 0
        (recorded,) = store.get_events()
        assert (recorded.data, recorded.metadata) == ({"é": 1.0}, {"actor_id": "me"})

    def test_names_the_file_of_a_payload_that_is_not_there(
        self, run: RunCommand, store: EventStore, tmp_path: Path
    ) -> None:
        arguments = ("append", "--event-type", "E", "--entity-type", "t", "--entity-id", "1")

        result = run(*arguments, "--data", f"@{tmp_path}/none.json")

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"eventstore: {tmp_path}/none.json: No such file or directory\n"

    def test_names_the_option_that_is_missing(self, run: RunCommand, store: EventStore) -> None:
        result = run("append", "--event-type", "E", "--entity-type", "t")

        assert (result.exit_code, result.stdout) == (2, "")
        assert "--entity-id" in result.stderr


class TestGet:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ([], [1, 2, 3, 4]),
            (["--entity-type", "order"], [1, 2, 4]),
            (["--entity-id", "o-1"], [1, 2]),
            (["--workflow-id", "w-1"], [1, 2, 3]),
            (["--tenant-id", "acme"], [4]),
            (["--tenant-id", ""], [1, 2, 3]),
            (["--event-type", "OrderPaid", "--event-type", "StockTaken"], [2, 3]),
            (["--tag", "vip"], [1, 2]),
            (["--tag", "vip", "--tag", "berlin"], [1]),
            (["--from-sequence", "2"], [3, 4]),
            (["--to-sequence", "2"], [1, 2]),
            (["--from-timestamp", "2026-01-02T01:00:00+01:00"], [2]),
            (["--to-timestamp", "2025-12-31T00:00:00Z"], [3]),
            (["--any-of", '{"tags": ["berlin"]}', "--any-of", '{"entity_id": "o-2"}'], [1, 4]),
            (["--any-of", '{"from_timestamp": "2026-01-02T00:00:00Z"}'], [2]),
            (["--from-recorded-at", "2000-01-01T00:00:00Z"], [1, 2, 3, 4]),
            (["--from-recorded-at", "9000-01-01T00:00:00Z"], []),
            (["--to-recorded-at", "9000-01-01T00:00:00Z"], [1, 2, 3, 4]),
            (["--to-recorded-at", "2000-01-01T00:00:00+01:00"], []),
            (["--any-of", '{"from_recorded_at": "9000-01-01T00:00:00Z"}'], []),
            (["--limit", "2"], [1, 2]),
            (["--limit", "0"], []),
            (["--offset", "3"], [4]),
            (["--descending"], [4, 3, 2, 1]),
            (["--order-by", "timestamp"], [3, 1, 4, 2]),
            (["--order-by", "timestamp", "--descending", "--limit", "1"], [2]),
        ],
    )
    def test_takes_every_field_of_a_query(
        self, run: RunCommand, filled: EventStore, options: list[str], expected: list[int]
    ) -> None:
        result = run("get", *options)

        assert result.exit_code == 0
        assert sequences(result) == expected

    def test_prints_json_lines_that_hold_every_field(
        self, run: RunCommand, filled: EventStore
    ) -> None:
        event = next(filled.get_events())

        line = run("get", "--limit", "1").events[0]

        assert set(line) == set(Event.__struct_fields__)
        assert line["data"] == event.data
        assert line["tags"] == ["vip", "berlin"]
        assert line["timestamp"] == "2026-01-01T00:00:00Z"

    def test_prints_a_table_where_asked_to(self, run: RunCommand, filled: EventStore) -> None:
        result = run("get", "--format", "table")

        heading, *rows = result.stdout.splitlines()
        assert heading.split() == ["seq", "time", "(UTC)", "type", "entity", "v", "data"]
        assert len(rows) == 4
        assert rows[3].split()[:8] == [
            *("4", "2026-01-01", "00:00:00", "OrderPlaced", "order", "o-2", "@acme", "1")
        ]

    def test_prints_csv_where_asked_to(self, run: RunCommand, filled: EventStore) -> None:
        result = run("get", "--format", "csv", "--limit", "2")

        rows = list(csv.DictReader(result.stdout.splitlines()))
        first = next(filled.get_events())
        assert list(rows[0]) == list(Event.__struct_fields__)
        assert [row["sequence"] for row in rows] == ["1", "2"]
        assert json.loads(rows[0]["data"]) == first.data
        assert json.loads(rows[0]["tags"]) == ["vip", "berlin"]
        assert rows[0]["event_id"] == str(first.event_id)

    def test_finds_an_event_by_its_id(self, run: RunCommand, filled: EventStore) -> None:
        second, theirs = [event for event in filled.get_events() if event.sequence in (2, 4)]

        assert sequences(run("get", "--id", str(second.event_id))) == [2]
        assert run("get", "--id", str(theirs.event_id)).exit_code == 1
        found = run("get", "--id", str(theirs.event_id), "--tenant-id", "acme")
        assert sequences(found) == [4]

    def test_says_that_no_event_has_an_id(self, run: RunCommand, filled: EventStore) -> None:
        unknown = uuid4()

        result = run("get", "--id", str(unknown))

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"eventstore: there is no event with the id {unknown}\n"

    @pytest.mark.parametrize("width", [60, 70, 80, 120])
    def test_keeps_type_and_entity_where_it_is_narrow(
        self, run: RunCommand, filled: EventStore, width: int
    ) -> None:
        result = run("get", "--format", "table", columns=width)

        lines = result.stdout.splitlines()
        assert all(len(line) <= width for line in lines)
        assert [word for word in lines[1].split() if word in ("OrderPlaced", "order", "o-1")] == [
            "OrderPlaced",
            "order",
            "o-1",
        ]
        assert ("2026-01-01" in lines[1]) == (width >= 90)

    @pytest.mark.parametrize("width", [1, 2, 7, 20, 44])
    def test_has_a_table_for_the_narrowest_terminal(
        self, run: RunCommand, filled: EventStore, width: int
    ) -> None:
        assert run("get", "--format", "table", columns=width)[::2] == (0, "")
        assert run("entities", "--format", "table", columns=width)[::2] == (0, "")

    def test_wide_cuts_nothing(self, run: RunCommand, store: EventStore) -> None:
        long = "x" * 250
        store.append(Event(event_type="E", entity_type="t", entity_id=long, data={long: long}))

        line = run("get", "--wide", columns=30).stdout.splitlines()[1]

        assert f"t {long}" in line
        assert json.dumps({long: long}, separators=(",", ":")) in line
        assert run("get", "--wide", "--format", "csv").exit_code == 2

    def test_takes_a_checkpoint_as_a_position(self, run: RunCommand, filled: EventStore) -> None:
        second = filled.checkpoint(list(filled.get_events())[1])

        assert sequences(run("get", "--from-sequence", str(second))) == [3, 4]
        assert run("count", "--from-sequence", str(second)).stdout == "2\n"

        other = f"2:{uuid4()}@{filled.log_id}"
        for command in ("get", "count", "tail", "export"):
            refused = run(command, "--from-sequence", other)
            assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)

    def test_prints_no_character_that_steers_a_terminal(
        self, run: RunCommand, store: EventStore
    ) -> None:
        store.append(Event(event_type="[bold]E", entity_type="t", entity_id="\x1b[2J\u202ex"))

        result = run("get", "--format", "table")

        assert "[bold]E" in result.stdout
        assert "\\x1b[2J\\u202ex" in result.stdout
        assert "\x1b" not in result.stdout

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (["--limit", "-1"], "limit: must be a whole number"),
            (["--id", "seven"], "id: must be a UUID"),
            (["--id", str(uuid4()), "--tag", "vip"], "only --tenant-id"),
            (["--from-sequence", "-1"], "from_sequence: must be a whole number or a checkpoint"),
            (["--from-sequence", "1@x"], "is not the text form of a checkpoint"),
            (["--any-of", "\udcff"], "no JSON object"),
            (["--limit", "many"], "--limit"),
            (["--offset", "-1"], "offset: must be a whole number"),
            (["--order-by", "size"], "--order-by"),
            (["--entity-type", ""], "entity_type: must not be empty"),
            (["--tag", ""], "tags[0]: must not be empty"),
            (["--from-timestamp", "2026-01-01"], "from_timestamp: must be a time with its"),
            (["--from-recorded-at", "2026-01-01"], "from_recorded_at: must be a time with its"),
            (["--to-recorded-at", "now"], "to_recorded_at: must be a time with its"),
            (["--any-of", '{"$ne": 1}'], "no field '$ne'"),
            (["--any-of", '{"entity_id": {"$ne": 1}}'], "entity_id: must be text"),
            (["--any-of", '{"limit": 1}'], "limit"),
            (["--any-of", "["], "no JSON object"),
        ],
    )
    def test_refuses_what_a_query_does_not_take(
        self, run: RunCommand, store: EventStore, options: list[str], reason: str
    ) -> None:
        result = run("get", *options)

        assert (result.exit_code, result.stdout) == (2, "")
        assert reason in result.stderr
        assert result.stderr.count("\n") == 1


class TestCount:
    def test_counts_what_matches(self, run: RunCommand, filled: EventStore) -> None:
        assert run("count").stdout == "4\n"
        assert run("count", "--entity-type", "order", "--tag", "vip").stdout == "2\n"


class TestEntities:
    def test_lists_them_newest_first(self, run: RunCommand, filled: EventStore) -> None:
        result = run("entities")

        assert result.events == [
            {"entity_type": "order", "entity_id": "o-2", "tenant_id": "acme"},
            {"entity_type": "item", "entity_id": "i-1", "tenant_id": ""},
            {"entity_type": "order", "entity_id": "o-1", "tenant_id": ""},
        ]

    def test_takes_filters_and_a_window(self, run: RunCommand, filled: EventStore) -> None:
        result = run("entities", "--entity-type", "order", "--limit", "1", "--offset", "1")

        assert [entity["entity_id"] for entity in result.events] == ["o-1"]
        assert run("entities", "--tenant-id", "acme", "--format", "csv").stdout.splitlines() == [
            "entity_type,entity_id,tenant_id",
            "order,o-2,acme",
        ]
        assert run("entities", "--tenant-id", "acme", "--format", "table").stdout.split() == [
            *("type", "id", "tenant", "order", "o-2", "acme")
        ]


class TestInfo:
    def test_tells_what_is_known_of_the_store(
        self, run: RunCommand, filled: EventStore, url: str
    ) -> None:
        (facts,) = run("info").events

        assert facts["url"] == url
        assert facts["log_id"] == filled.log_id
        assert facts["backend"] == "memory"
        assert facts["head"] == 4
        assert facts["entities"] == 3
        assert "durability" in facts

    def test_prints_a_table_for_people(self, run: RunCommand, filled: EventStore) -> None:
        lines = run("info", "--format", "table").stdout.splitlines()

        assert ["head:", "4"] in [line.split() for line in lines]


class TestTail:
    def test_prints_the_last_events_in_order(self, run: RunCommand, filled: EventStore) -> None:
        assert sequences(run("tail", "-n", "2")) == [3, 4]
        assert sequences(run("tail", "-n", "1", "--entity-id", "o-1")) == [2]
        assert sequences(run("tail", "-n", "1", "--to-sequence", "3")) == [3]

    def test_goes_on_after_the_checkpoint_in_a_file(
        self, run: RunCommand, filled: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "position"
        assert sequences(run("tail", "--checkpoint", str(file))) == [1, 2, 3, 4]
        assert Checkpoint.parse(file.read_text().strip()) == filled.checkpoint()
        assert run("tail", "--checkpoint", str(file)).stdout == ""

        filled.append(Event(event_type="E", entity_type="t", entity_id="1"))

        assert sequences(run("tail", "--checkpoint", str(file))) == [5]
        assert [each.name for each in tmp_path.iterdir()] == ["position"]

    def test_moves_the_checkpoint_past_events_that_do_not_match(
        self, run: RunCommand, filled: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "position"

        result = run("tail", "--checkpoint", str(file), "--event-type", "OrderPaid")

        assert sequences(result) == [2]
        assert Checkpoint.parse(file.read_text().strip()).sequence == 4

    def test_takes_no_number_beside_a_checkpoint(
        self, run: RunCommand, filled: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "position"

        result = run("tail", "--checkpoint", str(file), "-n", "1")

        assert (result.exit_code, result.stdout) == (2, "")
        assert "number: has no meaning beside --checkpoint" in result.stderr
        assert not file.exists()

    def test_prints_nothing_where_the_checkpoint_cannot_be_kept(
        self, run: RunCommand, filled: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "no" / "position"

        result = run("tail", "--checkpoint", str(file))

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"eventstore: {file}: No such file or directory\n"

    def test_refuses_a_checkpoint_of_another_log(
        self, run: RunCommand, filled: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "position"
        with open_store("memory://") as other:
            other.append(Event(event_type="E", entity_type="t", entity_id="1"))
            file.write_text(str(other.checkpoint()))

        result = run("tail", "--checkpoint", str(file))

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1

    def test_refuses_a_file_that_holds_none(
        self, run: RunCommand, filled: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "position"
        file.write_text("seven\n")

        result = run("tail", "--checkpoint", str(file))

        assert result.exit_code == 1
        assert "holds no checkpoint" in result.stderr
        assert file.read_text() == "seven\n"


class TestSchema:
    def test_prints_the_ddl_without_connecting(self, run: RunCommand) -> None:
        url = "postgresql://nobody:hunter2@nowhere.invalid/db"
        result = run("schema", f"{url}?namespace=mine")

        assert run("schema", "--url", url, "--namespace", "mine") == result
        assert run("schema", "--namespace", "mine", url=url) == result
        assert run("schema", url, "--url", url).exit_code == 2
        assert result.exit_code == 0
        assert 'CREATE SCHEMA IF NOT EXISTS "mine"' in result.stdout
        assert "GRANT" in result.stdout
        assert "hunter2" not in result.stdout

    def test_says_where_there_is_none(self, run: RunCommand) -> None:
        result = run("schema", "memory://")

        assert result.exit_code == 1
        assert result.stderr.startswith("eventstore: schema: memory:// has none")


class TestDrop:
    def test_asks_for_the_name_of_the_namespace(self, run: RunCommand, url: str) -> None:
        run("append", "--event-type", "E", "--entity-type", "t", "--entity-id", "1")

        result = run("drop", given="eventstore\n")

        assert result.exit_code == 0
        assert "Type the name of the namespace, eventstore" in result.stderr
        assert run("count").exit_code == 2

    @pytest.mark.parametrize("answer", ["", "\n", "yes\n", "other\n"])
    def test_removes_nothing_for_another_answer(
        self, run: RunCommand, filled: EventStore, answer: str
    ) -> None:
        result = run("drop", given=answer)

        assert result.exit_code == 2
        assert "nothing was removed" in result.stderr
        assert run("count").stdout == "4\n"

    def test_says_where_there_is_none_to_remove(
        self, run: RunCommand, filled: EventStore, url: str
    ) -> None:
        result = run("drop", "--namespace", "other", "--confirm", "other")

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            f"eventstore: {url}?namespace=other: has no log 'other'; nothing was removed\n"
        )
        assert run("count").stdout == "4\n"

    def test_shows_no_password(self, run: RunCommand) -> None:
        hidden = "redis://me:hunter2@127.0.0.1:1/0"

        result = run("drop", given="no\n", url=hidden)

        assert result.exit_code == 2
        assert "redis://me:***@127.0.0.1:1/0" in result.stderr
        assert "hunter2" not in result.stderr

    def test_takes_the_name_as_an_option(self, run: RunCommand, url: str) -> None:
        own = f"{url}?namespace=mine"
        run("append", "--event-type", "E", "--entity-type", "t", "--entity-id", "1", url=own)

        assert run("drop", "--confirm", "eventstore", url=own).exit_code == 2
        assert run("count", url=own).stdout == "1\n"
        assert run("drop", "--confirm", "mine", url=own).exit_code == 0
        assert run("count", url=own).exit_code == 2


class TestAddress:
    """How every command is told of its store."""

    def test_is_taken_from_the_variable_that_is_named(
        self, run: RunCommand, filled: EventStore, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ORDERS_URL", url)

        assert run("count", "--url-env", "ORDERS_URL", url=None).stdout == "4\n"
        assert run("count", "--url-env", "ORDERS_URL", url="memory://other").stdout == "4\n"
        assert run("count", "--url", url, url=None).stdout == "4\n"

    def test_is_given_once(self, run: RunCommand, url: str) -> None:
        result = run("count", "--url", url, "--url-env", "ORDERS_URL")

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "eventstore: url: give --url or --url-env, not both\n"

    def test_a_variable_that_is_not_set_is_named(self, run: RunCommand) -> None:
        result = run("count", "--url-env", "NO_SUCH_URL")

        assert result.exit_code == 2
        assert "'NO_SUCH_URL' holds none" in result.stderr

    def test_a_namespace_beside_it_wins(
        self, run: RunCommand, filled: EventStore, url: str
    ) -> None:
        words = ("--event-type", "E", "--entity-type", "t", "--entity-id", "1")
        run("append", *words, "--namespace", "mine", url=f"{url}?namespace=theirs")

        assert run("count", url=f"{url}?namespace=mine").stdout == "1\n"
        assert run("count").stdout == "4\n"
        assert run("drop", "--namespace", "mine", "--confirm", "mine").exit_code == 0

    def test_who_never_said_create_false_does_not_read_of_it(
        self, run: RunCommand, url: str
    ) -> None:
        assert run("count").stderr == (
            f"eventstore: {url}: has no log 'eventstore'; make it with `eventstore init`\n"
        )
        assert "create=false" in run("count", url=f"{url}?create=false").stderr


def test_every_option_is_described() -> None:
    group = typer.main.get_command(app)
    commands = getattr(group, "commands")  # noqa: B009 - typer names the class in no version

    undescribed = [
        f"{name} {parameter.name}"
        for name, command in commands.items()
        for parameter in command.params
        if not parameter.help
    ]

    assert undescribed == []
    assert len(commands) == 12
