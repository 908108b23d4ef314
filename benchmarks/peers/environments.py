"""The peers, their environments, and the processes that run them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.peers.contenders import Contender
from eventstore.bench.events import payload

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parent.parent
_CACHE: Final = _HERE.parent / ".cache"
_SECONDS_TO_ANSWER: Final = 120.0


class UnavailableError(Exception):
    """A peer cannot be run here; the message says why."""


class Worker:
    """A process that runs a contender, told by JSON lines what to do.

    It imports what it needs while others do; ``open`` waits for that.
    """

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in ``close``
        self._process = subprocess.Popen(
            [str(_interpreter(contender)), "-m", f"{__package__}.{contender.module}"],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), **contender.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for us, and we end it
        )

    def open(self, url: str) -> Any:
        """Let it open the log at ``url``, and return its versions and settings."""
        return self.ask("open", payload=payload(1000), url=url)

    def begin(self, do: str, **arguments: Any) -> None:
        """Tell it to do something; ``answer`` returns what came of it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either, but a reason
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self, seconds: float = _SECONDS_TO_ANSWER) -> Any:
        """Return what it says."""
        assert self._process.stdout is not None
        deadline = monotonic() + seconds
        if not select.select([self._process.stdout], [], [], max(0.0, deadline - monotonic()))[0]:
            raise UnavailableError(f"{self.contender.name} did not answer within {seconds:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise UnavailableError(f"{self.contender.name} failed: {self._last_words()}")
        return json.loads(line)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Tell it to do something and return what came of it."""
        self.begin(do, **arguments)
        return self.answer()

    def rate(self, do: str, **arguments: Any) -> float:
        """Return how many things a second it did."""
        found = self.ask(do, **arguments)
        return float(found["done"] / (found["ended"] - found["began"]))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()

    def _last_words(self) -> str:
        self._process.wait(10.0)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.returncode}"


def make_environment(contender: Contender) -> None:
    """Install a peer where it is not installed yet; UnavailableError if that cannot be done."""
    if not contender.requirements:
        return
    directory = _directory(contender)
    done = directory / "installed.txt"
    wanted = "\n".join(contender.requirements)
    if done.exists() and done.read_text() == wanted:
        return
    shutil.rmtree(directory, ignore_errors=True)
    python = _python(contender)
    for command in (
        [python, "-m", "venv", str(directory)],
        [str(_interpreter(contender)), "-m", "pip", "install", "--quiet", *contender.requirements],
    ):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            last = result.stderr.strip().splitlines()[-1:]
            raise UnavailableError(f"{contender.name} cannot be installed: {''.join(last)}")
    done.write_text(wanted)


def _directory(contender: Contender) -> Path:
    """Return where it is installed: settings of the same peer share one."""
    return _CACHE / contender.module.removesuffix("_worker")


def _interpreter(contender: Contender) -> Path:
    return (
        _directory(contender) / "bin" / "python" if contender.requirements else Path(sys.executable)
    )


def _python(contender: Contender) -> str:
    """Return an interpreter that is new enough."""
    if sys.version_info[:2] >= contender.python:
        return sys.executable
    for candidate in _candidates(contender.python):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([candidate, "-c", ""], check=True, capture_output=True)
            return candidate
    wanted = ".".join(map(str, contender.python))
    raise UnavailableError(f"{contender.name} needs Python {wanted}, which is not installed here")


def _candidates(least: tuple[int, int]) -> Iterator[str]:
    major, minor = least
    for newer in range(minor, minor + 3):
        yield f"python{major}.{newer}"
        pyenv = Path("~/.pyenv/versions").expanduser()
        yield from map(str, sorted(pyenv.glob(f"{major}.{newer}.*/bin/python")))
