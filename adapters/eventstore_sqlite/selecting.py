"""The SQL of one log; for a query, a SELECT that one index drives.

SQLite keeps no statistics of a growing log, so it is decided here which index drives: that of
the field which as a rule lets the fewest events through. A ``+`` before a column keeps the
index over it out. Values are always bound.
"""
# ruff: noqa: S608 - what is put into the texts are names of tables, made of [a-z0-9_]

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from eventstore.backend import MAX_INT64, PageRequest, to_microseconds
from eventstore.event import Entity
from eventstore.query import EventQuery

Statement = tuple[str, Sequence[Any]]

_MILESTONE: Final = 256
"""One in so many events of an entity is indexed (schema.sql)."""
SEGMENT: Final = 14
"""Tags are indexed in segments of 2 ** 14 sequences (schema.sql)."""
_FEW: Final = 20_000
"""So many events are sorted for a page rather than looked for along the log."""
_FEW_TYPES: Final = 8
"""So many event types are looked up one by one; more are most of the log, as a rule."""
_FEW_TAGS: Final = 4
"""So many further tags are a term each; more are bound as one list."""
_ALTERNATIVES: Final = 50
"""So many alternatives of a query go into one statement: far from SQLite's limits on its length
and its variables, whatever they ask for."""
_TAGGED: Final = "t.sequence"
_COMPOUND: Final = 400
"""SQLite takes at most 500 SELECTs in a UNION."""
_COLUMNS: Final = (
    "e.sequence, e.batch_sequence, e.event_id, e.tenant_id, e.entity_type, e.entity_id, e.version,"
    " e.event_type, e.workflow_id, e.schema_version, e.timestamp, e.recorded_at, e.tags, e.data,"
    " e.metadata"
)


class Statements:
    """The SQL of one namespace. Names are qualified, so that no temporary table hides one."""

    def __init__(self, namespace: str) -> None:
        self.log = f"main.{namespace}_log"
        self.events = f"main.{namespace}_events"
        self.entities = f"main.{namespace}_entities"
        self.tags = f"main.{namespace}_tags"
        self.segments = f"main.{namespace}_segments"
        self.head = (
            f"SELECT l.log_id, e.sequence, e.recorded_at FROM {self.log} l LEFT JOIN"
            f" {self.events} e ON e.sequence = (SELECT max(sequence) FROM {self.events})"
        )
        """The log's id with it: whoever asks how far a log goes must know which log it is."""
        self.insert_segment = f"INSERT OR IGNORE INTO {self.segments} VALUES (?)"
        self.update_entity = (
            f"UPDATE {self.entities} SET version = ?, last_sequence = ? WHERE first_sequence = ?"
        )
        self.read_log = f"SELECT log_id, least_reader, least_writer FROM {self.log}"
        self.lock = f"UPDATE {self.log} SET id = id WHERE 0"
        """Takes the write lock in a transaction that began without it."""

    def chains(self, entities: Sequence[Entity]) -> Statement:
        """Where the chains of these entities begin and end, and their versions."""
        sql = (
            f"WITH k(entity_type, entity_id, tenant_id) AS (VALUES {_rows(3, len(entities))})"
            " SELECT n.entity_type, n.entity_id, n.tenant_id, n.first_sequence, n.last_sequence,"
            f" n.version FROM k CROSS JOIN {self.entities} n ON n.entity_id = k.entity_id"
            " AND n.entity_type = k.entity_type AND n.tenant_id = k.tenant_id"
        )
        return sql, [part for entity in entities for part in entity]

    def find(self, keys: Sequence[tuple[str, bytes]]) -> Statement:
        """The events of these tenants and ids."""
        sql = (
            f"WITH k(tenant_id, event_id) AS (VALUES {_rows(2, len(keys))}) SELECT {_COLUMNS}"
            f" FROM k CROSS JOIN {self.events} e ON e.event_id = k.event_id"
            " AND e.tenant_id = k.tenant_id"
        )
        return sql, [part for key in keys for part in key]

    def list_entities(
        self, entity_type: str | None, tenant_id: str | None, limit: int, offset: int
    ) -> Statement:
        """Type, id and tenant of entities, newest first."""
        terms = _Terms()
        if entity_type is not None:
            terms.add("e.entity_type = ?", entity_type)
        if tenant_id is not None:
            terms.add_tenants((tenant_id,), drives=True)
        sql = (
            f"SELECT e.entity_type, e.entity_id, e.tenant_id FROM {self.entities} e"
            f" WHERE {terms} ORDER BY e.first_sequence DESC LIMIT ? OFFSET ?"
        )
        return sql, [*terms.values, limit, offset]

    def probe(self, page: PageRequest) -> Statement | None:
        """Whether a field lets few events through that should drive only then.

        They have to be sorted: those of a time window by sequence, those of a type or a tenant by
        time. Where they are many, going along the log in order is better. None: no such field.
        """
        query = page.query
        terms = _Terms()
        if not _is_selective((query,)):
            if page.order_by == "sequence":
                terms.add_window((query,), drives=True)
            else:
                terms.add_kinds(_types((query,)), _given((query,), "entity_type"), drives=True)
                terms.add_tenants(_given((query,), "tenant_id"), drives=True)
        if not terms.driven:
            return None
        return (
            f"SELECT count(*) < {_FEW} FROM"
            f" (SELECT 1 FROM {self.events} e WHERE {terms} LIMIT {_FEW})"
        ), terms.values

    def page(self, page: PageRequest, *, few: bool = False) -> Statement:
        """A page of events. ``few`` tells what came of ``probe``."""
        by_time = page.order_by == "timestamp"
        selects = list(self._selects(page, few=few))
        if len(selects) == 1 and not (few and not by_time):
            ((source, terms, key),) = selects
            return (
                f"SELECT {_COLUMNS} FROM {source} WHERE {terms} {_order(page, key)}"
                " LIMIT ? OFFSET ?"
            ), [*terms.values, page.limit, page.offset]
        firsts, values = self._firsts(page, selects)
        sql = (
            f"SELECT {_COLUMNS} FROM {self.events} e WHERE e.sequence IN ({firsts})"
            f" {_order(page, '+e.sequence')} LIMIT ? OFFSET ?"
        )
        return sql, [*values, page.limit, page.offset]

    def firsts(self, page: PageRequest) -> Statement:
        """The sequences among which the page is: the first matches of each alternative."""
        return self._firsts(page, list(self._selects(page, few=False)))

    def _firsts(self, page: PageRequest, selects: Sequence[tuple[str, _Terms, str]]) -> Statement:
        firsts = [
            f"SELECT * FROM (SELECT {key} FROM {source} WHERE {terms} {_order(page, key)}"
            f" LIMIT {min(page.limit + page.offset, MAX_INT64)})"
            for source, terms, key in selects
        ]
        return _union(firsts), [value for _, terms, _ in selects for value in terms.values]

    def among(self, page: PageRequest, sequences: Iterable[int]) -> Statement:
        """The page, of those events."""
        return (
            f"SELECT {_COLUMNS} FROM {self.events} e"
            " WHERE e.sequence IN (SELECT value FROM json_each(?))"
            f" {_order(page, '+e.sequence')} LIMIT ? OFFSET ?"
        ), [json.dumps(list(sequences)), page.limit, page.offset]

    def count(self, query: EventQuery) -> Statement:
        """How many events match."""
        every, values = self.matches(query)
        return f"SELECT count(*) FROM ({every})", values

    def matches(self, query: EventQuery) -> Statement:
        """The sequences of all events that match."""
        page = PageRequest(query=query, limit=MAX_INT64)
        selects = list(self._selects(page, few=_has_window((query,))))
        every = [f"SELECT {key} FROM {source} WHERE {terms}" for source, terms, key in selects]
        return _union(every), [value for _, terms, _ in selects for value in terms.values]

    def _selects(self, page: PageRequest, *, few: bool) -> Iterator[tuple[str, _Terms, str]]:
        """Yield FROM, WHERE and the sequence's column for every alternative of the query."""
        query = page.query
        for alternative in query.any_of or (None,):
            filters = (query,) if alternative is None else (query, alternative)
            types = _types(filters)
            each = types and not (few or page.order_by == "timestamp" or _is_selective(filters))
            if each and len(types[0]) <= _FEW_TYPES:
                for event_type in types[0]:
                    yield self._select(page, filters, [(event_type,), *types[1:]], few=few)
            else:
                yield self._select(page, filters, types, few=few)

    def _select(
        self,
        page: PageRequest,
        filters: Sequence[EventQuery],
        types: Sequence[tuple[str, ...]],
        *,
        few: bool,
    ) -> tuple[str, _Terms, str]:
        by_time = page.order_by == "timestamp"
        low = max(page.after, *(f.after for f in filters))
        highs = [page.up_to, *(f.to_sequence for f in filters)]
        high = min((high for high in highs if high is not None), default=MAX_INT64)
        source, key = f"{self.events} e", "e.sequence"
        terms = _Terms()
        entity_ids, workflows, entity_types, tenants = (
            _given(filters, field)
            for field in ("entity_id", "workflow_id", "entity_type", "tenant_id")
        )
        tags = [tag for f in filters for tag in f.tags or ()]
        if entity_ids:
            key = "+e.sequence"
            alone = not (by_time or workflows or tags or types or _has_window(filters))
            keys = [
                (f"n.{field} = ?", values.pop(0))
                for field, values in (
                    ("entity_id", entity_ids),
                    ("entity_type", entity_types),
                    ("tenant_id", tenants),
                )
                if values
            ]
            terms.add(*self._chain(page, keys, low, high, alone=alone))
        for workflow_id in workflows:
            terms.add("e.workflow_id = ?", workflow_id)
        if tags and not terms.driven:
            key = _TAGGED
            source = (
                f"{self.segments} s CROSS JOIN {self.tags} t ON t.segment = s.segment"
                f" CROSS JOIN {self.events} e ON e.sequence = t.sequence"
            )
            terms.add("t.tag = ?", tags.pop(0))
            terms.add_plain("s.segment BETWEEN ? AND ?", low >> SEGMENT, high >> SEGMENT)
        has_tag = (
            f"EXISTS (SELECT 1 FROM {self.tags} x WHERE x.segment = e.sequence >> {SEGMENT}"
            " AND x.tag = {tag} AND x.sequence = e.sequence)"
        )
        if len(tags) <= _FEW_TAGS:
            for tag in tags:
                terms.add(has_tag.format(tag="?"), tag, drives=False)
        else:
            has_tag = has_tag.format(tag="j.value")
            text = f"NOT EXISTS (SELECT 1 FROM json_each(?) j WHERE NOT {has_tag})"
            terms.add(text, json.dumps(tags), drives=False)
        along_time = (by_time and not few) or (few and not by_time and _has_window(filters))
        time_drives = along_time and not terms.driven
        if time_drives:
            key = "+e.sequence"
        terms.add_window(filters, drives=time_drives)
        terms.add_kinds(types, entity_types, drives=not along_time)
        terms.add_tenants(tenants, drives=not along_time)
        for entity_id in entity_ids:
            terms.add("e.entity_id = ?", entity_id, drives=False)
        if low:
            terms.add_plain(f"{key} > ?", low)
        if high < MAX_INT64:
            terms.add_plain(f"{key} <= ?", high)
        if page.above_version:
            terms.add_plain("+e.version > ?", page.above_version)
        if page.resume is not None:
            time, sequence = to_microseconds(page.resume[0]), page.resume[1]
            sign = ">" if page.ascending else "<"
            terms.add_plain(f"{'' if time_drives else '+'}e.timestamp {sign}= ?", time)
            terms.add_plain(f"(+e.timestamp, +e.sequence) {sign} (?, ?)", time, sequence)
        return source, terms, key

    def _chain(
        self,
        page: PageRequest,
        keys: Sequence[tuple[str, str]],
        low: int,
        high: int,
        *,
        alone: bool,
    ) -> tuple[Any, ...]:
        """The term that follows an entity's chain back to ``low``, and its values.

        It begins at a milestone that is late enough: for a page of nothing but an entity, in
        order, a page further on; else the first at or after ``high``.
        """
        most = min(page.limit + page.offset, MAX_INT64 // 2)
        if alone and page.ascending:
            start = (
                min(page.above_version + most, MAX_INT64),
                low,
                most // _MILESTONE + 1 if low else 0,
            )
        else:
            start = 0, high - 1, 0
        whole = len(keys) == 3
        backwards = alone and whole and not page.ascending
        text = (
            "e.sequence IN (WITH RECURSIVE chain(sequence, version) AS ("
            "SELECT coalesce(m.sequence, n.last_sequence), coalesce(m.version, n.version)"
            f" FROM {self.entities} n LEFT JOIN {self.events} m ON m.sequence = ("
            f"SELECT x.sequence FROM {self.events} x WHERE x.entity_id = n.entity_id"
            " AND x.entity_type = n.entity_type AND x.tenant_id = n.tenant_id"
            f" AND x.version % {_MILESTONE} = 0 AND x.version >= ? AND +x.sequence > ?"
            " ORDER BY x.version LIMIT 1 OFFSET ?)"
            f" WHERE {' AND '.join(text for text, _ in keys)}"
            f" UNION ALL SELECT p.previous, chain.version - 1 FROM chain CROSS JOIN {self.events} p"
            " ON p.sequence = chain.sequence WHERE p.previous > ? AND chain.version - 1 > ?"
            " LIMIT ?) SELECT sequence FROM chain)"
        )
        return (
            text,
            *start,
            *(value for _, value in keys),
            low,
            page.above_version,
            most + _MILESTONE if backwards else -1,
        )


class _Terms:
    """A conjunction, and the values bound in it. The first term that can drives the search."""

    def __init__(self) -> None:
        self.driven = False
        self.values: list[Any] = []
        self._texts: list[str] = []

    def __str__(self) -> str:
        return " AND ".join(self._texts) or "1"

    def add(self, text: str, *values: Any, drives: bool = True) -> None:
        """Add a term that begins with a column or is one expression."""
        self.add_plain(text if drives and not self.driven else f"+{text}", *values)
        self.driven |= drives

    def add_plain(self, text: str, *values: Any) -> None:
        """Add a term as it is."""
        self._texts.append(text)
        self.values += values

    def add_kinds(
        self, types: Sequence[tuple[str, ...]], entity_types: Sequence[str], *, drives: bool
    ) -> None:
        """Only events of these types: one of each tuple."""
        for names in types:
            if len(names) == 1:
                self.add("e.event_type = ?", names[0], drives=drives)
            else:
                text = "e.event_type IN (SELECT value FROM json_each(?))"
                self.add(text, json.dumps(names), drives=False)
        for entity_type in entity_types:
            self.add("e.entity_type = ?", entity_type, drives=drives)

    def add_tenants(self, tenants: Sequence[str], *, drives: bool) -> None:
        """Only events, or entities, of these tenants. Those without a tenant have no index."""
        for tenant_id in tenants:
            self.add("e.tenant_id = ?", tenant_id, drives=drives and tenant_id != "")
            if tenant_id:
                self.add_plain("e.tenant_id <> ''")

    def add_window(self, filters: Sequence[EventQuery], *, drives: bool) -> None:
        """Only events in the time windows of these filters."""
        sign = "" if drives and not self.driven else "+"
        for f in filters:
            if f.from_timestamp is not None:
                self.add_plain(f"{sign}e.timestamp >= ?", to_microseconds(f.from_timestamp))
            if f.to_timestamp is not None:
                self.add_plain(f"{sign}e.timestamp <= ?", to_microseconds(f.to_timestamp))
        self.driven |= drives and _has_window(filters)


def _order(page: PageRequest, key: str) -> str:
    direction = "ASC" if page.ascending else "DESC"
    if page.order_by == "timestamp":
        return f"ORDER BY e.timestamp {direction}, {key.lstrip('+')} {direction}"
    outer = f"s.segment {direction}, " if key == _TAGGED else ""
    return f"ORDER BY {outer}{key} {direction}"


def parts(query: EventQuery) -> list[EventQuery]:
    """Return queries that each fit into one statement, and of which one must match."""
    alternatives = tuple(query.any_of or ())
    if len(alternatives) <= _ALTERNATIVES:
        return [query]
    return [
        query.replace(any_of=alternatives[start : start + _ALTERNATIVES])
        for start in range(0, len(alternatives), _ALTERNATIVES)
    ]


def _given(filters: Sequence[EventQuery], field: str) -> list[str]:
    """Return the different values that the filters ask of a field."""
    values = (getattr(f, field) for f in filters)
    return list(dict.fromkeys(value for value in values if value is not None))


def _types(filters: Sequence[EventQuery]) -> list[tuple[str, ...]]:
    return [tuple(f.event_types) for f in filters if f.event_types is not None]


def _is_selective(filters: Sequence[EventQuery]) -> bool:
    return any(f.entity_id or f.workflow_id or f.tags for f in filters)


def _has_window(filters: Sequence[EventQuery]) -> bool:
    return any(f.from_timestamp is not None or f.to_timestamp is not None for f in filters)


def insertion(table: str, width: int, count: int) -> str:
    """Insert so many rows. (OR FAIL: what went wrong is undone by who began; undoing it here would
    take SQLite a journal for every statement.)"""
    return f"INSERT OR FAIL INTO {table} VALUES {_rows(width, count)}"


def _rows(width: int, count: int) -> str:
    return ", ".join([f"(?{', ?' * (width - 1)})"] * count)


def _union(selects: Sequence[str]) -> str:
    while len(selects) > _COMPOUND:
        selects = [
            f"SELECT * FROM ({' UNION '.join(selects[start : start + _COMPOUND])})"
            for start in range(0, len(selects), _COMPOUND)
        ]
    return " UNION ".join(selects)
