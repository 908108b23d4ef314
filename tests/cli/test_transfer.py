"""Export and import: what comes out goes in again, and nothing bad does."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import (
    AppendResult,
    DuplicateEventError,
    Event,
    EventStore,
    InvalidEventError,
    open_store,
    transfer,
)
from eventstore.transfer import append_in_order, export_lines, import_lines

RunCommand = Callable[..., Any]

TWICE = str(uuid4())


def event(number: int = 0, **fields: Any) -> Event:
    return Event(event_type="E", entity_type="t", entity_id="1", data={"number": number}, **fields)


def line(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "event_type": "E",
        "entity_type": "t",
        "entity_id": "1",
        "event_id": str(uuid4()),
        "data": {"number": number},
    } | fields


def text(*lines: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def numbers(store: EventStore) -> list[int]:
    return [event.data["number"] for event in store.get_events()]


def as_appended(event: Event) -> Event:
    return event.replace(recorded_at=None)


def fill(store: EventStore) -> None:
    store.append(event(1, tags=("a", "é"), metadata={"actor_id": "x"}, tenant_id="acme"))
    store.append_batch([event(2), event(3, workflow_id="w"), event(4, schema_version=3)])
    store.append(event(5))
    store.append_batch([event(6), event(7)])


class TestExport:
    def test_writes_a_line_a_batch(self, run: RunCommand, store: EventStore) -> None:
        fill(store)

        lines = run("export").events

        assert [len(each.get("batch", [each])) for each in lines] == [1, 3, 1, 2]
        assert [each["sequence"] for each in lines[1]["batch"]] == [2, 3, 4]

    def test_of_an_empty_log_is_empty(self, run: RunCommand, store: EventStore) -> None:
        assert run("export") == (0, "", "")

    def test_takes_a_query(self, run: RunCommand, store: EventStore) -> None:
        fill(store)

        lines = run("export", "--from-sequence", "2", "--to-sequence", "5").events

        assert [[each["sequence"] for each in one.get("batch", [one])] for one in lines] == [
            [3, 4],
            [5],
        ]

    def test_writes_a_file_as_a_whole(
        self, run: RunCommand, store: EventStore, tmp_path: Path
    ) -> None:
        fill(store)
        file = tmp_path / "log.jsonl"
        file.write_text("old")

        result = run("export", "--force", str(file))

        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
        assert file.read_bytes() == b"".join(export_lines(store.get_events()))
        assert [each.name for each in tmp_path.iterdir()] == ["log.jsonl"]

    def test_leaves_the_file_alone_when_it_fails(
        self, run: RunCommand, store: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "log.jsonl"
        file.write_text("old")

        def fail(_: object) -> Iterator[bytes]:
            yield b"{"
            raise KeyboardInterrupt

        monkeypatch.setattr("eventstore.cli.transfers.export_lines", fail)

        assert run("export", "--force", str(file)).exit_code == 130
        assert file.read_text() == "old"
        assert [each.name for each in tmp_path.iterdir()] == ["log.jsonl"]

    def test_to_a_place_that_is_not_there_is_one_sentence(
        self, run: RunCommand, store: EventStore, tmp_path: Path
    ) -> None:
        result = run("export", str(tmp_path / "no" / "log.jsonl"))

        assert result.exit_code == 1
        assert result.stderr.endswith("No such file or directory\n")
        assert result.stderr.count("\n") == 1

    def test_writes_over_no_file_unasked(
        self, run: RunCommand, store: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "log.jsonl"
        file.write_text("old")

        result = run("export", str(file))

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"eventstore: {file}: is there already; --force replaces it\n"
        assert file.read_text() == "old"

    def test_to_a_name_in_gz_is_compressed_and_read_again(
        self, run: RunCommand, store: EventStore, tmp_path: Path
    ) -> None:
        fill(store)
        file = tmp_path / "log.jsonl.gz"

        assert run("export", str(file)).exit_code == 0

        assert gzip.decompress(file.read_bytes()) == b"".join(export_lines(store.get_events()))
        assert run("import", str(file)).stdout == (
            "stored 0 events in 0 batches; 4 lines stored before\n"
        )

    def test_to_a_pipe_is_written_as_it_goes(
        self, run: RunCommand, store: EventStore, tmp_path: Path
    ) -> None:
        fill(store)
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with ThreadPoolExecutor() as threads:
            read = threads.submit(pipe.read_bytes)

            assert run("export", str(pipe)).exit_code == 0

            assert read.result(timeout=20).count(b"\n") == 4


class TestImport:
    def test_restores_an_export_with_its_bounds(
        self, run: RunCommand, store: EventStore, url: str, tmp_path: Path
    ) -> None:
        fill(store)
        file = tmp_path / "log.jsonl"
        run("export", str(file))

        result = run("import", str(file), url=f"{url}-copy")

        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == "stored 7 events in 4 batches\n"
        with open_store(f"{url}-copy") as copy:
            assert list(map(as_appended, copy.get_events())) == list(
                map(as_appended, store.get_events())
            )
        run("drop", "--confirm", "eventstore", url=f"{url}-copy")

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.lists(
                st.recursive(
                    st.none()
                    | st.booleans()
                    | st.integers(-(2**63), 2**63 - 1)
                    | st.floats(allow_nan=False, allow_infinity=False)
                    | st.text(st.characters(exclude_categories=["Cs"])),
                    lambda inner: st.lists(inner, max_size=3),
                    max_leaves=10,
                ),
                min_size=1,
                max_size=5,
            ),
            max_size=5,
        )
    )
    def test_restores_every_payload_as_it_was(self, batches: list[list[Any]]) -> None:
        with open_store("memory://") as store, open_store("memory://") as copy:
            for batch in batches:
                store.append_batch(
                    Event(event_type="E", entity_type="t", entity_id="1", data={"x": value})
                    for value in batch
                )
            lines = b"".join(export_lines(store.get_events())).splitlines(keepends=True)

            outcomes = [outcome for _, outcome in import_lines(copy, lines)]

            assert all(isinstance(each, AppendResult) for each in outcomes)
            assert repr(list(map(as_appended, copy.get_events()))) == repr(
                list(map(as_appended, store.get_events()))
            )

    def test_again_stores_nothing_twice(
        self, run: RunCommand, store: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "log.jsonl"
        file.write_bytes(text(line(1), {"batch": [line(2), line(3)]}))
        run("import", str(file))
        with file.open("ab") as stream:
            stream.write(text(line(4)))

        result = run("import", str(file))

        assert result.exit_code == 0
        assert result.stdout == "stored 1 event in 1 batch; 2 lines stored before\n"
        assert numbers(store) == [1, 2, 3, 4]

    def test_reads_standard_input_and_passes_over_blank_lines(
        self, run: RunCommand, store: EventStore
    ) -> None:
        lines = b"\xef\xbb\xbf" + text(line(1)) + b"\r\n  \n" + text(line(2)).rstrip(b"\n")

        result = run("import", given=lines)

        assert (result.exit_code, result.stderr) == (0, "")
        assert numbers(store) == [1, 2]

    def test_ignores_what_another_log_assigned(self, run: RunCommand, store: EventStore) -> None:
        assigned = {
            "sequence": 77,
            "version": 8,
            "batch_sequence": 70,
            "recorded_at": "2020-01-01T00:00:00Z",
        }

        result = run("import", given=text(line(1, **assigned)))

        recorded = next(store.get_events())
        assert result.exit_code == 0
        assert (recorded.sequence, recorded.version, recorded.batch_sequence) == (1, 1, 1)
        assert recorded.recorded_at is not None
        assert recorded.recorded_at.year > 2020

    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (b"{\n", "JSON ends too early"),
            (b"[]\n", "Expected `object`"),
            (b"not json\n", "JSON is malformed"),
            (b'{"batch": []}\n', "batch: must not be empty"),
            (b'{"batch": 7}\n', "Expected `array`"),
            (text(line(sequenze=1)), "unknown field `sequenze`"),
            (text({"batch": [line()], "more": 1}), "unknown field `more`"),
            (text({"batch": [line(), line(x=1)]}), "unknown field `x` - at `$.batch[1]`"),
            (text({"entity_type": "t"}), "missing required field `event_type`"),
            (text({key: v for key, v in line().items() if key != "event_id"}), "event_id: is mi"),
            (text(line(entity_id="")), "entity_id: must not be empty"),
            (text(line(entity_id=7)), "Expected `str`, got `int` - at `$.entity_id`"),
            (text(line(entity_id="x" * 256)), "255 bytes"),
            (text(line(entity_id="x\0")), "must not contain NUL"),
            (text({"batch": [line(), line(tags=[""])]}), "events[1].tags[0]: must not be empty"),
            (text(line(data=[1])), "Expected `object`"),
            (text(line(data={"a": {"b": 2**64}})), "data['a']['b']: integers must fit signed 64"),
            (text(line()).replace(b": 0}", b": " + b"9" * 5000 + b"}"), "out of range"),
            (text(line(data={"a": float("nan")})), "JSON is malformed"),
            (text(line(data={"a": float("inf")})), "JSON is malformed"),
            (text(line()).replace(b'"number": 0', b'"number": 1e999'), "out of range"),
            (text(line(data={"a": "\ud800"})), "surrogate"),
            (text(line()).replace(b'"t"', b'"\xff"'), "another encoding than UTF-8"),
            (text(line(data={"a\0": 1})), "keys must not contain NUL"),
            (b'{"data": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}\n", "nested"),
            (text(line(data={"a": json.loads("[" * 64 + "]" * 64)})), "nested more than 64"),
            (text(line(timestamp="2026-01-01T00:00:00")), "timestamp: must have a timezone"),
            (text(line(timestamp="soon")), "timestamp"),
            (text(line(event_id="7")), "Invalid UUID"),
            (text(line(schema_version=0)), "schema_version"),
            (text(line(tags="vip")), "Expected `array`"),
            (
                text({"batch": [line(event_id=TWICE), line(event_id=TWICE)]}),
                "is in this batch twice",
            ),
        ],
    )
    def test_stops_at_a_bad_line_and_names_it(
        self, run: RunCommand, store: EventStore, bad: bytes, reason: str
    ) -> None:
        lines = text(line(1)) + b"\n" + text(line(2)) + bad + text(line(3))

        result = run("import", given=lines)

        assert result.exit_code == 4
        told, hint = result.stderr.splitlines()
        assert told.startswith("eventstore: line 4: ")
        assert reason in told
        assert "--skip-bad" in hint
        assert result.stdout == "stored 2 events in 2 batches; 1 line refused\n"
        assert numbers(store) == [1, 2]

    def test_goes_on_after_bad_lines_where_asked_to(
        self, run: RunCommand, store: EventStore
    ) -> None:
        bad_batch = {"batch": [line(8), line(9, entity_id="")]}
        lines = text(line(1), 7, line(2), bad_batch, line(3))

        result = run("import", "--skip-bad", given=lines)

        assert result.exit_code == 4
        assert [each.split(":")[1] for each in result.stderr.splitlines()] == [" line 2", " line 4"]
        assert numbers(store) == [1, 2, 3]

    @pytest.mark.parametrize("cut", [1, 20, 100])
    def test_tells_that_the_input_ends_in_the_middle_of_a_line(
        self, run: RunCommand, store: EventStore, cut: int
    ) -> None:
        whole = text(line(1), line(2))

        result = run("import", given=whole[: -cut - 1])

        assert result.exit_code == 4
        assert "line 2: the input ends in the middle of this line" in result.stderr
        assert numbers(store) == [1]
        assert run("import", given=whole).exit_code == 0
        assert numbers(store) == [1, 2]

    def test_stores_nothing_after_a_line_that_the_log_refuses(
        self, run: RunCommand, store: EventStore
    ) -> None:
        recorded = store.append(event(0))
        lines = text(line(1), line(2, event_id=str(recorded.event_id)), line(3))

        result = run("import", given=lines)

        assert result.exit_code == 4
        assert "line 2: event_id" in result.stderr
        assert numbers(store) == [0, 1]

    def test_takes_a_line_that_is_there_twice_once(
        self, run: RunCommand, store: EventStore
    ) -> None:
        same = line(1)

        result = run("import", given=text(same, line(2), same))

        assert result.stdout == "stored 2 events in 2 batches; 1 line stored before\n"
        assert numbers(store) == [1, 2]

    def test_gives_new_ids_where_asked_to(self, run: RunCommand, store: EventStore) -> None:
        without = {key: value for key, value in line(1).items() if key != "event_id"}

        assert run("import", "--new-ids", given=text(without, without)).exit_code == 0
        assert run("import", "--new-ids", given=text(without)).exit_code == 0
        assert numbers(store) == [1, 1, 1]

    def test_interrupted_says_how_to_go_on(
        self, run: RunCommand, store: EventStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*arguments: Any, **options: Any) -> Iterator[Any]:
            for number, outcome in import_lines(*arguments, **options):
                if number == 3:
                    raise KeyboardInterrupt
                yield number, outcome

        lines = text(*map(line, range(5)))
        with monkeypatch.context() as patch:
            patch.setattr("eventstore.cli.transfers.import_lines", interrupted)
            result = run("import", given=lines)

        assert result.exit_code == 130
        assert result.stderr == (
            "eventstore: interrupted: stored 2 events in 2 batches; run it again to go on\n"
        )
        assert run("import", given=lines).exit_code == 0
        assert numbers(store) == [0, 1, 2, 3, 4]

    def test_of_nothing_says_so(self, run: RunCommand, store: EventStore) -> None:
        result = run("import", given=b"")

        assert (result.exit_code, result.stdout) == (0, "stored 0 events in 0 batches\n")
        assert result.stderr == "eventstore: note: the input is empty\n"

    @pytest.mark.parametrize(
        ("given", "what"),
        [
            (gzip.compress(b"{}"), "is compressed by gzip; decompress it first"),
            (b"\x89PNG\r\n\x1a\n\0\0", "is binary data, not JSON"),
            (bytes(100), "is binary data, not JSON"),
            ("{}".encode("utf-16"), "is text in UTF-16"),
            (b'{"event_type": "caf\xe9"}\n', "is text in another encoding than UTF-8"),
        ],
    )
    def test_names_what_is_no_json_for_what_it_is(
        self, run: RunCommand, store: EventStore, given: bytes, what: str
    ) -> None:
        result = run("import", given=given)

        assert result.exit_code == 4
        assert what in result.stderr.splitlines()[0]
        appended = run("append", given=given)
        assert (appended.exit_code, appended.stderr.count("\n")) == (2, 1)
        assert f"standard input: {what}" in appended.stderr

    @pytest.mark.parametrize("damage", [slice(-20), slice(0, 10)])
    def test_of_damaged_gzip_data_is_one_sentence(
        self, run: RunCommand, store: EventStore, tmp_path: Path, damage: slice
    ) -> None:
        file = tmp_path / "log.jsonl.gz"
        file.write_bytes(gzip.compress(text(*map(line, range(2000))))[damage])

        result = run("import", str(file))

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"eventstore: {file}: what gzip compressed there is dam")
        assert result.stderr.count("\n") == 1

    def test_a_line_has_a_bound(
        self, run: RunCommand, store: EventStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transfer, "MAX_LINE_BYTES", 2_000_000)
        fits = line(2, data={"number": 2, "x": "x" * 1_999_000})
        lines = text(line(1), fits, line(9, data={"x": "x" * 2_000_000}), line(3))

        result = run("import", "--skip-bad", given=lines)

        assert result.exit_code == 4
        assert result.stderr == (
            "eventstore: line 3: is longer than 2 MB; make smaller batches of it\n"
        )
        assert numbers(store) == [1, 2, 3]
        (_, outcome), *_ = import_lines(store, [text(line(9, data={"x": "x" * 2_000_000}))])
        assert isinstance(outcome, InvalidEventError)

    def test_no_more_is_read_of_a_line_than_its_bound(self, store: EventStore) -> None:
        class Endless:
            read = 0

            def readline(self, size: int, /) -> bytes:
                self.read += size
                return b"x" * size

        endless = Endless()
        number, outcome = next(import_lines(store, endless))

        assert (number, type(outcome)) == (1, InvalidEventError)
        assert endless.read < transfer.MAX_LINE_BYTES + 1_000_000

    def test_of_a_file_that_is_not_there_is_one_sentence(
        self, run: RunCommand, store: EventStore, tmp_path: Path
    ) -> None:
        result = run("import", str(tmp_path / "none.jsonl"))

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.endswith("none.jsonl: No such file or directory\n")
        assert run("import", str(tmp_path)).exit_code == 1


class TestAppendInOrder:
    def test_keeps_order_and_bounds_over_many_commits(self, store: EventStore) -> None:
        batches = [
            [event(number * 10 + place) for place in range(number % 4 + 1)]
            for number in range(3000)
        ]

        results = list(append_in_order(store, batches))

        assert [result.first_sequence for result in results] == [
            events.batch_sequence for result in results for events in result[:1]
        ]
        assert numbers(store) == [each.data["number"] for batch in batches for each in batch]

    def test_raises_for_the_first_batch_that_cannot_be_stored(self, store: EventStore) -> None:
        recorded = store.append(event(0))
        other = event(9, event_id=recorded.event_id)

        with pytest.raises(DuplicateEventError):
            list(append_in_order(store, [[event(1)], [other], [event(2)]]))

        assert numbers(store) == [0, 1]

    def test_tells_what_was_stored_before(self, store: EventStore) -> None:
        batch = [event(1), event(2)]
        store.append_batch(batch)

        old, new, empty = append_in_order(store, [batch, [event(3)], []])

        assert (old.replayed, new.replayed) == (True, False)
        assert old.sequences == (1, 2)
        assert (new.sequences, len(empty)) == ((3,), 0)

    def test_works_in_the_view_of_a_tenant(self, store: EventStore) -> None:
        view = store.for_tenant("acme")
        batch = [event(1)]

        list(append_in_order(view, [batch]))
        (again,) = append_in_order(view, [batch])

        assert again.replayed
        assert [each.tenant_id for each in store.get_events()] == ["acme"]
