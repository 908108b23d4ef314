"""Runs of the command line: in this process over a memory log, or as a process on SQLite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from eventstore import EventStore, drop_namespace, open_store
from eventstore.cli.app import app


class Run(NamedTuple):
    """How a command ended and what it printed."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines it printed."""
        return [json.loads(line) for line in self.stdout.splitlines()]


RunCommand = Callable[..., Run]


@pytest.fixture
def url() -> Iterator[str]:
    """A log of its own, shared within this process."""
    url = f"memory://cli-{uuid4().hex}"
    yield url
    drop_namespace(url)


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    """The log that ``run`` works on."""
    with open_store(url) as store:
        yield store


@pytest.fixture
def run(url: str) -> RunCommand:
    """Run a command on ``url`` in this process."""

    def invoke(
        *arguments: str,
        given: str | bytes | None = None,
        url: str | None = url,
        columns: int = 160,
    ) -> Run:
        result = CliRunner().invoke(
            app, list(arguments), input=given, env={"EVENTSTORE_URL": url, "COLUMNS": str(columns)}
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Run(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A log of its own that processes share."""
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture
def start(sqlite_url: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command on ``sqlite_url`` as a process; it does not outlive the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(
        *arguments: str,
        module: str = "eventstore.cli",
        before: tuple[str, ...] = (),
        more: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        streams: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        process = subprocess.Popen(
            [*before, sys.executable, "-m", module, *arguments],
            env=os.environ | {"EVENTSTORE_URL": sqlite_url, "COLUMNS": "160"} | dict(more or {}),
            **streams | options,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()
