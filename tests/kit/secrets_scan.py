"""No password that the tests use may be told: by an error, a log line, an output, a traceback.

Tests take their passwords from ``a_password``: one family, which this recognises wherever it
turns up. What is looked at in a run: every error of ours when it is made, and with its causes
when a test catches it or fails by it; every record of the logger ``eventstore``; what tests
print; and what the command line puts out, in this process or another.
"""

from __future__ import annotations

import logging
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from eventstore.errors import EventStoreError

_FAMILY = "hunter2"
"""What every password of the tests holds."""


def a_password(more: str = "") -> str:
    """Return a password that the scan recognises, ``more`` at its end."""
    return f"{_FAMILY}{more}"


class SecretsScan(logging.Handler):
    """Collects where a password was told, by the test that was running."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.told: list[str] = []
        self.looked_at = 0
        self._test = "no test"

    def look_at(self, what: str, text: str) -> None:
        """Note the test if ``text`` tells a password."""
        self.looked_at += 1
        if _FAMILY in text:
            # The place, not the text: a report of it would be told, too.
            at = text.index(_FAMILY)
            around = text[max(at - 60, 0) : at].replace("\n", " ")
            self.told.append(f"{self._test}: {what}: …{around}***")

    def emit(self, record: logging.LogRecord) -> None:
        self.look_at("a log line", logging.Formatter().format(record))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at log lines and errors while this lasts."""
        logger = logging.getLogger("eventstore")
        made: Callable[..., None] = EventStoreError.__init__

        def note(error: EventStoreError, *arguments: Any, **named: Any) -> None:
            made(error, *arguments, **named)
            self.look_at("an error", f"{error} {error!r} {vars(error)!r}")

        invoked, communicated = CliRunner.invoke, subprocess.Popen.communicate

        def invoke(runner: CliRunner, *arguments: Any, **named: Any) -> Any:
            result = invoked(runner, *arguments, **named)
            self.look_at("a command's output", result.output)
            return result

        def communicate(process: Any, *arguments: Any, **named: Any) -> tuple[Any, Any]:
            outputs = communicated(process, *arguments, **named)
            for output in outputs:
                text = output.decode(errors="replace") if isinstance(output, bytes) else output
                self.look_at("a process's output", text or "")
            return outputs

        level = logger.level
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)
        EventStoreError.__init__ = note  # type: ignore[method-assign,assignment]  # to see each one made
        CliRunner.invoke = invoke  # type: ignore[method-assign,assignment]
        subprocess.Popen.communicate = communicate  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            subprocess.Popen.communicate = communicated  # type: ignore[method-assign]
            CliRunner.invoke = invoked  # type: ignore[method-assign]
            EventStoreError.__init__ = made  # type: ignore[method-assign]
            logger.setLevel(level)
            logger.removeHandler(self)

    # --- Hooks of pytest

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        self._test = item.nodeid
        raises, exit_ = pytest.RaisesExc, pytest.RaisesExc.__exit__

        def note(raised: Any, kind: Any, error: BaseException | None, trace: Any) -> Any:
            if isinstance(error, EventStoreError):
                self.look_at("a traceback", _messages(error))
            return exit_(raised, kind, error, trace)

        raises.__exit__ = note  # type: ignore[method-assign]  # to see each one with its causes
        try:
            return (yield)
        finally:
            raises.__exit__ = exit_  # type: ignore[method-assign]

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, text in report.sections:
            self.look_at(name, text)

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.told and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.told:
            terminalreporter.section("passwords told", red=True)
            for each in self.told:
                terminalreporter.write_line(each)
        else:
            terminalreporter.write_line(f"passwords told: none in {self.looked_at:,} texts")


def _messages(error: BaseException) -> str:
    """Return what a traceback of ``error`` and its causes tells, but for the lines of the
    source: a test's own hold the passwords that it uses."""
    return "".join(
        line
        for line in traceback.format_exception(error)
        if not line.startswith(("  File ", "    "))
    )
