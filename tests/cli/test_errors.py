"""However a command fails: one sentence, the right exit code, no traceback, no password."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from eventstore import EventStore, StoreUnavailableError
from eventstore.backend import Backend
from eventstore.memory import MemoryBackend

RunCommand = Callable[..., Any]


def one_sentence(result: Any) -> str:
    assert result.stdout == ""
    assert result.stderr.startswith("eventstore: ")
    assert result.stderr.count("\n") == 1
    return str(result.stderr)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["count", "--limit", "1"], "No such option: --limit"),
        (["cuont"], "No such command 'cuont'"),
        (["get", "extra"], "extra"),
        (["get", "--entity-type"], "--entity-type"),
    ],
)
def test_wrong_usage_ends_with_2(run: RunCommand, arguments: list[str], reason: str) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert reason in one_sentence(result)
    assert "--help" in result.stderr


def test_a_missing_url_is_wrong_usage(run: RunCommand) -> None:
    result = run("count", url=None)

    assert result.exit_code == 2
    assert "EVENTSTORE_URL" in one_sentence(result)


@pytest.mark.parametrize(
    "url",
    [
        "nosuchengine://me:secret@host/db",
        "memory://x?unknown=1&password=secret",
        "memory://me:secret@x?timeout=soon",
        "me:secret@host",
    ],
)
@pytest.mark.parametrize("command", ["count", "info", "drop", "init"])
def test_a_bad_url_is_told_without_its_password(run: RunCommand, url: str, command: str) -> None:
    result = run(command, *(["--confirm", "eventstore"] if command == "drop" else []), url=url)

    assert result.exit_code == 2
    assert "secret" not in one_sentence(result)


def test_a_store_that_does_not_answer_ends_with_1(
    run: RunCommand, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(backend: Backend, query: object) -> int:
        raise StoreUnavailableError("the server\nis away", transient=False)

    monkeypatch.setattr(MemoryBackend, "count", fail)

    result = run("count")

    assert result.exit_code == 1
    assert one_sentence(result) == "eventstore: the server is away\n"


def test_a_fault_of_the_program_is_one_sentence_without_its_message(
    run: RunCommand, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(backend: Backend, query: object) -> int:
        raise LookupError("postgresql://me:secret@host")

    monkeypatch.setattr(MemoryBackend, "count", fail)

    result = run("count")

    assert result.exit_code == 1
    assert "LookupError" in one_sentence(result)
    assert "secret" not in result.stderr

    monkeypatch.setenv("EVENTSTORE_DEBUG", "1")
    with pytest.raises(LookupError):
        run("count")


def test_ctrl_c_ends_with_130(
    run: RunCommand, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(backend: Backend, query: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(MemoryBackend, "count", interrupt)

    result = run("count")

    assert result.exit_code == 130
    assert one_sentence(result) == "eventstore: interrupted\n"


def test_a_durability_warning_is_a_sentence_too(
    run: RunCommand, store: EventStore, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr(MemoryBackend, "durability_risks", lambda _: ["appendfsync is everysec"])

    result = run("count")

    assert (result.exit_code, result.stdout) == (0, "0\n")
    assert result.stderr == "eventstore: warning: appendfsync is everysec\n"
    assert run("count", url=f"{url}?durability=relaxed").stderr == ""
    assert run("count", url=f"{url}?durability=strict").exit_code == 2


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extra_it_says_what_to_install(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; from eventstore.cli import main; main()"
    )

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "eventstore: the command line needs typer and rich: pip install 'eventstore-toolkit[cli]'\n"
    )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["get", "--help"], ["-h"]])
def test_help_is_printed_on_standard_output(run: RunCommand, arguments: list[str]) -> None:
    result = run(*arguments)

    assert (result.exit_code, result.stderr) == (0, "")
    assert "Usage: " in result.stdout


def test_the_version_is_printed(run: RunCommand) -> None:
    assert run("--version").stdout.count(".") == 2
