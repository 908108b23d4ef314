"""Removing parts that are no commit's: what a writer leaves that was killed before it committed.

They are invisible and cost nothing but room. One may go once another commit stands in its place,
which nobody can take again; before that its writer may still be about to commit.
"""

from __future__ import annotations

from typing import Any, Final

from pymongo.collection import Collection

from eventstore_mongodb.opening import LOG, Namespace
from eventstore_mongodb.records import END, OF_PARTS, ONLY_TOKEN

_AT_ONCE: Final = 5000
"""Parts looked at whenever a store is opened."""


def sweep(namespace: Namespace) -> None:
    """Remove what is nobody's, above where it was last looked for, and note how far that is."""
    commits: Collection[Any] = namespace.commits
    about = namespace.meta.find_one(LOG, {"swept": 1}) or {}
    swept = int(about.get("swept", 0))
    found = commits.find({"keys": OF_PARTS, END: {"$gt": swept}}, {"commit": 1, "token": 1, END: 1})
    parts = list(found.sort(END, 1).limit(_AT_ONCE))
    if not parts:
        return
    places = list({part["commit"] for part in parts})
    standing = commits.find({"_id": {"$in": places}}, ONLY_TOKEN)
    tokens = {commit["_id"]: commit["token"] for commit in standing}
    orphans = [
        part["_id"] for part in parts if tokens.get(part["commit"], part["token"]) != part["token"]
    ]
    if orphans:
        commits.delete_many({"_id": {"$in": orphans}})
    undecided = [part[END] - 1 for part in parts if part["commit"] not in tokens]
    reached = min([parts[-1][END], *undecided])
    if reached > swept:
        namespace.meta.update_one(LOG, {"$max": {"swept": reached}})
