"""What a URL may say: options of redis-py's connections, by name and type."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from redis.connection import parse_url

from eventstore.backend import Settings, as_flag, as_integer, as_number
from eventstore.errors import ConfigurationError


def _text(name: str, value: object) -> str:
    if type(value) is not str or not value:
        raise ConfigurationError(f"{name}: must be text, and not empty")
    return value


def _file(name: str, value: object) -> str:
    path = _text(name, value)
    try:
        with Path(path).open("rb"):
            return path
    except OSError as error:
        raise ConfigurationError(f"{name}: cannot read {path!r}: {error.strerror}") from error


def _authorities(name: str, value: object) -> str:
    path = _file(name, value)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigurationError(f"{name}: there is no certificate in {path!r}") from error
    return path


def _seconds(name: str, value: object) -> float:
    return as_number(name, value, least=0.001)


def _pool_size(name: str, value: object) -> int:
    return as_integer(name, value, least=1)


_OPTIONS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "username": _text,
    "password": _text,
    "client_name": _text,
    "db": as_integer,
    "max_connections": _pool_size,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": as_flag,
    "health_check_interval": as_integer,
}
_TLS_OPTIONS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "ssl_ca_certs": _authorities,
    "ssl_ca_path": _text,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_password": _text,
    "ssl_cert_reqs": _text,
    "ssl_check_hostname": as_flag,
}
_VOIDING: Final[Mapping[str, str]] = {
    "decode_responses": "events are read as bytes",
    "encoding": "events are UTF-8",
    "encoding_errors": "events are UTF-8",
    "protocol": "replies are read as RESP2 gives them",
    "read_from_replicas": "a replica may lag behind what was acknowledged",
    "load_balancing_strategy": "a replica may lag behind what was acknowledged",
    "retry": "the store tries again by itself; see retries and timeout",
    "retry_on_error": "the store tries again by itself; see retries and timeout",
    "retry_on_timeout": "the store tries again by itself; see retries and timeout",
}


def connection_options(settings: Settings) -> dict[str, Any]:
    """Return what the URL says, checked, as arguments of redis-py's connections.

    Raises ConfigurationError naming the option.
    """
    clustered = settings.scheme == "redis+cluster"
    known = dict(_OPTIONS)
    if clustered:
        known["ssl"] = as_flag
    if clustered or settings.scheme == "rediss":
        known |= _TLS_OPTIONS
    options: dict[str, Any] = {"socket_timeout": settings.timeout, "socket_keepalive": True}
    options |= _address_of(settings)
    for name, value in settings.driver_options.items():
        if name in _VOIDING:
            raise ConfigurationError(f"{name}: leave it out: {_VOIDING[name]}")
        if name not in known:
            raise settings.unknown_option(name, known)
        options[name] = known[name](name, value)
    if clustered and options.pop("db", 0):
        raise ConfigurationError("db: a cluster has database 0 alone")
    return {"socket_connect_timeout": options["socket_timeout"], **options, "protocol": 2}


def _address_of(settings: Settings) -> dict[str, Any]:
    path = settings.location.rpartition("@")[2].partition("/")[2]
    if path and not (path.isascii() and path.isdigit()):
        raise ConfigurationError(f"url: its path is the database's number, not {path!r:.100}")
    try:
        address = parse_url(f"redis://{settings.location}")  # type: ignore[no-untyped-call]  # redis-py's
    except ValueError:
        # Without the cause, which shows what it took for a port: often the rest of a password.
        raise ConfigurationError(
            f"url: must look like {settings.scheme}://user:password@host:port;"
            " percent-encode what else is in the password"
        ) from None
    return {"host": "localhost", "port": 6379, **address}
