"""What answers: MongoDB, or another that speaks its protocol, and what it can do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from pymongo.database import Database
from pymongo.errors import ConfigurationError as DriverConfigurationError
from pymongo.errors import InvalidOperation, OperationFailure
from pymongo.read_preferences import ReadPreference

from eventstore.backend import Trouble
from eventstore.errors import ConfigurationError
from eventstore_mongodb.translation import understood

_KNOWN: Final = {"secantusVersion": "SecantusDB", "mongomockVersion": "mongomock"}
"""What the tests run on, by a field of their own."""
_COSMOS: Final = "Azure Cosmos DB"
_HOSTS: Final = {
    ".cosmos.azure.com": _COSMOS,
    ".documents.azure.com": _COSMOS,
    ".docdb.amazonaws.com": "Amazon DocumentDB",
    ".docdb-elastic.amazonaws.com": "Amazon DocumentDB",
}


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of itself."""

    name: str
    """What it is, with its version: not all that speak MongoDB's protocol are MongoDB."""
    is_known: bool
    """Whether it is one that is known to keep the guarantees."""
    has_replication: bool = False
    """A replica set or a router: there are linearizable reads and change streams."""
    is_router: bool = False
    has_transactions: bool = False
    max_document_bytes: int = 16 * 1024 * 1024


def described(database: Database[Any]) -> Server:
    """Ask the server what it is; ConfigurationError where it must not be spoken to directly."""
    client = database.client
    hello = client.admin.command("hello")
    is_router = hello.get("msg") == "isdbgrid"
    members = [*hello.get("hosts", ()), *hello.get("passives", ())]
    if client.options.direct_connection and len(members) > 1:
        raise ConfigurationError(
            "directConnection: this server is a member of a replica set of several; connected to"
            " directly it would be read from when it is no longer the primary; leave it out"
        )
    hosts = [*(host for host, _ in client.nodes), *(each.rpartition(":")[0] for each in members)]
    name, is_known = server_name(client.server_info(), hello, hosts)
    return Server(
        name=name,
        is_known=is_known,
        has_replication=is_router or "setName" in hello,
        is_router=is_router,
        has_transactions=_has_transactions(database),
        max_document_bytes=hello["maxBsonObjectSize"],
    )


def server_name(
    build: Mapping[str, Any], hello: Mapping[str, Any], hosts: Collection[str] = ()
) -> tuple[str, bool]:
    """Return what a server is, from its replies to ``buildInfo`` and ``hello`` and its hosts'
    names, and whether it is known to keep the guarantees.

    Others give a version of MongoDB's as theirs, for drivers look at it. Only MongoDB names the
    commit it was built from and its allocator; others have fields of their own, or are known by
    where they are, as MongoDB's drivers know them.
    """
    said = f"MongoDB {build['version']}"
    for field, name in _KNOWN.items():
        if field in build:
            return f"{name} {build[field]}, announced as {said}", True
    internal = hello.get("internal") or {}
    other = next((name for end, name in _HOSTS.items() for host in hosts if host.endswith(end)), "")
    if "ferretdbVersion" in build or "ferretdb" in build:
        other = "FerretDB"
    elif hello.get("setName") == "globaldb":
        other = _COSMOS
    elif "documentdb_versions" in internal or "cosmos_versions" in internal:
        other = "DocumentDB (which Azure offers, as Azure Cosmos DB too)"
    if other:
        return f"{other}, announced as {said}", False
    if str(build.get("gitVersion", "")).strip("0") and "allocator" in build:
        return said, True
    return f"a server announced as {said}", False


def heeds_concerns(database: Database[Any], collection: str) -> bool:
    """Return whether the server looks at the read concern it is given: does it refuse one that
    there is none of? Others take what they do not know, and read as they please."""
    try:
        database.command("find", collection, limit=1, readConcern={"level": "nonesuch"})
    except OperationFailure as error:
        if understood(error).trouble is not Trouble.LASTING:
            raise  # it is not about the read concern
        return True
    return False


def _has_transactions(database: Database[Any]) -> bool:
    """Try it out: versions and topologies that say they have sessions differ in this."""
    try:
        with (
            database.client.start_session() as session,
            session.start_transaction(read_preference=ReadPreference.PRIMARY),
        ):
            database["probe"].find_one({}, session=session)
    except (OperationFailure, DriverConfigurationError, InvalidOperation):
        return False
    return True
