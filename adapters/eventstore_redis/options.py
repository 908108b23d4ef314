"""What a URL may say: options of redis-py's connections, by name and type."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.connection import parse_url

from eventstore.backend import Option, Options, Settings, as_flag, as_integer, as_number
from eventstore.errors import ConfigurationError

_TRIES_AGAIN: Final = "the store tries again by itself; see retries and timeout"
_MAY_LAG: Final = "a replica may lag behind what was acknowledged"


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


_seconds: Final = partial(as_number, least=0.001)


def _client(name: str, value: object) -> Redis:
    """Return an option that is a client; ConfigurationError where it would void a guarantee."""
    if not isinstance(value, Redis):
        raise ConfigurationError(f"{name}: must be a redis.Redis, not {type(value).__name__}")
    pool, encoder = value.connection_pool, value.get_encoder()
    if encoder.decode_responses:
        raise ConfigurationError(f"{name}: must be made without decode_responses")
    if encoder.encoding.lower() not in ("utf-8", "utf8") or encoder.encoding_errors != "strict":
        raise ConfigurationError(f"{name}: must be made with encoding='utf-8', strictly")
    if getattr(pool, "cache", None) is not None:
        raise ConfigurationError(f"{name}: must be made without cache_config: it reads the past")
    if not getattr(pool, "is_master", True):
        raise ConfigurationError(f"{name}: must be of a master: replicas lag behind")
    return value


OPTIONS: Final = Options(
    own={"client": Option(_client), "replicas": Option(partial(as_integer, most=1000), 0)},
    passed={
        "username": _text,
        "password": _text,
        "client_name": _text,
        "db": as_integer,
        "max_connections": partial(as_integer, least=1),
        "socket_timeout": _seconds,
        "socket_connect_timeout": _seconds,
        "socket_keepalive": as_flag,
        "health_check_interval": as_integer,
        "ssl": as_flag,
        "ssl_ca_certs": _authorities,
        "ssl_ca_path": _text,
        "ssl_certfile": _file,
        "ssl_keyfile": _file,
        "ssl_password": _text,
        "ssl_cert_reqs": _text,
        "ssl_check_hostname": as_flag,
    },
    settled={
        "decode_responses": "false",
        "encoding": "utf-8",
        "encoding_errors": "strict",
        "protocol": "2",
        "read_from_replicas": "false",
    },
    refused={
        "load_balancing_strategy": _MAY_LAG,
        "retry": _TRIES_AGAIN,
        "retry_on_error": _TRIES_AGAIN,
        "retry_on_timeout": _TRIES_AGAIN,
    },
)


def connection_options(settings: Settings) -> dict[str, Any]:
    """Return what the URL says as arguments of redis-py's connections; ``ssl``: whether they are
    encrypted.

    Raises ConfigurationError naming the option.
    """
    scheme = settings.scheme
    given = settings.driver_options
    encrypted = given.get("ssl", scheme == "rediss")
    if scheme != "redis+cluster" and encrypted != (scheme == "rediss"):
        raise ConfigurationError("ssl: rediss:// is encrypted, and redis:// is not")
    for name in given:
        if name.startswith("ssl_") and not encrypted:
            raise ConfigurationError(f"{name}: needs rediss://, or ssl=true in a cluster")
    options: dict[str, Any] = {"socket_timeout": settings.timeout, "socket_keepalive": True}
    options |= _address_of(settings) | given
    if scheme == "redis+cluster" and options.pop("db", 0):
        raise ConfigurationError("db: a cluster has database 0 alone")
    options.setdefault("socket_connect_timeout", options["socket_timeout"])
    return options | {"ssl": encrypted, "protocol": 2}


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
