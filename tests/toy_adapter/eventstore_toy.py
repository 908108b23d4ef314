"""``toy:///folder``: each log a file of JSON lines, one line a commit.

What a third party's adapter looks like. The file is the truth: a line that ends is a commit
that stands, and a line that does not is what a crash left, to be overwritten. Each process
keeps what it has read in memory and reads on from there. Writers take turns by a file lock, so
many processes may share a log (on a local file system of a POSIX machine).
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self
from uuid import uuid4

import msgspec

from eventstore import (
    Capability,
    ConfigurationError,
    CorruptLogError,
    Entity,
    Event,
    EventQuery,
    LogReplacedError,
    StoreUnavailableError,
)
from eventstore.backend import (
    Accepted,
    Backend,
    Batch,
    Draft,
    EventKey,
    Found,
    Identity,
    Outcome,
    PageRequest,
    Settings,
    plan_over,
)

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[Accepted]).decode


class _Record(NamedTuple):
    """An event in the log, still encoded."""

    batch: Accepted
    place: int

    @property
    def draft(self) -> Draft:
        return self.batch.drafts[self.place]

    @property
    def sequence(self) -> int:
        return self.batch.first_sequence + self.place

    @property
    def version(self) -> int:
        return self.batch.versions[self.place]

    @property
    def time_key(self) -> tuple[datetime, int]:
        return self.draft.timestamp, self.sequence

    def event(self) -> Event:
        return self.batch.event(self.place)


class _View:
    """What the planner asks for, while this process is the only writer."""

    def __init__(self, backend: ToyBackend, records: list[_Record]) -> None:
        self._backend = backend
        self._records = records

    def head(self) -> tuple[int, datetime | None]:
        records = self._records
        return len(records), records[-1].batch.recorded_at if records else None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def versions(self, entities: Collection[Entity]) -> Mapping[Entity, int]:
        return {entity: self._backend.latest_version(entity) for entity in entities}

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        return self._backend.found_among_read(keys)

    def first_match(self, query: EventQuery, after: int, up_to: int) -> int:
        matches = (
            each for each in self._records[after:up_to] if query.takes(each.draft, each.sequence)
        )
        return next((each.sequence for each in matches), 0)


class ToyBackend(Backend):
    """A log in a file of JSON lines."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._lock = threading.Lock()
        """Guards what follows: what was read from the file so far."""
        self._log_id = ""
        self._offset = 0
        self._records: list[_Record] = []
        self._by_identity: dict[Identity, _Record] = {}
        self._latest: dict[Entity, _Record] = {}
        """In the order of the entities' first events."""

    # --- Opening and closing

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        if not settings.path.startswith("/"):
            raise ConfigurationError("url: must name a folder by its whole path: toy:///folder")
        return cls(Path(settings.path, f"{settings.namespace}.jsonl"), settings.timeout)

    def look(self) -> Found | None:
        if not self._path.exists():
            return None
        self._up_to_date()
        # Of the only format there is; no first line where its maker was killed.
        return Found(self._log_id, 1, 1) if self._log_id else None

    def make(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        with self._exclusive(self._timeout) as file:
            if not file.readline().endswith(b"\n"):
                file.seek(0)
                file.truncate()
                _write_durably(file, str(uuid4()).encode() + b"\n")

    def remove(self) -> bool:
        was_there = self._path.exists()
        self._path.unlink(missing_ok=True)
        return was_there

    def close(self) -> None:
        pass  # no file stays open between calls

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.MULTI_PROCESS, Capability.PERSISTENT})

    def info(self) -> Mapping[str, str | int]:
        return {"backend": "toy", "server": "none", "size_bytes": self._path.stat().st_size}

    # --- Writing

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        with self._exclusive(timeout) as file:
            records = self._up_to_date()
            planned = plan_over(_View(self, records), group)
            if planned.accepted:
                file.seek(self._offset)
                file.truncate()  # what a crash left
                _write_durably(file, _encode(planned.accepted) + b"\n")
        return planned.outcomes

    @contextmanager
    def _exclusive(self, timeout: float) -> Iterator[BinaryIO]:
        """Open the file as its only writer."""
        deadline = time.monotonic() + timeout
        with self._opened() as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise StoreUnavailableError(
                            f"timed out waiting for another writer of {self._path}"
                        ) from error
                time.sleep(0.001)
            try:
                yield file
            finally:  # closing would not do: a process forked meanwhile has the file open too
                fcntl.flock(file, fcntl.LOCK_UN)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            file = self._path.open("r+b", buffering=0)
        except FileNotFoundError as error:
            raise self._replaced() from error
        except OSError as error:
            raise StoreUnavailableError(f"cannot open {self._path}: {error.strerror}") from error
        with file:
            if self._log_id and file.readline().decode() != f"{self._log_id}\n":
                raise self._replaced()
            file.seek(0)
            yield file

    def _replaced(self) -> LogReplacedError:
        return LogReplacedError(
            f"the log {self._path} was removed or replaced while this store was open: open it anew"
        )

    # --- Reading

    def _up_to_date(self) -> list[_Record]:
        """Read what was committed since; return the records, which only ever grow."""
        with self._lock:
            with self._opened() as file:
                file.seek(self._offset)
                # What follows the last line's end is being written, or was left by a crash.
                *lines, _ = file.read().split(b"\n")
            for line in lines:
                if not self._log_id:
                    self._log_id = line.decode()
                else:
                    self._take(line)
                self._offset += len(line) + 1
            return self._records

    def _take(self, line: bytes) -> None:
        """Remember a commit. Harmless when repeated, since an interrupt may have ended it."""
        try:
            batches = _decode(line)
        except msgspec.DecodeError as error:
            raise CorruptLogError(f"{self._path} has an unreadable line: {error}") from error
        for batch in batches:
            for place, draft in enumerate(batch.drafts):
                record = _Record(batch, place)
                self._by_identity[draft.identity] = record
                self._latest[draft.entity] = record
                if record.sequence > len(self._records):
                    self._records.append(record)

    def latest_version(self, entity: Entity) -> int:
        latest = self._latest.get(entity)
        return latest.version if latest else 0

    def read(self, page: PageRequest) -> list[Event]:
        records = self._up_to_date()[page.after : page.up_to]
        if page.order_by == "timestamp":
            records.sort(key=lambda record: record.time_key)
        if not page.ascending:
            records.reverse()
        matches = (record for record in records if _is_on(page, record))
        return [record.event() for record in islice(matches, page.offset, page.offset + page.limit)]

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        self._up_to_date()
        return self.found_among_read(keys)

    def found_among_read(self, keys: Sequence[EventKey]) -> list[Event]:
        identities = ((tenant_id, event_id.bytes) for tenant_id, event_id in keys)
        records = map(self._by_identity.get, identities)
        return [record.event() for record in records if record is not None]

    def count(self, query: EventQuery) -> int:
        return sum(query.takes(each.draft, each.sequence) for each in self._up_to_date())

    def head(self) -> int:
        return len(self._up_to_date())

    def version(self, entity: Entity) -> int:
        self._up_to_date()
        return self.latest_version(entity)

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        self._up_to_date()
        with self._lock:
            entities = [
                entity
                for entity in reversed(self._latest)
                if entity_type in (None, entity.entity_type)
                and tenant_id in (None, entity.tenant_id)
            ]
        return entities[offset : offset + limit]


def _write_durably(file: BinaryIO, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _is_on(page: PageRequest, record: _Record) -> bool:
    if record.version <= page.above_version:
        return False
    if page.resume is not None:
        ahead = record.time_key > page.resume if page.ascending else record.time_key < page.resume
        if not ahead:
            return False
    return page.query.takes(record.draft, record.sequence)
