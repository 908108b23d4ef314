"""Reading a repository's commits with the ``git`` command, as a stream."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple


class GitError(Exception):
    """Git, or the repository, cannot do what is needed; the message is for people."""


class Change(NamedTuple):
    """What a commit did to one file."""

    status: str
    path: bytes
    old_path: bytes | None
    lines: tuple[int, int] | None
    """Inserted and deleted; None for a binary file."""


class Commit(NamedTuple):
    """A commit as ``git log`` tells it."""

    sha: str
    parents: list[str]
    author: str
    email: str
    authored: datetime
    committed: datetime
    subject: str
    changes: list[Change]


class Repository:
    """A git repository, read through the ``git`` command."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.root = Path(self._ask("rev-parse", "--absolute-git-dir"))
        if self._ask("rev-parse", "--is-bare-repository") == "false":
            self.root = Path(self._ask("rev-parse", "--show-toplevel"))
        if not self.holds("HEAD"):
            raise GitError(f"{self.root} has no commits yet: make one and run this again")
        shallow = path / self._ask("rev-parse", "--git-path", "shallow")
        self.boundary = set(shallow.read_text().split()) if shallow.exists() else set()
        """Where a shallow clone begins: commits whose parents are not here."""

    def holds(self, revision: str) -> bool:
        """Return whether there is such a commit."""
        return self._run("rev-parse", "--quiet", "--verify", revision + "^{commit}").returncode == 0

    def count(self, revisions: list[str]) -> int:
        """Return how many commits ``commits`` would yield."""
        return int(self._ask("rev-list", "--count", *revisions))

    def commits(self, revisions: list[str]) -> Iterator[Commit]:
        """Yield commits as git finds them, parents before children."""
        # Whatever a user may have configured, a commit must always read the same.
        command = self._command(
            *("-c", "log.showSignature=false", "-c", "log.showRoot=true"),
            *("-c", "diff.algorithm=myers", "-c", "diff.renameLimit=1000"),
            *("log", "--reverse", "--date-order", "-z", "--raw", "--numstat", "--find-renames"),
            *("--no-abbrev", "--no-color", "--no-ext-diff", "--no-textconv", "--no-mailmap"),
            *(
                "--no-notes",
                "--encoding=UTF-8",
                "--format=%x01%H%x00%P%x00%an%x00%ae%x00%at%x00%ct",
            ),
        )
        command[-1] += "%x00%s"
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(  # noqa: S603 - git itself, and no shell
                [*command, *revisions, "--"],
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=self._environment,
            ) as process,
        ):
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            try:
                yield from parse_log(split_at_nul(process.stdout))
            except GeneratorExit:
                process.kill()
                raise
            if process.wait() != 0:
                complaints.seek(0)
                raise GitError(f"git log failed: {_last_line(complaints.read())}")

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"LC_ALL": "C", "GIT_NO_REPLACE_OBJECTS": "1"}

    def _command(self, *arguments: str) -> list[str]:
        return ["git", "-C", str(self._path), *arguments]

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(  # noqa: S603 - git itself, and no shell
                self._command(*arguments), capture_output=True, env=self._environment, check=False
            )
        except FileNotFoundError:
            raise GitError("git was not found: install it, or put it on the PATH") from None

    def _ask(self, *arguments: str) -> str:
        answer = self._run(*arguments)
        if answer.returncode != 0:
            raise GitError(f"{self._path} cannot be read: {_last_line(answer.stderr)}")
        return os.fsdecode(answer.stdout.removesuffix(b"\n"))


def split_at_nul(stream: Any) -> Iterator[bytes]:
    """Yield what stands between NUL bytes."""
    rest = b""
    while chunk := stream.read1(1 << 16):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole


def parse_log(tokens: Iterator[bytes]) -> Iterator[Commit]:
    """Yield the commits in the output of ``git log -z --raw --numstat``.

    A commit is seven fields, then for each file a ``:modes … status`` with one path or two,
    then for each file its line counts.
    """
    commit: Commit | None = None
    places: dict[bytes, int] = {}
    for raw_token in tokens:
        token = raw_token.lstrip(b"\n")
        if token.startswith(b"\x01"):
            if commit is not None:
                yield commit
            commit = _commit(token[1:], *islice(tokens, 6))
            places = {}
        elif commit is not None and token.startswith(b":"):
            status = chr(token.rsplit(b" ", 1)[1][0])
            path = next(tokens)
            old_path = None
            if status == "R":
                old_path, path = path, next(tokens)
            places[path] = len(commit.changes)
            commit.changes.append(Change(status, path, old_path, None))
        elif commit is not None and token:
            inserted, deleted, path = token.split(b"\t", 2)
            if not path:  # a rename: both paths follow
                _, path = next(tokens), next(tokens)
            if inserted != b"-":
                place = places[path]
                lines = int(inserted), int(deleted)
                commit.changes[place] = commit.changes[place]._replace(lines=lines)
    if commit is not None:
        yield commit


def _commit(*fields: bytes) -> Commit:
    sha, parents, name, email, at, ct, subject = fields
    return Commit(
        sha=sha.decode(),
        parents=parents.decode().split(),
        author=text_of(name),
        email=text_of(email),
        authored=_time(at),
        committed=_time(ct),
        subject=text_of(subject),
        changes=[],
    )


def text_of(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _time(seconds: bytes) -> datetime:
    """Return the time; git allows what no calendar has."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _last_line(output: bytes) -> str:
    return (text_of(output).strip().splitlines() or ["no reason given"])[-1]
