"""Which backends the tests run over, and how.

``pytest --backend sqlite --backend postgres`` (or ``EVENTSTORE_TEST_BACKENDS=sqlite,postgres``)
asks for backends, and then each must work; ``--backend all`` takes what can be had here and
skips the rest with the reason. Without any, memory and SQLite are tested, and what has a URL in
``EVENTSTORE_TEST_<NAME>_URL``; others start a private server.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import hypothesis
import pytest

from eventstore.testing.conformance import Harness
from tests.kit.backends import BACKENDS, BackendUnderTest, selected_backends
from tests.kit.harnesses import harness_of
from tests.kit.secrets_scan import SecretsScan
from tests.kit.servers import ServerUnavailableError

DEFAULT = ("memory", "sqlite")

_versions: pytest.StashKey[dict[str, str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        default=[],
        choices=[*BACKENDS, "all"],
        help="a backend to test (may be given several times), or all that can be had here",
    )
    parser.addoption(
        "--history-seconds",
        type=float,
        default=3.0,
        help="how long the history checker's workers work (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_versions] = {}
    scan = SecretsScan()
    config.pluginmanager.register(scan, "secrets-scan")
    watching = ExitStack()
    watching.enter_context(scan.watching())
    config.add_cleanup(watching.close)
    # A shell starts background jobs with SIGINT ignored, and what tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if profile := os.environ.get("HYPOTHESIS_PROFILE"):
        hypothesis.settings.load_profile(profile)


def pytest_report_header(config: pytest.Config) -> str:
    return "backends: " + ", ".join(
        f"{row.name} at ${row.variable}" if row.variable in os.environ else row.name
        for row in _chosen(config)
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for name, version in config.stash[_versions].items():
        terminalreporter.write_line(f"{name}: {version}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        rows = _chosen(metafunc.config)
        metafunc.parametrize("backend", rows, ids=[row.name for row in rows], scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A long history takes as long again to check.
    longest = 120 + 3 * config.getoption("--history-seconds")
    for item in items:
        if "history" in item.name:
            item.add_marker(pytest.mark.timeout(longest))


def _chosen(config: pytest.Config) -> list[BackendUnderTest]:
    named = config.getoption("--backend")
    if "all" in named:
        return list(BACKENDS.values())
    if named:
        return [BACKENDS[name] for name in dict.fromkeys(named)]
    if "EVENTSTORE_TEST_BACKENDS" in os.environ:
        return selected_backends()
    return [row for row in BACKENDS.values() if row.asked_for or row.name in DEFAULT]


@pytest.fixture(scope="session")
def harness(backend: BackendUnderTest, pytestconfig: pytest.Config) -> Iterator[Harness]:
    """The backend under test, with its server running."""
    with ExitStack() as stack:
        url = reason = ""
        try:
            url = stack.enter_context(backend.base_url())
        except ServerUnavailableError as error:
            reason = str(error)
        if reason and (backend.asked_for or backend.name in pytestconfig.getoption("--backend")):
            pytest.fail(f"{backend.name} was asked for: {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)
        harness = harness_of(
            backend, url, history_seconds=pytestconfig.getoption("--history-seconds")
        )
        with harness.open("version") as store:
            pytestconfig.stash[_versions][backend.name] = str(store.info().get("server"))
        harness.drop("version")
        yield harness
