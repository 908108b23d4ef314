"""``redis://``, ``rediss://`` and ``redis+cluster://``: the log is one Redis Stream.

The Lua scripts beside this file decide and write; query.lua names every key. This module
speaks to them; ``records`` says in which form, ``connections`` over which way.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import islice
from typing import Any, ClassVar, Final, Self

import msgspec
from redis.exceptions import NoPermissionError, NoScriptError, RedisClusterException, ResponseError
from uuid_utils.compat import uuid4

from eventstore.backend import (
    INSTANT,
    Accepted,
    AnotherPastError,
    Backend,
    Batch,
    Capability,
    EventKey,
    Outcome,
    PageRequest,
    Repeated,
    Settings,
    as_integer,
    deadline,
    from_microseconds,
    judge_repeat,
    position_beyond,
    time_left,
    twins_of,
)
from eventstore.errors import (
    BatchTooLargeError,
    ConditionFailedError,
    ConfigurationError,
    EventStoreError,
    LogReplacedError,
    StoreUnavailableError,
    UnsupportedOperationError,
    VersionConflictError,
)
from eventstore.event import Entity, Event
from eventstore.query import EventQuery
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
    for_one_call,
    read_call,
    rough,
    witness_in,
)

FORMAT: Final = 1
"""The format of keys and entries that this module reads and writes."""

_MAX_ARGUMENTS: Final = 1_000_000
"""To one command: Redis 6.2 takes 1,048,576."""
_MAX_BYTES: Final = 400_000_000
"""In one command: Redis drops a client that has sent 1 GB of one."""
_CHUNK: Final = 1000
"""Entries asked for at once, lest others wait long for the server."""

_ACCEPTED, _REPEAT, _VERSION_CONFLICT, _BEYOND, _MATCH, _ANOTHER_PAST, _AGAIN = range(7)
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
_DROP: Final = _Script("drop.lua")

_NOTHING_YET: Final = Repeated(())
"""The outcome of a repeat until it is compared with what is recorded."""

_GONE: Final = re.compile(r"\bGONE\b")

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
        self._forbidden = ""
        """A command that appends need and that this user may not use."""
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
    def drop(cls, settings: Settings) -> bool:
        backend = cls(settings)
        try:
            backend._facts = backend._find_out()
            known = backend._known(create=False)
            if known:
                log_id, _, _, mark, *_ = known
                backend._remove(mark or log_id)
            return bool(known)
        finally:
            backend.close()

    def close(self) -> None:
        if self._server is not None:
            self._server.close(self._settings.timeout)

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
        if self._forbidden:
            raise ConfigurationError(
                f"url: the server refuses {self._forbidden} to this user, and appends need it"
            )
        with deadline(timeout):
            outcomes = self._commit(list(group))
            for place, outcome in enumerate(outcomes):
                if outcome is _NOTHING_YET:
                    outcomes[place] = self._judged_repeat(group[place])
            return outcomes

    def _commit(self, rest: list[Batch]) -> list[Outcome]:
        """Return the outcomes of batches, judged in one call of the script unless it asks for
        another look or their conditions are large; once something may be stored, no error says
        of all that nothing is."""
        outcomes: list[Outcome] = []
        while True:
            try:
                now = for_one_call(rest)
                recorded_at, judged = self._append(now)
            except EventStoreError as error:
                if not outcomes:
                    raise
                return outcomes + [_after_others(error) for _ in rest]
            time = from_microseconds(int(recorded_at))
            for batch, (code, *details) in zip(now, judged, strict=False):
                if code != _AGAIN:
                    outcomes.append(_outcome(batch, code, details, time))
            code, *details = judged[-1]
            rest = rest[len(judged) - (code == _AGAIN) :]
            if code == _AGAIN:
                try:
                    rest[0] = self._looked_again(rest[0], *details)
                except EventStoreError as error:
                    if not outcomes:
                        raise
                    return outcomes + [_after_others(error) for _ in rest]
            if not rest:
                return outcomes

    def _append(self, batches: Sequence[Batch]) -> tuple[bytes, list[Any]]:
        call = append_call(self._namespace, self._log_id, batches)
        size = sum(batch.weight for batch in batches)
        if len(call[0]) + len(call[1]) > _MAX_ARGUMENTS or size > _MAX_BYTES:
            raise BatchTooLargeError(
                f"a batch of {len(batches[0].drafts)} events, about {size} bytes, is more than"
                " Redis takes in one command: append it in parts of some 10,000 events"
            )
        reply, *confirmed = self._call(_APPEND, call, self._confirmation)
        if confirmed:
            self._check_confirmed(confirmed[0])
        recorded_at, judged = reply
        return recorded_at, judged

    def _confirmation(self) -> Sequence[Command]:
        """Return the command that waits for replicas; it must follow on the same connection."""
        if not self._replicas:
            return ()
        milliseconds = int(self._patience * 600) + 1  # it may be 100 ms late, and must be heard
        if self._waits_for_flush:
            return [("WAITAOF", 1, self._replicas, milliseconds)]
        return [("WAIT", self._replicas, milliseconds)]

    @property
    def _waits_for_flush(self) -> bool:
        return facts.version(self._facts) >= (7, 2) and self._facts.get("aof_enabled") == "1"

    def _check_confirmed(self, confirmed: int | list[int] | ResponseError) -> None:
        if isinstance(confirmed, ResponseError):
            raise StoreUnavailableError(
                f"replicas: the server does not tell who has the append ({confirmed}); it is"
                " stored, but a failover may lose it",
                may_have_written=True,
                transient=not isinstance(confirmed, NoPermissionError),
            ) from confirmed
        replicas = confirmed[1] if isinstance(confirmed, list) else confirmed
        if replicas < self._replicas or (isinstance(confirmed, list) and not confirmed[0]):
            what = "flushed" if self._waits_for_flush else "received"
            raise StoreUnavailableError(
                f"replicas: {replicas} of {self._replicas} have {what} the append in time; it is"
                " stored, but a failover may lose it",
                may_have_written=True,
            )

    def _looked_again(self, batch: Batch, head: int, witness: bytes) -> Batch:
        """Return a batch whose condition has been looked into up to ``head``: too much was new
        to do so in the script."""
        condition = batch.condition
        assert condition is not None  # noqa: S101 - only a condition is looked into
        if time_left(self._settings.timeout) <= INSTANT:
            raise StoreUnavailableError("condition: events come faster than it can be looked into")
        news = self.read(
            PageRequest(query=condition.query, after=condition.checked_to, up_to=head, limit=1)
        )
        looked = msgspec.structs.replace(
            condition,
            checked_to=head,
            witness=witness_in(witness),
            match=news[0].sequence if news else 0,
        )
        return msgspec.structs.replace(batch, condition=looked)

    def _judged_repeat(self, batch: Batch) -> Outcome:
        try:
            verdict = judge_repeat(batch, twins_of(self.find(batch.keys)))
        except EventStoreError as error:  # its own: the others of its group stand
            return _after_others(error)
        if verdict is None:  # nor is it in the index any more
            return StoreUnavailableError(
                "the log was put back to an older copy meanwhile", may_have_written=True
            )
        return verdict

    # --- Reading

    def read(self, page: PageRequest) -> list[Event]:
        query = page.query
        after = max(page.after, query.after)
        ends = [end for end in (page.up_to, query.to_sequence) if end is not None]
        page = msgspec.structs.replace(page, after=after, up_to=min(ends, default=None))
        if after > MAX_SEQUENCE:
            return []
        whole = page.order_by == "sequence" and not page.offset and not page.above_version
        if whole and query.replace(from_sequence=None, to_sequence=None).filters_nothing:
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
            entries = self._of_log((*(way if page.ascending else back), "COUNT", count))
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
        if rough(page.query) is not page.query:
            return list(islice(self._sifted(page), page.offset, page.offset + page.limit))
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

    def _sifted(self, page: PageRequest) -> Iterator[Event]:
        """Yield what matches a query too large for a script: the server sifts roughly, and what
        is left is sifted here."""
        query = page.query
        up_to = self.head() if page.up_to is None else page.up_to
        page = msgspec.structs.replace(
            page, query=rough(query), up_to=up_to, offset=0, limit=_CHUNK
        )
        while True:
            if time_left(self._settings.timeout) <= INSTANT:
                raise StoreUnavailableError("query: looking for what matches takes too long")
            events = self._pages(page)
            yield from (event for event in events if query.takes(event, event.sequence))
            if len(events) < _CHUNK:
                return
            last = events[-1]
            if page.order_by == "timestamp":
                page = msgspec.structs.replace(page, resume=(last.timestamp, last.sequence))
            elif page.ascending:
                page = msgspec.structs.replace(page, after=last.sequence)
            else:
                page = msgspec.structs.replace(page, up_to=last.sequence - 1)

    def _read(self, page: PageRequest, resume: str, **what: bool) -> Any:
        call = read_call(self._namespace, self._log_id, page, resume, **what)
        return self._call(_READ, call)[0]

    def find(self, keys: Sequence[EventKey]) -> list[Event]:
        events: list[Event] = []
        start = 0
        while start < len(keys):
            call = find_call(self._namespace, self._log_id, keys[start : start + _CHUNK])
            looked, texts = self._call(_FIND, call)[0]
            events += events_in(texts)
            start += looked
        return events

    def count(self, query: EventQuery) -> int:
        after = query.after
        rest = query.replace(from_sequence=None, to_sequence=None)
        if rest.filters_nothing:
            head = self.head()
            to = head if query.to_sequence is None else min(query.to_sequence, head)
            return max(to - after, 0)
        page = PageRequest(query=rest, limit=1, after=after, up_to=query.to_sequence)
        if rough(rest) is not rest:
            return sum(1 for _ in self._sifted(page))
        total: int = 0
        while True:
            head, resumed, _, count, _ = self._read(page, "", count=True)
            total += count
            if not resumed:
                return total
            page = _beyond(page, resumed, head, 0, 0)

    def head(self) -> int:
        return int(self._of_log(("XLEN", self._log)))

    def version(self, entity: Entity) -> int:
        (key,) = Names(self._namespace, entity_name(entity)).keys
        return int(self._of_log(("LLEN", key)))

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> list[Entity]:
        query = EventQuery(entity_type=entity_type, tenant_id=tenant_id)
        page = PageRequest(query=query, limit=limit, offset=offset, ascending=False)
        return [event.entity for event in self._pages(page, firsts=True)]

    # --- Waiting

    def wait(self, after: int, timeout: float, nap: Callable[[float], None]) -> None:
        block = max(int(min(timeout, self._patience / 2) * 1000), 1)
        self._ask(("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", self._log, after))

    # --- Speaking with the server

    def _connect(self) -> Connections:
        if self._settings.scheme == "redis+cluster":
            return Cluster(self._settings, self._meta)
        return Server.at(self._settings)

    def _connected(self) -> Connections:
        if self._server is None:
            with self._first_come(), translating(sent=False):
                self._server = self._server or self._connect()
        return self._server

    @contextmanager
    def _first_come(self) -> Iterator[None]:
        """Let one thread connect; the others wait for it as long as they may."""
        if not self._making.acquire(timeout=time_left(self._settings.timeout)):
            raise StoreUnavailableError("the server did not answer: another thread still connects")
        try:
            yield
        finally:
            self._making.release()

    @property
    def _patience(self) -> float:
        """How many seconds a reply may take."""
        return time_left(min(self._settings.timeout, self._connected().reply_seconds))

    def _ask(self, *commands: Command) -> list[Any]:
        """Return the replies to commands that change nothing."""
        with translating(sent=False):
            replies = self._connected().exchange(commands)
            for reply in replies:
                self._check(reply)
            return replies

    def _of_log(self, command: Command) -> Any:
        """Return the reply to a command that reads the log which was opened.

        Whether it still is that one is asked after it, in the same round trip: so nothing took
        its place before.
        """
        reply, log_id = self._ask(command, ("HGET", self._meta, "log_id"))
        if log_id is None or log_id.decode() != self._log_id:
            raise self._replaced()
        return reply

    def _call(
        self, script: _Script, call: Call, following: Callable[[], Sequence[Command]] = tuple
    ) -> list[Any]:
        """Return the reply of a script, and those to the commands that follow it, which may be
        errors."""
        keys, arguments = call
        server = self._connected()
        with translating(sent=script is _APPEND):
            command = ("EVALSHA", script.digest, len(keys), *keys, *arguments)
            replies = server.exchange([command, *following()])
            if isinstance(replies[0], NoScriptError):  # the server restarted, or forgot
                command = ("EVAL", script.text, len(keys), *keys, *arguments)
                replies = server.exchange([command, *following()])
            self._check(replies[0])
            return replies

    def _check(self, reply: Any) -> None:
        if isinstance(reply, ResponseError):
            raise self._replaced() if _GONE.search(str(reply)) else reply

    def _replaced(self) -> LogReplacedError:
        return LogReplacedError(
            f"the log {self._namespace!r} was removed or replaced while this store was open: open"
            " it anew"
        )

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
            (reply,) = server.exchange([("INFO",)])
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
                f"{self._settings.safe_url}: has no log {self._namespace!r}; make it with"
                " `eventstore init`, or open it without create=false"
            )
        log_id, least_reader, least_writer, dropping, *forbidden = known
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
        self._forbidden = forbidden[0].decode() if forbidden else ""
        if self._replicas:
            # Or the first append would wait for replicas twice, the first time for nothing.
            with translating(sent=False):
                self._connected().exchange([("SCRIPT", "LOAD", _APPEND.text)])

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

    def _remove(self, mark: bytes) -> None:
        self._ask(("SCAN", 0, "COUNT", 1))  # a right that must not turn out missing halfway
        prefix = self._prefix
        cursor: bytes | int = 0
        there = self._begin_removal(mark)
        while there:
            ((cursor, keys),) = self._ask(("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", _CHUNK))
            keys = [key.decode() for key in keys if key != self._meta.encode()]
            there = self._call(_DROP, ((self._meta, *keys), (mark,)))[0]
            if not int(cursor):
                break
        if there:
            self._call(_DROP, ((self._meta, self._meta), (mark,)))

    def _begin_removal(self, mark: bytes) -> bool:
        """Mark the log as being dropped; return whether it is there."""
        return bool(self._call(_DROP, ((self._meta, self._prefix), (mark,)))[0])

    @property
    def _prefix(self) -> str:
        """What all keys of the log begin with, and none is."""
        return self._meta.removesuffix("meta")


def _outcome(batch: Batch, code: int, details: list[int], recorded_at: Any) -> Outcome:
    if code == _ACCEPTED:
        return Accepted(batch.drafts, details[0], details[1:], recorded_at)
    if code == _REPEAT:
        return _NOTHING_YET
    if code == _VERSION_CONFLICT:
        entity, expected = batch.expected[details[0]]
        return VersionConflictError(
            entity_type=entity.entity_type,
            entity_id=entity.entity_id,
            tenant_id=entity.tenant_id,
            expected_version=expected,
            actual_version=details[1],
        )
    if code == _ANOTHER_PAST:
        return AnotherPastError()
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


def _after_others(error: EventStoreError) -> EventStoreError:
    """Return an error as one batch's own, of a group of which something is stored."""
    error = error.again()
    if isinstance(error, StoreUnavailableError):
        error.may_have_written = True
    return error
