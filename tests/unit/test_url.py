"""URLs and options: checked, and shown without a password."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from eventstore import open_store
from eventstore.errors import ConfigurationError
from eventstore.url import Durability, Settings, redacted

OWN = frozenset({"replicas"})


def parse(url: str, **options: Any) -> Settings:
    return Settings.parse(url, options, OWN)


def test_options_are_sorted_by_whom_they_concern() -> None:
    settings = parse("x://u:pw@h:1/db?namespace=n1&timeout=2.5&replicas=2&sslmode=require")
    assert (settings.scheme, settings.location) == ("x", "u:pw@h:1/db")
    assert (settings.namespace, settings.timeout) == ("n1", 2.5)
    assert settings.own_options == {"replicas": "2"}
    assert settings.driver_options == {"sslmode": "require"}


def test_a_plus_is_a_plus() -> None:
    assert parse("x://h?password=a+b%20c").driver_options == {"password": "a+b c"}


def test_keywords_win_over_the_query_string() -> None:
    settings = parse("x://h?namespace=n1&create=true", namespace="n2", create=False)
    assert (settings.namespace, settings.create) == ("n2", False)


def test_defaults() -> None:
    settings = parse("x://h")
    assert settings.namespace == "eventstore"
    assert settings.create
    assert settings.durability is Durability.STANDARD
    assert settings.timeout == 10.0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"namespace": "Bad"}, "namespace"),
        ({"namespace": "a" * 41}, "namespace"),
        ({"namespace": "a; drop table"}, "namespace"),
        ({"namespace": "é"}, "namespace"),
        ({"namespace": ""}, "namespace"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": "nan"}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"retries": "1.5"}, "retries"),
        ({"create": "maybe"}, "create"),
        ({"durability": "eventual"}, "durability"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        parse("x://h", **options)


@pytest.mark.parametrize(
    "url",
    [
        "x://user:hunter2@host/db",
        "x://user:hunter2@host/db?bad",
        "x://user:hunter2@host/db?timeout=never",
        "x://user:hun/ter2@host/db?a=1&a=2",
        "x://user:hunt?er2@host",
        "x://user:hunt#er2@host",
        "x://:hunter2@host",
        "x://host/db?sslpassword=hunter2&password=hunter2",
        "user:hunter2@host",
        "memory://user:hun?ter2@host/db",
        "memory://user:hun?ter2=hun@host/db",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert "hun" not in str(caught.value)
    assert "hun" not in redacted(url)
    assert "ter2" not in "".join(traceback.format_exception(caught.value)).partition("Error")[2]


@pytest.mark.parametrize(
    "location", ["host:5432/db", "h1:1,h2:2/db", "[::1]:5432/db", "/db", "host", "host:1"]
)
def test_an_at_sign_in_an_option_is_no_user(location: str) -> None:
    assert parse(f"x://{location}?name=a@b").driver_options == {"name": "a@b"}


def test_neither_the_safe_url_nor_the_repr_shows_a_password() -> None:
    settings = parse("x://user:pa@ss@host/db?sslpassword=pass&sslmode=require&namespace=n")
    assert settings.safe_url == "x://user:***@host/db?namespace=n&sslpassword=***&sslmode=require"
    assert "pass" not in repr(settings).replace("sslpassword", "")
    assert settings.__rich_repr__() == [("url", settings.safe_url)]


def test_an_unknown_scheme_tells_which_are_installed() -> None:
    with pytest.raises(ConfigurationError, match="sqlite://"):
        open_store("oracle://host")


@pytest.mark.parametrize("url", ["", "orders.db", "sqlite:orders.db", "://x"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no scheme"):
        open_store(url)


def test_an_option_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"^colour: .*namespace"):
        open_store("memory://?colour=blue")
