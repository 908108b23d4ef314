"""How a command ends: exit codes, and one sentence on standard error instead of a traceback."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, Final

import typer
from typer.core import TyperGroup

from eventstore.errors import (
    ConcurrencyError,
    ConfigurationError,
    DuplicateEventError,
    EventStoreError,
    InvalidEventError,
    InvalidQueryError,
)

# Typer names this error in none of its versions, and its module changes from one to the next.
_UsageError: Final[type[Exception]] = typer.BadParameter.__mro__[1]


class ExitCode(IntEnum):
    """What a command's exit code says; docs/cli.md repeats it."""

    ERROR = 1
    """The store or a file could not do it."""
    USAGE = 2
    """An option, a URL, an event or a query is not as it must be; nothing was done."""
    CONFLICT = 3
    """Another event is in the way: a version conflict, or an id recorded with other content."""
    BAD_LINES = 4
    """An import met lines that it could not store."""
    INTERRUPTED = 130
    """Ctrl-C."""
    BROKEN_PIPE = 141
    """Who reads the output left, as ``head`` does."""


def say(message: object, *, kind: str = "") -> None:
    """Print one sentence on standard error."""
    text = " ".join(printable(str(message).replace("\n", " ")).split())
    typer.secho(f"eventstore: {kind}{text}", err=True, fg=None if kind else typer.colors.RED)


def printable(text: str) -> str:
    """Return ``text`` with whatever could steer a terminal spelled out."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


class CommandLine(TyperGroup):
    """The top command: every error of the commands below ends here."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run, and exit with one of ``ExitCode`` or 0."""
        options["standalone_mode"] = False
        _keep_standard_streams()
        try:
            with _log_told():
                code = super().main(*args, **options)
        except _UsageError as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "eventstore"
            say(f"{_message(error).rstrip('. ')}; see '{command} --help'")
            code = ExitCode.USAGE
        try:
            sys.stdout.flush()
        except OSError:
            # Told already; what is still buffered must not complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command and turn what it raises into a sentence and an exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt as interrupt:
            say(str(interrupt) or "interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            raise typer.Exit(ExitCode.BROKEN_PIPE) from None
        except EventStoreError as error:
            say(error)
            raise typer.Exit(_code_of(error)) from None
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            say(f"{name}{error.strerror or error}")
            raise typer.Exit(ExitCode.ERROR) from None
        except (_UsageError, typer.Exit):
            raise
        except Exception as error:
            if os.environ.get("EVENTSTORE_DEBUG"):
                raise
            # Not the message: what a library says of a failure may quote a password.
            say(
                f"an unexpected {type(error).__name__}, which is a fault of this program;"
                " run it again with EVENTSTORE_DEBUG=1 to see where, and report it"
            )
            raise typer.Exit(ExitCode.ERROR) from None
        return result


def _keep_standard_streams() -> None:
    """Exit where standard output is closed; see that every character can be printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file that is opened, a database perhaps, would be standard output.
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
        say("standard output is closed, so nothing was done; send it to /dev/null instead")
        sys.exit(ExitCode.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _log_told() -> Iterator[None]:
    """Tell what the package logs as a warning like all else that a command has to say."""
    handler = _Teller(logging.WARNING)
    logger = logging.getLogger("eventstore")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Teller(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), kind="warning: ")


def _code_of(error: EventStoreError) -> ExitCode:
    if isinstance(error, (ConcurrencyError, DuplicateEventError)):
        return ExitCode.CONFLICT
    if isinstance(error, (InvalidEventError, InvalidQueryError, ConfigurationError)):
        return ExitCode.USAGE
    return ExitCode.ERROR


def _message(error: Exception) -> str:
    return str(error.format_message() if hasattr(error, "format_message") else error)
