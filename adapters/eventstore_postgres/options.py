"""A store's URL and options as libpq and psycopg take them."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import conninfo, pq
from psycopg.adapt import AdaptersMap

from eventstore.backend import Settings, as_integer
from eventstore.errors import ConfigurationError
from eventstore_postgres import records

PRIMARY: Final = "primary"

_VOIDING: Final = {
    "options": "the settings of a session are the store's own",
    "replication": "a replication connection runs no queries",
    "client_encoding": "text travels as UTF8",
}

_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")


def driver_arguments(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Return the libpq connection string and psycopg's own arguments."""
    given = dict(settings.driver_options)
    threshold = given.pop("prepare_threshold", 5)
    if threshold in (None, "None", "none"):
        threshold = None
    else:
        threshold = as_integer("prepare_threshold", threshold)
    _check_options(settings, given)
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


def _check_options(settings: Settings, given: Mapping[str, Any]) -> None:
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name, value in given.items():
        if name in _VOIDING:
            raise ConfigurationError(f"{name}: cannot be given: {_VOIDING[name]}")
        if name == "target_session_attrs" and value not in (PRIMARY, "read-write"):
            raise ConfigurationError(
                f"{name}: must be primary or read-write, not {value!r:.100}: a standby lags"
            )
        if name not in known:
            raise settings.unknown_option(name, ["prepare_threshold", *known])


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
