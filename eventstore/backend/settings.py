"""Store URLs: options taken out and checked, passwords never shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from types import NoneType
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode

import msgspec

from eventstore._core.checks import shown
from eventstore.backend.options import (
    OPTION_NAME,
    Options,
    as_choice,
    as_flag,
    as_integer,
    as_number,
)
from eventstore.errors import ConfigurationError

_SCHEME: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_NAMESPACE: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_SECRET_OPTION: Final = re.compile(
    r"pass|pwd|secret|token|credential|scram|authmechanismproperties|private|api_?key|conninfo",
    re.IGNORECASE,
)
_OPTIONS: Final = ("namespace", "create", "durability", "timeout", "retries", "engine")
"""What every store takes."""


class Durability(Enum):
    """What to do where the server, as it stands, may lose acknowledged events."""

    STANDARD = "standard"
    """Say so, with a DurabilityWarning."""
    STRICT = "strict"
    """Refuse to open."""
    RELAXED = "relaxed"
    """Accept it; where the engine allows, trade safety for speed."""


class Engine(Enum):
    """Which engines may be opened."""

    KNOWN = "known"
    """Those known to keep the guarantees."""
    UNCHECKED = "unchecked"
    """Whatever speaks the protocol: the caller has seen to it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A store URL and its options, taken apart."""

    scheme: str
    location: str
    """The URL without scheme and query string, still percent-encoded. May hold a password."""
    namespace: str = "eventstore"
    """The log's name within the database, ``[a-z][a-z0-9_]{0,39}``."""
    create: bool = True
    """Create the namespace where it is not there."""
    durability: Durability = Durability.STANDARD
    timeout: float = 10.0
    """Seconds to wait for the engine, a lock or a pool slot."""
    retries: int = 1_000_000
    """How often to try again, within ``timeout``, what an outage interrupted; unless given,
    ``timeout`` alone ends it."""
    engine: Engine = Engine.KNOWN
    """Whether an engine is refused that is not known to keep the guarantees."""
    own_options: dict[str, Any] = {}
    """The adapter's own options (``Options.own``), each with its value or its default."""
    driver_options: dict[str, Any] = {}
    """Those of the driver's (``Options.passed``) that are given, checked."""

    given: dict[str, Any] = {}
    """What was given of both, to be shown: from the query string as text."""

    @classmethod
    def parse(cls, url: str, options: Mapping[str, Any], takes: Options) -> Settings:
        """Take a URL apart; keywords in ``options`` win over its query string.

        Raises ConfigurationError naming the option and what it may be.
        """
        scheme, location, query = split_url(url)
        given: dict[str, Any] = {}
        for name, value in query:
            if name in given:
                known = name if OPTION_NAME.fullmatch(name) else "url: an option"
                raise ConfigurationError(f"{known}: is given twice in the URL")
            given[name] = value
        given.update(options)
        core: dict[str, Any] = {}
        if "namespace" in given:
            core["namespace"] = checked_namespace(given.pop("namespace"))
        if "create" in given:
            core["create"] = as_flag("create", given.pop("create"))
        if "durability" in given:
            core["durability"] = as_choice("durability", given.pop("durability"), Durability)
        if "timeout" in given:
            core["timeout"] = as_number("timeout", given.pop("timeout"), least=0.001)
        if "retries" in given:
            core["retries"] = as_integer("retries", given.pop("retries"))
        if "engine" in given:
            core["engine"] = as_choice("engine", given.pop("engine"), Engine)
        own, driver = takes.resolve(scheme, _OPTIONS, given)
        return cls(
            scheme=scheme,
            location=location,
            own_options=own,
            driver_options=driver,
            given=given,
            **core,
        )

    @property
    def path(self) -> str:
        """The location, percent-decoded."""
        return unquote(self.location)

    @property
    def safe_url(self) -> str:
        """The URL as it may be shown: no password, nor any option that looks like one."""
        options = self.given
        if self.namespace != "eventstore":
            options = {"namespace": self.namespace, **options}
        return _safe(self.scheme, self.location, options)

    def __repr__(self) -> str:
        return f"Settings({self.safe_url!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show no more than ``repr`` where ``rich`` prints local variables."""
        return [("url", self.safe_url)]


def split_url(url: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Return scheme, location and query parameters; ConfigurationError where there are none."""
    if type(url) is not str:
        raise ConfigurationError(f"url: must be text, not {type(url).__name__}")
    # No message shows a part of what cannot be taken apart, for any may be of a password; nor
    # does a cause, which quotes it.
    match = _SCHEME.match(url)
    if match is None:
        raise ConfigurationError(
            "url: it has no scheme; one looks like sqlite:///orders.db or"
            " postgresql://user@host/database"
        )
    scheme = match.group(1).lower()
    if "#" in url:
        raise ConfigurationError(f"url: write '#' as %23 after {scheme}://")
    location, _, query = url[match.end() :].partition("?")
    try:
        parameters = parse_qsl(
            query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=bool(query)
        )
    except ValueError:
        raise ConfigurationError(
            f"url: the query string after {scheme}:// must be name=value pairs joined by '&';"
            " write '?' as %3F and '&' as %26 in a password"
        ) from None
    if "@" in query and "@" not in location and not _is_hosts(location):
        raise ConfigurationError(
            f"url: write '?' as %3F in a user name or password after {scheme}://"
        )
    return scheme, location, parameters


def _is_hosts(location: str) -> bool:
    """Return whether a location begins with hosts and ports, not with a user and a password."""
    for each in location.partition("/")[0].split(","):
        host, bracket, port = each.rpartition("]")
        if not bracket:
            host, _, port = each.partition(":")
        elif host[:1] != "[" or port[:1] not in ("", ":"):
            return False
        if not re.fullmatch(r":?[0-9]*", port, re.ASCII):
            return False
    return True


def redacted(url: str) -> str:
    """Return a URL as it may be shown; of one that cannot be taken apart its scheme alone."""
    try:
        scheme, location, parameters = split_url(url)
    except ConfigurationError:
        match = _SCHEME.match(url)
        return f"{match.group(1)}://***" if match else "***"
    return _safe(scheme, location, dict(parameters))


def _safe(scheme: str, location: str, options: Mapping[str, Any]) -> str:
    """Return a URL made of its parts, without what is, or may be, a secret."""
    # Up to the last '@', so that a password is hidden whole that holds '@' or '/' itself.
    user, at, place = location.rpartition("@")
    if ":" in user:
        user = user.partition(":")[0] + ":***"
    shown = {
        name: (
            "***"
            if _SECRET_OPTION.search(name)
            else value
            if isinstance(value, (str, int, float, NoneType))
            else type(value).__name__  # the caller's own client, whose repr may tell anything
        )
        for name, value in options.items()
        if OPTION_NAME.fullmatch(name)
    }
    query = urlencode(shown, safe="*/,:")
    return f"{scheme}://{user}{at}{place}" + (f"?{query}" if query else "")


def checked_namespace(value: object) -> str:
    """Return a namespace, or raise ConfigurationError."""
    if type(value) is not str or not _NAMESPACE.fullmatch(value):
        raise ConfigurationError(
            f"namespace: must be a lower-case letter and up to 39 more letters, digits or '_',"
            f" not {shown(value)}"
        )
    return value
