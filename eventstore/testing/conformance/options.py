"""URLs and options: checked by name, and none may void a guarantee (G11)."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from eventstore import (
    ConfigurationError,
    DurabilityWarning,
    EventStore,
    drop_namespace,
    open_store,
)
from eventstore.testing.conformance.base import Conformance, OpenAnother, note, stored
from eventstore.testing.conformance.harness import Harness


def with_option(url: str, text: str) -> str:
    """Return ``url`` with ``text`` in its query string."""
    return f"{url}{'&' if '?' in url else '?'}{text}"


class OptionTests(Conformance):
    def test_an_unknown_option_is_refused_by_name(self, harness: Harness, namespace: str) -> None:
        with pytest.raises(ConfigurationError, match="no_such_option"):
            harness.open(namespace, no_such_option=1)
        with pytest.raises(ConfigurationError, match="no_such_option"):
            open_store(
                with_option(harness.url, "no_such_option=1"),
                **harness.options_of(namespace),
            )

    def test_an_unknown_option_of_drop_namespace_is_refused_by_name(
        self, harness: Harness, namespace: str
    ) -> None:
        with pytest.raises(ConfigurationError, match="no_such_option"):
            drop_namespace(harness.url, **harness.options_of(namespace, no_such_option=1))

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("timeout", "soon"),
            ("timeout", -1),
            ("timeout", 0),
            ("timeout", float("nan")),
            ("timeout", float("inf")),
            ("timeout", None),
            ("timeout", True),
            ("retries", -1),
            ("retries", 1.5),
            ("retries", "many"),
            ("retries", True),
            ("durability", "sometimes"),
            ("durability", True),
            ("durability", None),
            ("create", "perhaps"),
            ("create", 2),
            ("create", None),
            ("namespace", ""),
            ("namespace", "Upper"),
            ("namespace", "1st"),
            ("namespace", "_x"),
            ("namespace", "a-b"),
            ("namespace", "a.b"),
            ("namespace", "a b"),
            ("namespace", "a/b"),
            ("namespace", "ä"),
            ("namespace", "a\n"),
            ("namespace", 'a";--'),
            ("namespace", "x" * 41),
            ("namespace", None),
            ("namespace", 7),
        ],
        ids=repr,
    )
    def test_a_bad_value_is_refused_by_the_name_of_its_option(
        self, harness: Harness, namespace: str, option: str, value: Any
    ) -> None:
        with pytest.raises(ConfigurationError, match=f"^{option}"):
            harness.open(**{"namespace": namespace, option: value})

    @pytest.mark.parametrize(
        ("option", "value"),
        [("namespace", "Bad"), ("timeout", "x"), ("durability", "x"), ("create", "x")],
    )
    def test_drop_namespace_checks_its_options(
        self, harness: Harness, option: str, value: Any
    ) -> None:
        with pytest.raises(ConfigurationError, match=f"^{option}"):
            drop_namespace(harness.url, **harness.options_of(**{"namespace": "t1", option: value}))

    def test_options_may_stand_in_the_query_string(self, harness: Harness, namespace: str) -> None:
        url = with_option(harness.url, f"namespace={namespace}&timeout=5&retries=2&create=true")
        with open_store(url, **harness.options) as by_url, harness.open(namespace) as by_keyword:
            recorded = by_url.append(note())

            assert stored(by_keyword) == [recorded]

    def test_keywords_win_over_the_query_string(
        self, harness: Harness, namespace: str, store: EventStore
    ) -> None:
        url = with_option(harness.url, "namespace=not_this_one&timeout=nonsense&create=false")
        recorded = store.append(note())

        with harness.__class__(url=url, options=harness.options).open(
            namespace, timeout=5, create=True
        ) as other:
            assert stored(other) == [recorded]

    def test_an_option_given_twice_in_the_url_is_refused(
        self, harness: Harness, namespace: str
    ) -> None:
        url = with_option(harness.url, f"namespace={namespace}&namespace=other")

        with pytest.raises(ConfigurationError, match="namespace"):
            open_store(url, **harness.options)

    def test_options_that_would_void_a_guarantee_are_refused_by_name(
        self, harness: Harness, namespace: str
    ) -> None:
        for name, value in harness.voiding_options:
            with pytest.raises(ConfigurationError, match=name):
                harness.open(namespace, **{name: value})
            with pytest.raises(ConfigurationError, match=name):
                open_store(
                    with_option(harness.url, f"{name}={value}"),
                    **harness.options_of(namespace),
                )

    def test_bad_values_of_the_adapters_own_options_are_refused_by_name(
        self, harness: Harness, namespace: str
    ) -> None:
        for name, value in harness.own_options:
            with pytest.raises(ConfigurationError, match=name):
                harness.open(namespace, **{name: value})

    def test_a_namespace_may_be_forty_characters_long(self, harness: Harness) -> None:
        name = "t" + "a_9" * 13
        assert len(name) == 40
        with harness.open(name) as store, harness.open(name[:-1]) as other:
            store.append(note())
            assert store.get_current_sequence() == 1
            assert other.get_current_sequence() == 0
        harness.drop(name)
        harness.drop(name[:-1])

    def test_relaxed_durability_opens_without_a_warning(self, open_another: OpenAnother) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DurabilityWarning)

            store = open_another(durability="relaxed")

        assert store.append(note()).sequence == 1

    def test_strict_durability_opens_or_says_what_to_set(
        self, harness: Harness, namespace: str
    ) -> None:
        try:
            store = harness.open(namespace, durability="strict")
        except ConfigurationError as error:
            assert "durability" in str(error)  # noqa: PT017 - it may also open
        else:
            with store:
                assert store.append(note()).sequence == 1

    @pytest.mark.parametrize(
        ("url", "names"),
        [
            ("nosuchscheme://host/db", "nosuchscheme"),
            ("orders.db", "scheme"),
            ("", "scheme"),
            ("://x", "scheme"),
            ("nosuchscheme://ada:hunter2@host/db", "nosuchscheme"),
            ("no scheme ada:hunter2@host?password=hunter2", "scheme"),
            (None, "url"),
            (7, "url"),
        ],
    )
    def test_a_bad_url_is_refused_and_shows_no_password(self, url: Any, names: str) -> None:
        with pytest.raises(ConfigurationError, match=names) as caught:
            open_store(url)

        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in repr(caught.value.__cause__)
