"""URLs and options: checked, and shown without a password."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from eventstore import drop_namespace, open_store
from eventstore.backend import Durability, Option, Options, Settings, as_given
from eventstore.backend.settings import redacted
from eventstore.errors import ConfigurationError, MissingDriverError
from eventstore.registry import schema_ddl

DRIVERS = ("client", "name", "passfile", "password", "sslmode", "sslpassword", "token", "user")
TAKES = Options(own={"replicas": Option(as_given)}, passed=dict.fromkeys(DRIVERS, as_given))


def parse(url: str, **options: Any) -> Settings:
    return Settings.parse(url, options, TAKES)


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
        "memory://host/db?password=x&hunter2",
        "memory://host/db?password=x&hunter2%40=1",
        "memory://host/db?p%61ssword=hunter2",
        "memory://host/db?password=a@hunter2",
        "memory://host/db?sslpassword=a&sslpassword=hunter2",
        "memory://[hunter2@host/db?x",
        "hunter2",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert "hun" not in str(caught.value)
    assert "hun" not in redacted(url)
    assert "hun" not in repr(caught.value.__cause__)
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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h?password=a@hunter2", "redis://h?password=***"),
        ("redis://h?p%61ssword=hunter2&db=1", "redis://h?password=***&db=1"),
        ("redis://u:hunter2@h1:1,h2/0?a=b@c", "redis://u:***@h1:1,h2/0?a=b%40c"),
        ("redis://u:hun/t@er2@h/0", "redis://u:***@h/0"),
        ("redis://:hunter2@h/0", "redis://:***@h/0"),
        ("redis://h/0?hunter%22=1", "redis://h/0"),
        ("redis://u:hunter2@h?x&y", "redis://***"),
        ("u:hunter2@h", "***"),
    ],
)
def test_a_url_is_shown_by_its_parts(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_a_client_of_the_callers_is_shown_by_its_type() -> None:
    class Client:
        def __repr__(self) -> str:
            return "hunter2"

    assert parse("x://h", client=Client()).safe_url == "x://h?client=Client"


@pytest.mark.parametrize(
    "url",
    [
        "redis://" + "[a]," * 24 + "::x?y=@",
        "redis://h" + "?" * 40_000,
        "redis://" + "[" * 40_000 + "?x=@",
        "redis://" + ":" * 40_000 + "@" * 40_000,
        "redis://h?" + "&a=" * 40_000,
        "x" * 40_000 + ":" + "/" * 40_000,
    ],
)
def test_however_a_url_is_made_it_is_read_and_shown_in_no_time(url: str) -> None:
    began = process_time()
    redacted(url)
    with suppress(ConfigurationError):
        assert parse(url).safe_url
    assert process_time() - began < 1


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgresql+psycopg://h/db", "write postgresql:// alone"),
        ("sqlite+pysqlite:///x.db", "write sqlite:// alone"),
        ("mysql+pymysql://h/db", "no adapter for mysql"),
    ],
)
def test_the_urls_of_another_library_get_a_hint(url: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint):
        open_store(url)


def test_a_scheme_of_two_distributions_is_refused_with_both_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        metadata = tmp_path / f"eventstore_{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: eventstore-{name}\nVersion: 1.0\n"
        )
        (metadata / "entry_points.txt").write_text(
            f"[eventstore.adapters]\ntwofold = {name}:Backend\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=r"eventstore-one.* and .*eventstore-other"):
        open_store("twofold://")


def test_a_missing_driver_is_told_by_the_name_it_is_installed_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(_: object) -> None:
        raise ModuleNotFoundError("No module named 'bson'", name="bson.raw_bson")

    monkeypatch.setattr("importlib.metadata.EntryPoint.load", load)
    with pytest.raises(MissingDriverError, match=r"'pymongo': pip install .*\[mongodb\]"):
        open_store("mongodb://h")


@pytest.mark.parametrize("call", [open_store, drop_namespace, schema_ddl])
@pytest.mark.parametrize("scheme", ["memory", "sqlite", "postgresql", "redis", "mongodb"])
def test_create_is_true_or_false_wherever_it_is_given(
    call: Callable[..., Any], scheme: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"^create: must be true or false"):
        call(f"{scheme}://127.0.0.1:1/x?create=maybe")
