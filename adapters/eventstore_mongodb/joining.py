"""Joining a transaction: which sessions will do."""

from __future__ import annotations

from typing import Any

from pymongo.client_session import ClientSession

from eventstore.errors import ConfigurationError


def checked_session(connection: Any) -> ClientSession:
    """Return a session with an open transaction, or raise ConfigurationError."""
    if not isinstance(connection, ClientSession):
        raise ConfigurationError(
            f"connection: must be a pymongo ClientSession, not {type(connection).__name__}"
        )
    if not connection.in_transaction:
        raise ConfigurationError(
            "connection: the session has no open transaction; call start_transaction() first"
        )
    return connection


def is_weak(session: ClientSession) -> bool:
    """Return whether the session's open transaction commits with less than the store does."""
    # Nothing public tells what start_transaction() was given.
    options = session._transaction.opts
    concern = options.write_concern if options else None
    return concern is not None and concern.document.get("w", "majority") != "majority"
