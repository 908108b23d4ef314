"""Waiting for a change stream to tell of an insert."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from eventstore_mongodb.walking import Commits

_PIPELINE: Final[list[Mapping[str, Any]]] = [
    {"$match": {"operationType": "insert"}},
    {"$project": {"_id": 1}},
]


def await_insert(commits: Commits, is_there: Callable[[], bool], seconds: float) -> None:
    """Return once something is inserted, or ``is_there`` already; or after ``seconds``."""
    milliseconds = max(round(seconds * 1000), 1)
    with commits.watch(_PIPELINE, max_await_time_ms=milliseconds) as stream:
        if not is_there():  # asked once the stream stands: nothing is missed
            stream.try_next()
