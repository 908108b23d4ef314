"""Removing parts that are no commit's: what a writer leaves that was killed before it committed.

They are invisible and cost nothing but room. One may go once another commit stands in its place,
which nobody can take again; before that its writer may still be about to commit.
"""

from __future__ import annotations

from typing import Any, Final

from pymongo.collection import Collection

from eventstore_mongodb.documents import ONLY_TOKEN, place_of
from eventstore_mongodb.namespaces import LOG, Namespace

_AT_ONCE: Final = 5000
"""Parts looked at whenever a store is opened."""
_AFTER_ALL: Final = "g"
"""Behind every place, which is hexadecimal."""


def sweep(namespace: Namespace, swept: int) -> None:
    """Remove what is nobody's behind the commit ``swept``, and note how far that was looked for."""
    commits: Collection[Any] = namespace.commits
    places = {"_id": {"$gte": place_of(swept + 1), "$lt": _AFTER_ALL}}
    parts = list(commits.find(places, {"commit": 1, "token": 1}).sort("_id", 1).limit(_AT_ONCE))
    if not parts:
        return
    standing = {"_id": {"$in": list({part["commit"] for part in parts})}}
    tokens = {commit["_id"]: commit["token"] for commit in commits.find(standing, ONLY_TOKEN)}
    orphans = [
        part["_id"] for part in parts if tokens.get(part["commit"], part["token"]) != part["token"]
    ]
    if orphans:
        commits.delete_many({"_id": {"$in": orphans}})
    # The parts of one commit may go on behind the last one read.
    settled = [part["commit"] - 1 for part in parts[-1:]] + [
        part["commit"] - 1 for part in parts if part["commit"] not in tokens
    ]
    if (reached := min(settled)) > swept:
        namespace.meta.update_one(LOG, {"$max": {"swept": reached}})
