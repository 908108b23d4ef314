"""What server answers, and a namespace in its database: a schema that holds one log. Found, made,
removed, printed, in a transaction whose search path is settled.
"""

from __future__ import annotations

import re
from typing import Final

from eventstore.backend import Found, Settings
from eventstore.errors import ConfigurationError
from eventstore_postgres.connections import Lent
from eventstore_postgres.selecting import load, statement, within

FORMAT: Final = 1
"""Of the tables and functions that this program reads and writes."""

STRICT_OWNER: Final = "eventstore_owner"
"""See strict.sql."""

_CREATE_LOCK: Final = 1702260589

_FUNCTIONS: Final = ("append_many", "append_one", "lock_log", "log_state", "refuse_change")

_OURS: Final = {
    "log": {"log_id", "least_reader", "least_writer"},
    "events": {"sequence", "batch_sequence", "event_id", "entity_id", "recorded_at"},
}


_POSTGRESQL: Final = re.compile(r"PostgreSQL \d.*, compiled by ")
"""What ``version()`` of PostgreSQL says, however it was built, packaged and hosted."""

_OTHERS: Final = {
    "CockroachDB": "CockroachDB",
    "CrateDB": "CrateDB",
    "EDB Postgres": "EDB Postgres Extended Server",
    "EnterpriseDB": "EDB Postgres Advanced Server",
    "Greenplum": "Greenplum",
    "Materialize": "Materialize",
    "QuestDB": "QuestDB",
    "Redshift": "Amazon Redshift",
    "RisingWave": "RisingWave",
    "openGauss": "openGauss",
    "-YB-": "YugabyteDB",
}
"""Engines of their own that speak its protocol, by a word of what they say."""


def doubt_about(version: str) -> str | None:
    """Return which engine it is whose ``version()`` says that, where it is not PostgreSQL."""
    for word, engine in _OTHERS.items():
        if word.lower() in version.lower():
            return f"it is {engine}"
    if _POSTGRESQL.match(version):
        return None
    return f"it calls itself {version!r:.80}, not what PostgreSQL does"


def look(session: Lent, settings: Settings) -> Found | None:
    """Return what the log in a namespace says of itself, None where there is none.

    ConfigurationError where a part of it belongs to a role that is not to be trusted: who owns
    a function decides what those do who call it.
    """
    namespace = settings.namespace
    _check_owners(session, settings)
    if not _is_there(session, namespace):
        return None
    row = session.execute(statement(namespace, "log")).fetchone()
    if row is None:
        raise ConfigurationError(f"namespace: the table {namespace}.log has lost its row")
    found = Found(*row)
    present = {name for (name,) in session.execute(statement(namespace, "functions")).fetchall()}
    missing = sorted(set(_FUNCTIONS) - present)
    if missing and found.least_writer <= FORMAT:
        raise ConfigurationError(
            f"namespace: the log {namespace!r} lacks the functions {', '.join(missing)} of what"
            " `eventstore schema URL` prints"
        )
    return found


def make(session: Lent, settings: Settings) -> None:
    """Make the log, unless another process was faster."""
    _lock(session, settings.namespace)
    if not _is_there(session, settings.namespace):
        session.execute(_creation(settings))


def remove(session: Lent, namespace: str) -> bool:
    """Remove the log in a namespace; return whether it was there."""
    _lock(session, namespace)
    found = _is_there(session, namespace)
    if found:
        session.execute(within(namespace, load("drop.sql")))
    return found


def ddl(settings: Settings) -> str:
    """Return the SQL that makes a log, and that grants a role what it needs."""
    grants = load("strict_grants.sql" if settings.own_options["strict"] else "grants.sql")
    commented = within(settings.namespace, grants).replace("\n", "\n-- ").removesuffix("-- ")
    return (
        # Whoever runs it: no name in it means what somebody put at the front of the path.
        "BEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\n\n"
        f"{_creation(settings)}\nCOMMIT;\n\n-- {commented}"
    )


def _creation(settings: Settings) -> str:
    strict = ["strict.sql"] if settings.own_options["strict"] else []
    files = ["schema.sql", "append.sql", *strict]
    return within(settings.namespace, "\n".join(load(name) for name in files))


def _lock(session: Lent, namespace: str) -> None:
    session.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_CREATE_LOCK, namespace))


def _check_owners(session: Lent, settings: Settings) -> None:
    trusted = settings.own_options["owner"]
    if trusted is None and settings.own_options["strict"]:
        trusted = STRICT_OWNER
    found = session.execute(
        within(settings.namespace, load("owners.sql")),
        {"functions": list(_FUNCTIONS), "owner": trusted},
    ).fetchall()
    if found:
        names = ", ".join(f"{what} of {role!r}" for what, role in found)
        raise ConfigurationError(
            f"namespace: {settings.namespace!r} holds what belongs to a role that this one is not a"
            f" member of, nor the database's owner: {names}; choose another namespace, or say with"
            " owner= which role is to be trusted"
        )


def _is_there(session: Lent, namespace: str) -> bool:
    """Return whether there is a log; ConfigurationError for tables that are not ours."""
    found = dict(session.execute(statement(namespace, "tables")).fetchall())
    if not found:
        return False
    for table, columns in _OURS.items():
        if not columns <= set(found.get(table, ())):
            raise ConfigurationError(
                f"namespace: the schema {namespace!r} holds a table"
                f" {' and a table '.join(sorted(found))} but not those of a log; choose another"
                " namespace"
            )
    return True
