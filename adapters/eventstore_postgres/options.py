"""A store's URL and options as libpq and psycopg take them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from inspect import iscoroutinefunction
from math import ceil
from pathlib import Path
from typing import Any, Final, Protocol, cast

import psycopg
from psycopg import conninfo, pq
from psycopg.adapt import AdaptersMap

from eventstore.backend import Option, Options, Settings, as_flag, as_given, as_integer, shown
from eventstore.errors import ConfigurationError
from eventstore_postgres import records

PRIMARY: Final = "primary"

_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")


def _as_role(name: str, value: object) -> str:
    if type(value) is not str or not value:
        raise ConfigurationError(f"{name}: must be the name of a role, not {shown(value)}")
    return value


class Pool(Protocol):
    """A ``psycopg_pool.ConnectionPool``."""

    closed: bool

    def getconn(self, timeout: float | None = None) -> psycopg.Connection[Any]:
        """Take a connection."""

    def putconn(self, conn: psycopg.Connection[Any]) -> None:
        """Give it back."""


def _as_pool(name: str, value: object) -> Pool:
    take = getattr(value, "getconn", None)
    if take is None or iscoroutinefunction(take):
        raise ConfigurationError(
            f"{name}: must be a psycopg_pool.ConnectionPool, not {shown(value)}"
        )
    return cast("Pool", value)


def _as_threshold(name: str, value: object) -> int | None:
    return None if value in (None, "None", "none") else as_integer(name, value)


def _as_primary(name: str, value: object) -> object:
    if value not in (PRIMARY, "read-write"):
        raise ConfigurationError(
            f"{name}: must be primary or read-write, not {shown(value)}: a standby lags"
        )
    return value


OPTIONS: Final = Options(
    own={
        "client": Option(_as_pool),
        "notify": Option(as_flag, True),
        "owner": Option(_as_role),
        "pool_size": Option(partial(as_integer, least=1, most=1000), 10),
        "strict": Option(as_flag, False),
    },
    passed={
        **dict.fromkeys([each.keyword.decode() for each in pq.Conninfo.get_defaults()], as_given),
        "prepare_threshold": _as_threshold,
        "target_session_attrs": _as_primary,
    },
    settled={"client_encoding": "utf8"},
    refused={
        "options": "the settings of a session are the store's own",
        "replication": "a replication connection runs no queries",
    },
)


def driver_arguments(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Return the libpq connection string and psycopg's own arguments."""
    given = dict(settings.driver_options)
    threshold = given.pop("prepare_threshold", 5)
    try:
        parts = conninfo.conninfo_to_dict(f"postgresql://{settings.location}")
    except psycopg.ProgrammingError:
        parts = {}  # its message may quote the password
    if not parts or any("@" in str(parts.get(name, "")) for name in ("host", "port", "dbname")):
        raise ConfigurationError(
            "url: must be postgresql://user:password@host:port/database; percent-encode '@',"
            " ':', '/', '?', '#' and '%' in a user name or password"
        )
    defaults: dict[str, str | int] = {
        "fallback_application_name": "eventstore",
        "target_session_attrs": PRIMARY,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": ceil(settings.timeout * 1000),
        "client_encoding": "UTF8",
    }
    text = {name: str(value) for name, value in given.items()}
    try:
        made = conninfo.make_conninfo("", **{**defaults, **parts, **text})
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"url: {error}") from None
    _check_files(text)
    return made, {
        "autocommit": True,
        "prepare_threshold": threshold,
        "context": records.adapt(AdaptersMap(psycopg.adapters)),
    }


def _check_files(given: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a file that is not there: libpq would report it as a
    connection that failed, or pass over it."""
    for name in _FILES:
        value = given.get(name)
        if value and value != "system" and not Path(value).exists():
            raise ConfigurationError(f"{name}: there is no file {value!r:.200}")
    if given.get("sslmode") in ("verify-ca", "verify-full") and "sslrootcert" not in given:
        home = pq.Conninfo.get_defaults()
        set_elsewhere = any(each.keyword == b"sslrootcert" and each.val for each in home)
        default = Path("~/.postgresql/root.crt").expanduser()
        if not set_elsewhere and not default.exists():
            raise ConfigurationError(
                f"sslrootcert: must be given with sslmode={given['sslmode']} (a file, or system),"
                f" for there is no file {str(default)!r}"
            )
