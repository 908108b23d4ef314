"""The SQL of one log; for a query, a SELECT that one index drives.

SQLite keeps no statistics of a growing log, so it is decided here which index drives: that of
the field which as a rule lets the fewest events through. A ``+`` before a column keeps the
index over it out. Values are always bound.
"""
# ruff: noqa: S608 - what is put into the texts are names of tables, made of [a-z0-9_]

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, Literal

import msgspec

from eventstore.backend import MAX_INT64, PageRequest, to_microseconds
from eventstore.query import EventQuery
from eventstore_sqlite.records import COLUMNS

Statement = tuple[str, Sequence[Any]]

_MILESTONE: Final = 256
"""One in so many events of an entity is indexed (schema.sql)."""
SEGMENT: Final = 14
"""Tags are indexed in segments of 2 ** 14 sequences (schema.sql)."""
_MOST_SORTED: Final = 20_000
"""Fewer events than these are found by their field and sorted for a page; more are met in the
page's own order, and compared."""
_MOST_TYPES: Final = 8
"""So many event types are looked up one by one; more are most of the log, as a rule."""
_MOST_TAGS: Final = 4
"""So many further tags are a term each; more are bound as one list."""
TOGETHER: Final = 50
"""So many SELECTs go into one statement: far from SQLite's limits on its length, its variables and
its compounds, whatever they ask for."""
_TAGGED: Final = "t.sequence"

_Field = Literal[
    "entity_id",
    "workflow_id",
    "tags",
    "timestamp",
    "event_type",
    "entity_type",
    "tenant_id",
    "sequence",
]
"""What drives a search: events are found by it, and then compared with the rest."""
_BY_KIND: Final = ("event_type", "entity_type", "tenant_id")


_BEFORE_ALL: Final = -MAX_INT64
"""A time, in microseconds."""


class _Asked(msgspec.Struct):
    """What a query and one of its alternatives ask together; ``None`` and ``()`` for nothing."""

    entity_type: str | None = None
    entity_id: str | None = None
    workflow_id: str | None = None
    tenant_id: str | None = None
    event_types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    since: int = _BEFORE_ALL
    until: int = MAX_INT64
    low: int = 0
    """Only sequences above this one …"""
    high: int = MAX_INT64
    """… up to this one."""

    @property
    def is_selective(self) -> bool:
        return bool(self.entity_id or self.workflow_id or self.tags)

    @property
    def has_window(self) -> bool:
        return self.since > _BEFORE_ALL or self.until < MAX_INT64

    def add(self, query: EventQuery) -> bool:
        """Ask what ``query`` asks, too; return False where nothing can match both."""
        for field in ("entity_type", "entity_id", "workflow_id", "tenant_id"):
            value = getattr(query, field)
            if value is not None:
                if getattr(self, field) not in (None, value):
                    return False
                setattr(self, field, value)
        if query.event_types is not None:
            types = dict.fromkeys(query.event_types)
            self.event_types = tuple(each for each in self.event_types or types if each in types)
            if not self.event_types:
                return False
        if query.tags is not None:
            self.tags = tuple(dict.fromkeys((*self.tags, *query.tags)))
        if query.from_timestamp is not None:
            self.since = max(self.since, to_microseconds(query.from_timestamp))
        if query.to_timestamp is not None:
            self.until = min(self.until, to_microseconds(query.to_timestamp))
        self.low = max(self.low, query.after)
        if query.to_sequence is not None:
            self.high = min(self.high, query.to_sequence)
        return True


def _driver(asked: _Asked, *, by_time: bool, by_sorting: bool) -> _Field:
    """Return what drives. ``by_sorting`` tells what came of ``Statements.probe``."""
    if asked.entity_id is not None:
        return "entity_id"
    if asked.workflow_id is not None:
        return "workflow_id"
    if asked.tags:
        return "tags"
    walks_along_time = by_time and not by_sorting
    sorts_a_window = by_sorting and not by_time and asked.has_window
    if walks_along_time or sorts_a_window:
        return "timestamp"
    if len(asked.event_types) == 1:
        return "event_type"
    if asked.entity_type is not None:
        return "entity_type"
    return "tenant_id" if asked.tenant_id else "sequence"  # those without a tenant have no index


class Select:
    """A SELECT of events: its conjoined terms, and the values bound in them."""

    def __init__(self, source: str, driver: _Field) -> None:
        self.source = source
        self.driver = driver
        self.key = "+e.sequence" if driver in ("entity_id", "timestamp") else "e.sequence"
        """The column of sequences that its order goes by."""
        self.values: list[Any] = []
        self._terms: list[str] = []

    @property
    def where(self) -> str:
        return " AND ".join(self._terms) or "1"

    @property
    def sequences(self) -> str:
        return f"SELECT {self.key} FROM {self.source} WHERE {self.where}"

    def add(self, term: str, *values: Any) -> None:
        self._terms.append(term)
        self.values += values

    def add_equal(self, field: _Field, value: str | None) -> None:
        """Only events, or entities, with this value, where it is not None."""
        if value is not None:
            self.add(f"{'' if field == self.driver else '+'}e.{field} = ?", value)
            if field == "tenant_id" and value:
                self.add("e.tenant_id <> ''")  # as in the index over it

    def add_event_types(self, asked: _Asked) -> None:
        """Only events of one of these types."""
        if len(asked.event_types) == 1:
            self.add_equal("event_type", asked.event_types[0])
        elif asked.event_types:
            types = json.dumps(asked.event_types)
            self.add("+e.event_type IN (SELECT value FROM json_each(?))", types)

    def add_window(self, asked: _Asked) -> None:
        """Only events in the time window."""
        if asked.since > _BEFORE_ALL:
            self.add(f"{self._time} >= ?", asked.since)
        if asked.until < MAX_INT64:
            self.add(f"{self._time} <= ?", asked.until)

    def add_bounds(self, asked: _Asked, page: PageRequest) -> None:
        """Only what lies within the page's bounds."""
        if asked.low:
            self.add(f"{self.key} > ?", asked.low)
        if asked.high < MAX_INT64:
            self.add(f"{self.key} <= ?", asked.high)
        if page.above_version:
            self.add("+e.version > ?", page.above_version)
        if page.resume is not None:
            time, sequence = to_microseconds(page.resume[0]), page.resume[1]
            sign = ">" if page.ascending else "<"
            self.add(f"{self._time} {sign}= ?", time)
            self.add(f"(+e.timestamp, +e.sequence) {sign} (?, ?)", time, sequence)

    @property
    def _time(self) -> str:
        return "e.timestamp" if self.driver == "timestamp" else "+e.timestamp"


class Statements:
    """The SQL of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._events = f"main.{namespace}_events e"
        self._texts = _texts(namespace)

    def __getitem__(self, name: str) -> str:
        """Return a statement of statements.sql."""
        return self._texts[name]

    def of_rows(self, name: str, width: int, count: int) -> str:
        """Return a statement of statements.sql that takes so many rows of values."""
        return _with_rows(self._texts[name], width, count)

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> Statement:
        """Type, id and tenant of entities, newest first."""
        select = Select("", "tenant_id" if entity_type is None else "entity_type")
        select.add_equal("entity_type", entity_type)
        select.add_equal("tenant_id", tenant_id)
        sql = self._texts["list_entities"].format(where=select.where)
        return sql, [*select.values, limit, offset]

    def probe(self, page: PageRequest) -> Statement | None:
        """Whether a page is best made by sorting what a field lets through: a time window by
        sequence, a type or a tenant by time. That is so where it lets few events through.

        None where there is nothing to choose.
        """
        asked = _Asked()
        asked.add(page.query)
        by_time = page.order_by == "timestamp"
        select = Select(self._events, _driver(asked, by_time=by_time, by_sorting=True))
        if select.driver == "timestamp":
            select.add_window(asked)
        elif by_time and select.driver in _BY_KIND:
            select.add_event_types(asked)
            select.add_equal("entity_type", asked.entity_type)
            select.add_equal("tenant_id", asked.tenant_id)
        else:
            return None
        return (
            f"SELECT count(*) < {_MOST_SORTED} FROM"
            f" (SELECT 1 FROM {self._events} WHERE {select.where} LIMIT {_MOST_SORTED})"
        ), select.values

    def selects(self, page: PageRequest, *, by_sorting: bool = False) -> list[Select]:
        """Return what finds the matches together: a SELECT or more for each alternative.

        ``by_sorting`` tells what came of ``probe``.
        """
        by_type = not by_sorting and page.order_by == "sequence"
        selects = []
        for alternative in page.query.any_of or (None,):
            asked = _Asked(low=page.after, high=MAX_INT64 if page.up_to is None else page.up_to)
            if not (asked.add(page.query) and (alternative is None or asked.add(alternative))):
                continue
            types = asked.event_types
            if by_type and 0 < len(types) <= _MOST_TYPES and not asked.is_selective:
                for event_type in types:
                    asked.event_types = (event_type,)
                    selects.append(self._select(asked, page, by_sorting=by_sorting))
            else:
                selects.append(self._select(asked, page, by_sorting=by_sorting))
        return selects or [self._nothing()]

    def page(self, page: PageRequest, selects: Sequence[Select]) -> Statement:
        """A page of events."""
        first = selects[0]
        # Where they have to be sorted, their sequences are, before the rest is read.
        if len(selects) == 1 and not (first.driver == "timestamp" and page.order_by == "sequence"):
            return _page(page, first.source, first.where, first.values, first.key)
        sequences, values = self.firsts(page, selects)
        return _page(page, self._events, f"e.sequence IN ({sequences})", values)

    def among(self, page: PageRequest, sequences: Iterable[int]) -> Statement:
        """A page of those events."""
        where = "e.sequence IN (SELECT value FROM json_each(?))"
        return _page(page, self._events, where, [json.dumps(list(sequences))])

    def firsts(self, page: PageRequest, selects: Sequence[Select]) -> Statement:
        """The sequences among which the page is: the first matches of each SELECT."""
        most = min(page.limit + page.offset, MAX_INT64)
        firsts = [
            f"SELECT * FROM ({each.sequences} {_order(page, each.key)} LIMIT {most})"
            for each in selects
        ]
        return " UNION ".join(firsts), [value for each in selects for value in each.values]

    def matches(self, selects: Sequence[Select]) -> Statement:
        """The sequences of all events that match."""
        every = " UNION ".join([each.sequences for each in selects])
        return every, [value for each in selects for value in each.values]

    def count(self, selects: Sequence[Select]) -> Statement:
        """How many events match."""
        every, values = self.matches(selects)
        return f"SELECT count(*) FROM ({every})", values

    def _nothing(self) -> Select:
        select = Select(self._events, "sequence")
        select.add("0")
        return select

    def _select(self, asked: _Asked, page: PageRequest, *, by_sorting: bool) -> Select:
        driver = _driver(asked, by_time=page.order_by == "timestamp", by_sorting=by_sorting)
        select = Select(self._events, driver)
        tags = asked.tags
        if driver == "entity_id":
            self._go_along_chain(select, asked, page)
        elif driver == "tags":
            select.source, select.key = self._texts["along_tag"], _TAGGED
            select.add("t.tag = ?", tags[0])
            segments = asked.low >> SEGMENT, asked.high >> SEGMENT
            select.add("s.segment BETWEEN ? AND ?", *segments)
            tags = tags[1:]
        select.add_equal("workflow_id", asked.workflow_id)
        self._add_tags(select, tags)
        select.add_window(asked)
        select.add_event_types(asked)
        if driver != "entity_id":  # its type and tenant are the chain's
            select.add_equal("entity_type", asked.entity_type)
            select.add_equal("tenant_id", asked.tenant_id)
        select.add_bounds(asked, page)
        return select

    def _go_along_chain(self, select: Select, asked: _Asked, page: PageRequest) -> None:
        """Have an entity's chain drive.

        It is followed from a milestone that is late enough: for a page of nothing but an entity,
        in order, a page further on; else the first at or after the upper bound.
        """
        alone = page.order_by == "sequence" and not (
            asked.workflow_id or asked.tags or asked.event_types or asked.has_window
        )
        most = min(page.limit + page.offset, MAX_INT64 // 2)
        keys = {
            f"n.{field} = ?": value
            for field in ("entity_id", "entity_type", "tenant_id")
            if (value := getattr(asked, field)) is not None
        }
        start = 0, asked.high - 1, 0
        longest = -1
        if alone and page.ascending:
            start = (
                min(page.above_version + most, MAX_INT64),
                asked.low,
                most // _MILESTONE + 1 if asked.low else 0,
            )
        elif alone and len(keys) == 3:
            longest = most + _MILESTONE
        select.add(
            self._texts["along_chain"].format(entity=" AND ".join(keys)),
            *start,
            *keys.values(),
            asked.low,
            page.above_version,
            longest,
        )

    def _add_tags(self, select: Select, tags: Sequence[str]) -> None:
        """Only events with all these tags."""
        has_tag = self._texts["has_tag"]
        if len(tags) <= _MOST_TAGS:
            for tag in tags:
                select.add(has_tag.format(tag="?"), tag)
        else:
            without = f"SELECT 1 FROM json_each(?) j WHERE NOT {has_tag.format(tag='j.value')}"
            select.add(f"NOT EXISTS ({without})", json.dumps(tags))


def _page(
    page: PageRequest, source: str, where: str, values: Sequence[Any], key: str = "+e.sequence"
) -> Statement:
    sql = f"SELECT {COLUMNS} FROM {source} WHERE {where} {_order(page, key)} LIMIT ? OFFSET ?"
    return sql, [*values, page.limit, page.offset]


def _order(page: PageRequest, key: str) -> str:
    direction = "ASC" if page.ascending else "DESC"
    if page.order_by == "timestamp":
        return f"ORDER BY e.timestamp {direction}, {key.lstrip('+')} {direction}"
    outer = f"s.segment {direction}, " if key == _TAGGED else ""
    return f"ORDER BY {outer}{key} {direction}"


@lru_cache
def _with_rows(text: str, width: int, count: int) -> str:
    row = f"(?{', ?' * (width - 1)})"
    return text.format(rows=", ".join([row] * count))


def text_of(name: str, namespace: str) -> str:
    """Return the text of an SQL file, for one log."""
    return _load(name).replace("{namespace}", namespace)


@cache
def _load(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _texts(namespace: str) -> dict[str, str]:
    """Return the statements of statements.sql by name."""
    text = text_of("statements.sql", namespace).replace("{columns}", COLUMNS)
    _, *blocks = re.split(r"^-- name: (\w+)\n(?:--.*\n)*", text, flags=re.MULTILINE)
    return {
        name: statement.strip().removesuffix(";")
        for name, statement in zip(blocks[::2], blocks[1::2], strict=True)
    }
