"""The command line as a process: pipes, signals, terminals, memory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from eventstore import Event, EventStore, open_store
from eventstore.cli.files import written_whole
from eventstore.cli.transfers import _BetweenCommits, _Lines, _Source
from eventstore.transfer import append_in_order, import_lines

Start = Callable[..., subprocess.Popen[bytes]]

MEGABYTE = 1_000_000


@pytest.fixture
def store(sqlite_url: str) -> Iterator[EventStore]:
    with open_store(sqlite_url) as store:
        yield store


def events(first: int, count: int, padding: str = "") -> Iterator[Event]:
    for number in range(first, first + count):
        yield Event(
            event_type="E",
            entity_type="t",
            entity_id=str(number % 100),
            event_id=UUID(int=number + 1),
            data={"number": number, "padding": padding},
        )


def write_lines(file: Path, count: int, padding: str = "") -> None:
    with file.open("w") as stream:
        for number in range(count):
            line = {
                "event_type": "E",
                "entity_type": "t",
                "entity_id": str(number % 100),
                "event_id": str(UUID(int=number + 1)),
                "data": {"number": number, "padding": padding},
            }
            print(json.dumps(line), file=stream)


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


def finished(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, (stdout or b"").decode(), stderr.decode()


def test_one_process_reads_what_another_appended(start: Start) -> None:
    words = ("--event-type", "E", "--entity-type", "t", "--entity-id", "1")
    assert finished(start("init"))[0] == 0

    code, recorded, complaint = finished(start("append", *words, "--data", '{"x": 1}'))

    assert (code, complaint) == (0, "")
    assert finished(start("get")) == (0, recorded, "")
    assert finished(start("count")) == (0, "1\n", "")


def test_info_tells_of_server_durability_and_size(start: Start, store: EventStore) -> None:
    store.append_batch(list(events(0, 10)))

    code, line, _ = finished(start("info"))

    facts = json.loads(line)
    assert code == 0
    assert facts["backend"] == "sqlite"
    assert facts["head"] == facts["entities"] == 10
    assert facts["size_bytes"] > 1000
    assert facts["server"]
    assert facts["durability"]


@pytest.mark.parametrize("command", ["get", "count", "tail", "info", "entities", "export"])
def test_reading_never_makes_a_log(start: Start, tmp_path: Path, command: str) -> None:
    code, printed, complaint = finished(start(command))

    assert (code, printed) == (2, "")
    assert complaint.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_is_no_fault(start: Start, store: EventStore) -> None:
    list(append_in_order(store, ([event] for event in events(0, 5000, "x" * 100))))
    for command in (("get",), ("export",), ("get", "--format", "table")):
        process = start(*command)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None

        assert process.wait(timeout=60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_full_disk_is_one_sentence(start: Start, store: EventStore) -> None:
    store.append_batch(list(events(0, 3)))
    with Path("/dev/full").open("wb") as full:
        code, _, complaint = finished(start("get", stdout=full))

    assert (code, complaint) == (1, "eventstore: No space left on device\n")


class TestFollow:
    def test_prints_events_as_they_come_in_until_ctrl_c(
        self, start: Start, store: EventStore
    ) -> None:
        store.append_batch(list(events(0, 3)))
        process = start("tail", "--follow", "-n", "1")
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["sequence"] == 3

        for number in range(3, 6):
            store.append_batch(list(events(number, 1)))
            assert json.loads(process.stdout.readline())["sequence"] == number + 1

        process.send_signal(signal.SIGINT)
        assert finished(process) == (130, "", "eventstore: interrupted\n")

    def test_killed_it_goes_on_from_the_checkpoint_without_missing_any(
        self, start: Start, store: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "position"
        seen: list[int] = []
        for turn in range(3):
            store.append_batch(list(events(turn * 10, 10)))
            process = start("tail", "--follow", "--checkpoint", str(file))
            assert process.stdout is not None
            while not seen or seen[-1] < turn * 10 + 10:
                seen.append(json.loads(process.stdout.readline())["sequence"])
            wait_until(lambda: file.exists() and file.read_text() == f"{store.checkpoint()}\n")
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)

        assert seen == list(range(1, 31))


class TestImport:
    def test_ctrl_c_is_clean_and_a_second_run_goes_on(
        self, start: Start, store: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "log.jsonl"
        write_lines(file, 20_000, "x" * 100)
        process = start("import", str(file))
        wait_until(lambda: store.get_current_sequence() > 0)
        process.send_signal(signal.SIGINT)

        code, printed, complaint = finished(process)

        held = store.get_current_sequence()
        assert (code, printed) == (130, "")
        told = re.fullmatch(
            r"eventstore: interrupted: stored ([\d,]+) events in .*; run it again to go on\n",
            complaint,
        )
        assert told is not None
        assert int(told[1].replace(",", "")) == held  # the commit in flight is among them
        assert 0 < held < 20_000
        assert finished(start("import", str(file)))[0] == 0
        assert [event.data["number"] for event in store.get_events()] == list(range(20_000))

    def test_killed_it_has_stored_whole_lines_from_the_start(
        self, start: Start, store: EventStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "log.jsonl"
        write_lines(file, 20_000, "x" * 100)
        process = start("import", str(file))
        wait_until(lambda: store.get_current_sequence() > 0)
        process.kill()
        process.wait(timeout=60)

        held = store.get_current_sequence()

        assert [event.data["number"] for event in store.get_events()] == list(range(held))
        _, printed, _ = finished(start("import", str(file)))
        assert f"stored {20_000 - held:,} events" in printed
        assert [event.data["number"] for event in store.get_events()] == list(range(20_000))

    def test_takes_what_export_writes_through_a_pipe(
        self, start: Start, store: EventStore, tmp_path: Path
    ) -> None:
        for size in (1, 3, 1, 2):
            store.append_batch(list(events(store.get_current_sequence(), size)))
        source = start("export")
        target_url = f"sqlite:///{tmp_path / 'copy.db'}"

        code, printed, complaint = finished(
            start("import", "--url", target_url, stdin=source.stdout)
        )

        assert (code, printed, complaint) == (0, "stored 7 events in 4 batches\n", "")
        with open_store(target_url) as copy:
            assert [each.batch_sequence for each in copy.get_events()] == [1, 2, 2, 2, 5, 6, 6]


def test_many_single_lines_take_seconds(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    write_lines(file, 20_000)
    started = time.monotonic()
    assert finished(start("import", str(file)))[1] == "stored 20,000 events in 20,000 batches\n"
    assert time.monotonic() - started < 20

    assert finished(start("import", str(file)))[1] == (
        "stored 0 events in 0 batches; 20,000 lines stored before\n"
    )


# In between, for Linux counts what the starting process, here pytest, weighs as the child's.
_MEASURED = """
import resource, subprocess, sys
quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
code = subprocess.call([sys.executable, "-m", "eventstore.cli", *sys.argv[1:]], **quiet)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def test_memory_stays_flat(sqlite_url: str, tmp_path: Path) -> None:
    # 60 MB in lines: whoever holds them, or the events, holds more than the limit.
    file, copy = tmp_path / "log.jsonl", tmp_path / "copy.jsonl"
    write_lines(file, 20_000, "x" * 3000)
    assert file.stat().st_size > 60 * MEGABYTE

    for arguments in (("import", str(file)), ("import", str(file)), ("export", str(copy))):
        run = subprocess.run(
            [sys.executable, "-c", _MEASURED, *arguments],
            env=os.environ | {"EVENTSTORE_URL": sqlite_url},
            capture_output=True,
            check=True,
            timeout=60,
        )
        resident = int(run.stdout) * (1 if sys.platform == "darwin" else 1024)
        assert resident < 100 * MEGABYTE

    assert copy.stat().st_size > 60 * MEGABYTE


def test_a_long_line_is_held_twice_at_most(tmp_path: Path) -> None:
    # As it is read and decoded, or decoded and encoded anew: 40 MB each time, over the 50 MB or
    # so that the program takes by itself.
    file = tmp_path / "log.jsonl"
    write_lines(file, 1, "x" * 40 * MEGABYTE)

    run = subprocess.run(
        [sys.executable, "-c", _MEASURED, "import", str(file)],
        env=os.environ | {"EVENTSTORE_URL": "memory://"},
        capture_output=True,
        check=True,
        timeout=60,
    )

    resident = int(run.stdout) * (1 if sys.platform == "darwin" else 1024)
    assert resident < (50 + 2.2 * 40) * MEGABYTE


class TestTerminal:
    """A pseudo-terminal in place of standard output or error."""

    @pytest.fixture
    def terminal(self) -> Iterator[tuple[int, int]]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        yield ours, theirs
        os.close(ours)
        os.close(theirs)

    def shown(self, process: subprocess.Popen[bytes], ours: int) -> str:
        os.set_blocking(ours, False)
        shown = b""

        def ended() -> bool:  # a terminal holds a few kB, and who writes more waits for its reader
            nonlocal shown
            over = process.poll() is not None
            with contextlib.suppress(BlockingIOError):
                while chunk := os.read(ours, 65536):
                    shown += chunk
            return over

        wait_until(ended, seconds=60)
        return shown.decode()

    def test_shows_progress_and_only_there(
        self, start: Start, store: EventStore, tmp_path: Path, terminal: tuple[int, int]
    ) -> None:
        ours, theirs = terminal
        file = tmp_path / "log.jsonl"
        write_lines(file, 3000)

        importing = self.shown(start("import", str(file), stderr=theirs), ours)
        exporting = self.shown(start("export", os.devnull, stderr=theirs), ours)

        assert "importing" in importing
        assert "━" in importing
        assert "exporting" in exporting
        assert finished(start("import", str(file)))[2] == ""

    def test_prints_a_table(
        self, start: Start, store: EventStore, terminal: tuple[int, int]
    ) -> None:
        ours, theirs = terminal
        store.append_batch(list(events(0, 3)))

        shown = self.shown(start("get", stdout=theirs), ours)

        assert "time (UTC)" in shown
        assert "event_id" not in shown
        assert finished(start("get"))[1].count("event_id") == 3

    def test_prints_no_more_than_a_hundred_unasked(
        self, start: Start, store: EventStore, terminal: tuple[int, int]
    ) -> None:
        ours, theirs = terminal
        store.append_batch(list(events(0, 101)))

        process = start("get", stdout=theirs)
        shown = self.shown(process, ours).splitlines()
        told = finished(process)[2]
        asked = self.shown(start("get", "--limit", "101", stdout=theirs), ours).splitlines()

        assert len(shown) == 1 + 100
        assert told == "eventstore: note: the first 100 are shown; --limit shows more\n"
        assert len(asked) == 1 + 101
        assert finished(start("get"))[1].count("\n") == 101

    def test_asks_for_what_it_would_read_from_there(
        self, start: Start, terminal: tuple[int, int]
    ) -> None:
        _, theirs = terminal
        for command in ("append", "import"):
            code, printed, complaint = finished(start(command, stdin=theirs))

            assert (code, printed) == (2, "")
            assert "standard input" in complaint


def test_lines_are_read_as_they_are_needed(store: EventStore) -> None:
    asked = 0

    def lines() -> Iterator[bytes]:
        nonlocal asked
        for number in range(100_000):
            asked += 1
            event_id = UUID(int=number + 1)
            yield (
                b'{"event_type": "E", "entity_type": "t", "entity_id": "1", "event_id": "%s"}\n'
                % str(event_id).encode()
            )

    imported = import_lines(store, lines())
    next(imported)

    assert asked < 5000


def test_progress_moves_by_bytes(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    write_lines(file, 3, "x" * MEGABYTE)
    told: list[int] = []
    with file.open("rb") as stream, _BetweenCommits() as ctrl_c:
        source = _Source(str(file), stream, file.stat().st_size, stream.tell)
        lines = _Lines(source, ctrl_c, told.append)

        while lines.readline(1 << 16):
            pass

    assert lines.read == file.stat().st_size
    assert told == sorted(told)
    assert len(told) > 30
    assert file.stat().st_size - told[-1] < 1 << 17


class TestStreams:
    """Standard streams that are closed, or that somebody left."""

    def closed(self, start: Start, stream: str, *arguments: str) -> tuple[int, str, str]:
        shell = ("sh", "-c", f'exec "$@" {stream}', "sh")
        return finished(start(*arguments, before=shell))

    @pytest.mark.parametrize("command", [("get",), ("--version",), ("info",)])
    def test_a_closed_standard_output_is_one_sentence(
        self, start: Start, store: EventStore, command: tuple[str, ...]
    ) -> None:
        code, _, complaint = self.closed(start, ">&-", *command)

        assert code == 1
        assert complaint == (
            "eventstore: standard output is closed, so nothing was done; send it to /dev/null"
            " instead\n"
        )

    def test_nothing_is_stored_where_it_cannot_be_shown(
        self, start: Start, store: EventStore
    ) -> None:
        words = ("--event-type", "E", "--entity-type", "t", "--entity-id", "1")

        code, _, complaint = self.closed(start, ">&-", "append", *words)

        assert (code, complaint.count("\n")) == (1, 1)
        assert store.get_current_sequence() == 0

    @pytest.mark.parametrize(
        "command", [("append",), ("import",), ("drop",), ("append", "--data", "-")]
    )
    def test_a_closed_standard_input_is_one_sentence_where_it_is_read(
        self, start: Start, store: EventStore, command: tuple[str, ...]
    ) -> None:
        words = ("--event-type", "E", "--entity-type", "t", "--entity-id", "1")
        more = words if "--data" in command else ()

        code, printed, complaint = self.closed(start, "<&-", *command, *more)

        assert (code, printed, complaint.count("\n")) == (2, "", 1)
        assert "closed" in complaint
        assert store.get_current_sequence() == 0

    def test_a_closed_standard_input_is_no_matter_where_it_is_not_read(
        self, start: Start, store: EventStore
    ) -> None:
        words = ("--event-type", "E", "--entity-type", "t", "--entity-id", "1")

        code, _, complaint = self.closed(start, "<&-", "append", *words)

        assert (code, complaint) == (0, "")
        assert store.get_current_sequence() == 1

    def test_a_closed_standard_error_changes_no_exit_code(
        self, start: Start, store: EventStore
    ) -> None:
        assert self.closed(start, "2>&-", "count") == (0, "0\n", "")
        assert self.closed(start, "2>&-", "get", "--limit", "-1") == (2, "", "")

    def test_a_reader_that_dies_while_nothing_comes_in_is_noticed(
        self, start: Start, store: EventStore
    ) -> None:
        store.append_batch(list(events(0, 1)))
        process = start("tail", "--follow")
        assert process.stdout is not None
        process.stdout.readline()

        process.stdout.close()
        process.stdout = None

        assert process.wait(timeout=20) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_the_package_is_the_command_line_too(start: Start, store: EventStore) -> None:
    assert finished(start("count", module="eventstore")) == (0, "0\n", "")


def test_a_shell_can_complete_commands(start: Start) -> None:
    asked = {
        "_EVENTSTORE_COMPLETE": "complete_bash",
        "COMP_WORDS": "eventstore ex",
        "COMP_CWORD": "1",
    }

    code, printed, _ = finished(start(more=asked))

    assert (code, printed.split()) == (0, ["export"])


class TestFiles:
    """Who may read what an export writes, and what is never written over."""

    def test_an_export_is_for_its_owner_alone(
        self, start: Start, store: EventStore, tmp_path: Path
    ) -> None:
        new, old = tmp_path / "new.jsonl", tmp_path / "old.jsonl"
        old.touch()
        old.chmod(0o640)

        assert finished(start("export", str(new)))[0] == 0
        assert finished(start("export", "--force", str(old)))[0] == 0

        assert stat.S_IMODE(new.stat().st_mode) == 0o600
        assert stat.S_IMODE(old.stat().st_mode) == 0o640

    def test_a_link_is_never_followed(
        self, start: Start, store: EventStore, tmp_path: Path
    ) -> None:
        elsewhere, link = tmp_path / "elsewhere", tmp_path / "link"
        elsewhere.write_text("mine")
        link.symlink_to(elsewhere)

        for command in (("export", "--force"), ("tail", "--checkpoint")):
            code, printed, complaint = finished(start(*command, str(link)))

            assert (code, printed) == (1, "")
            assert complaint == f"eventstore: {link}: is a link; name the file that it leads to\n"
        assert elsewhere.read_text() == "mine"

    def test_what_is_written_whole_has_a_name_of_its_own_until_then(self, tmp_path: Path) -> None:
        target = tmp_path / "log.jsonl"
        with written_whole(target, replace=False) as stream:
            (beside,) = tmp_path.iterdir()
            assert stat.S_IMODE(beside.stat().st_mode) == 0o600
            assert beside.name.startswith(".eventstore-")
            stream.write(b"new")

        assert [each.name for each in tmp_path.iterdir()] == ["log.jsonl"]
        assert target.read_bytes() == b"new"

    def test_a_file_that_somebody_made_meanwhile_is_left_alone(self, tmp_path: Path) -> None:
        target = tmp_path / "log.jsonl"
        with pytest.raises(FileExistsError), written_whole(target, replace=False):
            target.write_bytes(b"theirs")

        assert target.read_bytes() == b"theirs"
        assert [each.name for each in tmp_path.iterdir()] == ["log.jsonl"]

    def test_a_failure_names_the_path_that_was_given(self, tmp_path: Path) -> None:
        target = tmp_path / "log.jsonl"
        with (
            pytest.raises(OSError, match="No space left on device") as caught,
            written_whole(target, replace=False),
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "other.tmp"))

        assert caught.value.filename == str(target)
