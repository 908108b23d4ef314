"""Where a log stands in a database: two collections, and whether they are ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import pymongo
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError
from uuid_utils.compat import uuid4

from eventstore.backend import Found, replaced
from eventstore.errors import ConfigurationError, StoreUnavailableError
from eventstore_mongodb.records import END

LOG_FORMAT: Final = 2
"""The format of a log that is made, and the newest understood. A log keeps the format it was made
with: whoever wrote it may still be at it."""

LOG: Final = {"_id": "log"}
"""The document about the log, in ``<namespace>.meta``."""

_DROPPING: Final = "dropping"
"""In that document once the log is being removed."""

_INDEXES: Final = ("last", (("keys", 1), (END, 1)), "events.id", "time_index")


class Namespace:
    """The collections ``<namespace>.commits`` and ``<namespace>.meta`` of a database."""

    def __init__(self, database: Database[Any], name: str) -> None:
        self.database = database
        self.commits: Collection[Any] = database[f"{name}.commits"]
        self.meta: Collection[Any] = database[f"{name}.meta"]
        self._name = name

    def look(self) -> Found | None:
        """Return what the log says of itself, None where there is no log; ConfigurationError if
        what is there is none of ours."""
        about = self._about()
        if about is None:
            return None
        if _DROPPING in about:
            raise StoreUnavailableError(
                f"the log {self._name!r} is being dropped; where that was cut off, drop it again"
            )
        return self._found(about)

    def make(self) -> None:
        """Make the log, unless another was faster."""
        self.commits.create_indexes(
            [pymongo.IndexModel(keys if isinstance(keys, str) else [*keys]) for keys in _INDEXES]
        )
        formats = {"reader": LOG_FORMAT, "writer": LOG_FORMAT}
        about = {"log_id": str(uuid4()), "format": formats, "made_at": datetime.now(UTC)}
        with suppress(DuplicateKeyError):
            self.meta.insert_one(LOG | about)

    def check_log_id(self, log_id: str) -> None:
        """Raise LogReplacedError unless the log is (still) the one of this id."""
        about = self.meta.find_one(LOG, {"log_id": 1})
        if about is None or about.get("log_id") != log_id:
            raise replaced(self._name)

    def remove(self, trusted: float) -> bool:
        """Remove the log and return whether it was there; ConfigurationError if it is none of
        ours. ``trusted`` is for how many seconds an appender trusts what it has seen."""
        about = self._about()
        if about is None:
            return False
        if _DROPPING not in about:
            self._found(about)
            # Nobody opens it from here on, nor makes it anew before all of it is gone.
            self.meta.update_one(LOG, {"$set": {_DROPPING: True}, "$unset": {"log_id": ""}})
        self.commits.drop()
        # Whoever saw the log a moment ago may still append without another look, and so make the
        # collection again.
        time.sleep(trusted)
        self.commits.drop()
        self.meta.drop()
        return True

    def _about(self) -> Mapping[str, Any] | None:
        """Return the document about the log; ConfigurationError where something else is there."""
        # In this order: whoever makes a log writes its id before its first commit.
        strange = self.commits.find_one({}, {"_id": 1})
        about: Mapping[str, Any] | None = self.meta.find_one(LOG)
        if about is None and (
            strange or self.meta.find_one({"_id": {"$ne": LOG["_id"]}}, {"_id": 1})
        ):
            raise self._not_ours()
        return about

    def _found(self, about: Mapping[str, Any]) -> Found:
        try:
            formats = about["format"]
            return Found(str(about["log_id"]), int(formats["reader"]), int(formats["writer"]))
        except (KeyError, TypeError, ValueError):
            raise self._not_ours() from None

    def _not_ours(self) -> ConfigurationError:
        return ConfigurationError(
            f"namespace: the collections {self.commits.name!r} and {self.meta.name!r} in the"
            f" database {self.database.name!r} hold something else than a log; choose another"
            " namespace"
        )

    # --- What cannot hold a log

    def refuse_what_cannot_hold_a_log(self) -> None:
        """Raise ConfigurationError for a view, a capped collection or the like in our place."""
        names = [self.commits.name, self.meta.name]
        for found in self.database.list_collections(filter={"name": {"$in": names}}):
            options: Mapping[str, Any] = found.get("options", {})
            kind = found.get("type", "collection")
            fault = None
            if kind != "collection":
                fault = f"is a {kind}"
            elif options.get("capped"):
                fault = "is capped and would drop its oldest documents"
            elif options.get("collation"):
                fault = "has a collation, and names must be compared byte by byte"
            if fault:
                raise ConfigurationError(
                    f"namespace: {found['name']!r} in the database {self.database.name!r}"
                    f" {fault}; choose another namespace or move it away"
                )

    def refuse_other_shard_key(self) -> None:
        """Raise ConfigurationError if the commits are sharded on anything but ``_id``: only
        there is ``_id``, and so the place in the log, unique in all shards."""
        full_name = self.commits.full_name
        found = self.database.client["config"]["collections"].find_one({"_id": full_name})
        if found and not found.get("dropped") and list(found["key"]) != ["_id"]:
            raise ConfigurationError(
                f"namespace: the collection {full_name!r} is sharded on {dict(found['key'])},"
                " but must be on _id alone, or not at all"
            )
