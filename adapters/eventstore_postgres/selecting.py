"""SQL text: the files beside this one, and EventQuery as a WHERE clause.

Every name in what a client sends is qualified, operators and types too: behind a pooler, and in a
transaction of the caller's, the search path is that of somebody else, who may have put functions
and operators of his own at its front. (IN, BETWEEN, USING, NULLIF, IS DISTINCT FROM and CASE x WHEN
hide operators that cannot be qualified; ORDER BY and DISTINCT go by the type, not by name.)
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from eventstore.backend import PageRequest
from eventstore.query import EventQuery
from eventstore_postgres import records


@cache
def load(name: str) -> str:
    """Return the text of an SQL file."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def statement(namespace: str, name: str) -> str:
    """Return a statement of queries.sql."""
    text = re.sub(r"^(?:--(?! name:).*)?\n", "", load("queries.sql"), flags=re.MULTILINE)
    _, *named = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return within(namespace, dict(zip(named[::2], named[1::2], strict=True))[name])


def within(namespace: str, text: str) -> str:
    """Return SQL with the namespace, a name of [a-z0-9_], put in for ``"eventstore"``, and the
    columns of an event for ``$columns``."""
    return text.replace('"eventstore"', f'"{namespace}"').replace("$columns", records.COLUMNS)


class Where:
    """Conjoined terms, and their parameters in order."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.parameters: list[bytes] = []

    def add(self, term: str, *parameters: bytes) -> None:
        """Add a term with a %b for each parameter."""
        self.terms.append(term)
        self.parameters += parameters

    def put_in(self, text: str) -> str:
        """Return SQL with the terms put in for ``$where``."""
        return text.replace("$where", str(self))

    def __str__(self) -> str:
        return " AND ".join(self.terms) or "true"


def compared(name: str, operator: str) -> str:
    """Return a comparison of a column with a parameter."""
    return f"{name} OPERATOR(pg_catalog.{operator}) %b"


def where(query: EventQuery) -> Where:
    """Return the filter fields of a query. Only values come from it, never SQL."""
    found = Where()
    for field in ("entity_type", "entity_id", "workflow_id", "tenant_id"):
        value = getattr(query, field)
        if value is not None:
            found.add(compared(field, "="), value.encode())
    if query.event_types is not None:
        types = tuple(query.event_types)
        if len(types) == 1:  # equality, for which the index is in order of sequence, too
            found.add(compared("event_type", "="), types[0].encode())
        else:
            found.add("event_type OPERATOR(pg_catalog.=) ANY (%b)", records.texts(types))
    if query.tags is not None:
        # The index holds events with tags alone; the second term says that it will do.
        found.add(
            "tags OPERATOR(pg_catalog.@>) %b AND tags OPERATOR(pg_catalog.<>) '{}'",
            records.texts(tuple(query.tags)),
        )
    if query.after:
        found.add(compared("sequence", ">"), records.int8(query.after))
    if query.to_sequence is not None:
        found.add(compared("sequence", "<="), records.int8(query.to_sequence))
    if query.from_timestamp is not None:
        found.add(compared('"timestamp"', ">="), records.time(query.from_timestamp))
    if query.to_timestamp is not None:
        found.add(compared('"timestamp"', "<="), records.time(query.to_timestamp))
    if query.any_of is not None:
        alternatives = [where(alternative) for alternative in query.any_of]
        found.add(
            "(" + " OR ".join(f"({each})" for each in alternatives) + ")",
            *(parameter for each in alternatives for parameter in each.parameters),
        )
    return found


def page_query(namespace: str, page: PageRequest) -> tuple[str, list[bytes]]:
    """Return the SELECT of a page of events, and its parameters."""
    found = where(page.query)
    direction = "ASC" if page.ascending else "DESC"
    order = f"sequence {direction}"
    if page.after:
        found.add(compared("sequence", ">"), records.int8(page.after))
    if page.up_to is not None:
        found.add(compared("sequence", "<="), records.int8(page.up_to))
    if page.above_version:
        found.add(compared("version", ">"), records.int8(page.above_version))
    if page.order_by == "timestamp":
        order = f'"timestamp" {direction}, sequence {direction}'
        if page.resume is not None:
            beyond = ">" if page.ascending else "<"
            timestamp, sequence = page.resume
            found.add(
                f'("timestamp", sequence) OPERATOR(pg_catalog.{beyond}) (%b, %b)',
                records.time(timestamp),
                records.int8(sequence),
            )
    elif reads_entity(page):
        order = "version ASC"  # the same order, and that of the index
    text = statement(namespace, "page").replace("$order", order)
    window = records.int8(page.limit), records.int8(page.offset)
    return found.put_in(text), [*found.parameters, *window]


def reads_entity(page: PageRequest) -> bool:
    """Return whether the page is of one entity by version: few shapes, worth preparing."""
    query = page.query
    return (
        page.ascending
        and not page.after
        and page.up_to is None
        and None not in (query.entity_type, query.entity_id, query.tenant_id)
    )
