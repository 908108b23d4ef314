"""``redis://``, ``rediss://`` and ``redis+cluster://``: the log is one Redis Stream.

The Lua scripts beside this file decide and write; query.lua names every key. This module
speaks to them; ``records`` says in which form, ``connections`` over which way.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from time import monotonic
from typing import Any, ClassVar, Final, Self

import msgspec
from redis.exceptions import NoPermissionError, NoScriptError, RedisClusterException, ResponseError
from uuid_utils.compat import uuid4

from eventstore.backend import Backend, Capability, PageRequest
from eventstore.commit import (
    Accepted,
    Batch,
    EventKey,
    Outcome,
    Repeated,
    judge_repeat,
    position_beyond,
    twins_of,
)
from eventstore.encoding import from_microseconds
from eventstore.errors import (
    BatchTooLargeError,
    ConditionFailedError,
    ConfigurationError,
    CorruptLogError,
    StoreUnavailableError,
    UnsupportedOperationError,
    VersionConflictError,
)
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
from eventstore.reading import filters_nothing
from eventstore.url import Settings, as_integer
from eventstore_redis import facts
from eventstore_redis.connections import (
    Cluster,
    Command,
    Connections,
    Server,
    translated,
    translating,
)
from eventstore_redis.records import (
    MAX_SEQUENCE,
    Names,
    append_call,
    entity_name,
    events_in,
    events_of,
    find_call,
    read_call,
)

FORMAT: Final = 1
"""The format of keys and entries that this module reads and writes."""

_MAX_ARGUMENTS: Final = 1_000_000
"""To one command: Redis 6.2 takes 1,048,576."""
_MAX_BYTES: Final = 400_000_000
"""In one command: Redis drops a client that has sent 1 GB of one."""
_CHUNK: Final = 1000
"""Entries asked for at once, lest others wait long for the server."""

_ACCEPTED, _REPEAT, _VERSION_CONFLICT, _BEYOND, _MATCH, _AGAIN = range(6)
"""The outcomes of append.lua."""


class _Script:
    """A Lua script, known to the server by its digest."""

    def __init__(self, *names: str) -> None:
        here = files("eventstore_redis")
        self.text = "\n".join(here.joinpath(name).read_text("utf-8") for name in names)
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_APPEND: Final = _Script("query.lua", "append.lua")
_READ: Final = _Script("query.lua", "read.lua")
_FIND: Final = _Script("query.lua", "find.lua")
_OPEN: Final = _Script("open.lua")

Call = tuple[Sequence[str], Sequence[str | bytes | int]]
"""The keys and arguments of a script."""


class RedisBackend(Backend):
    """A log in one Redis Stream."""

    options: ClassVar[frozenset[str]] = frozenset({"replicas"})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._namespace = settings.namespace
        self._names = ("meta", "log", "times", "firsts")
        self._meta, self._log, self._times, _ = self._base_keys = Names(
            settings.namespace, *self._names
        ).keys
        replicas = settings.own_options.get("replicas", 0)
        self._replicas = as_integer("replicas", replicas, most=1000)
        self._log_id = ""
        self._least_writer = FORMAT
        self._facts: Mapping[str, str] = {}
        self._inherited: list[object] = []
        self._server: Connections | None = None
        self._making = threading.Lock()

    # --- Opening and closing

    @classmethod
    def open(cls, settings: Settings) -> Self:
        backend = cls(settings)
        try:
            backend._facts = backend._find_out()
            backend._open_log()
        except BaseException:
            backend.close()
            raise
        return backend

    @classmethod
    def drop(cls, settings: Settings) -> None:
        backend = cls(settings)
        try:
            backend._facts = backend._find_out()
            if backend._known(create=False):
                backend._remove()
        finally:
            backend.close()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def after_fork(self) -> None:
        self._inherited.append(self._server)
        self._server = None
        self._making = threading.Lock()

    @property
    def log_id(self) -> str:
        return self._log_id

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.MULTI_PROCESS, Capability.PERSISTENT})

    def durability_risks(self) -> Sequence[str]:
        risks: dict[str, None] = {}
        with translating(sent=False):
            for replies in self._connected().exchange_with_each(
                [("CONFIG", "GET", name) for name in facts.DURABILITY_SETTINGS] + [("INFO",)]
            ):
                risks.update(dict.fromkeys(facts.risks(replies)))
        return tuple(risks)

    def info(self) -> Mapping[str, str | int]:
        risks = self.durability_risks()
        return {
            "backend": "redis",
            "server": facts.server_name(self._facts),
            "durability": "every write is flushed" if not risks else "; ".join(risks),
            "replicas": self._replicas,
        }

    # --- Writing

    def commit(self, group: Sequence[Batch], timeout: float) -> Sequence[Outcome]:
        if self._least_writer > FORMAT:
            raise UnsupportedOperationError(
                f"append: the log is written in format {self._least_writer}, which this release"
                " only reads: install a newer eventstore-toolkit"
            )
        deadline = monotonic() + timeout
        rest = list(group)
        outcomes: list[Outcome] = []
        repeats: list[int] = []
        while rest:
            recorded_at, judged = self._append(rest, deadline)
            time = from_microseconds(int(recorded_at))
            for batch, (code, *details) in zip(rest, judged, strict=False):
                if code == _AGAIN:
                    break
                if code == _REPEAT:
                    repeats.append(len(outcomes))
                outcomes.append(_outcome(batch, code, details, time))
            rest = list(group[len(outcomes) :])
            if rest:
                rest[0] = self._looked_again(rest[0], judged[-1][1], deadline, bool(outcomes))
                group = [*group[: len(outcomes)], *rest]
        if repeats:
            self._judge_repeats(group, outcomes, repeats)
        return outcomes

    def _append(self, batches: Sequence[Batch], deadline: float) -> tuple[bytes, list[Any]]:
        call = append_call(self._namespace, self._log_id, batches)
        size = sum(batch.weight for batch in batches)
        if len(call[0]) + len(call[1]) > _MAX_ARGUMENTS or size > _MAX_BYTES:
            raise BatchTooLargeError(
                f"a batch of {len(batches[0].drafts)} events, about {size} bytes, is more than"
                " Redis takes in one command: append it in parts of some 10,000 events"
            )
        left = max(deadline - monotonic(), 0.001)
        reply, *confirmed = self._call(_APPEND, call, left, self._confirmation(left))
        if confirmed:
            self._check_confirmed(confirmed[0])
        recorded_at, judged = reply
        return recorded_at, judged

    def _confirmation(self, left: float) -> Sequence[Command]:
        """Return the command that waits for replicas; it must follow on the same connection."""
        if not self._replicas:
            return ()
        milliseconds = int(left * 600) + 1  # the reply may be 100 ms late, and must be heard
        if self._waits_for_flush:
            return [("WAITAOF", 1, self._replicas, milliseconds)]
        return [("WAIT", self._replicas, milliseconds)]

    @property
    def _waits_for_flush(self) -> bool:
        return facts.version(self._facts) >= (7, 2) and self._facts.get("aof_enabled") == "1"

    def _check_confirmed(self, confirmed: int | list[int]) -> None:
        replicas = confirmed[1] if isinstance(confirmed, list) else confirmed
        if replicas < self._replicas or (isinstance(confirmed, list) and not confirmed[0]):
            what = "flushed" if self._waits_for_flush else "received"
            raise StoreUnavailableError(
                f"replicas: {replicas} of {self._replicas} have {what} the append in time; it is"
                " stored, but a failover may lose it",
                may_have_written=True,
            )

    def _looked_again(self, batch: Batch, head: int, deadline: float, written: bool) -> Batch:
        """Return a batch whose condition has been looked into up to ``head``: too much was new
        to do so in the script."""
        condition = batch.condition
        assert condition is not None  # noqa: S101 - only a condition is looked into
        if monotonic() > deadline:
            raise StoreUnavailableError(
                "condition: events come faster than it can be looked into",
                may_have_written=written,
            )
        news = self.read(
            PageRequest(query=condition.query, after=condition.checked_to, up_to=head, limit=1)
        )
        looked = msgspec.structs.replace(
            condition, checked_to=head, match=news[0].sequence if news else 0
        )
        return msgspec.structs.replace(batch, condition=looked)

    def _judge_repeats(
        self, group: Sequence[Batch], outcomes: list[Outcome], repeats: Iterable[int]
    ) -> None:
        for place in repeats:
            batch = group[place]
            verdict = judge_repeat(batch, twins_of(self.find(batch.keys)))
            if verdict is None:
                raise CorruptLogError("an event id is in the index but its event is not there")
            outcomes[place] = verdict

    # --- Reading

    def read(self, page: PageRequest) -> list[Event]:
        query = page.query
        after = max(page.after, query.from_sequence or 0)
        ends = [end for end in (page.up_to, query.to_sequence) if end is not None]
        page = msgspec.structs.replace(page, after=after, up_to=min(ends, default=None))
        if after > MAX_SEQUENCE:
            return []
        whole = page.order_by == "sequence" and not page.offset and not page.above_version
        if whole and filters_nothing(query.replace(from_sequence=None, to_sequence=None)):
            return self._range(page)
        return self._pages(page)

    def _range(self, page: PageRequest) -> list[Event]:
        """Return a page without a filter: plain ranges of the stream."""
        events: list[Event] = []
        low = page.after + 1
        high: int | str = "+" if page.up_to is None else page.up_to
        while len(events) < page.limit and (high == "+" or low <= int(high)):
            count = min(page.limit - len(events), _CHUNK)
            way = ("XRANGE", self._log, low, high)
            back = ("XREVRANGE", self._log, high, low)
            (entries,) = self._ask((*(way if page.ascending else back), "COUNT", count))
            events += events_of(entries)
            if len(entries) < count:
                break
            if page.ascending:
                low = events[-1].sequence + 1
            else:
                high = events[-1].sequence - 1
        return events

    def _pages(self, page: PageRequest, *, firsts: bool = False) -> list[Event]:
        """Return the events of a page: in one call, unless the filter takes few of many."""
        found: list[Event] = []
        resume = ""
        while True:
            head, resumed, offset, _, texts = self._read(page, resume, firsts=firsts)
            events = events_in(texts)
            found += events
            if not resumed:
                return found
            # The log as the first call saw it; what it has skipped and found is behind.
            page = _beyond(page, resumed, head, offset, len(events))
            resume = resumed.decode() if page.order_by == "timestamp" else ""

    def _read(self, page: PageRequest, resume: str, **what: bool) -> Any:
        return self._call(_READ, read_call(self._namespace, page, resume, **what))[0]

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        events: list[Event] = []
        for start in range(0, len(keys), _CHUNK):
            call = find_call(self._namespace, keys[start : start + _CHUNK])
            events += events_in(self._call(_FIND, call)[0])
        return events

    def count(self, query: EventQuery) -> int:
        after = query.from_sequence or 0
        rest = query.replace(from_sequence=None, to_sequence=None)
        if filters_nothing(rest):
            head = self.head()
            to = head if query.to_sequence is None else min(query.to_sequence, head)
            return max(to - after, 0)
        page = PageRequest(query=rest, limit=1, after=after, up_to=query.to_sequence)
        total: int = 0
        while True:
            head, resumed, _, count, _ = self._read(page, "", count=True)
            total += count
            if not resumed:
                return total
            page = _beyond(page, resumed, head, 0, 0)

    def head(self) -> int:
        return int(self._ask(("XLEN", self._log))[0])

    def version(self, entity: Entity) -> int:
        (key,) = Names(self._namespace, entity_name(entity)).keys
        (length,) = self._ask(("LLEN", key))
        return int(length)

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        query = EventQuery(entity_type=entity_type, tenant_id=tenant_id)
        page = PageRequest(query=query, limit=limit, offset=offset, ascending=False)
        return [event.entity for event in self._pages(page, firsts=True)]

    # --- Waiting

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        block = max(int(timeout * 1000), 1)
        command = ("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", self._log, after)
        self._ask(command, timeout=timeout + self._settings.timeout)

    # --- Speaking with the server

    def _connect(self) -> Connections:
        if self._settings.scheme == "redis+cluster":
            return Cluster(self._settings, self._meta)
        return Server.at(self._settings)

    def _connected(self) -> Connections:
        if self._server is None:
            with self._making, translating(sent=False):
                self._server = self._server or self._connect()
        return self._server

    def _ask(self, *commands: Command, timeout: float | None = None) -> list[Any]:
        """Return the replies to commands that change nothing."""
        with translating(sent=False):
            return _checked(self._connected().exchange(commands, timeout))

    def _call(
        self,
        script: _Script,
        call: Call,
        timeout: float | None = None,
        following: Sequence[Command] = (),
    ) -> list[Any]:
        """Return the reply of a script, and those to the commands that follow it."""
        keys, arguments = call
        if timeout is not None and timeout > self._settings.timeout * 0.9:
            timeout = None  # the sockets' own will do
        server = self._connected()
        with translating(sent=script is _APPEND):
            command = ("EVALSHA", script.digest, len(keys), *keys, *arguments)
            replies = server.exchange([command, *following], timeout)
            if isinstance(replies[0], NoScriptError):  # the server restarted, or forgot
                command = ("EVAL", script.text, len(keys), *keys, *arguments)
                replies = server.exchange([command, *following], timeout)
            return _checked(replies)

    # --- What is there

    def _find_out(self) -> Mapping[str, str]:
        """Return INFO; ConfigurationError where this server cannot hold a log."""
        clustered = self._settings.scheme == "redis+cluster"
        try:
            server = self._connected()
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, RedisClusterException) and "not enabled" in str(error):
                raise ConfigurationError(
                    "url: this server is no node of a cluster: use redis:// or rediss://"
                ) from error
            raise
        with translating(sent=False):
            (reply,) = server.exchange([("INFO",)], None)
        if isinstance(reply, ResponseError):
            if isinstance(reply, NoPermissionError):
                return {}  # this user may not ask
            raise translated(reply, sent=False) from reply
        told = facts.parsed(reply)
        if facts.version(told) < (6, 2):
            raise ConfigurationError(
                f"url: the server is {facts.server_name(told)}, but at least Redis 6.2 is needed"
            )
        if not clustered and told.get("redis_mode", told.get("server_mode")) == "cluster":
            raise ConfigurationError(
                "url: this server is a node of a cluster: use redis+cluster://"
            )
        return told

    def _open_log(self) -> None:
        known = self._known(create=self._settings.create)
        if not known:
            raise ConfigurationError(
                f"namespace: there is no log {self._namespace!r} here, and create=false"
            )
        log_id, least_reader, least_writer, dropping = known
        if dropping:
            raise ConfigurationError(
                f"namespace: {self._namespace!r} was being dropped, but not to the end: drop it"
                " again"
            )
        if int(least_reader) > FORMAT:
            raise ConfigurationError(
                f"namespace: the log {self._namespace!r} needs a release that reads format"
                f" {int(least_reader)}, this one reads up to {FORMAT}"
            )
        self._log_id = log_id.decode()
        self._least_writer = int(least_writer)

    def _known(self, *, create: bool) -> list[Any]:
        """Return what open.lua tells of the log."""
        call: Call = (self._base_keys, [int(create), str(uuid4()), FORMAT, FORMAT])
        try:
            known: list[Any] = self._call(_OPEN, call)[0]
        except StoreUnavailableError as error:
            foreign = re.search(r"FOREIGN (\S+)", str(error))
            if foreign is None:
                raise
            raise ConfigurationError(
                f"namespace: the key {foreign[1]} is there and is not of a log of this package:"
                " choose another namespace or database"
            ) from error
        return known

    def _remove(self) -> None:
        # What a crash leaves of a log that is half removed must not become part of a new one.
        self._ask(("HSET", self._meta, "dropping", 1), ("HDEL", self._meta, "log_id"))
        cursor: bytes | int = 0
        while True:
            pattern = self._meta.removesuffix("meta") + "*"
            ((cursor, keys),) = self._ask(("SCAN", cursor, "MATCH", pattern, "COUNT", 1000))
            keys = [key for key in keys if key != self._meta.encode()]
            if keys:
                self._ask(("UNLINK", *keys))
            if not int(cursor):
                break
        self._ask(("UNLINK", self._meta))


def _outcome(batch: Batch, code: int, details: list[int], recorded_at: Any) -> Outcome:
    if code == _ACCEPTED:
        return Accepted(batch.drafts, details[0], details[1:], recorded_at)
    if code == _REPEAT:
        return Repeated(())  # in its place until the twins are compared
    if code == _VERSION_CONFLICT:
        entity, expected = batch.expected[details[0]]
        return VersionConflictError(
            entity_type=entity.entity_type,
            entity_id=entity.entity_id,
            tenant_id=entity.tenant_id,
            expected_version=expected,
            actual_version=details[1],
        )
    condition = batch.condition
    assert condition is not None  # noqa: S101 - the other outcomes are about one
    if code == _BEYOND:
        return position_beyond("condition.after", condition.after)
    return ConditionFailedError(condition=condition.asked, sequence=details[0])


def _beyond(page: PageRequest, resumed: bytes, head: int, offset: int, found: int) -> PageRequest:
    """Return what is left of a page after a call that stopped early."""
    up_to = head if page.up_to is None else min(page.up_to, head)
    page = msgspec.structs.replace(page, up_to=up_to, offset=offset, limit=page.limit - found)
    if page.order_by == "timestamp":
        return page
    if page.ascending:
        return msgspec.structs.replace(page, after=int(resumed))
    return msgspec.structs.replace(page, up_to=int(resumed) - 1)


def _checked(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies
